"""Networks with each other, over real sockets: sessions, messages, and what happens when a peer misbehaves or dies."""

import asyncio
import contextlib
import gc
import logging
import socket
import time
from dataclasses import replace

import pytest

from node.chain.errors import PeerError
from node.p2p import tls
from node.p2p.dialplan import DialPolicy
from node.p2p.events import Connected, Disconnected, PeerEvent, Received
from node.p2p.framing import encode_frame
from node.p2p.kinds import BLOCK_BYTES_MAX_DEFAULT, Kind
from node.p2p.network import Network
from node.p2p.session import LocalError
from tests.p2p.conftest import (
    DEADLINE_S,
    DOMAIN,
    QUICK,
    Crowd,
    HandMadePeer,
    Node,
    client_context,
    hello_frame,
    key_of,
    until,
)


async def pair(crowd: Crowd) -> tuple[Node, Node]:
    first = await crowd.start(1)
    second = await crowd.start(2, knows=[(first.address, first.network.endpoint)])
    await until(lambda: first.connected_to() and second.connected_to())
    return first, second


async def hand_made(crowd: Crowd, node: Node) -> HandMadePeer:
    peer = HandMadePeer(node.port, client_context(7))
    await asyncio.to_thread(peer.begin, hello_frame())
    await until(lambda: node.connected_to() == {key_of(7).address})
    return peer


