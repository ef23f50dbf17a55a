"""A chain on LevelDB that grows by hand, and the folder of the node that it belongs to."""

import json
from collections.abc import Iterable
from pathlib import Path

from node.chain.contracts import anchors
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import pack_record
from node.chain.contracts.elections import ABI
from node.chain.genesis import Genesis, genesis_document
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction
from node.consensus.certificate import Certificate, seal_digest
from node.consensus.quorum import proposer
from node.ledger import Ledger
from node.leveldb import LevelDB

ELECTION = 9
KEYS = sorted((SigningKey(bytes([seed]) * 32) for seed in (1, 2, 3)), key=lambda key: key.address)
GATEWAY = SigningKey(b"\x11" * 32)


class Chain:
    """Every block has seals of the first `sealers` validators, and transactions of the one gateway."""

    def __init__(self, folder: Path) -> None:
        addresses = tuple(key.address for key in KEYS)
        self.genesis = Genesis(
            chain_id=7, timestamp=1_700_000_000, validators=addresses, gateways=(GATEWAY.address,), alloc={}
        )
        self.folder = folder
        self.database = LevelDB(folder)
        self.ledger = Ledger(self.database, self.genesis)
        self._nonce = 0

    def grow(self, *calls: bytes, sealers: int = 3, to: bytes = ELECTIONS) -> bytes:
        """A block with a transaction for each call; the hash of its first transaction."""
        transactions = []
        for call in calls:
            transactions.append(
                sign_transaction(GATEWAY, chain_id=7, nonce=self._nonce, to=to, gas_limit=5_000_000, value=0, data=call)
            )
            self._nonce += 1
        height = self.ledger.head.number + 1
        miner = proposer(self.ledger.next_validators, height, 0)
        executed = self.ledger.build(transactions, miner=miner, timestamp=self.ledger.head.timestamp + 1).executed
        assert len(executed.block.transactions) == len(calls)
        digest = seal_digest(self.ledger.domain, height, 0, executed.block.hash)
        certificate = Certificate(height, 0, executed.block.hash, tuple(key.sign(digest) for key in KEYS[:sealers]))
        self.database.write(self.ledger.writes_of(executed, certificate))
        self.ledger.advance(executed)
        return transactions[0].hash if transactions else b""

    def create(self, election: int = ELECTION, kinds: int = 1) -> None:
        """A block that creates an election with three options."""
        self.grow(ABI.encode_call("create", election, "Disk", ["a", "b", "c"], kinds, 0, 0, 3600, [], bytes(32)))

    def cast(self, records: Iterable[tuple[bytes, bytes, int]], election: int = ELECTION) -> bytes:
        """A block with one batch of open ballots: nullifier, record id, choice."""
        packed = b"".join(pack_record(voter, record, 0, bytes((choice,))) for voter, record, choice in records)
        return self.grow(ABI.encode_call("castBatch", election, packed))

    def anchor(self, batch_id: bytes, root: bytes) -> bytes:
        """A block with one anchor."""
        return self.grow(anchors.ABI.encode_call("anchor", batch_id, root, 7, "rfc6962-sha256"), to=ANCHORS)

    def write_node_files(self) -> Path:
        """node.toml and genesis.json beside the database; the node's folder."""
        folder = self.folder.parent
        (folder / "genesis.json").write_text(json.dumps(genesis_document(self.genesis)))
        (folder / "node.toml").write_text(f'name = "validator-1"\ndata = "{self.folder.name}"\n')
        return folder


def number(value: int) -> bytes:
    """32 bytes."""
    return value.to_bytes(32, "big")
