"""The LevelDB database of a node: the one place in it that imports plyvel."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import plyvel

from node.torntail import cut_torn_tail

logger = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 8 << 20
"""A larger one is merged less often, but what is put into it misses the processor's caches. Two million ballots took as
much CPU each with 8, 16 and 32 MiB; with 32 they were merged 128 MB at a time, and took 70 MB more memory."""
CACHE_BYTES = 32 << 20
BLOOM_BITS_PER_KEY = 10
COMPRESSION = None
"""Hashes, signatures and ciphertexts get no shorter: Snappy saved 1 % of a million ballots, and took more than half of
the 20 µs that LevelDB's thread spent on each."""


DAMAGE: type[Exception] = plyvel.Error
"""What reading raises where a checksum does not fit, or the disk fails."""


class DatabaseError(RuntimeError):
    """The database cannot be opened or written; the message says what to do."""


class LevelDB:
    """Bytes to bytes, in key order. A batch is all there after a crash, or not at all."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises DatabaseError when another process holds it, or when it is damaged."""
        self.path = path
        try:
            self._db = _open(path)
        except plyvel.CorruptionError as error:
            raise DatabaseError(
                f"the database {path} is damaged ({error}); move it away and start again: "
                "the node fetches the chain from its peers"
            ) from None
        except (plyvel.IOError, OSError) as error:
            if "lock" in str(error).lower():
                raise DatabaseError(f"another process uses the database {path}; stop it first") from None
            raise DatabaseError(f"cannot open the database {path}: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`. What comes from disk is checked against its checksum."""
        value: bytes | None = self._db.get(key, verify_checksums=True)
        return value

    def write(self, puts: Mapping[bytes, bytes], *, synced: bool = True) -> None:
        """Write all of `puts` in one batch, synced to disk before this returns; only scratch need not be synced."""
        with self._db.write_batch(sync=synced, transaction=True) as batch:  # else an error halfway would write the half
            put = batch.put
            for key, value in puts.items():
                put(key, value)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with start ≤ key < stop, in key order or against it, checksums verified."""
        # Against key order plyvel finds nothing where `start` is the one key in the range: so the lower end is ours.
        lower = None if reverse else start
        with self._db.iterator(start=lower, stop=stop, reverse=reverse, verify_checksums=True) as pairs:
            for pair in pairs:
                if pair[0] < start:
                    return
                yield pair

    def delete(self, keys: Iterable[bytes]) -> None:
        """Delete keys in one batch, synced: a log file torn by a power cut is mended only while it is the newest."""
        with self._db.write_batch(sync=True, transaction=True) as batch:
            for key in keys:
                batch.delete(key)

    def approximate_bytes(self, ranges: Mapping[str, tuple[bytes, bytes]]) -> dict[str, int]:
        """About how many bytes the keys of each range (start ≤ key < stop) and their values take on disk, by name."""
        sizes = self._db.approximate_sizes(*ranges.values())
        return dict(zip(ranges, sizes, strict=True))

    def files_bytes(self) -> int:
        """Bytes of all files of the database."""
        total = 0
        for file in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a compaction has deleted it meanwhile
                total += file.stat().st_size
        return total

    def close(self) -> None:
        """Release the lock. Using the database afterwards raises."""
        self._db.close()


def _open(path: Path) -> plyvel.DB:
    """Open, if need be once more after cutting off what a power cut left of the last batch."""
    open_ = partial(
        plyvel.DB,
        str(path),
        create_if_missing=True,
        paranoid_checks=True,
        write_buffer_size=WRITE_BUFFER_BYTES,
        lru_cache_size=CACHE_BYTES,
        bloom_filter_bits=BLOOM_BITS_PER_KEY,
        compression=COMPRESSION,
    )
    try:
        return open_()
    except plyvel.CorruptionError:
        newest = max(path.glob("*.log"), default=None)
        cut = sum(cut_torn_tail(log) for log in [newest, *path.glob("MANIFEST-*")] if log is not None)
        if not cut:
            raise
        logger.warning("the end of the database %s was torn: %d bytes of an unfinished write are cut off", path, cut)
        return open_()
