"""Real processes behind packet filters: a quorum goes on, the others wait, nothing is lost, and healing is quick."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from rich.console import Console

from cluster.chaos import Chaos
from cluster.chaosreport import Result
from cluster.injector import Injector
from cluster.network import Network, require
from cluster.processes import ProcessTable
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction
from tests.netns.conftest import Spaces

pytestmark = [pytest.mark.e2e, pytest.mark.netns, pytest.mark.timeout(300)]

# The first development account of the mnemonic that every Ethereum tool knows.
RICH = SigningKey(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))
DEAD_PEER_S = 6.0  # by then everybody knows who cannot be heard
GOES_ON_S = 15.0
HEALED_S = 15.0


class Wire:
    """What the tests ask of the processes, from outside all namespaces."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._http = httpx.AsyncClient(timeout=10, trust_env=False)
        self._nonce = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, name: str, method: str, *parameters: object) -> object:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = (await self._http.post(self.network.named(name).url, json=body)).json()
        assert "error" not in answer, answer
        return answer["result"]

    async def height(self, name: str) -> int:
        return int(str(await self.call(name, "eth_blockNumber")), 16)

    async def send(self, name: str) -> str:
        """A signed transfer, given to one validator; its hash."""
        transaction = sign_transaction(
            RICH, chain_id=7770, nonce=self._nonce, to=b"\xaa" * 20, gas_limit=21_000, value=1
        )
        self._nonce += 1
        return str(await self.call(name, "eth_sendRawTransaction", "0x" + transaction.raw.hex()))

    async def final(self, name: str, transaction: str, within_s: float) -> float:
        """Wait until a transaction is final on one validator; the seconds that took."""
        return await until(lambda: self._is_final(name, transaction), within_s, f"{transaction} is final on {name}")

    async def _is_final(self, name: str, transaction: str) -> bool:
        return await self.call(name, "eth_getTransactionReceipt", transaction) is not None

    async def create_election(self) -> None:
        """Election 5, in which `vote` casts."""
        election = {"election_id": 5, "title": "Split", "options": ["a", "b"], "kinds": "open"}
        gateway = self.network.named("gateway")
        answer = await self._http.post(f"{gateway.url}/api/elections", json=election, headers={"prefer": "wait=8"})
        assert answer.status_code == 201, answer.text

    async def vote(self, voter: str) -> httpx.Response:
        body = {"election_id": 5, "voter_id": voter, "choice": 0, "transaction_id": f"t-{voter}"}
        gateway = self.network.named("gateway")
        return await self._http.post(f"{gateway.url}/api/votes/submit", json=body, headers={"prefer": "wait=0"})

    async def confirmed(self, voter: str) -> bool:
        gateway = self.network.named("gateway")
        query = {"election_id": "5", "transaction_id": f"t-{voter}"}
        answer = await self._http.get(f"{gateway.url}/api/votes/transaction-status", params=query)
        return bool(answer.json().get("status") == "confirmed")

    async def ready(self) -> bool:
        """All three validators have both others, and the gateway sees them all."""
        try:
            for validator in self.network.of_kind("validator"):
                status = await self.call(validator.name, "poa_status")
                assert isinstance(status, dict)
                if int(str(status["peerCount"]), 16) < 2:
                    return False
            answer = await self._http.get(f"{self.network.named('gateway').url}/ready")
            return bool(answer.json().get("level") == 1)
        except httpx.HTTPError:
            return False


async def until(condition: Callable[[], Awaitable[bool]], within_s: float, what: str) -> float:
    """Wait for a condition; the seconds that took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < within_s, f"within {within_s} s: {what}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


Scene = Callable[[Wire], Awaitable[None]]


async def play(table: ProcessTable, scene: Scene) -> Result:
    """A scene under load; then the judge looks at the history and at every disk."""
    network = require(table.data_dir)
    wire = Wire(network)

    async def disturb(_: Injector) -> None:
        await scene(wire)

    try:
        await until(wire.ready, 60, "everybody has found everybody")
        await wire.create_election()
        chaos = Chaos(network, table, Console(quiet=True))
        result = await chaos.run(disturb, seed=1, duration_s=0, rate=15, clients=4)
    finally:
        await wire.close()
    assert not result.violations, "\n".join(map(str, result.violations))
    assert not [request for request in result.load.requests if request.detail.startswith("5")]
    return result


async def test_two_against_one(spaces: Spaces, table: ProcessTable) -> None:
    async def scene(wire: Wire) -> None:
        spaces.split(["validator-1", "validator-2", "bootnode"], ["validator-3", "gateway"])
        await asyncio.sleep(DEAD_PEER_S)
        height = await wire.height("validator-3")
        for number in range(3):  # the two go on
            transaction = await wire.send("validator-1")
            await wire.final("validator-2", transaction, GOES_ON_S)
            answer = await wire.vote(f"cut-off-{number}")  # the gateway sees only the third
            assert answer.status_code == 202, answer.text
            assert answer.json()["status"] == "pending"
        assert await wire.height("validator-2") >= height + 3
        assert await wire.height("validator-3") == height
        spaces.heal()
        await until(lambda: wire.confirmed("cut-off-2"), HEALED_S, "what the gateway kept is final")
        await wire.final("validator-3", transaction, HEALED_S)

    result = await play(table, scene)
    assert {"pending", "ok"} <= {request.outcome for request in result.load.requests}


async def test_everybody_alone(spaces: Spaces, table: ProcessTable) -> None:
    async def scene(wire: Wire) -> None:
        spaces.split(["validator-1", "gateway"], ["validator-2"], ["validator-3", "bootnode"])
        await asyncio.sleep(DEAD_PEER_S)
        heights = [await wire.height(f"validator-{number}") for number in (1, 2, 3)]
        answer = await wire.vote("alone")
        assert answer.status_code == 202, answer.text
        transaction = await wire.send("validator-2")
        await asyncio.sleep(DEAD_PEER_S)  # rounds pass, and nobody decides alone
        assert [await wire.height(f"validator-{number}") for number in (1, 2, 3)] == heights
        spaces.heal()
        await until(lambda: wire.confirmed("alone"), HEALED_S, "what the gateway kept is final")
        for number in (1, 2, 3):
            await wire.final(f"validator-{number}", transaction, HEALED_S)

    await play(table, scene)


async def test_one_way(spaces: Spaces, table: ProcessTable) -> None:
    async def scene(wire: Wire) -> None:
        spaces.cut("validator-1", "validator-2")  # validator-2 is heard and does not hear
        await asyncio.sleep(DEAD_PEER_S)
        for name in ("validator-1", "validator-2", "validator-3"):
            await wire.final("validator-3", await wire.send(name), GOES_ON_S)
        spaces.heal()
        spaces.cut("validator-3", "validator-1", share=0.3)
        spaces.cut("validator-2", "validator-3", share=0.3)
        spaces.cut("validator-1", "gateway", share=0.3)
        for name in ("validator-1", "validator-2", "validator-3"):
            await wire.final("validator-2", await wire.send(name), 2 * GOES_ON_S)
        await wire.vote("lossy")
        await until(lambda: wire.confirmed("lossy"), 2 * GOES_ON_S, "a ballot is final in spite of losses")
        spaces.heal()
        transaction = await wire.send("validator-1")
        await wire.final("validator-2", transaction, HEALED_S)

    await play(table, scene)
