"""No nullifier, record id or batch id is used twice: over runs, restarts, rival blocks, lost writes and past states."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from node.chain import execution, keyspace
from node.chain.contracts import anchors
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import Outcome, pack_record
from node.chain.contracts.elections import ABI
from node.chain.genesis import Genesis
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.quorum import proposer
from node.ledger import Ledger
from node.leveldb import LevelDB
from tests.node.conftest import CHAIN_ID, GATEWAY_KEY, catch_up, certify

ELECTION = 5
GAS = 5_000_000
BLOCKS = 30
Ballot = tuple[bytes, bytes, int]  # nullifier, record id, option


class Expected:
    """The rules in a few lines: what stands, and what becomes of more."""

    def __init__(self) -> None:
        self.options: dict[bytes, int] = {}  # by nullifier
        self.record_ids: set[bytes] = set()

    def judge(self, ballot: Ballot) -> Outcome:
        nullifier, record_id, option = ballot
        if nullifier in self.options:
            return Outcome.REPEATED if self.options[nullifier] == option else Outcome.NULLIFIER_USED
        return Outcome.RECORD_ID_TAKEN if record_id in self.record_ids else Outcome.ACCEPTED

    def cast(self, ballot: Ballot) -> Outcome:
        outcome = self.judge(ballot)
        if outcome is Outcome.ACCEPTED:
            self.options[ballot[0]] = ballot[2]
            self.record_ids.add(ballot[1])
        return outcome

    def copy(self) -> "Expected":
        other = Expected()
        other.options, other.record_ids = dict(self.options), set(self.record_ids)
        return other


class Life:
    """A node that builds, restarts, and loses what it had not written yet."""

    def __init__(self, path: Path, genesis: Genesis, random: Random) -> None:
        self.path, self.genesis, self.random = path, genesis, random
        self.run_keys = random.choice((1, 7, 30))
        self.database = LevelDB(path)
        self.filling: Iterator[None] = iter(())
        self.ledger = Ledger(self.database, genesis, run_keys=self.run_keys)
        self.pool = [random.randbytes(32) for _ in range(150)]

    def restart(self) -> None:
        self.database.close()
        self.database = LevelDB(self.path)
        self.ledger = Ledger(self.database, self.genesis, run_keys=self.run_keys)
        self.filling = self.ledger.warm()

    def ballots(self) -> list[Ballot]:
        random = self.random
        count = random.choice((1, 5, 12))
        return [(random.choice(self.pool), random.choice(self.pool), random.randrange(2)) for _ in range(count)]

    def sign(self, ahead: int, to: bytes, data: bytes) -> Transaction:
        nonce = self.ledger.state().nonce(GATEWAY_KEY.address) + ahead
        return sign_transaction(GATEWAY_KEY, chain_id=CHAIN_ID, nonce=nonce, to=to, gas_limit=GAS, data=data)

    def make_final(self, transactions: list[Transaction], *, lost: bool = False) -> None:
        ledger, height = self.ledger, self.ledger.head.number + 1
        miner = proposer(ledger.next_validators, height, 0)
        executed = ledger.build(transactions, miner=miner, timestamp=ledger.head.timestamp + 1).executed
        writes = ledger.writes_of(executed, certify(ledger.domain, height, executed.block.hash))
        if lost:
            self.restart()
            return
        self.database.write(writes)
        if self.random.random() < 0.1:  # killed before the memory knows what is on the disk
            self.restart()
        else:
            ledger.advance(executed)

    def call(self, height: int, to: bytes, data: bytes) -> bool:
        header = self.ledger.header(height)
        assert header is not None
        return execution.call(
            self.ledger, header, sender=GATEWAY_KEY.address, to=to, data=data, gas=GAS, genesis=self.genesis,
            domain=self.ledger.domain,
        ).succeeded  # fmt: skip


def batch_of(ballots: list[Ballot]) -> bytes:
    records = [pack_record(nullifier, record_id, 0, bytes((option,))) for nullifier, record_id, option in ballots]
    return ABI.encode_call("castBatch", ELECTION, b"".join(records))


def cast_of(ballot: Ballot) -> bytes:
    return ABI.encode_call("cast", ELECTION, ballot[0], ballot[1], 0, bytes((ballot[2],)))


def anchor_of(batch_id: bytes) -> bytes:
    return anchors.ABI.encode_call("anchor", batch_id, batch_id[::-1], 3, "")


@pytest.mark.parametrize("seed", range(6))
def test_no_id_is_used_twice(tmp_path: Path, genesis: Genesis, seed: int) -> None:
    random = Random(seed)
    life = Life(tmp_path / "chain", genesis, random)
    creation = ABI.encode_call("create", ELECTION, "Ids", ["a", "b"], 1, 0, 0, 0, [], bytes(32))
    life.make_final([life.sign(0, ELECTIONS, creation)])
    expected, anchored = Expected(), set[bytes]()
    past: list[tuple[Expected, set[bytes]]] = []
    while len(past) < BLOCKS:
        if random.random() < 0.2:
            life.make_final([life.sign(0, ELECTIONS, batch_of(life.ballots()))], lost=True)
        life.ledger.build(  # a rival, which no round decides for
            [life.sign(0, ELECTIONS, batch_of(life.ballots()))], miner=bytes(20), timestamp=life.ledger.head.timestamp
        )
        batches = [life.ballots() for _ in range(3)]
        single = (random.choice(life.pool), random.choice(life.pool), random.randrange(2))
        batch_id = random.choice(life.pool)
        transactions = [life.sign(ahead, ELECTIONS, batch_of(ballots)) for ahead, ballots in enumerate(batches)]
        transactions += [life.sign(3, ELECTIONS, cast_of(single)), life.sign(4, ANCHORS, anchor_of(batch_id))]
        life.make_final(transactions)
        receipts = life.ledger.receipts(life.ledger.head.number)
        assert receipts is not None
        for ballots, receipt in zip(batches, receipts, strict=False):
            outcomes = receipt.event_logs[0].data[4 * 32 :][: len(ballots)]
            assert list(outcomes) == [expected.cast(ballot) for ballot in ballots]
        assert receipts[3].succeeded == (expected.cast(single) is Outcome.ACCEPTED)
        assert receipts[4].succeeded == (batch_id not in anchored)
        anchored.add(batch_id)
        past.append((expected.copy(), set(anchored)))
        next(life.filling, None)
        height = random.randrange(len(past))
        then, anchored_then = past[height]
        for id_ in random.sample(life.pool, 5):
            ballot = (id_, random.choice(life.pool), 0)
            assert life.call(height + 2, ELECTIONS, cast_of(ballot)) == (then.judge(ballot) is Outcome.ACCEPTED)
            assert life.call(height + 2, ANCHORS, anchor_of(id_)) == (id_ not in anchored_then)
    assert len(list(life.database.scan(keyspace.ID_RUN, keyspace.BLOCK))) > 3, "several runs were made"
    assert _same_as_in_one_go(life, tmp_path / "again")
    life.database.close()


def _same_as_in_one_go(life: Life, path: Path) -> bool:
    """Whether a node that fetches this chain, and never restarts, has the same database in the end."""
    database = LevelDB(path)
    ledger = Ledger(database, life.genesis, run_keys=life.run_keys)
    catch_up(ledger, database, life.ledger)
    ends = b"", b"\xff"
    same = list(database.scan(*ends)) == list(life.database.scan(*ends))
    database.close()
    return same
