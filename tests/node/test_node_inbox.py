"""The inbox: consensus overtakes bulk, wakes are merged, and neither queue grows without bound."""

import pytest

from node import inbox
from node.inbox import WOKEN, Inbox, InboxFull
from node.p2p.events import Disconnected, Received
from node.p2p.kinds import Kind

PEER = b"\x01" * 20


def message(kind: Kind, payload: bytes = b"") -> Received:
    return Received(PEER, kind, payload)


async def test_consensus_goes_first_then_wakes_then_bulk() -> None:
    queue = Inbox()
    bulk, urgent = message(Kind.BLOCKS), message(Kind.CONSENSUS)
    queue.put(bulk)
    queue.wake()
    queue.wake()
    queue.put(urgent)
    assert [await queue.get(0) for _ in range(3)] == [urgent, WOKEN, bulk]


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
    assert [(await queue.get(0)) for _ in range(4)][2] == gone
