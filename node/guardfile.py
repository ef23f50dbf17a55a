"""The sign guard's file: appended and synced before every signature, locked to one process, compacted in one rename."""

import fcntl
import logging
import os
from pathlib import Path

from node.chain.domain import Domain
from node.consensus.guard import GuardCorrupt, create_records, replay

log = logging.getLogger(__name__)

COMPACT_BYTES = 32 << 20  # past this the file is replaced by its last state


class GuardError(RuntimeError):
    """The guard cannot be used; the message says why and what to do. Signing without it would be unsafe."""


def create(path: Path, domain: Domain, address: bytes, *, lost: bool = False) -> None:
    """Write the guard of a validator that has never signed, or (`lost`) of one whose guard is gone.

    Raises FileExistsError rather than replace one.
    """
    _write(path, create_records(domain, address, lost=lost, mark=os.urandom(4)), os.O_EXCL)
    _sync_folder(path)


class GuardFile:
    """An open guard. `state` is what the file holds; every record that `state` makes must go through `append`."""

    def __init__(self, path: Path, domain: Domain, address: bytes) -> None:
        """Open, lock, replay, and write anew without a torn tail. A missing file is a lost guard, and made as such.

        Raises GuardError when it is damaged in the middle, another validator's, or in use.
        """
        self._path = path
        if not path.exists():
            create(path, domain, address, lost=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise GuardError(f"another process uses the guard {path}; a validator must never run twice") from None
        if not os.path.samestat(os.fstat(self._descriptor), path.stat()):  # compacted after we opened the old file
            os.close(self._descriptor)
            raise GuardError(f"another process replaced the guard {path} just now; a validator must never run twice")
        data = path.read_bytes()
        try:
            self.state, whole_bytes = replay(data, domain, address)
        except GuardCorrupt as error:
            os.close(self._descriptor)
            raise GuardError(
                f"{path}: {error}; move it away to start with a lost guard, which signs nothing unsafe"
            ) from None
        # What was read may not be on disk: a sync that never returned, or failed, leaves it in memory alone, and one
        # more of the same pages then succeeds without writing them. What the state says counts as promised from here on
        # and is signed again without another record, so it is written anew; a torn tail goes by the way.
        self._bytes_count = whole_bytes
        try:
            self.compact()
        except OSError as error:
            os.close(self._descriptor)
            raise GuardError(f"cannot write the guard {path} anew: {error}") from None
        self._told = (False, self.state.floor)
        self._tell()

    @property
    def needs_compaction(self) -> bool:
        """Whether the file has outgrown what it needs to say."""
        return self._bytes_count > COMPACT_BYTES

    def append(self, records: tuple[bytes, ...]) -> None:
        """Append and sync. Raises OSError; the process must end then, since what the disk holds is unknown."""
        data = b"".join(records)
        written = 0
        while written < len(data):
            written += os.write(self._descriptor, data[written:])
        os.fsync(self._descriptor)
        self._bytes_count += len(data)
        self._tell()

    def _tell(self) -> None:
        """Say it when the guard is lost, and when it is known again from where on signing is safe."""
        now = (self.state.lost, self.state.floor)
        if now == self._told:
            return
        if self.state.lost:
            log.warning(
                "the guard %s is lost or out of date: nothing is signed until the other validators have said where "
                "it is safe (docs/OPERATIONS.md, The sign guard)",
                self._path,
            )
        elif self._told[0]:
            log.warning("the guard is whole again: this validator signs above height %d", self.state.floor)
        self._told = now

    def compact(self) -> None:
        """Replace the file by its state alone, so that a crash leaves the old file or the new one. Raises OSError."""
        records = self.state.snapshot_records()
        temporary = self._path.with_name(self._path.name + ".new")
        _write(temporary, records, os.O_TRUNC)
        descriptor = os.open(temporary, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(temporary, self._path)
            _sync_folder(self._path)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._bytes_count = descriptor, len(records)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _write(path: Path, data: bytes, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
