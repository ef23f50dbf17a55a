"""Frames on the wire, pure: `payload length (u32, big-endian) ‖ kind (u8) ‖ payload`, each kind capped."""

from collections.abc import Mapping
from struct import Struct

from node.chain.errors import PeerError
from node.p2p.kinds import Kind

_HEADER = Struct(">IB")
HEADER_BYTES = _HEADER.size  # 5
_KINDS = {int(kind): kind for kind in Kind}


class MalformedFrame(PeerError):
    """The peer sent a frame of an unknown kind, of a kind out of place, or longer than its kind may be."""


def encode_frame(kind: Kind, payload: bytes) -> bytes:
    """The bytes of one frame. Whether the payload is within its kind's cap is for the session to check."""
    return _HEADER.pack(len(payload), kind) + payload


class FrameDecoder:
    """Turns a stream of bytes into frames. It holds one unfinished frame and the last read at most."""

    __slots__ = ("_buffer", "_offset")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0

    def feed(self, data: bytes) -> None:
        """Take more bytes of the stream. Call `next_frame` until it gives None before feeding again."""
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def next_frame(self, caps: Mapping[Kind, int]) -> tuple[Kind, bytes] | None:
        """The next whole frame, or None when more bytes are needed.

        `caps` names the kinds that may come now and their largest payloads in bytes; a header that breaks them raises
        MalformedFrame before any of its payload is waited for.
        """
        start = self._offset
        if len(self._buffer) - start < HEADER_BYTES:
            return None
        length, number = _HEADER.unpack_from(self._buffer, start)
        kind = _KINDS.get(number)
        if kind is None:
            raise MalformedFrame(f"a frame has the unknown kind {number}")
        if kind not in caps:
            raise MalformedFrame(f"a frame of kind {kind.name} came where {_names(caps)} was expected")
        if length > caps[kind]:
            raise MalformedFrame(f"a {kind.name} frame has {length} bytes, and at most {caps[kind]} are allowed")
        begin = start + HEADER_BYTES
        end = begin + length
        if len(self._buffer) < end:
            return None
        self._offset = end
        return kind, memoryview(self._buffer)[begin:end].tobytes()

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._buffer) - self._offset


def _names(caps: Mapping[Kind, int]) -> str:
    return " or ".join(sorted(kind.name for kind in caps))
