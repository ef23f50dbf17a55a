"""The receipt document, version 1, pure: what it holds, and its strict reading and writing as plain JSON values.

A receipt is everything that shows one record to be in a final block, for whoever trusts nothing but the hash of the
network's block 0: the validators from then on with what changed them, the block with its certificate, the log's size
and root proven in the block's state, and the record's place in that log. A log head is the same without a record.
`docs/RECEIPTS.md` describes it field by field; `gateway/schemas/receipt-v1.schema.json` is its JSON Schema.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.records import Anchor, Ballot
from gateway.strictjson import Fields, Malformed, data, loads, quantity
from node.chain.block import Header, decode_header
from node.chain.contracts.elections import KIND_OPEN, KIND_SEALED
from node.chain.errors import InvalidBlock, PeerError
from node.chain.genesis import VALIDATORS_MAX
from node.consensus.certificate import SEALS_MAX, Certificate
from node.consensus.messages import ROUND_MAX

RECEIPT_FORMAT: Final = "psephos-receipt"
HEAD_FORMAT: Final = "psephos-log-head"
VERSION: Final = 1
DOCUMENT_BYTES_MAX = 16 << 20
SETS_MAX = 4_096
PROOF_NODES_MAX = 64
_SAFE_MAX = (1 << 53) - 1  # what every reader of JSON takes for the same number
_KINDS = {"open": KIND_OPEN, "sealed": KIND_SEALED}


class InvalidReceipt(PeerError):
    """A receipt that does not show what it claims. `step` says in a few words which part of it fails."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The sorted validators from the height behind `header` on, whose `extraData` names them.

    `certificate` is why that header is final; None for block 0, which is trusted.
    """

    header: Header
    certificate: Certificate | None
    validators: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SlotProof:
    """A storage slot, its value, and the trie nodes that show it."""

    key: int
    value: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StorageProof:
    """The answer of `eth_getProof` (EIP-1186) for the log's contract: an account and its slots, with trie nodes."""

    address: bytes
    balance: int
    nonce: int
    code_hash: bytes
    storage_hash: bytes
    account_proof: tuple[bytes, ...]
    slots: tuple[SlotProof, ...]


@dataclass(frozen=True, slots=True)
class LogHead:
    """A log's size and root after a final block, with all that shows it. `election` is None for the log of anchors."""

    chain_id: int
    genesis_hash: bytes
    election: int | None
    size: int
    root: bytes
    sets: tuple[ValidatorSet, ...]
    header: Header
    certificate: Certificate
    storage: StorageProof


@dataclass(frozen=True, slots=True)
class Receipt:
    """One record of a log. `record` is None where the document was made without it: `leaf_hash` stands for it."""

    head: LogHead
    index: int
    leaf_hash: bytes
    inclusion_proof: tuple[bytes, ...]
    record: Ballot | Anchor | None


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """The JSON document of a receipt."""
    document = head_document(receipt.head)
    document["format"] = RECEIPT_FORMAT
    document["record"] = None if receipt.record is None else _record_document(receipt.record)
    document["log"] |= {
        "index": receipt.index,
        "leafHash": data(receipt.leaf_hash),
        "inclusionProof": _hexes(receipt.inclusion_proof),
    }
    return document


def head_document(head: LogHead) -> dict[str, Any]:
    """The JSON document of a log head."""
    of: dict[str, Any] = {"of": "anchors"}
    if head.election is not None:
        of = {"of": "ballots", "election": str(head.election)}
    return {
        "format": HEAD_FORMAT,
        "version": VERSION,
        "chainId": head.chain_id,
        "genesisHash": data(head.genesis_hash),
        "log": of | {"size": head.size, "root": data(head.root)},
        "state": _storage_document(head.storage),
        "block": {"header": data(head.header.encoded), "certificate": _certificate_document(head.certificate)},
        "validatorSets": [
            {
                "header": data(one.header.encoded),
                "certificate": None if one.certificate is None else _certificate_document(one.certificate),
                "validators": _hexes(one.validators),
            }
            for one in head.sets
        ],
    }


def without_record(receipt: Receipt) -> Receipt:
    """The receipt without nullifier, record id and content, which still shows that a record with this leaf is there."""
    return Receipt(receipt.head, receipt.index, receipt.leaf_hash, receipt.inclusion_proof, None)


def encode(document: Mapping[str, Any]) -> bytes:
    """A document as a file of text."""
    return json.dumps(document, indent=1).encode() + b"\n"


