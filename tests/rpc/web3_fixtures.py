"""A chain for web3.py's own module tests: it runs in a thread, and makes a block when nothing was sent for a while."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from node.chain.errors import InvalidTransaction
from node.rpc.server import RpcServer
from tests.rpc.rpc_harness import ALICE, GATEWAY_KEY, LoneNode

CHAIN_ID = 131277322940537  # what the module tests expect
STARTED_WITHIN_S = 30


class QuietNode(LoneNode):
    """A node that mines once its clients have sent nothing for `quiet_s`, so that they can replace what waits."""

    client_version = "psephos/test/python"

    def __init__(self, quiet_s: float) -> None:
        super().__init__(CHAIN_ID)
        self._quiet_s = quiet_s
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, transactions: Sequence[bytes]) -> list[bytes | InvalidTransaction]:
        outcomes = await super().submit(transactions)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._quiet_s, self.mine)
        return outcomes

    def prepare(self) -> dict[str, Any]:
        """A few blocks that the tests look at; what they are, by the names of the tests' fixtures."""
        empty = self.include().block
        # The module tests expect that whoever proposed block 0 has earned something since, and that fees are paid.
        genesis_miner = self.chain.header(0).miner  # type: ignore[union-attr]
        fees: dict[str, Any] = {"max_fee_per_gas": 2, "max_priority_fee_per_gas": 1}
        transfer = self.sign(ALICE, genesis_miner, value=1, **fees)
        with_transaction = self.include(transfer).block
        arguments: tuple[object, ...] = (1, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
        create = self.call_contract(GATEWAY_KEY, "Elections", "create", *arguments)
        with_log = self.include(create).block
        for _ in range(6):
            self.include()
        return {
            "empty_block": empty.number,
            "block_with_txn": with_transaction.number,
            "mined_txn_hash": "0x" + transfer.hash.hex(),
            "block_with_txn_with_log": with_log.number,
            "txn_hash_with_log": "0x" + create.hash.hex(),
        }


class ThreadedNode:
    """A node and its server in a thread with an event loop of its own, as blocking clients need it."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="node")
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0
        self.prepared: dict[str, Any] = {}

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._thread.start()
        assert self._started.wait(STARTED_WITHIN_S), "the node did not start"

    def stop(self) -> None:
        """Stop, and wait for the thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it is over already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STARTED_WITHIN_S)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        node = QuietNode(self._quiet_s)
        self.prepared = node.prepare()
        server = RpcServer(node, ("127.0.0.1", 0), dev_accounts=True)
        _, self.port = await server.start()
        self._started.set()
        ticks = asyncio.create_task(self._tick(node))
        await self._stop.wait()
        ticks.cancel()
        await server.stop()

    async def _tick(self, node: QuietNode) -> None:
        """Where blocks come fast, empty ones do, too: subscribers wait for them."""
        while self._quiet_s < 1:
            await asyncio.sleep(self._quiet_s)
            node.mine()
