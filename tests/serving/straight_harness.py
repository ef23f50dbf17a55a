"""What the tests of both ways of serving share, whoever's requests are taken where they arrive."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import pytest

from serving.straight import StraightHandler

WITHIN_S = 10.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def exchanged(streams: Streams, pieces: Iterable[bytes], question: bytes) -> bytes:
    """All that a connection says to these bytes, and to a question after the first answer."""
    reader, writer = streams
    async with asyncio.timeout(WITHIN_S):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # that they arrive one by one
        said = await reader.readuntil(b"\r\n\r\n")
        if b"Connection: close" not in said:
            writer.write(question)
        with contextlib.suppress(ConnectionError):
            said += await reader.read()
    writer.close()
    return said


async def leaves(streams: Streams, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who sends these bytes and is gone as aiohttp is to be given the rest of its request."""
    hand_over, handed_over = StraightHandler.hand_over, asyncio.Event()

    def at_the_end(self: StraightHandler, *arguments: Any) -> bool:
        assert self.transport is not None
        self.transport.abort()
        is_served = hand_over(self, *arguments)
        handed_over.set()
        return is_served

    monkeypatch.setattr(StraightHandler, "hand_over", at_the_end)
    reader, writer = streams
    writer.write(sent)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(WITHIN_S):
            assert await reader.read() == b""
    assert handed_over.is_set()
    writer.close()
