"""Reads a network from outside, with other people's codecs: header hashes, ballots of a log, a recount from blocks."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import rlp
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from tests.e2e.harness import ROOT, Cluster

ELECTIONS = "0x" + (b"psephos" + bytes(12) + b"\x01").hex()
ABI_FILES = ROOT / "node" / "chain" / "contracts" / "abi"
CAST, CAST_BATCH = (
    keccak(text=text)[:4]
    for text in ("cast(uint256,bytes32,bytes32,uint8,bytes)", "castBatch(uint256,bytes)")
)
HEADER_FIELDS = (
    ("parentHash", False),
    ("sha3Uncles", False),
    ("miner", False),
    ("stateRoot", False),
    ("transactionsRoot", False),
    ("receiptsRoot", False),
    ("logsBloom", False),
    ("difficulty", True),
    ("number", True),
    ("gasLimit", True),
    ("gasUsed", True),
    ("timestamp", True),
    ("extraData", False),
    ("mixHash", False),
    ("nonce", False),
    ("baseFeePerGas", True),
)
BALLOT = "(uint256,bytes32,bytes32,uint8,bytes,uint64)"

# nullifier, record id, kind, content
Record = tuple[bytes, bytes, int, bytes]


def abi(name: str) -> list[dict[str, Any]]:
    """A contract's ABI, from the file that ships with the package."""
    document: list[dict[str, Any]] = json.loads((Path(ABI_FILES) / f"{name}.json").read_text())
    return document


def header_hash(block: dict[str, Any]) -> str:
    """keccak256(rlp(header)) of London's sixteen fields, from eth_getBlockByNumber's answer."""
    fields = []
    for name, is_number in HEADER_FIELDS:
        text = block[name]
        if is_number:
            number = int(text, 16)
            fields.append(number.to_bytes((number.bit_length() + 7) // 8, "big"))
        else:
            fields.append(bytes.fromhex(text[2:]))
    return "0x" + keccak(rlp.encode(fields)).hex()


def view(cluster: Cluster, number: int, signature: str, results: list[str], *arguments: Any, at: str = "latest") -> Any:
    """Call a view of the Elections contract at one validator."""
    types = [text for text in signature[signature.index("(") + 1 : -1].split(",") if text]
    data = keccak(text=signature)[:4] + encode(types, list(arguments))
    output = cluster.call(number, "eth_call", {"to": ELECTIONS, "data": "0x" + data.hex()}, at)
    return decode(results, bytes.fromhex(output[2:]))


def ballots_in_log(cluster: Cluster, number: int, election: int) -> list[Record]:
    """Every ballot in the log of one validator, in order."""
    size, _root = view(cluster, number, "log(uint256)", ["uint256", "bytes32"], election)
    found: list[Record] = []
    while len(found) < size:
        signature = "ballots(uint256,uint256,uint256)"
        (page,) = view(cluster, number, signature, [f"{BALLOT}[]"], election, len(found), 500)
        assert page, f"the log has {size} ballots and gives none after {len(found)}"
        for index, nullifier, record_id, kind, content, _height in page:
            assert index == len(found)
            found.append((nullifier, record_id, kind, content))
    return found


def unpack(packed: bytes) -> list[Record]:
    """The records of a castBatch: nullifier ‖ record id ‖ kind ‖ length (u32) ‖ content."""
    records, position = [], 0
    while position < len(packed):
        length = int.from_bytes(packed[position + 65 : position + 69], "big")
        nullifier, record_id = packed[position : position + 32], packed[position + 32 : position + 64]
        content = packed[position + 69 : position + 69 + length]
        records.append((nullifier, record_id, packed[position + 64], content))
        position += 69 + length
    return records


def recount(
    cluster: Cluster, number: int, election: int, options: int, up_to: int
) -> tuple[dict[bytes, Record], list[int], list[str]]:
    """Count an election anew from the transactions of all blocks; also checks every header's hash and its parent's.

    Returns the ballots that count by nullifier, the count of each option, and the hash of each block. Written from the
    rules alone: the first valid ballot of a nullifier counts, a record id belongs to one nullifier.
    """
    by_nullifier: dict[bytes, Record] = {}
    record_ids: set[bytes] = set()
    hashes: list[str] = []
    for height in range(up_to + 1):
        block = cluster.call(number, "eth_getBlockByNumber", hex(height), True)
        assert header_hash(block) == block["hash"], f"validator {number}, height {height}"
        assert not hashes or block["parentHash"] == hashes[-1]
        hashes.append(block["hash"])
        for transaction in block["transactions"]:
            if transaction["to"] is None or transaction["to"].lower() != ELECTIONS:
                continue
            for record in _cast(bytes.fromhex(transaction["input"][2:]), election):
                nullifier, record_id, kind, content = record
                fits = kind == 0 and len(content) == 1 and content[0] < options
                if fits and nullifier not in by_nullifier and record_id not in record_ids:
                    by_nullifier[nullifier] = record
                    record_ids.add(record_id)
    counts = Counter(content[0] for _n, _r, _kind, content in by_nullifier.values())
    return by_nullifier, [counts[option] for option in range(options)], hashes


def _cast(data: bytes, election: int) -> list[Record]:
    if data[:4] == CAST_BATCH:
        cast_in, packed = decode(["uint256", "bytes"], data[4:])
        return unpack(packed) if cast_in == election else []
    if data[:4] == CAST:
        cast_in, *record = decode(["uint256", "bytes32", "bytes32", "uint8", "bytes"], data[4:])
        return [(record[0], record[1], record[2], record[3])] if cast_in == election else []
    return []
