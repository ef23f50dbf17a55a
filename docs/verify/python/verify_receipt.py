"""Checks a Psephos receipt with nothing of ours: eth-account for keccak and secp256k1, rlp, and trie for the state.

    pip install eth-account rlp trie
    python verify_receipt.py receipt.json 0xGENESIS_HASH [0xCHECKPOINT_HASH]

GENESIS_HASH is all that you trust: take it from where the network's operators publish it, not from the receipt.
A quorum of any past set of validators could forge what comes after it. If you know the hash of a block from elsewhere
(a newspaper, another chain), name it as the checkpoint: then that cannot happen before that block.
"""

import json
import sys
from hashlib import sha256
from typing import Any

import rlp
from eth_account import Account
from eth_utils import keccak
from trie import HexaryTrie


def must(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"the receipt does not hold: {what}")


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def proven(root: bytes, key: bytes, proof: list[str]) -> bytes:
    """The value of a key of a secure trie, b"" where it is absent."""
    return bytes(HexaryTrie.get_from_proof(root, keccak(key), [rlp.decode(raw(node)) for node in proof]))


class Header:
    """A London header: its hash is the keccak of all sixteen fields; extraData commits to the next validators."""

    def __init__(self, encoded: str) -> None:
        fields = rlp.decode(raw(encoded))
        must(len(fields) == 16, "a header has sixteen fields")
        self.hash = keccak(raw(encoded))
        self.miner, self.state_root, self.number, self.extra_data = fields[2], fields[3], number(fields[8]), fields[12]


def check_seals(
    header: Header, certificate: dict[str, Any], validators: list[bytes], chain_id: int, genesis: bytes
) -> None:
    """A block is final when a quorum of the validators of its height has signed its hash."""
    round_, count = certificate["round"], len(validators)
    statement = rlp.encode([3, chain_id, genesis, header.number, round_, header.hash])
    digest = keccak(b"\x19psephos" + statement)
    signers = set()
    for seal in map(raw, certificate["seals"]):
        must(len(seal) == 65 and seal[64] < 2, "a seal is r, s and the parity of y")
        signers.add(raw(Account._recover_hash(digest, signature=seal[:64] + bytes([seal[64] + 27]))))
    must(len(signers) == len(certificate["seals"]), f"a validator sealed block {header.number} twice")
    must(signers <= set(validators), f"a stranger sealed block {header.number}")
    must(3 * len(signers) >= 2 * count, f"block {header.number} has {len(signers)} seals of {count} validators")
    turn = (validators.index(header.miner) - header.number) % count if header.miner in validators else round_ + 1
    must(turn <= round_, f"the miner of block {header.number} was no proposer")


def check_block(receipt: dict[str, Any], genesis: bytes, checkpoint: str | None) -> Header:
    """From block 0, which is trusted, over every change of the validators, to the receipt's block."""
    must(receipt["format"] == "psephos-receipt" and receipt["version"] == 1, "this is no receipt of version 1")
    must(raw(receipt["genesisHash"]) == genesis, "it belongs to another network")
    block = Header(receipt["block"]["header"])
    validators: list[bytes] = []
    height, named = -1, [block.hash]
    for one in receipt["validatorSets"]:
        header = Header(one["header"])
        must(height < header.number < block.number, "the sets of validators are out of order")
        if height < 0:
            must(header.hash == genesis, "the first header is not that of block 0")
        else:
            check_seals(header, one["certificate"], validators, receipt["chainId"], genesis)
        validators = [raw(address) for address in one["validators"]]
        must(all(len(address) == 20 for address in validators), "an address has 20 bytes")
        must(keccak(b"".join(validators)) == header.extra_data, f"block {header.number} names other validators")
        height = header.number
        named.append(header.hash)
    check_seals(block, receipt["block"]["certificate"], validators, receipt["chainId"], genesis)
    must(checkpoint is None or raw(checkpoint) in named, "nothing ties it to the checkpoint")
    return block


def check_log(receipt: dict[str, Any], block: Header) -> None:
    """The log's size and root are in two storage slots of its contract, in the state of the block."""
    log, state = receipt["log"], receipt["state"]
    anchors = log["of"] == "anchors"
    contract = b"psephos" + bytes(12) + (b"\x02" if anchors else b"\x01")
    base = 0 if anchors else number(keccak(word(int(log["election"])) + word(1)))
    storage_root = rlp.decode(proven(block.state_root, contract, state["accountProof"]))[2]
    for offset, expected in enumerate((log["size"], number(raw(log["root"])))):
        value = proven(storage_root, word(base + offset), state["storageProof"][offset]["proof"])
        must((number(rlp.decode(value)) if value else 0) == expected, "size or root are not those of the state")


def check_inclusion(log: dict[str, Any]) -> None:
    """The entry is in the log (RFC 9162, 2.1.3.2)."""
    fn, sn, digest = log["index"], log["size"] - 1, raw(log["leafHash"])
    must(fn <= sn and len(digest) == 32, "the index is outside the log")
    for sibling in map(raw, log["inclusionProof"]):
        must(sn > 0 and len(sibling) == 32, "the inclusion proof is too long")
        if fn % 2 or fn == sn:
            digest = sha256(b"\x01" + sibling + digest).digest()
            while fn % 2 == 0 and fn:
                fn, sn = fn // 2, sn // 2
        else:
            digest = sha256(b"\x01" + digest + sibling).digest()
        fn, sn = fn // 2, sn // 2
    must(sn == 0 and digest == raw(log["root"]), "the inclusion proof does not lead to the root")


def leaf(receipt: dict[str, Any]) -> bytes:
    """The data of the record's leaf."""
    log, record = receipt["log"], receipt["record"]
    if log["of"] == "anchors":
        text = record["algorithm"].encode()
        parts = [
            b"\x02",
            raw(record["batchId"]),
            raw(record["merkleRoot"]),
            int(record["leafCount"]).to_bytes(8, "big"),
        ]
    else:
        text = raw(record["content"])
        kind = b"\x00" if record["kind"] == "open" else b"\x01"
        parts = [b"\x01", word(int(log["election"])), raw(record["nullifier"]), raw(record["recordId"]), kind]
    head = b"\x01" + receipt["chainId"].to_bytes(8, "big") + raw(receipt["genesisHash"])
    return head + b"".join(parts) + len(text).to_bytes(4, "big") + text


def main(file: str, genesis_hash: str, checkpoint: str | None = None) -> None:
    with open(file, encoding="utf-8") as opened:
        receipt = json.load(opened)
    block = check_block(receipt, raw(genesis_hash), checkpoint)
    print(f"block {block.number} is final: 0x{block.hash.hex()}")
    check_log(receipt, block)
    log = receipt["log"]
    print(f"the log of {log.get('election', 'anchors')} has {log['size']} entries, root {log['root']}")
    check_inclusion(log)
    print(f"entry {log['index']} of it has the leaf hash {log['leafHash']}")
    if receipt["record"] is not None:
        must(sha256(b"\x00" + leaf(receipt)).digest() == raw(log["leafHash"]), "the record is not that entry")
        print(f"that entry is this record: {json.dumps(receipt['record'])}")
    print("the receipt holds")


if __name__ == "__main__":
    main(*sys.argv[1:])
