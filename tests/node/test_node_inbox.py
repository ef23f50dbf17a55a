"""The inbox: consensus overtakes bulk, wakes are merged, and neither queue grows without bound, peers have turns."""

import asyncio

import pytest

from node import inbox
from node.inbox import WOKEN, Inbox, InboxFull
from node.p2p.events import Disconnected, Received
from node.p2p.kinds import Kind

PEER, OTHER = b"\x01" * 20, b"\x02" * 20


def message(kind: Kind, payload: bytes = b"", peer: bytes = PEER) -> Received:
    return Received(peer, kind, payload)


async def test_consensus_goes_first_then_wakes_then_bulk() -> None:
    queue = Inbox()
    bulk, urgent = message(Kind.BLOCKS), message(Kind.CONSENSUS)
    queue.put(bulk)
    queue.wake()
    queue.wake()
    queue.put(urgent)
    assert [await queue.get(1) for _ in range(3)] == [urgent, WOKEN, bulk]


async def test_a_deadline_that_is_over_goes_before_bulk() -> None:
    """A peer that keeps that queue filled would keep a validator from ever proposing, and from giving a round up."""
    queue = Inbox()
    bulk, urgent = message(Kind.TRANSACTION_HASHES), message(Kind.STATUS)
    queue.put(bulk)
    queue.put(urgent)
    assert [await queue.get(timeout_s) for timeout_s in (0, 0, 1)] == [urgent, WOKEN, bulk]


async def test_time_over_is_a_wake() -> None:
    assert await Inbox().get(0.001) is WOKEN


async def test_both_queues_are_bounded_but_comings_and_goings_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "URGENT_MAX", 2)
    monkeypatch.setattr(inbox, "BULK_MAX", 1)
    queue = Inbox()
    queue.put(message(Kind.BLOCKS))
    with pytest.raises(InboxFull):
        queue.put(message(Kind.GET_BLOCKS))
    queue.put(message(Kind.CONSENSUS))
    queue.put(message(Kind.STATUS))
    with pytest.raises(InboxFull):
        queue.put(message(Kind.CONSENSUS))
    gone = Disconnected(PEER, "bye")
    queue.put(gone)
    assert [(await queue.get(1)) for _ in range(4)][2] == gone


async def test_who_floods_waits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "URGENT_MAX", 3)
    queue = Inbox()
    flood = [message(Kind.CONSENSUS, bytes((number,))) for number in range(3)]
    for each in flood:
        queue.put(each)
    with pytest.raises(InboxFull):
        queue.put(message(Kind.CONSENSUS))
    other: list[Received | Disconnected] = [message(Kind.CONSENSUS, b"a", OTHER), Disconnected(OTHER, "bye")]
    for event in other:
        queue.put(event)
    assert [await queue.get(1) for _ in range(5)] == [flood[0], other[0], flood[1], other[1], flood[2]]
    queue.put(flood[0])


@pytest.mark.parametrize("kind", [Kind.CONSENSUS, Kind.BLOCKS])
async def test_bytes_are_bounded_and_one_message_always_fits(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(inbox, "LANE_BYTES_MAX", 10)
    queue = Inbox()
    for _ in range(3):
        queue.put(message(kind, bytes(11)))
        with pytest.raises(InboxFull):
            queue.put(message(kind, bytes(1)))
        await queue.get(1)
        queue.put(message(kind, bytes(4)))
        queue.put(message(kind, bytes(6)))
        with pytest.raises(InboxFull):
            queue.put(message(kind, bytes(1)))
        await queue.get(1)
        queue.put(message(kind, bytes(4)))
        for _ in range(2):
            await queue.get(1)


@pytest.mark.parametrize(("after_s", "turns_expected"), [(0.0, 3), (3600.0, 0)])
async def test_others_have_their_turn_once_in_a_while_however_much_waits(
    monkeypatch: pytest.MonkeyPatch, after_s: float, turns_expected: int
) -> None:
    """Else whole queues of the largest messages would be worked off before a socket is read again; and giving way
    before each small one would let busy readers hold back a round."""
    monkeypatch.setattr(inbox, "GIVE_WAY_AFTER_S", after_s)
    queue = Inbox()
    assert await queue.get(0) is WOKEN  # from here on, the time counts
    for _ in range(4):
        queue.put(message(Kind.BLOCKS))
    turns = 0

    async def somebody_else() -> None:
        nonlocal turns
        while turns < 4:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(somebody_else())
    for _ in range(4):
        await queue.get(None)
    assert turns >= turns_expected if turns_expected else turns == 0
    await task
