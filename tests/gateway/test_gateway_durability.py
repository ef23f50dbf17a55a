"""Group commits, the spool behind the journal, and the promise that what was acknowledged survives."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import durability as module
from gateway.book import Item, NotDurable
from gateway.durability import Durability, Storage
from gateway.journal import Journal
from gateway.journal_format import Place, encode_accepted
from gateway.records import Ballot, Record
from node.chain.contracts.ballots import Outcome
from tests.gateway.conftest import DOMAIN, FragileDisk, PowerLoss, make_ballot

JOURNAL, SPOOL = Path("/journal"), Path("/spool")
PLACE = Place(7, b"\x07" * 32, b"\x08" * 32)


def open_on(disk: FragileDisk, sent: list[Item], segment_bytes: int = 1 << 20) -> Durability:
    def note(items: Sequence[Item]) -> None:
        sent.extend(items)

    def journal(folder: Path) -> Journal:
        return Journal(folder, DOMAIN, disk=disk, segment_bytes=segment_bytes, segments_kept=0, salt=lambda: 1)

    return Durability(journal(JOURNAL), journal(SPOOL), note)


def number_of(item: Item) -> int:
    assert isinstance(item.record, Ballot)
    return int.from_bytes(item.record.nullifier, "big")


async def accept(durability: Durability, numbers: Sequence[int]) -> list[Item]:
    """Hand in ballots together; those that became durable."""
    items = [Item(make_ballot(number), number) for number in numbers]
    commits = [durability.accept(item) for item in items]
    kept = []
    for item, commit in zip(items, commits, strict=True):
        try:
            await commit.wait()
        except NotDurable:
            continue
        kept.append(item)
    return kept


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another task brings about."""
    deadline = asyncio.get_running_loop().time() + 5
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen within 5 s"
        await asyncio.sleep(0.005)


def recovered(disk: FragileDisk) -> dict[int, Item]:
    return {number_of(item): item for item in open_on(disk, []).recover()}


async def test_one_sync_serves_all_that_wait_and_order_is_kept() -> None:
    disk, sent = FragileDisk(), list[Item]()
    durability = open_on(disk, sent)
    await durability.start()
    await accept(durability, [0])
    before = disk.count
    kept = await accept(durability, range(1, 500))
    assert disk.count - before == 2, "one write and one sync for the whole group"
    assert len(kept) == 499
    assert [number_of(item) for item in sent] == list(range(500))
    await durability.stop()
    assert list(recovered(disk)) == list(range(500))


async def test_what_comes_and_what_has_ended_share_a_sync() -> None:
    disk = FragileDisk()
    durability = open_on(disk, [])
    await durability.start()
    kept = await accept(durability, range(5))
    for item in kept[:3]:
        item.outcome, item.place, item.index = Outcome.ACCEPTED, PLACE, number_of(item)
    before = disk.count
    durability.settle(PLACE, kept[:3])
    await accept(durability, range(5, 10))
    assert disk.count - before == 2, "one write and one sync for both"
    await durability.stop()
    found = recovered(disk)
    assert [number for number, item in found.items() if item.pending] == list(range(3, 10))
    assert [found[number].index for number in range(3)] == [0, 1, 2]


