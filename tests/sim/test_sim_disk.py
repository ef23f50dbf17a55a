"""The disk model against real LevelDB: the same answers, and after a crash the last batch whole or not at all."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.leveldb import LevelDB
from tests.sim.disk import SimDatabase

KEYS = st.binary(min_size=1, max_size=3)
BATCHES = st.dictionaries(KEYS, st.binary(max_size=40), min_size=1, max_size=6)


def _pairs(database: LevelDB | SimDatabase) -> dict[bytes, bytes]:
    return dict(database.scan(b"\0", b"\xff" * 4))


class DiskModel(RuleBasedStateMachine):
    """Every batch goes to both; what both hold, and hold after a crash, is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.crashes = 0
        self.real = LevelDB(self.folder / "chain")
        self.model = SimDatabase()
        self.before: dict[bytes, bytes] = {}  # what was there before the last batch

    @rule(batch=BATCHES)
    def write(self, batch: dict[bytes, bytes]) -> None:
        self.before = self.model.image()
        self.real.write(batch)
        self.model.write(batch)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.real.get(key) == self.model.get(key)

    @rule(start=KEYS, stop=KEYS, reverse=st.booleans())
    def scan(self, start: bytes, stop: bytes, reverse: bool) -> None:
        found = list(self.real.scan(start, stop, reverse=reverse))
        assert found == list(self.model.scan(start, stop, reverse=reverse))

    @rule()
    def restart(self) -> None:
        self.real.close()
        self.real = LevelDB(self.folder / "chain")

    @rule(lost=st.integers(0, 400), zeros=st.booleans())
    def crash(self, lost: int, zeros: bool) -> None:
        """Power goes in the middle of the last batch: the end of the newest log file is gone, or reads as zeros."""
        self.crashes += 1
        image = self.folder / f"crash {self.crashes}"
        for attempt in range(20):
            try:
                shutil.copytree(self.folder / "chain", image, ignore=shutil.ignore_patterns("LOCK"))
                break
            except shutil.Error:  # LevelDB was just deleting a table that another has replaced
                assert attempt < 19
                shutil.rmtree(image)
        newest = max(image.glob("*.log"))
        data = newest.read_bytes()
        kept = max(len(data) - lost, self._synced_before(data))
        newest.write_bytes(data[:kept] + (bytes(len(data) - kept) if zeros else b""))
        database = LevelDB(image)
        try:
            assert _pairs(database) in (self.before, self.model.image())
        finally:
            database.close()
            shutil.rmtree(image)

    @staticmethod
    def _synced_before(data: bytes) -> int:
        """Where the last record of a log begins: everything before it was synced, and no crash takes it away.

        A record is checksum (4) ‖ length (u16, little-endian) ‖ type (1) ‖ payload, and these batches are small.
        """
        position = last = 0
        while position + 7 <= len(data):
            last = position
            position += 7 + int.from_bytes(data[position + 4 : position + 6], "little")
        return last

    @invariant()
    def same_pairs(self) -> None:
        assert _pairs(self.real) == self.model.image()

    def teardown(self) -> None:
        self.real.close()
        shutil.rmtree(self.folder)


TestDiskModel = DiskModel.TestCase
TestDiskModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_a_range_of_one_key_is_read_either_way(tmp_path: Path) -> None:
    """The lower bound is that very key: plyvel's own reverse iterator finds nothing there."""
    real, model = LevelDB(tmp_path / "chain"), SimDatabase()
    for database in (real, model):
        database.write({b"b": b"", b"d": b"1"})
        for reverse in (False, True):
            assert list(database.scan(b"b", b"c", reverse=reverse)) == [(b"b", b"")]
            assert list(database.scan(b"d", b"e", reverse=reverse)) == [(b"d", b"1")]
            assert list(database.scan(b"c", b"d", reverse=reverse)) == []
    real.close()
