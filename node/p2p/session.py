"""One session with one peer, pure: hello and protocol version, frames in, keep-alive, deadlines. Sockets are elsewhere.

Errors are split by blame: what the peer did is a PeerError (drop the peer), what we did is a LocalError (a bug here).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from node.chain.errors import PeerError
from node.p2p.endpoint import parse_endpoint
from node.p2p.framing import FrameDecoder, encode_frame
from node.p2p.kinds import OWN_KINDS, Kind

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1
NAME_CHARACTERS_MAX = 64
U64_MAX = 2**64 - 1


class LocalError(RuntimeError):
    """Our own code asked the session for what the protocol does not allow."""


class InvalidHello(PeerError):
    """The peer's first message is no hello."""


class WrongVersion(PeerError):
    """The peer and we have no protocol version in common."""


class PeerTimeout(PeerError):
    """The peer kept silent, or left a hello or a frame unfinished, for too long."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of either side."""

    version_min: int
    """Oldest protocol version that this side speaks."""
    version_max: int
    """Newest protocol version that this side speaks."""
    head_height: int
    """Height of this side's head."""
    name: str
    """What this side calls itself; proves nothing."""
    endpoint: str
    """`host:port` at which this side can be dialled; empty when it cannot."""
    client: str
    """Software and version, for people."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Deadlines in milliseconds, and how fast one peer may talk."""

    hello_ms_max: int = 5_000
    """From the end of the TLS handshake to the peer's hello."""
    ping_after_ms: int = 1_000
    """Silence after which we ask whether the peer is still there."""
    silence_ms_max: int = 5_000
    """Silence after which the peer counts as dead."""
    frame_ms_max: int = 30_000
    """From the first byte of a frame to its last."""
    frames_per_s_max: int = 20_000
    bytes_per_s_max: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Incoming:
    """What some received bytes amount to."""

    opened: bool
    """The peer's hello was among them."""
    messages: list[tuple[Kind, bytes]]
    """For the handler, in order."""
    answer: bytes
    """Frames to send back."""
    wait_ms: int
    """How long to read nothing more, since the peer talks faster than its limit."""


class Session:
    """The state of one connection whose peer is known by address already. `now_ms` is a monotonic clock."""

    def __init__(self, hello: Hello, caps: Mapping[Kind, int], limits: SessionLimits, *, now_ms: int) -> None:
        self._hello = hello
        self._caps = caps
        self._caps_in = {Kind.HELLO: caps[Kind.HELLO]}
        self._limits = limits
        self._decoder = FrameDecoder()
        self._began_ms = self._heard_ms = self._ticked_ms = self._frame_ms = now_ms
        self._ping_ms = 0
        self._frames = _Bucket(limits.frames_per_s_max, now_ms)
        self._bytes = _Bucket(limits.bytes_per_s_max, now_ms)
        self.peer_hello: Hello | None = None
        self.version = 0
        """The agreed protocol version; 0 until the peer's hello is there."""
        self.round_trip_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the peer's hello has come and a version is agreed."""
        return self.peer_hello is not None

    def opening(self) -> bytes:
        """The frame that each side sends first."""
        return encode_frame(Kind.HELLO, encode_hello(self._hello))

    def receive(self, data: bytes, *, now_ms: int) -> Incoming:
        """Take bytes from the socket. Raises a PeerError when the peer broke the protocol; the session is over then."""
        self._heard_ms = now_ms
        if not self._decoder.pending_bytes:
            self._frame_ms = now_ms
        self._decoder.feed(data)
        opened = False
        messages: list[tuple[Kind, bytes]] = []
        answers: list[bytes] = []
        frames_count = 0
        while (frame := self._decoder.next_frame(self._caps_in)) is not None:
            frames_count += 1
            kind, payload = frame
            if kind not in OWN_KINDS:
                messages.append(frame)
            elif kind is Kind.HELLO:
                self._open(payload)
                opened = True
            elif kind is Kind.PING:
                answers.append(encode_frame(Kind.PONG, payload))
            elif payload == _ping_payload(self._ping_ms):
                self.round_trip_ms = now_ms - self._ping_ms
        if frames_count:
            self._frame_ms = now_ms
        wait_ms = max(self._frames.take(frames_count, now_ms), self._bytes.take(len(data), now_ms))
        return Incoming(opened, messages, b"".join(answers), wait_ms)

    def _open(self, payload: bytes) -> None:
        """Settle the version; from now on every kind but a second hello may come."""
        versions = decode_versions(payload)
        version = min(versions[1], self._hello.version_max)
        if version < max(versions[0], self._hello.version_min):
            raise WrongVersion(
                f"the peer speaks protocol versions {versions[0]} to {versions[1]}, "
                f"and we speak {self._hello.version_min} to {self._hello.version_max}"
            )
        self.peer_hello = decode_hello(payload)
        self.version = version
        self._caps_in = {kind: cap for kind, cap in self._caps.items() if kind is not Kind.HELLO}

    def tick(self, *, now_ms: int) -> bytes:
        """Look at the clock, a few times a second; gives what to send. Raises PeerTimeout when one is overdue."""
        limits = self._limits
        slept_ms = now_ms - self._ticked_ms
        self._ticked_ms = now_ms
        if slept_ms > limits.ping_after_ms:
            # We were stopped or starved, not the peer: what it sent meanwhile has not been read yet.
            self._heard_ms = max(self._heard_ms, now_ms - limits.ping_after_ms)
        if not self.is_open and now_ms - self._began_ms > limits.hello_ms_max:
            raise PeerTimeout(f"no hello within {limits.hello_ms_max} ms")
        if now_ms - self._heard_ms > limits.silence_ms_max:
            raise PeerTimeout(f"silent for {now_ms - self._heard_ms} ms")
        if self._decoder.pending_bytes and now_ms - self._frame_ms > limits.frame_ms_max:
            raise PeerTimeout(f"a frame was not finished within {limits.frame_ms_max} ms")
        quiet_ms = now_ms - max(self._heard_ms, self._ping_ms)
        if not self.is_open or quiet_ms < limits.ping_after_ms:
            return b""
        self._ping_ms = now_ms
        return encode_frame(Kind.PING, _ping_payload(now_ms))


