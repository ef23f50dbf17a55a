"""Runs one node that dies by SIGKILL at a chosen sync: `-m tests.e2e.failpoint CONFIG PLACE NUMBER MOMENT REPORT`.

Every os.fsync of the process and every synced batch of its LevelDB is counted, in all threads: those of PLACE alone
("database", or the function that calls fsync), or with "any" all. MOMENT is "before", when the data are written but not
synced (or, of a batch, not written), or "after", when they are synced and nobody has acted on it yet. REPORT is where
it notes which sync it was. The guard is compacted every few kilobytes, so that the syncs of that come, too.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node import guardfile, service
from node.leveldb import LevelDB

COMPACT_BYTES = 6_000


def arm(place: str, number: int, moment: str, report: Path) -> None:
    """Wrap what syncs, so that the process ends at the `number`-th time at `place`."""
    count = 0

    def sync(work: Callable[[], None], name: str) -> None:
        nonlocal count
        count += place in ("any", name)
        last = count == number
        if last:
            report.write_text(name)
        if last and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        work()
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    fsync, write = os.fsync, LevelDB.write

    def counted_fsync(descriptor: Any) -> None:
        caller = sys._getframe(1).f_code
        sync(lambda: fsync(descriptor), f"{Path(caller.co_filename).stem}.{caller.co_qualname}")

    def counted_write(database: LevelDB, puts: Mapping[bytes, bytes]) -> None:
        sync(lambda: write(database, puts), "database")

    os.fsync = counted_fsync  # type: ignore[assignment]
    LevelDB.write = counted_write  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    guardfile.COMPACT_BYTES = COMPACT_BYTES
    arm(sys.argv[2], int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    sys.exit(service.run(Path(sys.argv[1])))
