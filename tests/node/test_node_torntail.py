"""A log of LevelDB with a torn tail is cut to its last whole batch; damage before that is left for a person to see."""

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.leveldb import DatabaseError, LevelDB
from node.torntail import torn_from

BATCHES = 6


def _value(number: int) -> bytes:
    """Batches of some bytes up to several blocks of 32 KiB."""
    return b"abcdef"[number : number + 1] * (50 + (number % 3 == 2) * 40_000)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A database of six batches, and how long its log was after each."""
    folder = tmp_path_factory.mktemp("written") / "chain"
    database = LevelDB(folder)
    ends = []
    for number in range(BATCHES):
        database.write({b"key %d" % number: _value(number), b"head": b"%d" % number})
        ends.append(max(folder.glob("*.log")).stat().st_size)
    shutil.copytree(folder, folder.parent / "image", ignore=shutil.ignore_patterns("LOCK"))
    database.close()
    return folder.parent / "image", ends


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_last_batch_is_cut_off(written: tuple[Path, list[int]], data: st.DataObject) -> None:
    image, ends = written
    log = max(image.glob("*.log")).read_bytes()
    count = data.draw(st.integers(2, BATCHES), label="batches")
    begin, end = ends[count - 2], ends[count - 1]
    torn = bytearray(log[:end])
    where = data.draw(st.integers(begin, end - 1), label="from")
    until = data.draw(st.integers(where + 1, end), label="to")
    torn[where:until] = bytes(until - where)
    ends_early = data.draw(st.booleans(), label="ends early")
    if ends_early:
        del torn[where:]
    found = torn_from(bytes(torn))
    assert found in (None, begin)
    if found is None:  # then LevelDB itself reads past it: nothing changed, or the file merely ends
        assert ends_early or torn == log[:end]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_before_the_last_batch_is_no_torn_tail(written: tuple[Path, list[int]], data: st.DataObject) -> None:
    image, ends = written
    log = bytearray(max(image.glob("*.log")).read_bytes())
    where = data.draw(st.integers(0, ends[-2] - 1), label="byte")
    log[where] ^= data.draw(st.integers(1, 255), label="bits")
    assert torn_from(bytes(log)) is None


@pytest.mark.parametrize("lost", [1, 40, 40_020])
def test_the_database_opens_with_all_but_the_torn_batch(
    written: tuple[Path, list[int]], tmp_path: Path, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(written[0], tmp_path / "chain")
    log = max((tmp_path / "chain").glob("*.log"))
    log.write_bytes(log.read_bytes()[:-lost] + bytes(lost))
    database = LevelDB(tmp_path / "chain")
    assert database.get(b"head") == b"%d" % (BATCHES - 2)
    assert database.get(b"key %d" % (BATCHES - 2)) == _value(BATCHES - 2)
    assert database.get(b"key %d" % (BATCHES - 1)) is None
    database.write({b"head": b"again"})
    database.close()
    assert "was torn" in caplog.text
    database = LevelDB(tmp_path / "chain")
    assert database.get(b"head") == b"again"
    database.close()


def test_a_corrupt_middle_is_refused(written: tuple[Path, list[int]], tmp_path: Path) -> None:
    shutil.copytree(written[0], tmp_path / "chain")
    log = max((tmp_path / "chain").glob("*.log"))
    damaged = bytearray(log.read_bytes())
    damaged[written[1][3] + 60] ^= 1
    log.write_bytes(damaged)
    with pytest.raises(DatabaseError, match="is damaged"):
        LevelDB(tmp_path / "chain")
    assert log.read_bytes() == bytes(damaged)


@pytest.fixture
def flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A database whose first log has gone into a table, and a copy of that log."""
    monkeypatch.setattr("node.leveldb.WRITE_BUFFER_BYTES", 1 << 16)
    database = LevelDB(tmp_path / "origin")
    (log,) = (tmp_path / "origin").glob("*.log")
    os.link(log, tmp_path / log.name)
    for number in range(12):
        database.write({b"key %d" % number: os.urandom(10_000), b"head": b"%d" % number})
    deadline_s = time.monotonic() + 30
    while log.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    shutil.copytree(tmp_path / "origin", tmp_path / "chain", ignore=shutil.ignore_patterns("LOCK"))
    database.close()
    return tmp_path / "chain", tmp_path / log.name


def _tear(manifest: Path) -> bytes:
    torn = bytearray(manifest.read_bytes())
    torn[-3] ^= 1
    manifest.write_bytes(torn)
    return bytes(torn)


def test_a_manifest_is_not_cut_where_what_a_log_held_would_be_missing(flushed: tuple[Path, Path]) -> None:
    """The log was deleted, so the edit that is damaged now had been synced: this is no torn tail."""
    folder, _ = flushed
    (manifest,) = folder.glob("MANIFEST-*")
    torn = _tear(manifest)
    with pytest.raises(DatabaseError, match="is damaged"):
        LevelDB(folder)
    assert manifest.read_bytes() == torn


def test_a_torn_manifest_is_cut_while_the_log_is_there(flushed: tuple[Path, Path]) -> None:
    folder, log = flushed
    shutil.copy(log, folder)
    (manifest,) = folder.glob("MANIFEST-*")
    _tear(manifest)
    database = LevelDB(folder)
    assert database.get(b"head") == b"11"
    assert all(database.get(b"key %d" % number) for number in range(12))
    database.close()
