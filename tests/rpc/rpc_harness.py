"""A node for JSON-RPC to stand on: the real ledger, contracts, mempool and certificates, over a database in memory.

What it leaves out is agreement and peers: `mine` makes the next block final at once, sealed by the validators' keys.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from node.chain.contracts.registry import CONTRACTS
from node.chain.errors import InvalidTransaction
from node.chain.gas import usable_gas
from node.chain.genesis import Genesis
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.outcome import Executed
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.certificate import Certificate, seal_digest
from node.consensus.quorum import proposer, quorum
from node.intake import Intake
from node.ledger import Ledger
from node.rpc.dev_accounts import MNEMONIC, derive
from node.rpc.ports import Syncing, Watcher

CHAIN_ID = 7770
ETHER = 10**18
VALIDATOR_KEYS = sorted((SigningKey(bytes([7] * 31 + [n])) for n in (1, 2, 3)), key=lambda key: key.address)
GATEWAY_KEY = SigningKey(bytes([8] * 32))
ALICE = SigningKey(bytes([9] * 32))
BOB = SigningKey(bytes([10] * 32))
DEV_KEYS = derive(MNEMONIC, 3)
SECRET = bytes([11] * 32)  # of the operators' tokens
ABIS = {contract.name: contract.abi for contract in CONTRACTS.values()}
ADDRESSES = {contract.name: address for address, contract in CONTRACTS.items()}


ANCHOR_CALL = ("Anchors", "anchor", bytes(31) + b"\1", bytes(32), 4, "sha256")  # of `call_contract`


class MemoryDatabase:
    """The store's database, in memory."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def write(self, puts: Mapping[bytes, bytes]) -> None:
        self._values.update(puts)

    def delete(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            del self._values[key]

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted((key for key in self._values if start <= key < stop), reverse=reverse)
        return iter([(key, self._values[key]) for key in keys])


@dataclass(frozen=True)
class FakePeer:
    address: bytes
    name: str
    endpoint: str


@dataclass(frozen=True)
class FakeConsensus:
    height: int
    round: int
    step: str
    proposer: bytes
    validators: tuple[bytes, ...]
    heard_ms: dict[bytes, int]
    heads: dict[bytes, int]
    prepared_round: int | None = None
    signs: bool = True
    guard_lost: bool = False
    guard_floor: int = 0
    deadline_ms: int | None = None


class LoneNode:
    """A `NodePort` whose blocks are final when the test says so, or (`mines_at_once`) with each submission."""

    name = "validator-1"
    client_version = "psephos/test"

    def __init__(self, chain_id: int = CHAIN_ID) -> None:
        self.address = VALIDATOR_KEYS[0].address
        self.database = MemoryDatabase()
        genesis = Genesis(
            chain_id=chain_id,
            timestamp=1_700_000_000,
            validators=tuple(key.address for key in VALIDATOR_KEYS),
            gateways=(GATEWAY_KEY.address,),
            alloc={key.address: 1_000 * ETHER for key in (ALICE, BOB, GATEWAY_KEY, *DEV_KEYS)},
        )
        self.chain = Ledger(self.database, genesis)
        self.mempool = Mempool(MempoolLimits(), chain_id=chain_id, gas_max=usable_gas(genesis.gas_limit))
        self.mines_at_once = False
        self.submissions: list[list[bytes]] = []  # one entry for each time that JSON-RPC handed something on
        self.progress: Syncing | None = None
        self.readiness = (True, "alone")
        self.polled = asyncio.Event()  # somebody has begun to wait for a height
        self.polls = 0  # how often that was
        self._advanced = asyncio.Event()
        self._intake = Intake(self.chain, self.mempool, self._recover, self._added)
        self._nonces: dict[bytes, int] = {}
        self.watchers: set[Watcher] = set()

    async def _recover(self, transactions: Sequence[Transaction]) -> None:
        for transaction in transactions:
            try:
                _ = transaction.sender
            except InvalidTransaction:
                continue

    async def submit(self, transactions: Sequence[bytes]) -> list[bytes | InvalidTransaction]:
        self.submissions.append(list(transactions))
        outcomes = await self._intake.submit(transactions, from_client=True)
        if self.mines_at_once:
            self.mine()
        return outcomes

    def peers(self) -> list[FakePeer]:
        return [FakePeer(key.address, f"validator-{n}", f"127.0.0.1:3030{n}") for n, key in enumerate(VALIDATOR_KEYS)][
            1:
        ]

    def syncing(self) -> Syncing | None:
        return self.progress

    def consensus(self) -> FakeConsensus:
        height = self.chain.head.number + 1
        heads = {VALIDATOR_KEYS[1].address: 4}
        heard = {VALIDATOR_KEYS[1].address: time.monotonic_ns() // 1_000_000 - 250}
        return FakeConsensus(
            height, 3, "waiting", self.chain.proposer(height, 3), self.chain.next_validators, heard, heads
        )

    def watch(self, watcher: Watcher) -> None:
        self.watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        self.watchers.discard(watcher)

    def _added(self, transactions: list[Transaction], _from_client: bool) -> None:
        for watcher in self.watchers:
            watcher.transactions_added(transactions)

    async def wait_for_height(self, height: int, timeout_s: float) -> bool:
        self.polls += 1
        self.polled.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.chain.head.number < height:
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    # -- what tests do with it

    def mine(self, timestamp: int = 0) -> Executed:
        """Make everything executable of the mempool final, in one block."""
        state = self.chain.state()
        chosen = self.mempool.select(
            gas_max=self.chain.head.gas_limit // 2,
            bytes_max=self.chain.genesis.block_bytes_max,
            next_nonce=state.nonce,
        )
        return self._finalise(chosen, timestamp)

    def _finalise(self, transactions: Sequence[Transaction], timestamp: int = 0) -> Executed:
        height = self.chain.head.number + 1
        miner = proposer(self.chain.next_validators, height, 0)
        executed = self.chain.build(transactions, miner=miner, timestamp=timestamp).executed
        digest = seal_digest(self.chain.domain, height, 0, executed.block.hash)
        seals = tuple(key.sign(digest) for key in VALIDATOR_KEYS[: quorum(len(VALIDATOR_KEYS))])
        self.database.write(self.chain.writes_of(executed, Certificate(height, 0, executed.block.hash, seals)))
        self.chain.advance(executed)
        state = self.chain.state()
        self.mempool.finalised(executed.block.transactions, state.nonce)
        self._advanced.set()
        self._advanced = asyncio.Event()
        for watcher in self.watchers:
            watcher.head_advanced()
        return executed

    def sign(self, key: SigningKey, to: bytes, data: bytes = b"", **fields: Any) -> Transaction:
        """The key's next transaction, signed."""
        nonce = max(self.chain.state().nonce(key.address), self._nonces.get(key.address, 0))
        self._nonces[key.address] = nonce + 1
        arguments: dict[str, Any] = {
            "chain_id": self.chain.domain.chain_id,
            "nonce": nonce,
            "gas_limit": 5_000_000,
            "to": to,
            "data": data,
        } | fields
        return sign_transaction(key, **arguments)

    def include(self, *transactions: Transaction) -> Executed:
        """A final block of exactly these transactions."""
        executed = self._finalise(transactions)
        assert executed.block.transactions == transactions
        return executed

    def call_contract(self, key: SigningKey, contract: str, function: str, *arguments: object) -> Transaction:
        """The key's next transaction, calling a native contract."""
        return self.sign(key, ADDRESSES[contract], ABIS[contract].encode_call(function, *arguments))


class RpcFailure(Exception):
    """The server answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data = error.get("data")


class Caller:
    """A JSON-RPC client that hides nothing."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.url = url
        self.http = client

    async def __call__(self, method: str, *params: Any) -> Any:
        """Call a method; its result. Raises RpcFailure."""
        response = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer = response.json()
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == 1
        if "error" in answer:
            assert "result" not in answer
            raise RpcFailure(answer["error"])
        return answer["result"]

    async def post(self, document: Any) -> httpx.Response:
        """Send a message as it is."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return await self.http.post(self.url, content=body, headers={"content-type": "application/json"})