async def test_messages_go_both_ways_in_order(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    sent = [(Kind.STATUS, number.to_bytes(2, "big")) for number in range(2000)]
    for kind, payload in sent:
        assert first.network.send(second.address, kind, payload)
        second.network.broadcast(kind, payload)
    await until(lambda: len(second.received()) == 2000 and len(first.received()) == 2000)
    assert second.received() == sent
    assert first.received() == sent


async def test_the_largest_message_arrives_whole(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    payload = bytes(range(256)) * (BLOCK_BYTES_MAX_DEFAULT // 256) + b"end"
    assert first.network.send(second.address, Kind.CONSENSUS, payload)
    await until(lambda: second.received())
    assert second.received() == [(Kind.CONSENSUS, payload)]


async def test_what_is_told_of_a_peer(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    event = first.events[0]
    assert isinstance(event, Connected)
    assert event.peer == second.address
    info = first.network.peers()[0]
    assert (info.address, info.name, info.endpoint) == (second.address, "validator-2", second.network.endpoint)
    assert (info.direction, info.head_height, info.protocol_version) == ("in", 200, 1)
    assert second.network.peers()[0].direction == "out"
    assert abs(info.connected_at_s - time.time()) < 60
    await until(lambda: first.network.peers()[0].round_trip_ms is not None)


async def test_our_own_mistakes_are_errors_here(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    with pytest.raises(LocalError, match="STATUS"):
        first.network.send(second.address, Kind.STATUS, bytes(64 * 1024 + 1))
    with pytest.raises(LocalError, match="HELLO"):
        first.network.broadcast(Kind.HELLO, b"")
    assert not first.network.send(key_of(5).address, Kind.STATUS, b"to nobody")
    assert first.connected_to() == {second.address}


async def test_bulk_does_not_delay_consensus(crowd: Crowd) -> None:
    """A vote that is queued after 32 MiB of blocks arrives before most of them."""
    first, second = await pair(crowd)
    for _ in range(32):
        assert first.network.send(second.address, Kind.BLOCKS, bytes(1024 * 1024))
    assert first.network.send(second.address, Kind.CONSENSUS, b"vote")
    await until(lambda: len(second.received()) == 33)
    assert [kind for kind, _ in second.received()].index(Kind.CONSENSUS) <= 2


async def test_a_handler_that_refuses_a_message_drops_the_peer(crowd: Crowd) -> None:
    def refuse(event: PeerEvent) -> None:
        if isinstance(event, Received):
            raise PeerError("nonsense from a peer")

    first = await crowd.start(1, on_event=refuse)
    peer = await hand_made(crowd, first)
    await asyncio.to_thread(peer.send, encode_frame(Kind.STATUS, b"1") + encode_frame(Kind.STATUS, b"2"))
    await until(first.lost)
    assert first.lost() == ["nonsense from a peer"]
    assert first.received() == [(Kind.STATUS, b"1")]
    peer.close()


async def test_what_arrives_after_the_end_is_not_read(crowd: Crowd) -> None:
    """An event loop may still deliver what it had read; TLS layers of both loops do in some orders of events."""
    first, second = await pair(crowd)
    connection = first.network._peers[second.address]
    first.network.drop(second.address, "enough")
    connection.data_received(encode_frame(Kind.STATUS, b"too late"))
    await until(first.lost)
    assert first.received() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff\xff" + bytes((Kind.CONSENSUS,)), "at most"),
        (encode_frame(Kind.PING, b"")[:4] + b"\x63", "unknown kind 99"),
        (hello_frame(), "HELLO came"),
    ],
)
async def test_malformed_frames_end_the_session(crowd: Crowd, data: bytes, reason: str) -> None:
    first = await crowd.start(1)
    peer = await hand_made(crowd, first)
    await asyncio.to_thread(peer.send, data)
    await until(first.lost)
    assert reason in first.lost()[0]
    assert first.received() == []
    peer.close()


async def test_a_peer_that_stops_is_dead_soon(crowd: Crowd) -> None:
    """As after SIGSTOP: the socket stays open, nothing is read and nothing answered."""
    first = await crowd.start(1)
    peer = await hand_made(crowd, first)
    began = time.monotonic()
    await until(first.lost)
    assert "silent" in first.lost()[0]
    assert 0.4 < time.monotonic() - began < 3  # 600 ms and ticks; more on a busy machine
    assert first.network.peers() == []
    peer.close()


async def test_a_quiet_peer_that_answers_is_kept(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    await asyncio.sleep(3 * QUICK.session.silence_ms_max / 1000)
    assert first.lost() == []
    assert second.lost() == []


async def test_a_peer_that_never_says_hello_is_dropped(crowd: Crowd) -> None:
    first = await crowd.start(1)
    peer = HandMadePeer(first.port, client_context(7))
    await asyncio.to_thread(peer.begin, hello_frame()[:9])
    await asyncio.to_thread(peer.read_to_end)  # ends, since the server hangs up
    assert first.events == []
    peer.close()


async def chatter(peer: HandMadePeer) -> None:
    """Pings without end, and never a read."""
    while True:
        await asyncio.to_thread(peer.send, encode_frame(Kind.STATUS, b"here I am"))
        await asyncio.sleep(0.05)


async def test_a_peer_that_reads_nothing_is_dropped(crowd: Crowd) -> None:
    """It talks, so it is not dead; but its socket takes no more. Bulk is refused meanwhile, not buffered."""
    first = await crowd.start(1, policy=replace(QUICK, lane_bytes_max=8 * 1024 * 1024))
    peer = await hand_made(crowd, first)
    talking = asyncio.create_task(chatter(peer))
    accepted = [first.network.send(key_of(7).address, Kind.BLOCKS, bytes(1024 * 1024)) for _ in range(20)]
    assert accepted[:4] == [True] * 4
    assert accepted[-1] is False
    assert first.connected_to() == {key_of(7).address}
    await until(first.lost)
    assert "has read nothing" in first.lost()[0]
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    peer.close()


async def test_a_peer_that_does_not_keep_up_with_consensus_is_dropped(crowd: Crowd) -> None:
    first = await crowd.start(1, policy=replace(QUICK, lane_bytes_max=4 * 1024 * 1024, stall_ms_max=60_000))
    peer = await hand_made(crowd, first)
    sent = [first.network.send(key_of(7).address, Kind.CONSENSUS, bytes(1024 * 1024)) for _ in range(6)]
    assert sent[:3] == [True] * 3
    assert not all(sent)
    assert first.network.peers() == []
    assert first.lost() == []  # told later, never from within a call of the runtime
    await until(first.lost)
    assert "send queue is full" in first.lost()[0]
    peer.close()


async def test_a_peer_that_talks_too_fast_is_slowed_down_and_not_dropped(crowd: Crowd) -> None:
    slow = replace(QUICK, session=replace(QUICK.session, frames_per_s_max=1000, silence_ms_max=5000))
    first = await crowd.start(1, policy=slow)
    peer = await hand_made(crowd, first)
    began = time.monotonic()
    await asyncio.to_thread(peer.send, encode_frame(Kind.STATUS, b"!") * 2500)
    await asyncio.to_thread(peer.send, encode_frame(Kind.STATUS, b"?"))
    await until(lambda: (Kind.STATUS, b"?") in first.received())
    assert time.monotonic() - began > 1
    assert first.lost() == []
    peer.close()


async def test_reconnects_after_a_restart(crowd: Crowd) -> None:
    first, second = await pair(crowd)
    port = second.port
    await crowd.stop(second)
    await until(lambda: not first.connected_to())
    again = await crowd.start(2, port=port, remembers=False)  # it knows nobody, so it is the first that dials
    await until(lambda: first.connected_to() == {again.address})
    assert [type(event) for event in first.events] == [Connected, Disconnected, Connected]
    assert first.network.send(again.address, Kind.STATUS, b"welcome back")
    await until(lambda: again.received() == [(Kind.STATUS, b"welcome back")])


async def test_a_restarted_peer_replaces_its_old_connection(crowd: Crowd) -> None:
    """Even when we have not noticed that the old one is dead."""
    first = await crowd.start(1)
    old = await hand_made(crowd, first)
    new = HandMadePeer(first.port, client_context(7))
    await asyncio.to_thread(new.begin, hello_frame() + encode_frame(Kind.STATUS, b"new"))
    await until(lambda: first.received() == [(Kind.STATUS, b"new")])
    assert [type(event) for event in first.events] == [Connected, Disconnected, Connected, Received]
    assert len(first.network.peers()) == 1
    await asyncio.to_thread(old.read_to_end)
    old.close()
    new.close()


async def test_a_restarted_peer_wins_even_against_the_connection_that_is_preferred(crowd: Crowd) -> None:
    """We dialled, and of two connections of one pair of processes ours stays; but this is another process."""
    low, high = sorted((1, 2), key=lambda number: key_of(number).address)
    patient = replace(QUICK, dial=DialPolicy(first_ms=60_000, cap_ms=60_000))
    before = await crowd.start(high, policy=patient, remembers=False)
    first = await crowd.start(low, knows=[(before.address, before.network.endpoint)])
    await until(lambda: first.connected_to() and before.connected_to())
    assert first.network.peers()[0].direction == "out"
    after = await crowd.start(high, knows=[(first.address, first.network.endpoint)])
    await until(lambda: after.connected_to() and not before.connected_to())
    assert [info.direction for info in first.network.peers()] == ["in"]


@pytest.mark.parametrize("_time", range(3))
async def test_both_dial_at_once(crowd: Crowd, _time: int) -> None:
    """However the race ends, one connection is left, the same on both sides, and it works."""
    first, second = await pair(crowd)
    ports = first.port, second.port
    await crowd.stop(first)
    await crowd.stop(second)
    first, second = await asyncio.gather(crowd.start(1, port=ports[0]), crowd.start(2, port=ports[1]))
    await until(lambda: first.connected_to() and second.connected_to())
    opened = [0, 0]
    while opened != [first.sessions_opened(), second.sessions_opened()]:
        opened = [first.sessions_opened(), second.sessions_opened()]
        await asyncio.sleep(0.3)  # until nothing changes for longer than any back-off
    assert {first.network.peers()[0].direction, second.network.peers()[0].direction} == {"in", "out"}
    assert len(first.network._connections) == len(second.network._connections) == 1
    assert max(opened) <= 2
    assert first.network.send(second.address, Kind.STATUS, b"one")
    assert second.network.send(first.address, Kind.STATUS, b"two")
    await until(lambda: first.received() == [(Kind.STATUS, b"two")] and second.received() == [(Kind.STATUS, b"one")])


async def test_a_renewed_leaf_drops_nobody(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await pair(crowd)
    before = first.network._current_credentials()
    real_time = time.time
    monkeypatch.setattr("node.p2p.network.time.time", lambda: real_time() + tls.LEAF_LIFE_S * 0.75)
    after = first.network._current_credentials()
    monkeypatch.undo()
    assert after.server is not before.server
    third = await crowd.start(3, knows=[(first.address, first.network.endpoint)])
    await until(lambda: first.connected_to() == {second.address, third.address})
    assert first.lost() == []


async def test_strangers_cannot_use_up_the_handshakes_for_good(crowd: Crowd) -> None:
    """Connections that never shake hands are bounded in number and time, and members get in afterwards."""
    first = await crowd.start(1, policy=replace(QUICK, handshakes_max=3, handshake_ms_max=300))
    idle = [await asyncio.open_connection("127.0.0.1", first.port) for _ in range(6)]
    for reader, writer in idle:
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    second = await crowd.start(2, knows=[(first.address, first.network.endpoint)])
    await until(lambda: first.connected_to() == {second.address})


async def test_one_member_cannot_hold_many_connections_without_a_hello(crowd: Crowd) -> None:
    first = await crowd.start(1, policy=replace(QUICK, session=replace(QUICK.session, hello_ms_max=60_000)))
    context = client_context(7)
    waiting = []
    for _ in range(first.network.policy.unopened_per_peer_max):
        peer = HandMadePeer(first.port, context)
        await asyncio.to_thread(peer.begin, b"")
        assert (await asyncio.to_thread(peer.read))[4] == Kind.HELLO
        waiting.append(peer)
    refused = HandMadePeer(first.port, context)
    await asyncio.to_thread(refused.begin, b"")
    assert await asyncio.to_thread(refused.read_to_end) == b""
    await asyncio.to_thread(waiting[0].send, hello_frame())  # while the others are none the worse
    await until(lambda: first.connected_to() == {key_of(7).address})
    for peer in [*waiting, refused]:
        peer.close()


async def test_stop_is_complete(crowd: Crowd, caplog: pytest.LogCaptureFixture) -> None:
    """No task, socket or event outlives it."""
    caplog.set_level(logging.WARNING)
    first, second = await pair(crowd)
    told, port = list(second.events), first.port
    await crowd.stop(second)
    assert second.events == told
    await crowd.stop(first)
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [task for task in others if "node/p2p" in str(task.get_coro())] == []
    gc.collect()  # an unclosed socket would warn now, and warnings are errors
    assert not caplog.records
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_stop_at_any_turn_of_the_loop_closes_what_was_accepted(crowd: Crowd) -> None:
    """Stopping overtakes a connection that is being accepted; an open socket would be a warning, and a failure here."""
    for turns in range(12):
        node = await crowd.start(1)
        with socket.create_connection(("127.0.0.1", node.port)) as stranger:
            for _ in range(turns):
                await asyncio.sleep(0)
            await crowd.stop(node)
            stranger.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(stranger.recv, 1) == b""
    gc.collect()


async def test_stop_with_handshakes_under_way_both_ways(crowd: Crowd) -> None:
    """Neither a caller that says nothing nor an endpoint that answers nothing keeps it from stopping."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"127.0.0.1:{mute.getsockname()[1]}"
        first = await crowd.start(1, knows=[(key_of(2).address, endpoint)])
        _reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
        mute.setblocking(False)
        accepted, _ = await asyncio.get_running_loop().sock_accept(mute)  # the dialler waits for TLS now
        began = time.monotonic()
        await crowd.stop(first)
        assert time.monotonic() - began < 2
        accepted.close()
        writer.close()
    gc.collect()


async def test_a_used_port_is_an_error_at_start(crowd: Crowd) -> None:
    first = await crowd.start(1)
    with pytest.raises(OSError, match="in use"):
        await crowd.start(2, port=first.port)


def test_a_wildcard_needs_an_advertised_address() -> None:

    with pytest.raises(ValueError, match=r"p2p\.advertise"):
        Network(
            key=key_of(1),
            domain=DOMAIN,
            bind=("0.0.0.0", 0),
            advertise="",
            name="",
            is_member=lambda _: True,
            on_event=lambda _: None,
            head_height=lambda: 0,
        )
