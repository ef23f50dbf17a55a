"""The runtime among peers that send what no honest one would: the node goes on, and only the peer pays."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from merkle import rlp
from node import payloads
from node.chain.block import Block
from node.chain.genesis import BLOCK_BYTES_MAX_RANGE, Genesis
from node.chain.mempool import MempoolLimits
from node.chain.signing import SigningKey
from node.chain.transaction import TRANSACTION_BYTES_MAX, Transaction, decode_transaction, sign_transaction
from node.consensus import events as consensus
from node.consensus.certificate import pack_certificate
from node.consensus.codec import encode_message
from node.consensus.events import Policy
from node.consensus.messages import Kind as StatementKind
from node.consensus.messages import Message, SignedStatement, Statement
from node.consensus.quorum import proposer
from node.ledger import Ledger
from node.leveldb import LevelDB
from node.p2p.events import Received
from node.p2p.kinds import Kind, payload_bytes_max
from node.runtime import Runtime
from tests.node.conftest import CHAIN_ID, RICH_KEY, VALIDATOR_KEYS, certify, extend, transfer

PEER, OTHER = VALIDATOR_KEYS[1].address, VALIDATOR_KEYS[2].address


class Peers:
    """Remembers what is sent; `reach` are those who can be sent anything."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Kind, bytes]] = []
        self.dropped: list[bytes] = []
        self.reach = {PEER, OTHER}
        self.bulk_room = 1 << 30
        self.refused = 0

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        if peer not in self.reach or len(payload) > self.bulk_room:
            self.refused += 1
            return False
        self.bulk_room -= len(payload)
        self.sent.append((peer, kind, payload))
        return True

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        pass

    def drop(self, peer: bytes, reason: str) -> None:
        self.dropped.append(peer)


class Disk:
    def __init__(self, database: LevelDB) -> None:
        self._database = database

    async def append_guard(self, records: tuple[bytes, ...]) -> None:
        raise AssertionError("an observer signs nothing")

    async def commit(self, writes: dict[bytes, bytes]) -> None:
        self._database.write(writes)


class Node:
    """An observer's runtime with everything around it in reach."""

    def __init__(self, database: LevelDB, genesis: Genesis) -> None:
        self.ledger = Ledger(database, genesis)
        self.peers = Peers()
        self.now_ms = 0
        self.final: list[Block] = []
        self.runtime = Runtime(
            ledger=self.ledger,
            key=SigningKey(b"\x66" * 32),
            guard=None,
            policy=Policy(),
            mempool_limits=MempoolLimits(),
            disk=Disk(database),
            peers=self.peers,
            now_ms=lambda: self.now_ms,
            wall_clock_s=lambda: genesis.timestamp,
            clock_drift_max_s=5,
            recover_senders=_recover,
            on_final=lambda executed, _: self.final.append(executed.block),
            on_added=lambda _transactions, _from_client: None,
            on_evidence=lambda _: None,
        )

    def build(self, transactions: list[Transaction]) -> Block:
        """The next block, as round 0's proposer would make it."""
        height = self.ledger.head.number + 1
        miner = proposer(self.ledger.next_validators, height, 0)
        return self.ledger.build(transactions, miner=miner, timestamp=self.ledger.head.timestamp).executed.block

    async def receive(self, kind: Kind, payload: bytes, peer: bytes = PEER) -> None:
        await self.runtime.handle(Received(peer, kind, payload))


async def _recover(transactions: Sequence[Transaction]) -> None:
    pass


def served(node: Node, block: Block) -> bytes:
    """A peer's answer with this one block."""
    raws = [transaction.raw for transaction in block.transactions]
    certificate = certify(node.ledger.domain, block.number, block.hash)
    return payloads.pack_blocks([(block.header.encoded, raws, pack_certificate(certificate))])


def _large(nonce: int) -> Transaction:
    return sign_transaction(
        RICH_KEY, chain_id=CHAIN_ID, nonce=nonce, to=bytes(20), gas_limit=17_000_000, data=b"\1" * 1_040_000
    )


def _sized(nonce: int, bytes_max: int) -> Transaction:
    """A transaction of about, and at most, so many bytes from 200 up."""

    def make(data: bytes) -> Transaction:
        gas_limit = 21_000 + 16 * bytes_max
        return sign_transaction(RICH_KEY, chain_id=CHAIN_ID, nonce=nonce, to=bytes(20), gas_limit=gas_limit, data=data)

    transaction = make(b"\1" * (bytes_max - len(make(bytes(200)).raw) + 195))
    assert bytes_max - 8 <= len(transaction.raw) <= bytes_max
    return transaction


@pytest.fixture
def node(open_database: Callable[[], LevelDB], genesis: Genesis) -> Node:
    return Node(open_database(), genesis)


