"""Whole nodes without processes: real runtimes, ledgers and guards over dictionaries, on one simulated clock."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from node.chain.contracts import validators as contract
from node.chain.contracts.addresses import VALIDATORS
from node.chain.errors import InvalidTransaction
from node.chain.genesis import Genesis
from node.chain.mempool import MempoolLimits
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.certificate import verify_certificate
from node.consensus.codec import decode_message
from node.consensus.events import Policy
from node.consensus.guard import create_records, replay
from node.consensus.messages import Kind as Step
from node.consensus.override import Override
from node.inbox import WOKEN, InboxEvent
from node.ledger import Ledger
from node.p2p.events import Connected, Disconnected, PeerInfo, Received
from node.p2p.kinds import Kind
from node.runtime import Runtime

POLICY = Policy(block_interval_empty_ms=500, round_timeout_ms=200, dead_proposer_timeout_ms=50)


class MemoryDatabase:
    """What a `Store` needs of a database, in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def write(self, puts: Mapping[bytes, bytes]) -> None:
        self.values.update(puts)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted((key for key in self.values if start <= key < stop), reverse=reverse)
        return iter([(key, self.values[key]) for key in keys])


class Node:
    """One node: what survives a restart, and the runtime that runs now. It is its runtime's disk and peers too."""

    def __init__(self, network: "RuntimeNetwork", key: SigningKey) -> None:
        self.network, self.key, self.address = network, key, key.address
        self.database = MemoryDatabase()
        self.overrides: tuple[Override, ...] = ()
        self.ledger = Ledger(self.database, network.genesis)
        self.guard_file = create_records(self.ledger.domain, key.address)
        self.runtime: Runtime | None = None
        self.inbox: deque[InboxEvent] = deque()
        self.signed: list[tuple[int, Step]] = []  # height and step of everything signed

    def start(self) -> None:
        """Boot from what the disk holds, and meet everybody that runs."""
        self.ledger = Ledger(self.database, self.network.genesis, self.overrides)
        guard, _ = replay(self.guard_file, self.ledger.domain, self.address)
        self.runtime = Runtime(
            ledger=self.ledger,
            key=self.key,
            guard=guard,
            policy=POLICY,
            mempool_limits=MempoolLimits(),
            disk=self,
            peers=self,
            now_ms=lambda: self.network.now_ms,
            wall_clock_s=lambda: self.network.genesis.timestamp + self.network.now_ms // 1000,
            clock_drift_max_s=5,
            recover_senders=_recover_senders,
            on_final=lambda _executed, _certificate: None,
            on_added=lambda _transactions, _from_client: self.inbox.append(WOKEN),
            on_evidence=lambda evidence: self.network.evidence.append(evidence.validator),
        )
        self.inbox.append(WOKEN)
        for other in self.network.running():
            if other is not self:
                for here, there in ((self, other), (other, self)):
                    here.inbox.append(Connected(there.address, _info(there)))

    def stop(self) -> None:
        """End at once; what is in flight to it is lost."""
        self.runtime = None
        self.inbox.clear()
        for other in self.network.running():
            other.inbox.append(Disconnected(self.address, "gone"))

    async def append_guard(self, records: tuple[bytes, ...]) -> None:
        self.guard_file += b"".join(records)

    async def commit(self, writes: dict[bytes, bytes]) -> None:
        self.database.write(writes)

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        other = self.network.nodes[peer]
        if other.runtime is not None and self.network.delivers(self, other, kind, payload):
            other.inbox.append(Received(self.address, kind, payload))
        return other.runtime is not None

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.CONSENSUS:
            statement = decode_message(payload).statement
            self.signed.append((statement.height, statement.kind))
        for address in self.network.nodes:
            if address != self.address:
                self.send(address, kind, payload)

    def drop(self, peer: bytes, reason: str) -> None:
        self.network.drops.append((self.address, peer, reason))

    @property
    def height(self) -> int:
        return self.ledger.head.number


class RuntimeNetwork:
    """All nodes know each other; messages arrive in order, unless `delivers` says that they are lost."""

    def __init__(self, genesis: Genesis, keys: Sequence[SigningKey]) -> None:
        self.genesis = genesis
        self.now_ms = 0
        self.evidence: list[bytes] = []
        self.drops: list[tuple[bytes, bytes, str]] = []
        self.delivers: Callable[[Node, Node, Kind, bytes], bool] = lambda *_: True
        self.nodes: dict[bytes, Node] = {}
        for key in keys:
            self.nodes[key.address] = Node(self, key)
        self.domain = next(iter(self.nodes.values())).ledger.domain

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.runtime is not None]

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    async def run(self, until: Callable[[], bool], *, within_ms: int = 20_000) -> bool:
        """Handle events in turn, and let time pass where nobody has any; whether `until` came true."""
        end_ms = self.now_ms + within_ms
        while not until():
            busy = [node for node in self.running() if node.inbox]
            if not busy:
                if self.now_ms >= end_ms:
                    return False
                self.now_ms = max(self.now_ms + 1, min([end_ms, *self._deadlines()]))
                busy = [node for node in self.running() if self._is_due(node)]
                for node in busy:
                    node.inbox.append(WOKEN)
            for node in busy:
                if node.runtime is not None and node.inbox:
                    await node.runtime.handle(node.inbox.popleft())
            await asyncio.sleep(0)
        return True

    def _deadlines(self) -> list[int]:
        deadlines = [node.runtime.deadline_ms() for node in self.running() if node.runtime is not None]
        return [deadline for deadline in deadlines if deadline is not None]

    def _is_due(self, node: Node) -> bool:
        deadline = None if node.runtime is None else node.runtime.deadline_ms()
        return deadline is not None and deadline <= self.now_ms

    async def submit(self, key: SigningKey, name: str, *arguments: object) -> Transaction:
        """Hand a call of the Validators contract to every node that runs."""
        node = self.running()[0]
        assert node.runtime is not None
        nonce = node.runtime.mempool.pending_nonce(key.address, node.ledger.state().nonce(key.address))
        transaction = sign_transaction(
            key,
            chain_id=self.genesis.chain_id,
            nonce=nonce,
            to=VALIDATORS,
            gas_limit=5_000_000,
            data=contract.ABI.encode_call(name, *arguments),
        )
        for each in self.running():
            assert each.runtime is not None
            await each.runtime.intake.submit([transaction.raw], from_client=True)
        return transaction

    def all_reach(self, height: int) -> Callable[[], bool]:
        return lambda: all(node.height >= height for node in self.running())

    def check(self) -> None:
        """One chain, each block sealed by a quorum of the very set that its parent (or an override) names."""
        longest = max(self.running(), key=lambda node: node.height)
        for node in self.running():
            for height in range(1, node.height + 1):
                header, certificate = node.ledger.header(height), node.ledger.certificate(height)
                assert header is not None
                assert certificate is not None
                assert header == longest.ledger.header(height), f"fork at height {height}"
                assert node.ledger.validators(height) == longest.ledger.validators(height)
                verify_certificate(certificate, header, node.ledger.validators(height), self.domain)


def _info(node: Node) -> PeerInfo:
    return PeerInfo(node.address, "", "", "in", 0, node.height, 1, 0, 0, None)


async def _recover_senders(transactions: Sequence[Transaction]) -> None:
    for transaction in transactions:
        try:
            _ = transaction.sender
        except InvalidTransaction:
            continue
