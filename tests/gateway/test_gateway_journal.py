"""The journal: nothing that was synced is ever lost, whatever the disk does and wherever the power goes."""

import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.disk import Disk
from gateway.journal import Journal, replay_folder, segment_name
from gateway.journal_format import (
    MAGIC,
    Accepted,
    JournalCorrupt,
    Place,
    Rejected,
    Settled,
    decode_body,
    encode_accepted,
    encode_rejected,
    encode_settled,
    frame,
    scan,
)
from gateway.records import Anchor, Ballot, Call, Record
from node.chain.domain import Domain
from tests.gateway.conftest import DOMAIN, FragileDisk, PowerLoss, make_ballot

FOLDER = Path("/journal")
PLACE = Place(7, b"\x07" * 32, b"\x08" * 32)

hashes = st.binary(min_size=32, max_size=32)
u64 = st.integers(0, 2**64 - 1)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Ballot, st.integers(0, 2**256 - 1), hashes, hashes, st.integers(0, 1), st.binary(max_size=300)),
    st.builds(Anchor, hashes, hashes, u64, st.text(max_size=20)),
    st.builds(Call, st.binary(min_size=20, max_size=20), st.binary(max_size=100)),
)


@given(st.lists(st.tuples(records, u64), min_size=1, max_size=20), st.integers(0, 2**40))
def test_entries_survive_encoding(items: list[tuple[Record, int]], first: int) -> None:
    settled = Settled(PLACE, ((first, 0, 5), (first + 1, 2, 0)))
    rejected = Rejected(first, "élection fermée")
    body = b"".join([*(encode_accepted(*item) for item in items), encode_settled(settled), encode_rejected(rejected)])
    decoded = list(decode_body(body, first, "x"))
    expected = [Accepted(first + n, at, record) for n, (record, at) in enumerate(items)]
    assert decoded == [*expected, settled, rejected]


def write_ballots(journal: Journal, numbers: range) -> list[int]:
    """Write one group; the sequences that the ballots got."""
    first = journal.next_sequence
    journal.write([encode_accepted(make_ballot(n), n) for n in numbers], accepted=len(numbers), settled=())
    return list(range(first, first + len(numbers)))


def pending_numbers(disk: Disk) -> list[int]:
    found = replay_folder(FOLDER, DOMAIN, disk).records.values()
    return [item.accepted.received_at_ms for item in found if item.pending]


@settings(max_examples=300, deadline=None)
@given(
    off_at=st.integers(1, 60),
    seed=st.integers(0, 2**32),
    groups=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    refused=st.sets(st.integers(1, 50), max_size=4),
    segment_bytes=st.sampled_from([1, 400, 5_000]),
)
def test_what_was_synced_is_replayed_after_power_loss_at_any_operation(
    off_at: int, seed: int, groups: list[int], refused: set[int], segment_bytes: int
) -> None:
    chance = random.Random(seed)
    disk = FragileDisk(off_at=off_at, refuse=lambda operation, count, path: count in refused and operation != "unlink")
    written: dict[int, int] = {}  # number → sequence, of what was acknowledged
    tried: set[int] = set()
    settled: set[int] = set()  # the ends that were handed to the disk
    try:
        journal = Journal(FOLDER, DOMAIN, disk=disk, segment_bytes=segment_bytes, segments_kept=0, salt=lambda: 5)
        number = 0
        for size in groups:
            numbers = range(number, number + size)
            number += size
            tried.update(numbers)
            try:
                written.update(zip(numbers, write_ballots(journal, numbers), strict=True))
            except OSError:
                continue
            ends = [n for n in written if n not in settled and chance.random() < 0.5]
            if ends:
                settled.update(ends)
                entry = encode_settled(Settled(PLACE, tuple((written[n], 0, n) for n in ends)))
                try:
                    journal.write([entry], accepted=0, settled=[written[n] for n in ends])
                except OSError:
                    continue
        journal.close()
    except PowerLoss:
        pass
    survivor = disk.after_power_loss(chance)
    replayed = replay_folder(FOLDER, DOMAIN, survivor)
    pending = pending_numbers(survivor)
    assert set(written) - settled <= set(pending), "an acknowledged record is lost"
    assert set(pending) <= tried
    assert len(set(pending)) == len(pending)
    # And the journal goes on from there: a second life writes behind the first, and a third sees both.
    second = Journal(FOLDER, DOMAIN, disk=survivor, salt=lambda: 6)
    assert second.next_sequence == replayed.next_sequence
    write_ballots(second, range(1000, 1003))
    assert pending_numbers(survivor) == [*pending, 1000, 1001, 1002]