async def test_a_block_that_is_known_is_final_with_its_own_body_whatever_a_peer_sends_as_its_body(node: Node) -> None:
    """An executed block is found by its header's hash, and a certificate covers the header alone."""
    await node.runtime.intake.submit([transfer(0).raw], from_client=True)
    block = node.build([transfer(0)])
    numbers = [rlp.encode_int(number) for number in (CHAIN_ID, 7, 0, 0, 21_000)]
    nobodys = decode_transaction(b"\x02" + rlp.encode([*numbers, bytes(20), b"", b"", [], b"", b"", b""]))
    await node.receive(Kind.BLOCKS, served(node, Block(block.header, (nobodys,))))
    assert [final.transactions for final in node.final] == [block.transactions]
    assert node.runtime.engine.height == 2
    assert len(node.runtime.mempool) == 0


async def test_a_range_is_not_asked_of_whom_nothing_can_be_sent(node: Node) -> None:
    """A validator's message that another passed on tells of a block, and its signer may be out of reach."""
    block = node.build([transfer(0)])
    node.peers.reach = {OTHER}
    await node.receive(Kind.STATUS, payloads.pack_status(2, block.hash), PEER)
    await node.receive(Kind.STATUS, payloads.pack_status(2, block.hash), OTHER)
    assert [(peer, kind) for peer, kind, _ in node.peers.sent] == [(OTHER, Kind.GET_BLOCKS)]


async def test_what_is_asked_for_many_times_is_sent_once_and_a_full_queue_ends_it(node: Node) -> None:
    """Else 130 KB of hashes would have this node copy gigabytes."""
    large = [_large(nonce) for nonce in range(3)]
    await node.runtime.intake.submit([transaction.raw for transaction in large], from_client=True)
    request = payloads.pack_hashes([transaction.hash for transaction in large] * 1_000)
    await node.receive(Kind.GET_TRANSACTIONS, request)
    assert sum(len(payload) for _, _, payload in node.peers.sent) < 3 * 1_050_000
    node.peers.sent.clear()
    node.peers.bulk_room = node.peers.refused = 0
    await node.receive(Kind.GET_TRANSACTIONS, request)
    assert node.peers.refused == 1


@pytest.mark.parametrize("block_bytes_max", BLOCK_BYTES_MAX_RANGE)
async def test_no_answer_is_larger_than_its_kind_may_be(
    open_database: Callable[[], LevelDB], genesis: Genesis, block_bytes_max: int
) -> None:
    """The network refuses to send such a message, and the node that tried would end."""
    database = open_database()
    node = Node(database, replace(genesis, block_bytes_max=block_bytes_max))
    for nonce in range(4):
        extend(node.ledger, database, [_large(nonce)])
    small, bytes_count = [_sized(4, 270)], 270
    while bytes_count + 270 < payloads.BATCH_BYTES_MAX:
        small.append(_sized(4 + len(small), 270))
        bytes_count += len(small[-1].raw)
    waiting = [*small, _sized(4 + len(small), TRANSACTION_BYTES_MAX), _sized(5 + len(small), 270)]
    await node.runtime.intake.submit([transaction.raw for transaction in waiting], from_client=True)
    hashes = [transaction.hash for transaction in waiting]
    assert len(node.runtime.mempool) == len(hashes)
    await node.receive(Kind.GET_BLOCKS, payloads.pack_get_blocks(1, 4))
    await node.receive(Kind.GET_TRANSACTIONS, payloads.pack_hashes(hashes))
    caps = payload_bytes_max(block_bytes_max)
    assert [kind for _, kind, payload in node.peers.sent if len(payload) > caps[kind]] == []
    (blocks,) = [payload for _, kind, payload in node.peers.sent if kind is Kind.BLOCKS]
    assert len(payloads.unpack_blocks(blocks)) == (1 if block_bytes_max < 2 << 20 else 4)
    answers = [payload for _, kind, payload in node.peers.sent if kind is Kind.TRANSACTIONS]
    sent = [raw for answer in answers for raw in payloads.unpack_transactions(answer)]
    assert sent == [transaction.raw for transaction in waiting]


async def test_a_block_is_built_in_a_part_of_its_round(node: Node) -> None:
    """After an outage the mempool may hold more than can be executed before the others' rounds are over."""
    await node.runtime.intake.submit([transfer(nonce).raw for nonce in range(40)], from_client=True)
    began_ms = node.now_ms

    def now_ms() -> int:
        node.now_ms += 20  # each transaction takes so long
        return node.now_ms

    node.runtime._now_ms = now_ms
    block = node.runtime._build(consensus.Build(1, 0)).block
    assert block is not None
    assert 0 < len(block.transactions) < 40
    assert node.now_ms - began_ms <= Policy().round_timeout_ms / 4 + 40
    assert len(node.runtime.mempool) == 40  # the rest waits for the next block


async def test_nobody_speaks_in_anothers_name(node: Node) -> None:
    statement = Statement(StatementKind.PREPARE, 1, 0, bytes(32))
    signed = SignedStatement(statement, VALIDATOR_KEYS[2].sign(statement.digest(node.ledger.domain)))
    payload = encode_message(Message(signed))
    await node.receive(Kind.CONSENSUS, payload, peer=OTHER)
    assert node.peers.dropped == []
    await node.receive(Kind.CONSENSUS, payload, peer=PEER)
    assert node.peers.dropped == [PEER]
