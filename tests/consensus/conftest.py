"""Keys, headers and blocks that need no execution, and a network of engines that runs from a seed."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from merkle.keccak import keccak256
from merkle.patricia import ordered_root
from node.chain import signing
from node.chain.block import Block, Header
from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.consensus.certificate import Certificate, verify_certificate
from node.consensus.codec import decode_message, encode_message
from node.consensus.engine import Engine
from node.consensus.events import (
    Built,
    Event,
    Head,
    HeadAdvanced,
    PeerConnected,
    PeerGone,
    PeerStatus,
    Policy,
    Ready,
    Received,
    Tick,
    Validated,
    WorkChanged,
)
from node.consensus.evidence import Evidence
from node.consensus.guard import create_records, replay
from node.consensus.messages import Attachments, Kind, Message, Recover, SignedStatement, Statement, authenticate
from node.consensus.quorum import proposer, quorum

EMPTY_ROOT = ordered_root([])


def make_domain() -> Domain:
    return Domain(7770, keccak256(b"genesis"))


def make_keys(count: int) -> list[SigningKey]:
    """Keys in the order of their addresses, so that index i is validator i."""
    return sorted((SigningKey(keccak256(b"key%d" % i)) for i in range(count)), key=lambda key: key.address)


def memoised_recover() -> Recover:
    known: dict[tuple[bytes, bytes], bytes] = {}

    def recover(digest: bytes, signature: bytes) -> bytes:
        if (digest, signature) not in known:
            known[digest, signature] = signing.recover(digest, signature)
        return known[digest, signature]

    return recover


RECOVER = memoised_recover()


def make_header(parent: Header | None, miner: bytes, *, salt: int = 0) -> Header:
    return Header(
        parent_hash=parent.hash if parent else bytes(32),
        miner=miner,
        state_root=keccak256(salt.to_bytes(8, "big")),
        transactions_root=EMPTY_ROOT,
        receipts_root=EMPTY_ROOT,
        logs_bloom=bytes(256),
        number=parent.number + 1 if parent else 0,
        gas_limit=1,
        gas_used=0,
        timestamp=0,
        extra_data=bytes(32),
    )


GENESIS = make_header(None, bytes(20))


class Council:
    """n validators at height 1, and short ways to make their statements."""

    def __init__(self, count: int, parent: Header = GENESIS) -> None:
        self.keys = make_keys(count)
        self.validators = tuple(key.address for key in self.keys)
        self.domain = make_domain()
        self.parent = parent
        self.height = parent.number + 1
        self.quorum = quorum(count)

    def block(self, round_: int = 0, *, salt: int = 0) -> Block:
        return Block(make_header(self.parent, proposer(self.validators, self.height, round_), salt=salt))

    def sign(self, who: int, statement: Statement) -> SignedStatement:
        return SignedStatement(statement, self.keys[who].sign(statement.digest(self.domain)))

    def say(self, who: int, kind: Kind, round_: int, block_hash: bytes | None, prepared: int | None = None) -> Message:
        return Message(self.sign(who, Statement(kind, self.height, round_, block_hash, prepared)))

    def prepares(self, round_: int, block: Block, who: list[int] | None = None) -> tuple[SignedStatement, ...]:
        statement = Statement(Kind.PREPARE, self.height, round_, block.hash)
        return tuple(self.sign(i, statement) for i in (range(self.quorum) if who is None else who))

    def round_change(self, who: int, round_: int, prepared: tuple[int, Block] | None = None) -> Message:
        if prepared is None:
            return self.say(who, Kind.ROUND_CHANGE, round_, None)
        prepared_round, block = prepared
        bare = self.say(who, Kind.ROUND_CHANGE, round_, block.hash, prepared_round)
        return Message(bare.signed, Attachments(block, (), self.prepares(prepared_round, block)))

    def proposal(
        self,
        round_: int,
        block: Block,
        round_changes: tuple[SignedStatement, ...] = (),
        prepares: tuple[SignedStatement, ...] = (),
    ) -> Message:
        who = (self.height + round_) % len(self.keys)
        bare = self.say(who, Kind.PROPOSAL, round_, block.hash)
        return Message(bare.signed, Attachments(block, round_changes, prepares))

    def head(self) -> Head:
        return Head(self.parent, self.validators)


@dataclass
class Disk:
    """What survives a crash: the guard file, and the chain."""

    guard: bytes
    chain: list[tuple[Block, Certificate | None]] = field(default_factory=list)


class Node:
    """The shell around one engine, as the runtime is: guard, sign, send, build, validate, decide, in that order."""

    def __init__(self, network: "Network", index: int) -> None:
        self.network, self.index = network, index
        self.key = network.council.keys[index]
        self.disk = Disk(create_records(network.council.domain, self.key.address), [(Block(GENESIS), None)])
        self.engine: Engine | None = None
        self.tick_ms: int | None = None
        self.evidence: list[Evidence] = []
        self.boots = 0

    @property
    def head(self) -> Header:
        return self.disk.chain[-1][0].header

    def start(self) -> None:
        network = self.network
        guard, whole = replay(self.disk.guard, network.council.domain, self.key.address)
        self.disk.guard = self.disk.guard[:whole]
        self.boots += 1
        self.engine = Engine(
            domain=network.council.domain,
            address=self.key.address,
            policy=network.policy,
            guard=guard,
            head=Head(self.head, network.council.validators),
            now_ms=network.now_ms,
            recover=RECOVER,
        )
        self.step(WorkChanged(network.has_work))

    def step(self, event: Event) -> None:
        """Feed an event, and all that comes of it at once."""
        inbox = [event]
        while inbox and self.engine is not None:
            ready = self.engine.step(inbox.pop(0), now_ms=self.network.now_ms)
            inbox.extend(self.obey(ready))
        if self.engine is not None:
            self.network.schedule_tick(self)

    def obey(self, ready: Ready) -> list[Event]:
        network = self.network
        for record in ready.guard:
            if network.crashes_now():
                self.disk.guard += record[: network.random.randrange(len(record))]  # torn
                network.crash(self)
                return []
            self.disk.guard += record
        answers: list[Event] = []
        for unsigned in ready.sign:
            message = unsigned.signed(self.key.sign(unsigned.digest(network.council.domain)))
            network.watch(self, message)
            network.broadcast(self, message)
            answers.append(Received(message, self.key.address))
            if network.crashes_now():
                network.crash(self)
                return []
        for send in ready.send:
            network.broadcast(self, send.message, send.to)
        if ready.build is not None:
            block = Block(make_header(self.head, self.key.address, salt=network.random.getrandbits(32)))
            answers.append(Built(ready.build.height, ready.build.round, block))
        answers.extend(Validated(validate.block.hash, True) for validate in ready.validate)
        self.evidence.extend(ready.evidence)
        if ready.decided is not None:
            answers.extend(self.append(ready.decided.block, ready.decided.certificate))
        if ready.behind is not None:
            network.after(5, partial(network.fetch, self, ready.behind.peer))
        for lagging in ready.lagging:
            network.after(5, partial(network.fetch, network.node_of(lagging.peer), self.key.address))
        return answers

    def append(self, block: Block, certificate: Certificate) -> list[Event]:
        network = self.network
        if block.number != self.head.number + 1:
            return []
        assert block.header.parent_hash == self.head.hash
        verify_certificate(certificate, block.header, network.council.validators, network.council.domain, RECOVER)
        network.check_final(block)
        if network.crashes_now():  # before the batch is synced: nothing of it is there
            network.crash(self)
            return []
        self.disk.chain.append((block, certificate))
        network.announce(self)
        return [HeadAdvanced(Head(block.header, network.council.validators))]


class Network:
    """Engines, simulated time, and faults drawn from a seed. Finality and the guard's rules are checked all along."""

    def __init__(self, count: int, seed: int, policy: Policy | None = None) -> None:
        self.random = random.Random(seed)
        self.council = Council(count)
        self.policy = policy or Policy(block_interval_empty_ms=500, round_timeout_ms=200, dead_proposer_timeout_ms=50)
        self.now_ms = 0
        self.has_work = True
        self.loss = self.duplication = self.crash_rate = 0.0
        self.delay_ms = 10
        self.cuts: set[tuple[int, int]] = set()
        self.final: dict[int, bytes] = {}
        self.signed: dict[tuple[bytes, Kind, int, int], Statement] = {}
        self.changed: dict[tuple[bytes, int], int] = {}
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.nodes = [Node(self, i) for i in range(count)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for a in self.nodes:
            for b in self.nodes:
                if a is not b:
                    a.step(PeerConnected(b.key.address))

    def node_of(self, address: bytes) -> Node:
        return next(node for node in self.nodes if node.key.address == address)

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._count, action))

    def schedule_tick(self, node: Node) -> None:
        assert node.engine is not None
        deadline = node.engine.deadline_ms()
        if deadline is None or (node.tick_ms is not None and self.now_ms < node.tick_ms <= deadline):
            return
        node.tick_ms = max(deadline, self.now_ms)
        engine = node.engine
        self.after(node.tick_ms - self.now_ms, lambda: self._tick(node, engine))

    def _tick(self, node: Node, engine: Engine) -> None:
        if node.engine is engine:
            node.tick_ms = None
            node.step(Tick())

    def connected(self, a: Node, b: Node) -> bool:
        return a.engine is not None and b.engine is not None and (a.index, b.index) not in self.cuts

    def broadcast(self, sender: Node, message: Message, to: bytes | None = None) -> None:
        data = encode_message(message)
        for node in self.nodes:
            if node is sender or (to is not None and node.key.address != to) or not self.connected(sender, node):
                continue
            for _ in range(1 + (self.random.random() < self.duplication)):
                if self.random.random() >= self.loss:
                    self.after(
                        self.random.randint(0, self.delay_ms),
                        partial(self._deliver, sender, node, node.engine, data),
                    )

    def _deliver(self, sender: Node, node: Node, engine: Engine | None, data: bytes) -> None:
        if engine is not None and node.engine is engine and (sender.index, node.index) not in self.cuts:
            message = decode_message(data)
            node.step(Received(message, authenticate(self.council.domain, message, RECOVER)))

    def announce(self, node: Node) -> None:
        height = node.head.number
        for other in self.nodes:
            if other is not node and self.connected(node, other) and self.random.random() >= self.loss:
                self.after(self.random.randint(0, self.delay_ms), partial(self._hear, node, other, height))

    def _hear(self, node: Node, other: Node, height: int) -> None:
        if other.engine is not None:
            other.step(PeerStatus(node.key.address, height))
            if other.head.number < height:
                self.after(30, lambda: self.fetch(other, node.key.address))

    def fetch(self, node: Node, peer_address: bytes) -> None:
        """`node` asks a peer for the block after its head, until it has caught up."""
        peer = self.node_of(peer_address)
        if node.engine is None or not (self.connected(node, peer) and self.connected(peer, node)):
            return
        height = node.head.number + 1
        if height < len(peer.disk.chain):
            block, certificate = peer.disk.chain[height]
            assert certificate is not None
            for event in node.append(block, certificate):
                node.step(event)
            self.after(2, lambda: self.fetch(node, peer_address))

    def crashes_now(self) -> bool:
        return self.crash_rate > 0 and self.random.random() < self.crash_rate

    def crash(self, node: Node, down_ms: int | None = None) -> None:
        node.engine = None
        node.tick_ms = None
        for other in self.nodes:
            if other.engine is not None:
                self.after(1, partial(other.step, PeerGone(node.key.address)))
        self.after(self.random.randint(1, 400) if down_ms is None else down_ms, lambda: self.restart(node))

    def restart(self, node: Node) -> None:
        if node.engine is not None:
            return
        node.start()
        for other in self.nodes:
            if other is not node:
                self.meet(node, other)

    def meet(self, a: Node, b: Node) -> None:
        """A connection is made: both hear of it, and of each other's head."""
        for here, there in ((a, b), (b, a)):
            if here.engine is not None and there.engine is not None:
                here.step(PeerConnected(there.key.address))
        for here, there in ((a, b), (b, a)):
            if here.engine is not None and there.engine is not None:
                self._hear(there, here, there.head.number)

    def heal(self) -> None:
        """All faults end, all nodes run, all connections are made anew."""
        self.loss = self.duplication = self.crash_rate = 0.0
        self.cuts.clear()
        for node in self.nodes:
            if node.engine is None:
                node.start()
        for a in self.nodes:
            for b in self.nodes:
                if a.index < b.index:
                    self.meet(a, b)

    def watch(self, node: Node, message: Message) -> None:
        """The guard's rules, seen from outside: over all lives of a node, nothing signed breaks an earlier promise."""
        statement, address = message.statement, node.key.address
        step = (address, statement.kind, statement.height, statement.round)
        assert self.signed.setdefault(step, statement) == statement, "two statements at one step"
        changed = self.changed.get((address, statement.height), 0)
        assert statement.round >= changed, "signed below an own ROUND-CHANGE"
        if statement.kind is Kind.ROUND_CHANGE:
            self.changed[address, statement.height] = statement.round

    def check_final(self, block: Block) -> None:
        assert self.final.setdefault(block.number, block.hash) == block.hash, f"fork at height {block.number}"

    def run(self, duration_ms: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Advance simulated time; whether `until` came true."""
        end_ms = self.now_ms + duration_ms
        while self._queue and self._queue[0][0] <= end_ms:
            if until():
                return True
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()
        self.now_ms = max(self.now_ms, end_ms)
        return until()

    def heights(self) -> list[int]:
        return [node.head.number for node in self.nodes]

    def all_reach(self, height: int) -> Callable[[], bool]:
        return lambda: min(self.heights()) >= height


@pytest.fixture
def council() -> Council:
    return Council(4)