def message_frame(kind: Kind, payload: bytes, caps: Mapping[Kind, int]) -> bytes:
    """The frame of a handler's message. Raises LocalError when it is too long or of a session's own kind."""
    if kind in OWN_KINDS:
        raise LocalError(f"{kind.name} is sent by the session alone")
    if len(payload) > caps[kind]:
        raise LocalError(f"a {kind.name} payload of {len(payload)} bytes: at most {caps[kind]} are allowed")
    return encode_frame(kind, payload)


def encode_hello(hello: Hello) -> bytes:
    """The msgpack list of the fields, in the order in which the class names them."""
    packed: bytes = msgpack.packb(
        [hello.version_min, hello.version_max, hello.head_height, hello.name, hello.endpoint, hello.client]
    )
    return packed


def decode_versions(payload: bytes) -> tuple[int, int]:
    """Oldest and newest version in a hello. They come first in every version, so that unlike ones can tell."""
    fields = _unpack_list(payload)
    if len(fields) < 2:
        raise InvalidHello("a hello begins with the oldest and the newest protocol version")
    oldest, newest = (_unsigned("version", field) for field in fields[:2])
    if not 0 < oldest <= newest:
        raise InvalidHello(f"a hello names versions from {oldest} to {newest}")
    return oldest, newest


def decode_hello(payload: bytes) -> Hello:
    """The hello of version 1. Raises InvalidHello, or InvalidEndpoint."""
    oldest, newest = decode_versions(payload)
    fields = _unpack_list(payload)
    if len(fields) != 6:
        raise InvalidHello(f"a hello has 6 fields, not {len(fields)}")
    height = _unsigned("head height", fields[2])
    name, client = _text("name", fields[3]), _text("client", fields[5])
    endpoint = fields[4]
    if not isinstance(endpoint, str):
        raise InvalidHello("a hello's endpoint is text")
    if endpoint:
        parse_endpoint(endpoint)
    return Hello(oldest, newest, height, name, endpoint, client)


def _unsigned(label: str, field: object) -> int:
    if type(field) is not int or not 0 <= field <= U64_MAX:
        raise InvalidHello(f"a hello's {label} is an unsigned 64-bit integer")
    return field


def _text(label: str, field: object) -> str:
    if not isinstance(field, str) or len(field) > NAME_CHARACTERS_MAX or not field.isprintable():
        raise InvalidHello(f"a hello's {label} is printable text of at most {NAME_CHARACTERS_MAX} characters")
    return field


def _unpack_list(payload: bytes) -> list[object]:
    try:
        fields = msgpack.unpackb(payload, raw=False, strict_map_key=True, max_array_len=64, max_map_len=0)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InvalidHello(f"a hello is not msgpack ({error})") from None
    if not isinstance(fields, list):
        raise InvalidHello("a hello is a list")
    return fields


def _ping_payload(now_ms: int) -> bytes:
    return now_ms.to_bytes(8, "big")


class _Bucket:
    """A token bucket that holds one second's worth: how long to wait so that a rate is kept on average."""

    __slots__ = ("_at_ms", "_level", "_rate")

    def __init__(self, per_s_max: int, now_ms: int) -> None:
        self._rate = per_s_max
        self._level = per_s_max * 1000  # in thousandths, so that integers do
        self._at_ms = now_ms

    def take(self, amount: int, now_ms: int) -> int:
        refilled = self._level + (now_ms - self._at_ms) * self._rate
        self._level = min(refilled, self._rate * 1000) - amount * 1000
        self._at_ms = now_ms
        return 0 if self._level >= 0 else -self._level // self._rate + 1
