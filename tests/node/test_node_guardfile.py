"""The guard file: what was appended is there after any crash, and what is damaged is never trusted."""

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import guardfile
from node.chain.domain import Domain
from node.consensus.guard import replay
from node.consensus.messages import Kind, Statement
from node.guardfile import GuardError, GuardFile, create

DOMAIN = Domain(7770, b"\x07" * 32)
ADDRESS = b"\x01" * 20


def prepare(height: int, round_: int = 0) -> Statement:
    return Statement(Kind.PREPARE, height, round_, height.to_bytes(32, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "guard", DOMAIN, ADDRESS)
    return tmp_path / "guard"


def sign(guard: GuardFile, height: int) -> None:
    guard.state.note_signed((prepare(height),))
    guard.append(guard.state.flush())


def test_what_was_appended_is_remembered(path: Path) -> None:
    guard = GuardFile(path, DOMAIN, ADDRESS)
    for height in range(1, 20):
        sign(guard, height)
    guard.close()
    state = GuardFile(path, DOMAIN, ADDRESS).state
    assert state.height == 19
    assert not state.may_sign(Statement(Kind.PREPARE, 19, 0, bytes(32)))
    assert state.may_sign(prepare(20))


def test_the_file_is_its_owners_alone(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_never_replaces_a_guard(path: Path) -> None:
    with pytest.raises(FileExistsError):
        create(path, DOMAIN, ADDRESS)


def test_its_owner_is_told_when_it_is_lost_and_when_it_is_whole_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    guard = GuardFile(path, DOMAIN, ADDRESS)
    sign(guard, 1)
    assert caplog.text == ""
    for _ in range(2):  # it is told once
        guard.state.note_lost()
        guard.append(guard.state.flush())
    assert caplog.text.count("is lost or out of date") == 1
    guard.close()
    guard = GuardFile(path, DOMAIN, ADDRESS)
    assert caplog.text.count("is lost or out of date") == 2
    guard.state.note_floor(9)
    guard.append(guard.state.flush())
    assert "signs above height 9" in caplog.text
    guard.close()


def test_a_missing_guard_is_a_lost_one_and_stays_lost(tmp_path: Path) -> None:
    path = tmp_path / "guard"
    for _ in range(2):
        guard = GuardFile(path, DOMAIN, ADDRESS)
        assert guard.state.lost
        assert not guard.state.may_sign(prepare(1))
        guard.close()


def test_two_processes_cannot_share_it(path: Path) -> None:
    first = GuardFile(path, DOMAIN, ADDRESS)
    with pytest.raises(GuardError, match="another process"):
        GuardFile(path, DOMAIN, ADDRESS)
    first.compact()
    with pytest.raises(GuardError, match="another process"):
        GuardFile(path, DOMAIN, ADDRESS)
    first.close()


def test_what_is_read_is_synced_before_anything_is_signed_on_its_strength(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between write and sync, restarted, signed again without a record, power lost: the promise was gone."""
    guard = GuardFile(path, DOMAIN, ADDRESS)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    sign(guard, 1)
    guard.close()
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(_identity(os.fstat(descriptor))))
    guard = GuardFile(path, DOMAIN, ADDRESS)
    assert guard.state.has_signed(prepare(1))
    assert synced == [_identity(path.stat()), _identity(path.parent.stat())]
    guard.close()


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def test_a_file_that_was_compacted_away_while_it_was_opened_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock was free, since the other process had gone on to the new file."""
    other = GuardFile(path, DOMAIN, ADDRESS)

    def flock(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        other.compact()
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(GuardError, match="replaced"):
        GuardFile(path, DOMAIN, ADDRESS)
    other.close()


@pytest.mark.parametrize("domain", [Domain(7771, DOMAIN.genesis_hash), Domain(7770, bytes(32))])
def test_another_networks_guard_is_refused(path: Path, domain: Domain) -> None:
    with pytest.raises(GuardError, match="expected the guard of"):
        GuardFile(path, domain, ADDRESS)


@settings(deadline=None)  # a sync takes as long as the disk likes
@given(cut=st.integers(min_value=1, max_value=400))
def test_a_torn_tail_is_cut_and_only_the_last_record_goes(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("guard") / "guard"
    create(path, DOMAIN, ADDRESS)
    guard = GuardFile(path, DOMAIN, ADDRESS)
    sign(guard, 1)
    before = path.stat().st_size
    sign(guard, 2)
    after = path.stat().st_size
    guard.close()
    os.truncate(path, max(before, after - cut))
    torn = GuardFile(path, DOMAIN, ADDRESS)
    assert torn.state.height == 1
    assert replay(path.read_bytes(), DOMAIN, ADDRESS)[1] == path.stat().st_size
    sign(torn, 3)  # and it goes on from there
    torn.close()
    assert GuardFile(path, DOMAIN, ADDRESS).state.height == 3


def test_a_corrupt_middle_is_refused(path: Path) -> None:
    guard = GuardFile(path, DOMAIN, ADDRESS)
    sign(guard, 1)
    middle = path.stat().st_size - 5
    sign(guard, 2)
    guard.close()
    data = bytearray(path.read_bytes())
    data[middle] ^= 1
    path.write_bytes(data)
    with pytest.raises(GuardError, match="move it away"):
        GuardFile(path, DOMAIN, ADDRESS)


def test_compaction_keeps_every_promise(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardfile, "COMPACT_BYTES", 1_000)
    guard = GuardFile(path, DOMAIN, ADDRESS)
    for height in range(1, 50):
        sign(guard, height)
        if guard.needs_compaction:
            guard.compact()
    assert path.stat().st_size < 2_000
    guard.close()
    assert GuardFile(path, DOMAIN, ADDRESS).state.signed == {Kind.PREPARE: prepare(49)}


def test_a_crash_during_compaction_leaves_a_whole_guard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = GuardFile(path, DOMAIN, ADDRESS)
    sign(guard, 1)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("power is gone")))
    with pytest.raises(OSError, match="power is gone"):
        guard.compact()
    guard.close()
    monkeypatch.undo()
    assert GuardFile(path, DOMAIN, ADDRESS).state.height == 1


def test_what_is_read_is_written_anew_and_synced_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that failed leaves pages that the next sync of the same file believes to be on disk."""
    guard = GuardFile(path, DOMAIN, ADDRESS)
    sign(guard, 1)
    guard.close()
    before, synced, sync = path.stat().st_ino, set(), os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    opened = GuardFile(path, DOMAIN, ADDRESS)
    assert opened.state.height == 1
    assert path.stat().st_ino != before
    assert path.stat().st_ino in synced
