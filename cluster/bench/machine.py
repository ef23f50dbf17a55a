"""What processes take of the machine, from /proc: CPU seconds, memory, bytes on disk; and what a synced write costs."""

import contextlib
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SYNCS = 15
SYNC_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """CPU seconds (user and system, of all threads) since a process began, and its resident bytes."""

    cpu_s: float
    resident_bytes: int


def taken_by(pid: int) -> Taken | None:
    """What a process has taken so far; None when it is gone, or the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Taken((int(fields[11]) + int(fields[12])) / TICKS_PER_S, int(fields[21]) * PAGE_BYTES)


def resident_peak_bytes(pid: int) -> int:
    """The most memory that a process ever had; 0 where that is not told."""
    return _status_bytes(pid, "VmHWM:")


def anonymous_bytes(pid: int) -> int:
    """Resident memory without pages of files, which the system can take back at any time; 0 where that is not told.

    LevelDB maps its tables, so that what it read of them counts as resident until somebody else needs the room.
    """
    return _status_bytes(pid, "RssAnon:")


def _status_bytes(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def machine_busy_s() -> float:
    """CPU seconds that anybody has used since the machine began, those stolen by its host included; 0 if not told."""
    try:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def folder_bytes(folder: Path) -> int:
    """The length of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


def synced_write_ms(folder: Path) -> float:
    """The median time of a synced write of 4 KiB to a file in `folder`: what each final block and signature pays."""
    path = folder / "synced-write"
    times = []
    with path.open("wb") as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNC_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times) * 1e3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every process had taken at a moment of time.perf_counter, and the whole machine."""

    at_s: float
    taken: Mapping[str, Taken]
    machine_s: float


def snapshot(pids: Mapping[str, int]) -> Snapshot:
    """Look at all of `pids` now; those that are gone are left out."""
    found = {name: taken for name, pid in pids.items() if (taken := taken_by(pid)) is not None}
    return Snapshot(time.perf_counter(), found, machine_busy_s())
