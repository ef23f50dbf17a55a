"""Reads never wait for a write: a block that the disk takes its time for holds up no answer."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx

from node.ledger import Ledger
from node.leveldb import LevelDB
from node.rpc.server import RpcServer
from node.service import FileDisk
from serving.distribution import Distributions
from tests.rpc.rpc_harness import ALICE, ANCHOR_CALL, BOB, GATEWAY_KEY, Caller, LoneNode


class SlowDisk(LevelDB):
    """A database whose next write waits, in its thread, until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.let_go.set()

    def write(self, puts: Mapping[bytes, bytes], *, synced: bool = True) -> None:
        self.begun.set()
        assert self.let_go.wait(60)
        super().write(puts, synced=synced)


async def test_while_a_block_is_being_written_everything_is_answered(tmp_path: Path) -> None:
    node = LoneNode()
    database = SlowDisk(tmp_path / "chain")
    ledger = Ledger(database, node.chain.genesis)
    blocks = [
        node.include(node.sign(ALICE, BOB.address, value=1)),
        node.include(node.call_contract(GATEWAY_KEY, *ANCHOR_CALL)),
    ]
    certificates = [node.chain.certificate(height) for height in (1, 2)]
    disk = FileDisk(database, None, Distributions())
    node.chain = ledger
    server = RpcServer(node, ("127.0.0.1", 0))
    host, port = await server.start()
    executed = [ledger.execute(blocks[0].block)]
    assert certificates[0] is not None
    assert certificates[1] is not None
    await disk.commit(ledger.writes_of(executed[0], certificates[0]))
    ledger.advance(executed[0])
    second = ledger.execute(blocks[1].block)
    database.begun.clear()
    database.let_go.clear()
    writing = asyncio.create_task(disk.commit(ledger.writes_of(second, certificates[1])))
    async with asyncio.timeout(30):
        while not database.begun.is_set():  # noqa: ASYNC110 - a thread's event, and nobody tells the loop
            await asyncio.sleep(0.005)
        async with httpx.AsyncClient(timeout=20) as client:
            rpc = Caller(client, f"http://{host}:{port}")
            alice = "0x" + ALICE.address.hex()
            assert await rpc("eth_blockNumber") == "0x1"
            assert await rpc("eth_getTransactionCount", alice) == "0x1"
            assert (await rpc("eth_getProof", alice, [], "0x0"))["nonce"] == "0x0"
            assert len((await rpc("eth_getBlockByNumber", "latest", True))["transactions"]) == 1
            assert await rpc("eth_getLogs", {"fromBlock": "0x0"}) == []
            assert not writing.done()
            database.let_go.set()
            await writing
            ledger.advance(second)
            assert len(await rpc("eth_getLogs", {"fromBlock": "0x0"})) == 1
    await server.stop()
    disk.close()
