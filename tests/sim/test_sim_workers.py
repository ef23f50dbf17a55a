"""Workers of the simulator and of the mutation gate end with who started them, also by SIGKILL."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []


def at_work(pid: int) -> list[int]:
    """Those that have begun: beside their work, a thread waits for the parent's end. Until then any death ends them."""
    found = []
    for child in children(pid):
        try:
            found += [child] * (len(list(Path(f"/proc/{child}/task").iterdir())) > 1)
        except FileNotFoundError:
            continue
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# By itself a worker ends where it has a result to give, and nobody takes it: a long hunt would go on for many minutes.
LONG = """
import os, time
from tests.sim.workers import workers
pool = workers(len(os.sched_getaffinity(0)))
pool.map(time.sleep, [10_000] * 8, chunksize=1)
"""


@pytest.mark.parametrize(
    "command", [["-m", "cluster", "sim", "--seeds", "1000000"], ["-c", LONG]], ids=["sim", "a long task"]
)
def test_workers_end_with_a_killed_parent(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        try:
            until(lambda: len(at_work(parent.pid)) == len(os.sched_getaffinity(0)), "the workers are at work")
            started = children(parent.pid)
        finally:
            parent.kill()
    until(lambda: not any(map(runs, started)), "workers end with their parent")
