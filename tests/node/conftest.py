"""What the node's tests share: a network of known keys, and chains on LevelDB in a temporary folder."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from node.chain.domain import Domain
from node.chain.genesis import Genesis
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.certificate import Certificate, seal_digest
from node.consensus.quorum import proposer
from node.ledger import Ledger
from node.leveldb import LevelDB

VALIDATOR_KEYS = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 4)), key=lambda key: key.address)
GATEWAY_KEY = SigningKey(b"\x11" * 32)
RICH_KEY = SigningKey(b"\x12" * 32)
CHAIN_ID = 7770


@pytest.fixture
def genesis() -> Genesis:
    """Three validators, one gateway, one account with a million ether."""
    return Genesis(
        chain_id=CHAIN_ID,
        timestamp=1_700_000_000,
        validators=tuple(key.address for key in VALIDATOR_KEYS),
        gateways=(GATEWAY_KEY.address,),
        alloc={RICH_KEY.address: 10**24},
        anyone_creates_elections=True,
    )


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Callable[[], LevelDB]]:
    """Opens the same LevelDB again and again; one at a time."""
    opened: list[LevelDB] = []

    def open_() -> LevelDB:
        for database in opened:
            database.close()
        opened[:] = [LevelDB(tmp_path / "chain")]
        return opened[0]

    yield open_
    for database in opened:
        database.close()


def transfer(nonce: int, *, key: SigningKey = RICH_KEY, to: bytes = b"\xaa" * 20, value: int = 1) -> Transaction:
    """A signed transfer of `value` wei."""
    return sign_transaction(key, chain_id=CHAIN_ID, nonce=nonce, to=to, gas_limit=21_000, value=value)


def certify(domain: Domain, height: int, block_hash: bytes, round_: int = 0) -> Certificate:
    """A certificate with the seals of all three validators."""
    digest = seal_digest(domain, height, round_, block_hash)
    return Certificate(height, round_, block_hash, tuple(key.sign(digest) for key in VALIDATOR_KEYS))


def extend(ledger: Ledger, database: LevelDB, transactions: list[Transaction]) -> Certificate:
    """Build a block on the head, make it final, and return its certificate."""
    height = ledger.head.number + 1
    miner = proposer(ledger.next_validators, height, 0)
    executed = ledger.build(transactions, miner=miner, timestamp=ledger.head.timestamp + 1).executed
    certificate = certify(ledger.domain, height, executed.block.hash)
    database.write(ledger.writes_of(executed, certificate))
    ledger.advance(executed)
    return certificate


class Writable(Protocol):
    """What takes a block's writes."""

    def write(self, puts: Mapping[bytes, bytes]) -> None: ...


def catch_up(ledger: Ledger, database: Writable, source: Ledger) -> None:
    """Execute what `source` has beyond the ledger's head, and make it final in the ledger's database."""
    for height in range(ledger.head.number + 1, source.head.number + 1):
        block, certificate = source.block(height), source.certificate(height)
        assert block is not None
        assert certificate is not None
        executed = ledger.execute(block)
        database.write(ledger.writes_of(executed, certificate))
        ledger.advance(executed)
