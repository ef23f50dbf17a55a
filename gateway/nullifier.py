"""What stands for a voter and a caller's transaction id on the chain: keyed hashes that only the key can link."""

import hmac
import unicodedata
import uuid

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from node.chain.domain import Domain

ID_BYTES_MAX = 256
MASTER_SECRET_BYTES = 32

_KEY_TAG = b"psephos:election-key:1"
_CHECK_TAG = b"psephos:key-check:1"
_NULLIFIER_TAG = b"psephos:nullifier:1"
_RECORD_TAG = b"psephos:record-id:1"
_MADE_TAG = b"psephos:transaction-id:1"


class InvalidId(ValueError):
    """A voter id or a transaction id that is empty, too long, or not text."""


def _prefixed(*parts: bytes) -> bytes:
    """Each part behind its length (u32, big-endian), so that no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def election_key(master_secret: bytes, domain: Domain, election: int) -> bytes:
    """The 32-byte key of one election of one network, derived from the secret that its gateways share.

    The network is part of it, so that one secret used on two networks links nobody's ballots.
    """
    if len(master_secret) != MASTER_SECRET_BYTES:
        raise ValueError(f"a master secret has {MASTER_SECRET_BYTES} bytes, not {len(master_secret)}")
    chain_id = domain.chain_id.to_bytes(8, "big")
    message = _prefixed(_KEY_TAG, chain_id, domain.genesis_hash, election.to_bytes(32, "big"))
    return hmac.digest(master_secret, message, "sha256")


def _begun(key: bytes, *parts: bytes) -> HMAC:
    """HMAC-SHA-256 under a key, of parts to which one more comes."""
    mac = HMAC(key, SHA256())
    mac.update(_prefixed(*parts))
    return mac


def _ended(begun: HMAC, part: bytes) -> bytes:
    """The digest once the last part has come."""
    mac = begun.copy()
    mac.update(len(part).to_bytes(4, "big") + part)
    return mac.finalize()


class ElectionKey:
    """The keyed hashes of one election. Its text form never shows the key."""

    __slots__ = ("_made", "_nullifier", "_record", "check", "election")

    def __init__(self, key: bytes, election: int) -> None:
        """`key`: 32 bytes, from `election_key` or random."""
        number = election.to_bytes(32, "big")
        self.election = election
        # What is the same for each ballot of the election is hashed once; a ballot costs a copy and what is its own
        # (0.6 µs, where hmac.digest takes 3).
        self._nullifier = _begun(key, _NULLIFIER_TAG, number)
        self._record = _begun(key, _RECORD_TAG, number)
        self._made = _begun(key, _MADE_TAG, number)
        self.check = hmac.digest(key, _prefixed(_CHECK_TAG, number), "sha256")

    def nullifier(self, voter_id: str) -> bytes:
        """The 32 bytes under which a voter's ballot stands. Raises InvalidId."""
        # Two spellings of one letter (é as one code point or two) are one voter.
        return _ended(self._nullifier, id_bytes(unicodedata.normalize("NFC", voter_id), "voter_id"))

    def record_id(self, transaction_id: str) -> bytes:
        """The 32 bytes under which a caller's transaction id is found. Raises InvalidId."""
        return _ended(self._record, id_bytes(transaction_id, "transaction_id"))

    def made_transaction_id(self, nullifier: bytes) -> str:
        """A transaction id for a caller who gave none: the same each time and from every gateway, so a retry is one."""
        return str(uuid.UUID(bytes=_ended(self._made, nullifier)[:16], version=4))

    def __repr__(self) -> str:
        return f"ElectionKey(election={self.election})"


def id_bytes(text: str, name: str) -> bytes:
    """UTF-8 of an id of 1 to 256 bytes. Raises InvalidId naming `name`; the id itself is never in the message."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidId(f"{name} holds a lone surrogate, which is no text") from None
    if not 1 <= len(data) <= ID_BYTES_MAX:
        raise InvalidId(f"{name} has {len(data)} bytes in UTF-8, expected 1 to {ID_BYTES_MAX}")
    return data
