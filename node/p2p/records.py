"""Signed peer records, pure: a node's own word on where it can be reached, for the bootnode to pass on unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature, PeerError
from node.chain.signing import SIGNATURE_BYTES, SigningKey, recover
from node.p2p.endpoint import parse_endpoint

RECORD_TAG = b"psephos:record:1"
ENDPOINTS_MAX = 4
NAME_CHARACTERS_MAX = 64
URL_CHARACTERS_MAX = 256
U64_MAX = 2**64 - 1
RECORD_DOCUMENT_BYTES_MAX = 4096  # of its JSON; the fields' own limits leave it well below


class InvalidRecord(PeerError):
    """A peer record breaks a limit, or its owner did not sign it for this network."""


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """What one node says of itself. The signature binds all of it to one network; expiry makes it a mere hint."""

    address: bytes
    """20 bytes, of the key that signed."""
    endpoints: tuple[str, ...]
    """`host:port`, the best first; at least one."""
    sequence: int
    """Of two records of one address the higher counts. Nodes take the Unix time in milliseconds."""
    expires_at_s: int
    """Unix time after which the record is only a hint where to dial."""
    name: str
    """What the node calls itself; may be empty."""
    rpc_url: str
    """Where its JSON-RPC may be reached; a hint, may be empty."""
    signature: bytes
    """65 bytes: r ‖ s ‖ y parity, over `record_digest`."""


def record_digest(record: PeerRecord, domain: Domain) -> bytes:
    """keccak256(0x19 ‖ tag ‖ rlp([chain id, genesis hash, address, endpoints, sequence, expiry, name, rpc url]))."""
    body = rlp.encode(
        [
            rlp.encode_int(domain.chain_id),
            domain.genesis_hash,
            record.address,
            [endpoint.encode() for endpoint in record.endpoints],
            rlp.encode_int(record.sequence),
            rlp.encode_int(record.expires_at_s),
            record.name.encode(),
            record.rpc_url.encode(),
        ]
    )
    return keccak256(b"\x19" + RECORD_TAG + body)


def sign_record(
    key: SigningKey,
    domain: Domain,
    *,
    endpoints: tuple[str, ...],
    sequence: int,
    expires_at_s: int,
    name: str = "",
    rpc_url: str = "",
) -> PeerRecord:
    """Make and sign the record of `key`'s own node. Raises InvalidRecord when a field breaks its limit."""
    unsigned = PeerRecord(key.address, endpoints, sequence, expires_at_s, name, rpc_url, bytes(SIGNATURE_BYTES))
    check_limits(unsigned)
    return replace(unsigned, signature=key.sign(record_digest(unsigned, domain)))


def verify_record(record: PeerRecord, domain: Domain) -> None:
    """Raise InvalidRecord unless the limits hold and the address signed it. Expiry is the caller's to judge."""
    check_limits(record)
    try:
        signer = recover(record_digest(record, domain), record.signature)
    except InvalidSignature as error:
        raise InvalidRecord(f"signature: {error}") from None
    if signer != record.address:
        raise InvalidRecord(f"address: 0x{record.address.hex()} did not sign this record for this network")


def check_limits(record: PeerRecord) -> None:
    """Raise InvalidRecord, naming the field, when one is out of bounds."""
    if len(record.address) != 20:
        raise InvalidRecord(f"address: expected 20 bytes, found {len(record.address)}")
    if not 1 <= len(record.endpoints) <= ENDPOINTS_MAX:
        raise InvalidRecord(f"endpoints: expected 1 to {ENDPOINTS_MAX}, found {len(record.endpoints)}")
    for endpoint in record.endpoints:
        try:
            parse_endpoint(endpoint)
        except PeerError as error:
            raise InvalidRecord(f"endpoints: {error}") from None
    for label, number in (("sequence", record.sequence), ("expiresAt", record.expires_at_s)):
        if not 0 <= number <= U64_MAX:
            raise InvalidRecord(f"{label}: expected an unsigned 64-bit integer, found {number}")
    for label, text, limit in (
        ("name", record.name, NAME_CHARACTERS_MAX),
        ("rpcUrl", record.rpc_url, URL_CHARACTERS_MAX),
    ):
        if len(text) > limit or not text.isprintable():
            raise InvalidRecord(f"{label}: expected printable text of at most {limit} characters")


def record_document(record: PeerRecord) -> dict[str, object]:
    """The record as a JSON object."""
    return {
        "address": "0x" + record.address.hex(),
        "endpoints": list(record.endpoints),
        "sequence": record.sequence,
        "expiresAt": record.expires_at_s,
        "name": record.name,
        "rpcUrl": record.rpc_url,
        "signature": "0x" + record.signature.hex(),
    }


_FIELDS = ("address", "endpoints", "sequence", "expiresAt", "name", "rpcUrl", "signature")


def parse_record(document: object, domain: Domain) -> PeerRecord:
    """The record of a JSON object, limits and signature checked. Raises InvalidRecord."""
    if not isinstance(document, Mapping) or set(document) != set(_FIELDS):
        raise InvalidRecord(f"a record is an object with exactly the fields {', '.join(_FIELDS)}")
    endpoints = document["endpoints"]
    if not isinstance(endpoints, list) or not all(isinstance(endpoint, str) for endpoint in endpoints):
        raise InvalidRecord("endpoints: expected a list of texts")
    record = PeerRecord(
        address=_bytes(document, "address", 20),
        endpoints=tuple(endpoints),
        sequence=_integer(document, "sequence"),
        expires_at_s=_integer(document, "expiresAt"),
        name=_text(document, "name"),
        rpc_url=_text(document, "rpcUrl"),
        signature=_bytes(document, "signature", SIGNATURE_BYTES),
    )
    verify_record(record, domain)
    return record


def _bytes(document: Mapping[str, object], label: str, length: int) -> bytes:
    text = document[label]
    if isinstance(text, str) and text.startswith("0x") and len(text) == 2 + 2 * length:
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            pass
    raise InvalidRecord(f"{label}: expected 0x and {2 * length} hexadecimal digits")


def _integer(document: Mapping[str, object], label: str) -> int:
    number = document[label]
    if type(number) is not int:
        raise InvalidRecord(f"{label}: expected an integer")
    return number


def _text(document: Mapping[str, object], label: str) -> str:
    text = document[label]
    if not isinstance(text, str):
        raise InvalidRecord(f"{label}: expected text")
    return text