def test_rotation_deletes_only_what_is_settled(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DOMAIN, disk=Disk(), segment_bytes=1, segments_kept=1)
    sequences = [write_ballots(journal, range(n, n + 1))[0] for n in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [segment_name(n) for n in range(5)]

    def settle(number: int) -> None:
        entry = encode_settled(Settled(PLACE, ((sequences[number], 0, number),)))
        journal.write([entry], accepted=0, settled=[sequences[number]])

    settle(1)  # the oldest segment still waits, so the second stays, too: the files are a chain
    assert (tmp_path / segment_name(0)).exists()
    assert (tmp_path / segment_name(1)).exists()
    settle(0)
    assert sorted(path.name for path in tmp_path.iterdir())[0] == segment_name(2)
    journal.close()
    again = Journal(tmp_path, DOMAIN, disk=Disk())
    assert [item.accepted.received_at_ms for item in again.replay.records.values() if item.pending] == [2, 3, 4]
    assert again.next_sequence == 5


def segments(tmp_path: Path, count: int = 3) -> list[Path]:
    journal = Journal(tmp_path, DOMAIN, disk=Disk(), segment_bytes=1)
    for n in range(count):
        write_ballots(journal, range(2 * n, 2 * n + 2))
        write_ballots(journal, range(100 + n, 101 + n))
    journal.close()
    return sorted(tmp_path.iterdir())


def test_a_changed_byte_anywhere_but_in_the_last_frame_is_refused(tmp_path: Path) -> None:
    files = segments(tmp_path)
    for path in files[:-1]:
        sound = path.read_bytes()
        for position in range(0, len(sound), 7):
            broken = bytearray(sound)
            broken[position] ^= 1
            path.write_bytes(broken)
            with pytest.raises(JournalCorrupt):
                replay_folder(tmp_path, DOMAIN, Disk())
        path.write_bytes(sound)
    assert len(replay_folder(tmp_path, DOMAIN, Disk()).records) == 9


def test_a_cut_tail_of_the_last_segment_loses_only_its_last_group(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DOMAIN, disk=Disk())
    write_ballots(journal, range(3))
    whole = (tmp_path / segment_name(0)).read_bytes()
    write_ballots(journal, range(3, 5))
    journal.close()
    longer = (tmp_path / segment_name(0)).read_bytes()
    for length in range(len(whole), len(longer)):
        (tmp_path / segment_name(0)).write_bytes(longer[:length])
        assert len(replay_folder(tmp_path, DOMAIN, Disk()).records) == 3
    (tmp_path / segment_name(0)).write_bytes(longer)
    assert len(replay_folder(tmp_path, DOMAIN, Disk()).records) == 5


def test_damage_before_a_sound_frame_is_no_torn_tail(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DOMAIN, disk=Disk())
    write_ballots(journal, range(3))
    begin = (tmp_path / segment_name(0)).stat().st_size
    write_ballots(journal, range(3, 5))
    write_ballots(journal, range(5, 6))
    journal.close()
    data = bytearray((tmp_path / segment_name(0)).read_bytes())
    data[begin + 20] ^= 0xFF
    (tmp_path / segment_name(0)).write_bytes(data)
    with pytest.raises(JournalCorrupt, match=f"damaged at byte {begin}: a sound frame follows"):
        replay_folder(tmp_path, DOMAIN, Disk())


def test_a_ballot_that_looks_like_a_frame_cannot_stop_the_gateway(tmp_path: Path) -> None:
    """Its sender does not know the segment's salt, so a torn write that holds it stays a torn write."""
    bait, _ = frame([encode_accepted(make_ballot(1), 1)], bytes(32), 0)
    journal = Journal(tmp_path, DOMAIN, disk=Disk(), salt=lambda: 0xABCDEF01)
    write_ballots(journal, range(2))
    journal.write([encode_accepted(make_ballot(9, kind=1, content=bait * 3), 9)], accepted=1, settled=())
    journal.close()
    path = tmp_path / segment_name(0)
    path.write_bytes(path.read_bytes()[:-5])
    assert len(replay_folder(tmp_path, DOMAIN, Disk()).records) == 2


def test_missing_swapped_and_foreign_segments_are_refused(tmp_path: Path) -> None:
    files = segments(tmp_path, 4)
    with pytest.raises(JournalCorrupt, match="another network"):
        replay_folder(tmp_path, Domain(1, bytes(32)), Disk())
    middle = files[3].read_bytes()
    files[3].unlink()
    with pytest.raises(JournalCorrupt, match="follows a frame"):
        replay_folder(tmp_path, DOMAIN, Disk())
    files[3].write_bytes(files[4].read_bytes())
    with pytest.raises(JournalCorrupt, match=r"says that it is number|follows a frame"):
        replay_folder(tmp_path, DOMAIN, Disk())
    files[3].write_bytes(middle)
    assert len(replay_folder(tmp_path, DOMAIN, Disk()).records) == 12


def test_a_reordered_frame_breaks_the_chain() -> None:
    from gateway.journal_format import Start, encode_start

    start, link = frame([encode_start(Start(DOMAIN, 0, 0, 3, bytes(32)))], bytes(32), 0)
    one, link_one = frame([encode_accepted(make_ballot(1), 1)], link, 3)
    two, _ = frame([encode_accepted(make_ballot(2), 2)], link_one, 3)
    assert scan(start + one + two, "x") is not None
    with pytest.raises(JournalCorrupt, match="frame 1 does not follow"):
        scan(start + two + one, "x")
    with pytest.raises(JournalCorrupt, match="frame 1 does not follow"):
        scan(start + two, "x")


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_noise_is_torn_or_corrupt_and_never_a_crash(noise: bytes, salt: int) -> None:
    framed = MAGIC + len(noise).to_bytes(4, "big") + zlib.crc32(noise).to_bytes(4, "big") + noise + bytes(32)
    for data in (noise, framed):
        try:
            found = scan(data, "x")
        except JournalCorrupt:
            continue
        assert found is None


def test_a_refused_record_may_come_again_and_the_later_one_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DOMAIN, disk=Disk())
    (sequence,) = write_ballots(journal, range(7, 8))
    journal.write([encode_rejected(Rejected(sequence, "closed"))], accepted=0, settled=[sequence])
    assert replay_folder(tmp_path, DOMAIN, Disk()).records.popitem()[1].reason == "closed"
    write_ballots(journal, range(7, 8))
    (item,) = replay_folder(tmp_path, DOMAIN, Disk()).records.values()
    assert item.pending
    assert item.accepted.sequence == sequence + 1
    journal.close()
