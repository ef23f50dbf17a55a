"""The way into the mempool: an outcome for each raw transaction, in order; what is known costs no signature."""

from collections.abc import Callable, Sequence

import pytest

from node.chain.errors import InvalidTransaction
from node.chain.genesis import Genesis
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.intake import GarbledTransaction, Intake
from node.ledger import Ledger
from node.leveldb import LevelDB
from tests.node.conftest import CHAIN_ID, RICH_KEY, extend, transfer


class Recorder:
    def __init__(self) -> None:
        self.recovered: list[bytes] = []
        self.added: list[tuple[list[bytes], bool]] = []

    async def recover(self, transactions: Sequence[Transaction]) -> None:
        self.recovered += [transaction.hash for transaction in transactions]

    def on_added(self, transactions: list[Transaction], from_client: bool) -> None:
        self.added.append(([transaction.hash for transaction in transactions], from_client))


@pytest.fixture
def database(open_database: Callable[[], LevelDB]) -> LevelDB:
    return open_database()


@pytest.fixture
def ledger(database: LevelDB, genesis: Genesis) -> Ledger:
    return Ledger(database, genesis)


def make(ledger: Ledger) -> tuple[Intake, Mempool, Recorder]:
    recorder = Recorder()
    mempool = Mempool(MempoolLimits(), chain_id=CHAIN_ID, gas_max=ledger.genesis.gas_limit // 2)
    return Intake(ledger, mempool, recorder.recover, recorder.on_added), mempool, recorder


@pytest.mark.parametrize(
    "bad", [b"\x05", transfer(0).raw[:-1], transfer(0).raw[:-66] + b"\xa0" + b"\xff" * 32 + transfer(0).raw[-33:]]
)
async def test_a_peer_pays_for_what_is_no_transaction(ledger: Ledger, bad: bytes) -> None:
    intake, mempool, _ = make(ledger)
    with pytest.raises(GarbledTransaction):
        await intake.submit([transfer(0).raw, bad, transfer(1).raw], from_client=False)
    assert [transfer(nonce).hash in mempool for nonce in (0, 1)] == [True, True]
    await intake.submit([bad], from_client=True)
    poor = transfer(0, key=SigningKey(b"\x77" * 32))
    await intake.submit([transfer(0).raw, poor.raw, transfer(9).raw], from_client=False)  # known, poor, early: no fault


async def test_outcomes_keep_their_order(ledger: Ledger) -> None:
    intake, mempool, recorder = make(ledger)
    good, poor = transfer(0), transfer(0, key=SigningKey(b"\x77" * 32))
    other_chain = sign_transaction(RICH_KEY, chain_id=1, nonce=1, to=bytes(20), gas_limit=21_000)
    outcomes = await intake.submit(
        [b"", good.raw, poor.raw, b"\x05", other_chain.raw, transfer(1).raw], from_client=True
    )
    texts = [outcome if isinstance(outcome, bytes) else str(outcome) for outcome in outcomes]
    assert texts[1] == good.hash
    assert texts[5] == transfer(1).hash
    assert "too short" in str(texts[0])
    assert "insufficient funds" in str(texts[2])
    assert "type not supported" in str(texts[3])
    assert "invalid chain id" in str(texts[4])
    assert recorder.added == [([good.hash, transfer(1).hash], True)]
    assert len(mempool) == 2


async def test_what_is_known_is_not_recovered_again(ledger: Ledger) -> None:
    intake, _, recorder = make(ledger)
    raw = transfer(0).raw
    await intake.submit([raw], from_client=True)
    [again] = await intake.submit([raw], from_client=False)
    assert isinstance(again, InvalidTransaction)
    assert again.reason == "already known"
    assert recorder.recovered == [transfer(0).hash]
    assert len(recorder.added) == 1


async def test_the_state_is_that_of_the_head(ledger: Ledger, database: LevelDB) -> None:
    intake, _, _ = make(ledger)
    assert intake.state().nonce(RICH_KEY.address) == 0
    assert intake.state() is intake.state()
    extend(ledger, database, [transfer(0)])
    assert intake.state().nonce(RICH_KEY.address) == 1
    [outcome] = await intake.submit([transfer(0, value=2).raw], from_client=True)
    assert isinstance(outcome, InvalidTransaction)
    assert outcome.reason == "nonce too low"


async def test_senders_are_not_remembered_without_bound_while_no_block_comes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.intake.STATE_USES_MAX", 3)
    intake, mempool, _ = make(ledger)
    first = intake.state()
    for number in range(1, 5):
        assert intake.state() is first
        await intake.submit([transfer(0, key=SigningKey(bytes([number]) * 32)).raw], from_client=True)
    assert intake.state() is not first
    assert intake.state().nonce(RICH_KEY.address) == first.nonce(RICH_KEY.address)
    assert len(mempool) == 0
