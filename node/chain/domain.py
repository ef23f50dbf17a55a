"""The network that a signature or a log leaf belongs to, so that nothing said on one network counts on another."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Domain:
    """Chain id (EIP-155) and the hash of block 0, 32 bytes."""

    chain_id: int
    genesis_hash: bytes
