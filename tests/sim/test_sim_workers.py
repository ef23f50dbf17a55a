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


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "command",
    [["-m", "cluster", "sim", "--seeds", "1000000"], ["-m", "tests.sim.mutants"]],
    ids=["sim", "mutants"],
)
def test_workers_end_with_a_killed_parent(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        try:
            until(lambda: len(children(parent.pid)) > len(os.sched_getaffinity(0)), "the workers are there")
            started = children(parent.pid)
        finally:
            parent.kill()
    until(lambda: not any(map(runs, started)), "workers end with their parent")
