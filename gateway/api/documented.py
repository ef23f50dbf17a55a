"""The documentation of routes that `logs` and `trees` add themselves."""

from gateway.api import logs, trees
from gateway.api.anchors import BATCH_PATH
from gateway.api.operations import Operation, Parameter, Reply
from gateway.api.votes import ELECTION_QUERY

_HEX: dict[str, object] = {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}
_NUMBER: dict[str, object] = {"type": "integer", "minimum": 0}
_H = "0x3f1c9a1f6d0e4f5b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a"
_LOG = Parameter(
    "log",
    {"type": "string", "pattern": "^(anchors|[0-9]{1,78})$"},
    "anchors",
    "`anchors`, or an election's id",
    required=True,
    where="path",
)


def _schema(**members: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": members, "required": list(members)}


def _number(name: str, text: str, *, required: bool = False) -> Parameter:
    return Parameter(name, {"type": "integer", "minimum": 0, "maximum": 10**16 - 1}, 0, text, required=required)


_HASHES: dict[str, object] = {"type": "array", "items": _HEX}
_TEXT: dict[str, object] = {"type": "string"}
_INCLUSION = _schema(log=_TEXT, index=_NUMBER, size=_NUMBER, leaf_hash=_HEX, proof=_HASHES, root=_HEX)
_SIZES: dict[str, dict[str, object]] = {"from": _NUMBER, "to": _NUMBER}
_CONSISTENCY = _schema(log=_TEXT, **_SIZES, proof=_HASHES, from_root=_HEX, to_root=_HEX)
_LEAVES = _schema(log=_TEXT, size=_NUMBER, leaves={"type": "array", "items": {"type": "object"}})
_DOCUMENT = _schema(format=_TEXT, version=_NUMBER, chainId=_NUMBER, genesisHash=_HEX)
_SHORT = {"version": 1, "chainId": 7770, "genesisHash": _H, "log": {"of": "anchors", "size": 42, "root": _H}}
_CHECKPOINT = Parameter("checkpoint", _HEX, _H, "the hash of a later block that the reader trusts")
_PENDING = Reply(_schema(status=_TEXT), "It is not final yet: ask again.", example={"status": "pending"})
_RECEIPT = Reply(
    _DOCUMENT, "The receipt: see docs/RECEIPTS.md (shortened here).", example={"format": "psephos-receipt"} | _SHORT
)

_BARE = _H[2:]
_OPTIONAL_TEXT: dict[str, object] = {"type": ["string", "null"]}
_BOOLEAN: dict[str, object] = {"type": "boolean"}
_LIST: dict[str, object] = {"type": "array"}
_BUILT = _schema(
    merkle_root=_TEXT,
    algorithm=_TEXT,
    safe=_BOOLEAN,
    warning=_OPTIONAL_TEXT,
    product_count=_NUMBER,
    matches={"type": ["boolean", "null"]},
    leaf_hashes=_LIST,
    proofs={"type": ["array", "null"]},
)
_BUILT_EXAMPLE = {
    "merkle_root": _BARE,
    "algorithm": "rfc6962-sha256",
    "safe": True,
    "warning": None,
    "product_count": 2,
    "matches": None,
    "leaf_hashes": [_BARE, _BARE],
    "proofs": [[{"hash": _BARE, "position": "right"}], [{"hash": _BARE, "position": "left"}]],
}
_VERIFIED = _schema(
    valid=_BOOLEAN,
    reason=_OPTIONAL_TEXT,
    algorithm=_TEXT,
    safe=_BOOLEAN,
    warning=_OPTIONAL_TEXT,
    leaf_hash=_OPTIONAL_TEXT,
    computed_root=_OPTIONAL_TEXT,
    checked=_LIST,
)
_VERIFIED_EXAMPLE = {
    "valid": True,
    "reason": None,
    "algorithm": "rfc6962-sha256",
    "safe": True,
    "warning": None,
    "leaf_hash": _BARE,
    "computed_root": _BARE,
    "checked": ["the proof leads from the leaf to the root"],
}

OPERATIONS = (
    Operation(
        "GET",
        "/log/{log}/head",
        logs.head,
        "read",
        "logs",
        {200: Reply(_DOCUMENT, "The log's head (shortened here).", example={"format": "psephos-log-head"} | _SHORT)},
        (404, 422, 503),
        parameters=(_LOG,),
    ),
    Operation(
        "GET",
        "/log/{log}/proof/inclusion",
        logs.inclusion,
        "read",
        "logs",
        {
            200: Reply(
                _INCLUSION,
                "The proof.",
                example={"log": "anchors", "index": 0, "size": 2, "leaf_hash": _H, "proof": [_H], "root": _H},
            )
        },
        (400, 404, 422, 503),
        parameters=(
            _LOG,
            _number("index", "the entry", required=True),
            _number("size", "of the log"),
        ),
    ),
    Operation(
        "GET",
        "/log/{log}/proof/consistency",
        logs.consistency,
        "read",
        "logs",
        {
            200: Reply(
                _CONSISTENCY,
                "The proof.",
                example={"log": "anchors", "from": 1, "to": 2, "proof": [_H], "from_root": _H, "to_root": _H},
            )
        },
        (400, 404, 422, 503),
        parameters=(_LOG, _number("from", "the old size", required=True), _number("to", "the new size")),
    ),
    Operation(
        "GET",
        "/log/{log}/leaves",
        logs.leaves,
        "read",
        "logs",
        {
            200: Reply(
                _LEAVES,
                "Leaves; fewer than were asked for where there are no more, or they are large.",
                example={"log": "anchors", "size": 1, "leaves": [{"index": 0, "block_number": 7, "leaf": "0x01"}]},
            )
        },
        (400, 404, 422, 503),
        parameters=(_LOG, _number("from", "the first", required=True), _number("count", "how many at most")),
    ),
    Operation(
        "GET",
        "/api/votes/receipt",
        logs.ballot_receipt,
        "read",
        "logs",
        {200: _RECEIPT, 202: _PENDING},
        (400, 404, 409, 422, 503),
        parameters=(
            ELECTION_QUERY,
            Parameter(
                "transaction_id", {"type": "string", "minLength": 1, "maxLength": 256}, "tx-1", "the caller's own id"
            ),
            Parameter("transaction_hash", _HEX, _H, "or the hash of the chain transaction, and"),
            _number("ballot_index", "the ballot's place in the log"),
            Parameter("choice", {"type": "string", "maxLength": 256}, "0", "what was chosen, to have it shown"),
            _CHECKPOINT,
        ),
    ),
    Operation(
        "GET",
        "/v1/anchor/{batch_id}/receipt",
        logs.anchor_receipt,
        "read",
        "logs",
        {200: _RECEIPT, 202: _PENDING},
        (404, 422, 503),
        parameters=(BATCH_PATH, _CHECKPOINT),
    ),
    Operation(
        "POST",
        "/v1/merkle/build",
        trees.build,
        "anchor",
        "anchors",
        {200: Reply(_BUILT, "Root and proofs.", example=_BUILT_EXAMPLE)},
        (400, 408, 413, 422),
        trees.BuildBody,
        {"leaves": ["product-1", "product-2"], "algorithm": "rfc6962-sha256"},
    ),
    Operation(
        "POST",
        "/v1/verify/proof",
        trees.verify_proof,
        "read",
        "anchors",
        {200: Reply(_VERIFIED, "Whether the leaf is in the tree, and why not.", example=_VERIFIED_EXAMPLE)},
        (400, 408, 413, 422, 503),
        trees.ProofBody,
        {"product_id": "product-1", "index": 0, "tree_size": 1, "proof": [], "root": _BARE},
    ),
)
