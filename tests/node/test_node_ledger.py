"""The ledger on LevelDB: what was final is there after a restart, all of it or none."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from node import store
from node.chain import keyspace
from node.chain.block import Block
from node.chain.contracts.addresses import VALIDATORS as VALIDATORS_CONTRACT
from node.chain.contracts.members import current_validators
from node.chain.errors import InvalidBlock, LedgerError
from node.chain.genesis import Genesis, build_genesis
from node.chain.signing import SigningKey
from node.chain.state import State
from node.consensus.evidence import Evidence
from node.consensus.messages import Kind, SignedStatement, Statement
from node.ledger import RECENT_MAX, Ledger
from node.leveldb import DatabaseError, LevelDB
from tests.node.conftest import RICH_KEY, VALIDATOR_KEYS, certify, extend, transfer

OpenDatabase = Callable[[], LevelDB]


def test_an_empty_database_begins_with_block_zero(open_database: OpenDatabase, genesis: Genesis) -> None:
    ledger = Ledger(open_database(), genesis)
    assert ledger.head == build_genesis(genesis).block.header
    assert ledger.domain.genesis_hash == ledger.head.hash
    assert ledger.next_validators == ledger.validators(0) == ledger.validators(1) == genesis.validators
    assert ledger.certificate(0) is None
    assert ledger.seals(0) == ()


def test_a_restart_finds_every_block_receipt_certificate_and_sender(
    open_database: OpenDatabase, genesis: Genesis
) -> None:
    database = open_database()
    ledger = Ledger(database, genesis)
    certificates = {}
    for height in range(1, RECENT_MAX + 5):  # more than are kept decoded
        certificates[height] = extend(ledger, database, [transfer(2 * height - 2), transfer(2 * height - 1)])
    head, state_balance = ledger.head, ledger.state().balance(b"\xaa" * 20)
    blocks = {height: ledger.block(height) for height in certificates}
    receipts = {height: ledger.receipts(height) for height in certificates}
    encoded_receipts = {height: ledger.encoded_receipts(height) for height in certificates}  # newest: blooms known

    ledger = Ledger(open_database(), genesis)
    assert ledger.head == head
    assert ledger.state().balance(b"\xaa" * 20) == state_balance == 2 * (RECENT_MAX + 4)
    for height, certificate in certificates.items():
        block = ledger.block(height)
        assert block is not None
        assert block == blocks[height]
        assert ledger.receipts(height) == receipts[height]
        assert ledger.encoded_receipts(height) == encoded_receipts[height]
        assert encoded_receipts[height] == [receipt.encoded() for receipt in receipts[height] or ()]
        assert list(ledger.event_logs(height)) == [(transaction.raw, ()) for transaction in block.transactions]
        assert ledger.certificate(height) == certificate
        assert ledger.height_of(block.hash) == height
        assert ledger.header(height) == block.header
        assert {seal.validator for seal in ledger.seals(height)} == set(genesis.validators)
        for index, transaction in enumerate(block.transactions):
            assert transaction.is_sender_known
            assert transaction.sender == RICH_KEY.address
            assert ledger.locate(transaction.hash) == (height, index)
        encoded = ledger.encoded_block(height)
        assert encoded == (block.header.encoded, [transaction.raw for transaction in block.transactions])


def test_what_the_ledger_remembers_of_the_state_is_what_the_database_holds(
    open_database: OpenDatabase, genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database()
    ledger = Ledger(database, genesis)
    addresses = (RICH_KEY.address, b"\xaa" * 20, genesis.validators[0], VALIDATORS_CONTRACT)
    for nonce in range(4):
        extend(ledger, database, [transfer(nonce)])
        stored = State(ledger, ledger.head.state_root)
        for state in (ledger.state(), ledger.state()):  # read from the database, and remembered
            assert [state.account(address) for address in addresses] == list(map(stored.account, addresses))
            assert current_validators(state) == current_validators(stored) == genesis.validators
    assert ledger.state().nonce(RICH_KEY.address) == 4
    monkeypatch.setattr(ledger, "get", None)
    assert ledger.state().nonce(RICH_KEY.address) == 4  # nothing is read again
    with pytest.raises(TypeError):
        ledger.state().nonce(bytes(20))


def test_of_the_state_no_more_is_remembered_than_may_be(
    open_database: OpenDatabase, genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.ledger.KNOWN_MAX", 3)
    ledger = Ledger(open_database(), genesis)
    for number in range(20):
        ledger.state().nonce(bytes([number]) * 20)
        assert len(ledger._known.accounts) <= 4


def test_who_executes_a_chain_and_never_asks_for_its_state_remembers_no_more_either(
    open_database: OpenDatabase, genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.ledger.KNOWN_MAX", 10)
    database = open_database()
    ledger = Ledger(database, genesis)
    for nonce in range(20):
        extend(ledger, database, [transfer(nonce, to=bytes([nonce + 1]) * 20)])
        assert len(ledger._known.accounts) <= 13  # a block adds sender, recipient and the contract that it reads
    monkeypatch.setattr("node.ledger.KNOWN_MAX", 1000)
    assert [ledger.state().balance(bytes([nonce + 1]) * 20) for nonce in range(20)] == [1] * 20


def test_what_is_not_there_is_none(open_database: OpenDatabase, genesis: Genesis) -> None:
    ledger = Ledger(open_database(), genesis)
    assert ledger.block(1) is None
    assert ledger.header(1) is None
    assert ledger.receipts(1) is None
    assert ledger.certificate(1) is None
    assert ledger.height_of(bytes(32)) is None
    assert ledger.locate(bytes(32)) is None
    assert ledger.encoded_block(1) is None
    assert ledger.encoded_receipts(1) is None
    with pytest.raises(LedgerError, match="lacks it or its receipts"):
        next(ledger.event_logs(1))


def test_a_batch_that_was_never_written_leaves_the_last_final_block(
    open_database: OpenDatabase, genesis: Genesis
) -> None:
    database = open_database()
    ledger = Ledger(database, genesis)
    extend(ledger, database, [transfer(0)])
    final = ledger.head
    executed = ledger.build([transfer(1)], miner=genesis.validators[0], timestamp=final.timestamp).executed
    ledger.writes_of(executed, certify(ledger.domain, 2, executed.block.hash))  # killed before the write
    ledger = Ledger(open_database(), genesis)
    assert ledger.head == final
    assert ledger.locate(transfer(1).hash) is None
    assert ledger.state().nonce(RICH_KEY.address) == 1


def test_a_block_is_executed_once(open_database: OpenDatabase, genesis: Genesis) -> None:
    ledger = Ledger(open_database(), genesis)
    built = ledger.build([transfer(0)], miner=genesis.validators[0], timestamp=ledger.head.timestamp).executed
    assert ledger.execute(built.block) is built


def test_a_block_that_breaks_a_rule_is_refused(open_database: OpenDatabase, genesis: Genesis) -> None:
    ledger = Ledger(open_database(), genesis)
    good = ledger.build([transfer(0)], miner=genesis.validators[0], timestamp=ledger.head.timestamp).executed.block
    with pytest.raises(InvalidBlock, match="state_root"):
        ledger.execute(Block(replace(good.header, state_root=bytes(32)), good.transactions))


def test_only_a_child_of_the_head_can_become_the_head(open_database: OpenDatabase, genesis: Genesis) -> None:
    database = open_database()
    ledger = Ledger(database, genesis)
    first = ledger.build([], miner=genesis.validators[0], timestamp=ledger.head.timestamp).executed
    extend(ledger, database, [])
    with pytest.raises(LedgerError, match="does not follow"):
        ledger.advance(first)


@pytest.mark.parametrize("change", [1, -1, None])
def test_another_stored_format_is_refused_with_what_to_do(
    open_database: OpenDatabase, genesis: Genesis, tmp_path: Path, change: int | None
) -> None:
    database = open_database()
    Ledger(database, genesis)
    key = keyspace.META + b"format"
    assert database.get(key) == store.FORMAT_VERSION.to_bytes(4, "big")
    pairs = dict(database.scan(b"", b"\xff"))
    if change is None:  # a database of the time before the version was stored
        del pairs[key]
    else:
        pairs[key] = (store.FORMAT_VERSION + change).to_bytes(4, "big")
    other = LevelDB(tmp_path / "other")
    other.write(pairs)
    with pytest.raises(LedgerError, match="run the newer one" if change == 1 else "move the folder away"):
        Ledger(other, genesis)
    other.close()


def test_another_networks_database_is_refused(open_database: OpenDatabase, genesis: Genesis) -> None:
    Ledger(open_database(), genesis)
    with pytest.raises(LedgerError, match="another network"):
        Ledger(open_database(), replace(genesis, chain_id=1))


def test_a_second_process_gets_a_clear_error(open_database: OpenDatabase, tmp_path: Path) -> None:
    open_database()
    with pytest.raises(DatabaseError, match="another process uses"):
        LevelDB(tmp_path / "chain")


def test_a_head_without_its_block_is_our_own_fault(genesis: Genesis) -> None:
    class Torn(dict[bytes, bytes]):
        def write(self, puts: Mapping[bytes, bytes]) -> None:
            self.update({key: value for key, value in puts.items() if not key.startswith(keyspace.BLOCK)})

        def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> object:
            return iter(())

    with pytest.raises(LedgerError, match="lacks the block"):
        Ledger(Torn(), genesis)  # type: ignore[arg-type]


def test_what_is_kept_decoded_is_bounded_in_bytes(
    open_database: OpenDatabase, genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.ledger.RECENT_BYTES_MAX", 2_000)
    database = open_database()
    ledger = Ledger(database, genesis)
    for nonce in range(5):
        extend(ledger, database, [transfer(nonce)])
        assert 1 <= len(ledger._recent) <= 3
        assert sum(block.bytes_count for block, _ in ledger._recent.values()) <= 2_000
    extend(ledger, database, [transfer(nonce) for nonce in range(5, 30)])
    assert list(ledger._recent) == [6]
    blocks = [ledger.block(height) for height in range(1, 7)]
    assert [block and len(block.transactions) for block in blocks] == [1, 1, 1, 1, 1, 25]


def test_evidence_is_kept_once_and_bounded(
    open_database: OpenDatabase, genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "EVIDENCE_MAX", 3)

    def against(key: SigningKey, height: int) -> Evidence:
        first, second = (Statement(Kind.PREPARE, height, 0, bytes([number]) * 32) for number in (1, 2))
        signed = (SignedStatement(each, key.sign(each.digest(ledger.domain))) for each in (first, second))
        return Evidence(key.address, *signed)

    ledger = Ledger(open_database(), genesis)
    for height in (1, 1, 2):
        ledger.keep_evidence(against(VALIDATOR_KEYS[0], height))
    ledger = Ledger(open_database(), genesis)
    for height in (3, 4, 5):
        ledger.keep_evidence(against(VALIDATOR_KEYS[0], height))
    ledger.keep_evidence(against(VALIDATOR_KEYS[1], 9))
    kept = [(each.validator, each.height) for each in ledger.equivocations(0, 100)]
    first, second = VALIDATOR_KEYS[0].address, VALIDATOR_KEYS[1].address
    assert kept == [(first, 1), (first, 2), (first, 3), (second, 9)]