async def test_more_ends_than_fit_a_frame_go_into_several(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FragileDisk()
    durability = open_on(disk, [])
    await durability.start()
    kept = await accept(durability, range(40))
    for item in kept[:20]:
        item.outcome, item.place, item.index = Outcome.ACCEPTED, PLACE, number_of(item)
        durability.settle(PLACE, [item])
    for item in kept[20:39]:
        item.reason = "no " * 30
        durability.reject(item)
    with monkeypatch.context() as small:
        small.setattr(module, "GROUP_BYTES_MAX", 200)
        small.setattr("gateway.journal_format.FRAME_BODY_BYTES_MAX", 400)
        await accept(durability, [40])
        await durability.stop()
    found = recovered(disk)
    assert [number for number, item in found.items() if item.pending] == [39, 40]
    assert all(found[number].index == number for number in range(20))
    assert {found[number].reason for number in range(20, 39)} == {"no " * 30}


async def test_a_group_is_not_encoded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that may wait may be in one group, behind a slow disk: its bytes are not to be there twice."""
    encode, write = encode_accepted, Journal.write
    counts, most = {"encoded": 0, "written": 0}, [0]

    def encoded(record: Record, received_at_ms: int) -> bytes:
        counts["encoded"] += 1
        most.append(counts["encoded"] - counts["written"])
        return encode(record, received_at_ms)

    def written(self: Journal, entries: Sequence[bytes], *, accepted: int, settled: Sequence[int]) -> None:
        write(self, entries, accepted=accepted, settled=settled)
        counts["written"] += accepted

    durability = open_on(FragileDisk(), [])
    await durability.start()
    monkeypatch.setattr(module, "GROUP_BYTES_MAX", 1)  # a frame for each record
    monkeypatch.setattr(module, "encode_accepted", encoded)
    monkeypatch.setattr(Journal, "write", written)
    assert len(await accept(durability, range(20))) == 20
    assert max(most) == 2
    await durability.stop()


async def test_a_failing_journal_moves_all_that_is_not_final_to_the_spool_and_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECOVER_INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "RETRY_INTERVAL_S", 0.01)
    failing = False
    disk = FragileDisk(refuse=lambda operation, count, path: failing and path.parts[1] == "journal")
    durability = open_on(disk, [])
    await durability.start()
    kept = await accept(durability, range(10))
    for item in kept[:4]:
        item.outcome, item.place, item.index = Outcome.ACCEPTED, PLACE, number_of(item)
    durability.settle(PLACE, kept[:4])
    failing = True
    kept += await accept(durability, range(10, 15))
    assert durability.storage is Storage.SPOOL
    assert len(kept) == 15
    # With the journal's disk gone for good, the spool alone knows all that waits.
    alone = FragileDisk(files={path: file for path, file in disk.files.items() if path.parent == SPOOL})
    assert {n for n, item in recovered(alone).items() if item.pending} == set(range(4, 15))
    failing = False
    await until(lambda: durability.storage is Storage.JOURNAL)
    await accept(durability, [15])
    assert not [path for path in disk.files if path.parent == SPOOL], "the spool is emptied once the journal has it all"
    assert {n for n, item in recovered(disk).items() if item.pending} == set(range(4, 16))
    await durability.stop()


async def test_with_nothing_durable_left_nothing_is_promised_and_it_recovers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL_S", 0.01)
    failing = False
    disk, sent = FragileDisk(refuse=lambda operation, count, path: failing), list[Item]()
    durability = open_on(disk, sent)
    await durability.start()
    first = await accept(durability, range(3))
    failing = True
    for number in range(3, 6):
        assert await accept(durability, [number]) == []
    assert durability.storage is Storage.NONE
    assert caplog.text.count("nothing durable is left") == 1, "a log that grows with each refusal fills a full disk"
    assert len(sent) == 3, "what is not durable is not sent"
    # What became final meanwhile is written down as soon as something can be written again.
    first[0].outcome, first[0].place = Outcome.ACCEPTED, PLACE
    durability.settle(PLACE, first[:1])
    failing = False
    await until(lambda: durability.storage is not Storage.NONE)
    assert len(await accept(durability, [6])) == 1
    await durability.stop()
    found = recovered(disk)
    assert found[0].place == PLACE
    assert {n for n, item in found.items() if item.pending} >= {1, 2, 6}


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    off_at=st.integers(1, 120),
    broken=st.lists(
        st.tuples(st.integers(1, 100), st.integers(1, 12), st.sampled_from(["journal", "spool"])), max_size=3
    ),
)
def test_what_was_acknowledged_survives_failing_disks_and_power_loss(
    seed: int, off_at: int, broken: list[tuple[int, int, str]]
) -> None:
    chance = random.Random(seed)

    def refuse(operation: str, count: int, path: Path) -> bool:
        return any(begin <= count < begin + length and path.parts[1] == folder for begin, length, folder in broken)

    disk, sent = FragileDisk(refuse=refuse, off_at=off_at), list[Item]()
    acknowledged: dict[int, Item] = {}
    settled: set[int] = set()

    async def life() -> None:
        durability = open_on(disk, sent, segment_bytes=600)
        await durability.start()
        assert durability._task is not None
        for begin in range(0, 60, 3):
            durability._retry_at = 0.0  # disks are tried again at once: the test has no time to lose
            work = asyncio.create_task(accept(durability, range(begin, begin + chance.randint(1, 3))))
            await asyncio.wait((work, durability._task), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                break
            acknowledged.update((number_of(item), item) for item in work.result())
            done = [item for item in acknowledged.values() if item.pending and chance.random() < 0.4]
            for item in done:
                item.outcome, item.place = Outcome.ACCEPTED, PLACE
                settled.add(number_of(item))
            if done:
                durability.settle(PLACE, done)
        if durability._task.done():
            with pytest.raises(PowerLoss):
                await durability._task
        else:
            durability._task.cancel()
            await asyncio.wait((durability._task,))
        durability._thread.shutdown()

    asyncio.run(life())
    found = recovered(disk.after_power_loss(chance))
    assert set(acknowledged) - settled <= {n for n, item in found.items() if item.pending}
    assert set(map(number_of, sent)) - settled <= set(found)


async def test_moving_in_several_groups_deletes_nothing_that_is_not_yet_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old segments may hold the only copy of what the later groups will bring, wherever the power goes."""
    monkeypatch.setattr(module, "GROUP_BYTES_MAX", 1)  # a group for each record, and a segment for each group
    for step in range(1, 60):
        disk = FragileDisk()
        durability = open_on(disk, [], segment_bytes=1)
        await durability.start()
        for number in range(8):
            await accept(durability, [number])
        disk.off_at = disk.count + step
        with contextlib.suppress(PowerLoss):
            durability._move(durability._journal)
        found = recovered(disk.after_power_loss(random.Random(step)))
        assert {n for n, item in found.items() if item.pending} == set(range(8)), step
        disk.off_at = None
        if step == 59:  # the power never went
            await accept(durability, [8])
            assert len(disk.names(JOURNAL)) < 16, "what was written anew is deleted with the next group"
        await durability.stop()
