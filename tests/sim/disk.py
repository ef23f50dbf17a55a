"""A simulated disk: what is synced stays, and what was being written when the process died is there, torn or gone.

A process's end leaves what it wrote in the system's memory, where the next process reads it; power loss does not.
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TypeAlias

from node.consensus.guard import GuardState
from tests.sim.scheduler import Scheduler
from tests.sim.tasks import Resume, Suspension

GUARD_COMPACT_BYTES = 6_000  # the real one is compacted at megabytes; here a run must get there
GARBAGE = bytes(range(7, 71))


class DiskFailed(OSError):
    """A write or a sync failed; the process must end, since it cannot know what the disk holds."""


class SimDatabase:
    """The store's `Database` in memory. Every write is one synced batch: all of it is there, or nothing."""

    def __init__(self, image: Mapping[bytes, bytes] = {}) -> None:
        self._tables: dict[int, dict[bytes, bytes]] = {}
        self.write(image)

    def get(self, key: bytes) -> bytes | None:
        table = self._tables.get(key[0])
        return None if table is None else table.get(key)

    def write(self, puts: Mapping[bytes, bytes]) -> None:
        for key, value in puts.items():
            self._tables.setdefault(key[0], {})[key] = value

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        tables = [self._tables.get(prefix, {}) for prefix in range(start[0], stop[0] + 1)]
        keys = sorted((key for table in tables for key in table if start <= key < stop), reverse=reverse)
        return iter([(key, self._tables[key[0]][key]) for key in keys])

    def image(self) -> dict[bytes, bytes]:
        """All pairs."""
        return {key: value for table in self._tables.values() for key, value in table.items()}

    @property
    def head_height(self) -> int:
        """The height of the block that the last synced batch made final."""
        return int.from_bytes(self.get(b"mhead") or b"", "big")


class Platter:
    """What a machine's disk holds, across the processes that use it. `guard` None: there is no guard file.

    `guard` is the file as processes see it, of which the first `synced_bytes` survive a loss of power for certain.
    """

    def __init__(self, database: SimDatabase, guard: bytes | None) -> None:
        self.database = database
        self.guard = guard
        self.synced_bytes = len(guard or b"")
        self.guard_files = 0  # how often the guard was replaced by another file
        self.is_full = False
        self.fails_next = False  # the next sync fails, and what it should have synced is there in part

    @property
    def durable_guard(self) -> bytes:
        """What is left of the guard at the least when power is lost."""
        return (self.guard or b"")[: self.synced_bytes]

    def replace_guard(self, guard: bytes | None) -> None:
        """Put another file in its place, synced."""
        self.guard = guard
        self.guard_files += 1
        self.sync()

    def sync(self) -> None:
        """All of the guard that was written is on the disk now."""
        self.synced_bytes = len(self.guard or b"")

    def lose_power(self, random: Random) -> None:
        """What was written and not synced is gone, or torn."""
        if self.guard is not None and len(self.guard) > self.synced_bytes:
            kept = random.choice((self.synced_bytes, random.randint(self.synced_bytes, len(self.guard))))
            self.guard = self.guard[:kept]
            self.sync()


Operation: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]  # bytes for the guard, pairs for the database; one is empty


class SimDisk:
    """The runtime's `Disk` in one process. Writes one operation at a time, each taking a while.

    `on_operation` is told before each operation begins; True means that the process dies in it.
    """

    def __init__(
        self,
        platter: Platter,
        scheduler: Scheduler,
        random: Random,
        *,
        sync_us: Callable[[], int],
        on_operation: Callable[[], bool],
        die: Callable[[], None],
        guard_state: Callable[[], GuardState | None],
    ) -> None:
        self.platter = platter
        self._scheduler = scheduler
        self._random = random
        self._sync_us = sync_us
        self._on_operation = on_operation
        self._die = die
        self._guard_state = guard_state
        self._running: Operation | None = None

    async def append_guard(self, records: tuple[bytes, ...]) -> None:
        await Suspension(lambda resume: self._begin((b"".join(records), {}), resume))

    async def commit(self, writes: dict[bytes, bytes]) -> None:
        await Suspension(lambda resume: self._begin((b"", writes), resume))

    def crash(self) -> None:
        """The process ends: what was being written is there, torn or gone."""
        if self._running is not None:
            self._leave_rest(self._running)
            self._running = None

    def _begin(self, operation: Operation, resume: Resume) -> None:
        assert self._running is None, "the runtime writes one thing at a time"
        self._running = operation
        if self._on_operation():
            self._scheduler.after(0, self._die)
        elif self.platter.is_full or self.platter.fails_next:
            self._scheduler.after(self._sync_us(), lambda: self._fail(operation, resume))
        else:
            self._scheduler.after(self._sync_us(), lambda: self._finish(operation, resume))

    def _fail(self, operation: Operation, resume: Resume) -> None:
        if self._running is operation:
            self.platter.fails_next = False
            self.crash()
            resume(DiskFailed("no space left on device" if self.platter.is_full else "input/output error"))

    def _finish(self, operation: Operation, resume: Resume) -> None:
        if self._running is not operation:
            return
        self._running = None
        record, writes = operation
        self.platter.database.write(writes)
        if record:
            self.platter.guard = (self.platter.guard or b"") + record
            self.platter.sync()
            self._compact()
        resume(None)

    def _compact(self) -> None:
        state = self._guard_state()
        if state is not None and len(self.platter.guard or b"") > GUARD_COMPACT_BYTES:
            self.platter.replace_guard(state.snapshot_records())

    def _leave_rest(self, operation: Operation) -> None:
        record, writes = operation
        kept = self._random.choice((0.0, self._random.random(), 1.0))
        if writes:
            if kept > 0.5:
                self.platter.database.write(writes)
            return
        torn = record[: int(kept * len(record))]
        if kept < 1.0:  # a file may have grown before its bytes arrived
            rest = len(record) - len(torn)
            torn += self._random.choice((b"", bytes(rest), GARBAGE[:rest]))
        self.platter.guard = (self.platter.guard or b"") + torn
