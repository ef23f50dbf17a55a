"""The kinds of results: JSON schemas of what the methods answer, for the document that describes them."""

from typing import Final

from node.rpc.methods import JsonSchema, Kind
from node.rpc.params import ADDRESS, BOOLEAN, DATA, HASH, QUANTITY

STRING: Final = Kind({"type": "string"})
HASHES: Final = Kind({"type": "array", "items": HASH.schema})


def nullable(kind: Kind) -> Kind:
    """The kind, or null where there is no such thing."""
    return Kind({"oneOf": [kind.schema, {"type": "null"}]})


def list_of(kind: Kind) -> Kind:
    """An array of a kind."""
    return Kind({"type": "array", "items": kind.schema})


def record(title: str, **fields: Kind) -> Kind:
    """An object of which every named field is there."""
    properties: JsonSchema = {name: kind.schema for name, kind in fields.items()}
    return Kind({"type": "object", "title": title, "required": list(fields), "properties": properties})


EVENT_LOG: Final = record(
    "event log",
    address=ADDRESS,
    topics=HASHES,
    data=DATA,
    blockNumber=QUANTITY,
    blockHash=HASH,
    blockTimestamp=QUANTITY,
    transactionHash=HASH,
    transactionIndex=QUANTITY,
    logIndex=QUANTITY,
    removed=BOOLEAN,
)
TRANSACTION: Final = record(
    "transaction",
    blockHash=nullable(HASH),
    blockNumber=nullable(QUANTITY),
    transactionIndex=nullable(QUANTITY),
    hash=HASH,
    type=QUANTITY,
    **{"from": ADDRESS},
    to=nullable(ADDRESS),
    nonce=QUANTITY,
    value=QUANTITY,
    gas=QUANTITY,
    gasPrice=QUANTITY,
    input=DATA,
    chainId=QUANTITY,
    v=QUANTITY,
    r=QUANTITY,
    s=QUANTITY,
)
RECEIPT: Final = record(
    "receipt",
    transactionHash=HASH,
    transactionIndex=QUANTITY,
    blockHash=HASH,
    blockNumber=QUANTITY,
    **{"from": ADDRESS},
    to=nullable(ADDRESS),
    type=QUANTITY,
    status=QUANTITY,
    cumulativeGasUsed=QUANTITY,
    gasUsed=QUANTITY,
    effectiveGasPrice=QUANTITY,
    contractAddress=nullable(ADDRESS),
    logsBloom=DATA,
    logs=list_of(EVENT_LOG),
)
_HEADER: Final = {
    "hash": nullable(HASH),
    "parentHash": HASH,
    "sha3Uncles": HASH,
    "miner": nullable(ADDRESS),
    "stateRoot": HASH,
    "transactionsRoot": HASH,
    "receiptsRoot": HASH,
    "logsBloom": DATA,
    "difficulty": QUANTITY,
    "number": QUANTITY,
    "gasLimit": QUANTITY,
    "gasUsed": QUANTITY,
    "timestamp": QUANTITY,
    "extraData": DATA,
    "mixHash": HASH,
    "nonce": nullable(DATA),
    "baseFeePerGas": QUANTITY,
}
HEADER: Final = record("header", **_HEADER)
BLOCK_VIEW: Final = record(
    "block",
    **_HEADER,
    size=QUANTITY,
    transactions=Kind({"type": "array", "items": {"oneOf": [HASH.schema, TRANSACTION.schema]}}),
    uncles=HASHES,
)
PROGRESS: Final = record("progress", startingBlock=QUANTITY, currentBlock=QUANTITY, highestBlock=QUANTITY)
