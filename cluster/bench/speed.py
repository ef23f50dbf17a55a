"""How fast the cores are while something else is measured: on a shared host, neighbours slow them without being seen.

A core that shares its execution units with a neighbour's takes half as long again for the same work, for seconds or
minutes, while the system shows it as ours alone. So a small process does a fixed piece of work on each core in turn,
and notes the CPU time that it takes: 2 % of one core.
"""

import multiprocessing
import os
import signal
import statistics
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

LOOPS = 30_000  # some milliseconds
PAUSE_S = 0.15
_END, _LAP = "end", "lap"


class Speed(NamedTuple):
    """What the fixed piece of work took: milliseconds of CPU on average, and what one sample in ten took less than."""

    mean_ms: float
    fast_ms: float


class SpeedProbe:
    """Samples in a process of its own, from `with` to its end; then `speed` is there, of all that time."""

    def __init__(self) -> None:
        self.speed = Speed(0.0, 0.0)
        context = multiprocessing.get_context("spawn")
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=_sample, args=(self._theirs,), daemon=True)

    def __enter__(self) -> "SpeedProbe":
        self._process.start()
        self._theirs.close()  # it has its own: one that died is an EOFError then, and no wait without end
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.send(_END)
        self.speed = Speed(*self._ours.recv())
        self._process.join()

    def lap(self) -> Speed:
        """The speed since the last lap, or since the start; it waits for a sample, PAUSE_S at most."""
        self._ours.send(_LAP)
        return Speed(*self._ours.recv())


def work() -> float:
    """Milliseconds of CPU that the fixed piece of work takes now; it stays within a core's own caches."""
    began_s = time.process_time()
    total = 0
    for number in range(LOOPS):
        total += number * number & 0xFFFF
    return (time.process_time() - began_s) * 1000


def _sample(ends: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began it ends it
    cores = sorted(os.sched_getaffinity(0))
    samples: list[float] = []
    lap_begins = 0
    while True:
        for core in cores:
            os.sched_setaffinity(0, {core})
            samples.append(work())
        if ends.poll(PAUSE_S):
            if ends.recv() == _END:
                ends.send(_speed(samples))
                return
            ends.send(_speed(samples[lap_begins:]))
            lap_begins = len(samples)


def _speed(samples: list[float]) -> Speed:
    fast_ms = statistics.quantiles(samples, n=10, method="inclusive")[0] if len(samples) > 1 else samples[0]
    return Speed(statistics.fmean(samples), fast_ms)