def parse(document: object) -> Receipt | LogHead:
    """The receipt or log head of a document; a JSON text may be given as bytes. Raises InvalidReceipt.

    Reading is strict: each field once, none missing, none unknown, hexadecimal digits in lower case. So there is one
    way to write a receipt down, but for white space and order, and no part of a file that nothing depends on.
    """
    try:
        if isinstance(document, (bytes, bytearray)):
            document = loads(bytes(document), bytes_max=DOCUMENT_BYTES_MAX)
        fields = Fields(document, "the document")
        format_ = fields.text("format")
        if format_ not in (RECEIPT_FORMAT, HEAD_FORMAT):
            raise Malformed(f"'format' is {format_!r:.60}, expected '{RECEIPT_FORMAT}' or '{HEAD_FORMAT}'")
        version = fields.integer("version", 0, _SAFE_MAX)
        if version != VERSION:
            raise Malformed(f"'version' is {version}; this program reads version {VERSION}")
        log = fields.object("log")
        head = _head(fields, log)
        if format_ == HEAD_FORMAT:
            log.end()
            fields.end()
            return head
        record = fields.optional_object("record")
        receipt = Receipt(
            head,
            log.integer("index", 0, _SAFE_MAX),
            log.data("leafHash", 32),
            tuple(log.data_list("inclusionProof", 0, PROOF_NODES_MAX, 32)),
            None if record is None else _record(record, head.election),
        )
        log.end()
        fields.end()
    except (Malformed, InvalidBlock) as error:
        raise InvalidReceipt("reading the file", str(error)) from None
    return receipt


def _head(fields: Fields, log: Fields) -> LogHead:
    of = log.text("of")
    if of not in ("ballots", "anchors"):
        raise Malformed(f"'log.of' is {of!r:.60}, expected 'ballots' or 'anchors'")
    block = fields.object("block")
    header = decode_header(block.data("header"))
    certificate = _certificate(block.object("certificate"), header)
    block.end()
    return LogHead(
        chain_id=fields.integer("chainId", 1, _SAFE_MAX),
        genesis_hash=fields.data("genesisHash", 32),
        election=log.decimal("election", 256) if of == "ballots" else None,
        size=log.integer("size", 0, _SAFE_MAX),
        root=log.data("root", 32),
        sets=tuple(_set(one) for one in fields.objects("validatorSets", 1, SETS_MAX)),
        header=header,
        certificate=certificate,
        storage=_storage(fields.object("state")),
    )


def _set(fields: Fields) -> ValidatorSet:
    header = decode_header(fields.data("header"))
    certificate = fields.optional_object("certificate")
    found = ValidatorSet(
        header,
        None if certificate is None else _certificate(certificate, header),
        tuple(fields.data_list("validators", 1, VALIDATORS_MAX, 20)),
    )
    fields.end()
    return found


def _certificate(fields: Fields, header: Header) -> Certificate:
    """Height and block hash are not written down: they are those of the header beside it."""
    round_ = fields.integer("round", 0, ROUND_MAX)
    seals = fields.data_list("seals", 1, SEALS_MAX, 65)
    fields.end()
    return Certificate(header.number, round_, header.hash, tuple(seals))


def _storage(fields: Fields) -> StorageProof:
    slots = []
    for one in fields.objects("storageProof", 2, 2):
        slots.append(
            SlotProof(
                int.from_bytes(one.data("key", 32), "big"),
                one.quantity("value"),
                tuple(one.data_list("proof", 0, PROOF_NODES_MAX)),
            )
        )
        one.end()
    found = StorageProof(
        fields.data("address", 20),
        fields.quantity("balance"),
        fields.quantity("nonce"),
        fields.data("codeHash", 32),
        fields.data("storageHash", 32),
        tuple(fields.data_list("accountProof", 0, PROOF_NODES_MAX)),
        tuple(slots),
    )
    fields.end()
    return found


def _record(fields: Fields, election: int | None) -> Ballot | Anchor:
    record: Ballot | Anchor
    if election is None:
        record = Anchor(
            fields.data("batchId", 32),
            fields.data("merkleRoot", 32),
            fields.decimal("leafCount", 64),
            fields.text("algorithm"),
        )
        if not record.algorithm.isascii():
            raise Malformed("'record.algorithm' is not ASCII")
    else:
        kind = fields.text("kind")
        if kind not in _KINDS:
            raise Malformed(f"'record.kind' is {kind!r:.60}, expected 'open' or 'sealed'")
        nullifier, record_id = fields.data("nullifier", 32), fields.data("recordId", 32)
        record = Ballot(election, nullifier, record_id, _KINDS[kind], fields.data("content"))
    fields.end()
    return record


def _record_document(record: Ballot | Anchor) -> dict[str, Any]:
    if isinstance(record, Anchor):
        return {
            "batchId": data(record.batch_id),
            "merkleRoot": data(record.merkle_root),
            "leafCount": str(record.leaf_count),
            "algorithm": record.algorithm,
        }
    return {
        "nullifier": data(record.nullifier),
        "recordId": data(record.record_id),
        "kind": "open" if record.kind == KIND_OPEN else "sealed",
        "content": data(record.content),
    }


def _certificate_document(certificate: Certificate) -> dict[str, Any]:
    return {"round": certificate.round, "seals": _hexes(certificate.seals)}


def _storage_document(storage: StorageProof) -> dict[str, Any]:
    return {
        "address": data(storage.address),
        "balance": quantity(storage.balance),
        "nonce": quantity(storage.nonce),
        "codeHash": data(storage.code_hash),
        "storageHash": data(storage.storage_hash),
        "accountProof": _hexes(storage.account_proof),
        "storageProof": [
            {"key": data(slot.key.to_bytes(32, "big")), "value": quantity(slot.value), "proof": _hexes(slot.proof)}
            for slot in storage.slots
        ],
    }


def _hexes(items: Sequence[bytes]) -> list[str]:
    return [data(item) for item in items]
