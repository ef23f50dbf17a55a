"""Runs the command line with a sampler of its CPU time: `python -m bench.sampled FILE [--from-start] node --config F`.

After SIGUSR2 (or from the start), until the next one, the kernel sends SIGPROF after each few milliseconds of CPU time
(not of waiting) that the process takes. The handler runs at the next bytecode of the main thread, which after a call
into C is still the caller's, and notes that stack with the CPU time that the main thread took since the last note. Time
of other threads is noted under their names. So all notes add up to what the process took, save what has no Python
thread: LevelDB's compactions, which bench/profile.py finds in /proc. The second SIGUSR2 writes FILE: JSON, microseconds
by stack.
"""

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from cluster.cli import main

INTERVAL_S = 0.004  # the tick of most kernels: it does not get finer
FROM_START = "--from-start"
START = "<start>"  # all that the process took before the sampler began
NATIVE = "<native>"  # above the caller's frame: the time before a callback's first bytecode was not the callback's


class Sampler:
    """Microseconds by stack, innermost frame first, a frame as "file:function"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spent: Counter[tuple[str, ...]] = Counter()
        self._main_ns = 0
        self._threads_ns: dict[int, int] = {}

    def toggle(self, _number: int, _frame: FrameType | None) -> None:
        """Start, or stop and write."""
        if signal.getitimer(signal.ITIMER_PROF)[1] > 0:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._take_threads()
            rows = [[spent / 1e3, list(stack)] for stack, spent in self._spent.most_common()]
            self._path.write_text(json.dumps(rows))
            return
        self._take_threads()
        self._spent.clear()
        self.begin()

    def begin(self) -> None:
        """Start."""
        self._main_ns = time.thread_time_ns()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def begin_with_start(self) -> None:
        """Start, and note what the process took so far."""
        self._spent[(START,)] = time.process_time_ns()
        self.begin()

    def note(self, _number: int, frame: FrameType | None) -> None:
        """Note where the main thread is, and what it took since the last time."""
        now_ns = time.thread_time_ns()
        stack = []
        if frame is not None and frame.f_lasti <= 2:  # not begun: the signal came while C code was on its way here
            stack.append(NATIVE)
            frame = frame.f_back
        while frame is not None:
            code = frame.f_code
            stack.append(f"{code.co_filename}:{code.co_qualname}")
            frame = frame.f_back
        self._spent[tuple(stack)] += now_ns - self._main_ns
        self._main_ns = now_ns

    def _take_threads(self) -> None:
        """What all other threads took since the last time, under their names without a number."""
        main_thread = threading.main_thread()
        for thread in threading.enumerate():
            if thread is main_thread or thread.ident is None:
                continue
            taken_ns = time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))
            name = f"thread {thread.name.rstrip('0123456789').rstrip('_')}"
            self._spent[(name,)] += taken_ns - self._threads_ns.get(thread.ident, 0)
            self._threads_ns[thread.ident] = taken_ns


if __name__ == "__main__":
    sampler = Sampler(Path(sys.argv[1]))
    signal.signal(signal.SIGPROF, sampler.note)
    signal.siginterrupt(signal.SIGPROF, False)  # system calls of C libraries go on
    signal.signal(signal.SIGUSR2, sampler.toggle)
    signal.siginterrupt(signal.SIGUSR2, False)
    arguments = sys.argv[2:]
    if arguments[:1] == [FROM_START]:
        arguments = arguments[1:]
        sampler.begin_with_start()
    sys.exit(main(arguments))
