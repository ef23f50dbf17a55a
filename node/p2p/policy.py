"""The numbers of the network shell: deadlines, bounds and waiting times."""

from dataclasses import dataclass, field

from node.p2p.dialplan import DialPolicy
from node.p2p.session import SessionLimits

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Defaults fit a network of a few members; tests shorten them."""

    session: SessionLimits = field(default_factory=SessionLimits)
    dial: DialPolicy = field(default_factory=DialPolicy)
    tick_ms: int = 250
    """How often deadlines are looked at and due peers dialled."""
    handshake_ms_max: int = 5_000
    """For TCP and TLS, either way."""
    handshakes_max: int = 128
    """Incoming connections that have not proven anything yet; further ones are closed unread."""
    unopened_per_peer_max: int = 4
    """Connections of one member that wait for its hello."""
    stall_ms_max: int = 5_000
    """How long the socket may take no byte while something waits, until the peer is dropped."""
    lane_bytes_max: int = 64 * MEBIBYTE
    """Of each lane of one peer's send queue; several of the largest messages."""
    lane_frames_max: int = 65_536
    write_bytes_max: int = 64 * 1024
    """In one write; more of it would only keep urgent messages waiting behind bulk."""
    write_buffer_bytes_max: int = 128 * 1024
    """What the transport may hold before we stop writing."""
    announce_first_ms: int = 500
    """Until the bootnodes are asked again at first, and after a peer was lost; it doubles up to the next value."""
    announce_cap_ms: int = 30_000
    bootnode_ms_max: int = 5_000
    """For one request to a bootnode."""
    record_life_s: int = 3_600
