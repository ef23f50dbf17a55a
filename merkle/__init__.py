"""Authenticated structures, pure: the RFC 6962 log, the Merkle-Patricia trie, and the RLP and keccak under them."""

from merkle.errors import InvalidProof

__all__ = ["InvalidProof"]
