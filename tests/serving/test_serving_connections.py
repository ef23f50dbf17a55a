"""The bounds on a socket's connections hold also where many come before the first of those that make room is gone."""

import asyncio
import contextlib
import gc
import socket

import pytest

from serving.connections import ConnectionGuard, Guarded, stop_listening


class Wire(asyncio.Transport):
    """A connection of somebody; whoever ends it is told so a moment later, as every event loop does."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


@pytest.mark.parametrize(("connections_max", "per_address_max", "addresses"), [(3, 3, 10), (8, 3, 1)])
def test_many_at_once_stay_within_the_bounds(connections_max: int, per_address_max: int, addresses: int) -> None:
    guard = ConnectionGuard(connections_max=connections_max, per_address_max=per_address_max, sender_s=9, idle_s=9)
    make = guard.factory(asyncio.Protocol)
    opened: list[tuple[Guarded, Wire]] = []
    for number in range(10):
        opened.append((make(), Wire(f"10.0.0.{number % addresses}")))
        opened[-1][0].connection_made(opened[-1][1])
    for one, wire in opened:
        if wire.aborted:
            one.connection_lost(None)
    assert len(guard) == 3
    assert [wire.aborted for _, wire in opened] == [1] * 7 + [0] * 3


def test_who_sends_most_is_ended_where_all_send_too_much() -> None:
    """A thousand requests of the largest size that nobody finishes would not fit into memory."""
    guard = ConnectionGuard(connections_max=9, sender_s=9, idle_s=9, bytes_max=100)
    make = guard.factory(Ears)
    opened = [(make(), Wire(f"10.0.0.{number}")) for number in range(4)]
    for (one, wire), size in zip(opened, (40, 50, 10, 5), strict=True):
        one.connection_made(wire)
        one.data_received(bytes(size))
    assert [wire.aborted for _, wire in opened] == [0, 1, 0, 0]
    assert guard.received_bytes == 55
    guard.end(opened[0][0])  # answered
    assert guard.received_bytes == 15
    opened[2][0].data_received(bytes(84))
    opened[3][0].data_received(b" ")
    assert [wire.aborted for _, wire in opened] == [0, 1, 0, 0]
    opened[3][0].data_received(b" ")
    assert [wire.aborted for _, wire in opened] == [0, 1, 1, 0]
    for one, _ in opened:
        one.connection_lost(None)
    assert (guard.received_bytes, len(guard)) == (0, 0)


async def test_stop_at_any_turn_of_the_loop_leaves_no_connection_open() -> None:
    """Neither one that was let in nor one that comes while the listening socket is closed."""
    for turns in range(12):
        guard = ConnectionGuard(connections_max=9, sender_s=9, idle_s=9)
        await guard.start()
        server = await asyncio.get_running_loop().create_server(guard.factory(Ears), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as caller:
            for _ in range(turns):
                await asyncio.sleep(0)
            await stop_listening(server)
            await guard.stop()
            assert len(guard) == 0
            caller.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(caller.recv, 1) == b""
    gc.collect()  # an open transport would be a warning, and a failure


class Ears(asyncio.Protocol):
    """Takes whatever comes."""

    def data_received(self, data: bytes) -> None:
        pass
