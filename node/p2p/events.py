"""What the network tells the runtime about its peers."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from node.p2p.kinds import Kind

Direction: TypeAlias = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One peer with which a session is open."""

    address: bytes
    """20 bytes, proven by the peer's certificate."""
    name: str
    """What the peer calls itself; proves nothing."""
    endpoint: str
    """`host:port` at which the peer says it can be dialled; empty when it cannot."""
    direction: Direction
    """`out` when we dialled."""
    connected_at_s: int
    """Unix time at which the session opened."""
    head_height: int
    """The peer's head when the session opened."""
    protocol_version: int
    """The version that both sides agreed on."""
    bytes_received: int
    bytes_sent: int
    round_trip_ms: int | None
    """Of the latest ping that was answered."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A session with a member is open: both sides have proven who they are and agreed on a version."""

    peer: bytes
    info: PeerInfo


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The session is over; what was still queued for the peer is gone. The network dials again by itself."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """One message of a peer. The handler may raise a PeerError, and the network drops the peer with its text."""

    peer: bytes
    kind: Kind
    payload: bytes


PeerEvent: TypeAlias = Connected | Disconnected | Received
