"""The client library: a backend that talks to the validators itself, beside a gateway that shares its secret."""

import asyncio
import json
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cluster.creation import create
from cluster.network import Ports, local_network
from gateway import blockchain_client as library
from gateway.blockchain_client import (
    DEFAULT_VALIDATORS,
    BlockchainClient,
    ClientConfig,
    ClientError,
    ConfigError,
    NoValidator,
    Problem,
    ValidatorNode,
    ValidatorStatus,
)
from gateway.config import ElectionsConfig
from node.chain.genesis import genesis_document
from node.chain.signing import SigningKey
from tests.gateway.gateway_network import SECRET, Network, until
from tests.rpc.rpc_harness import GATEWAY_KEY

CLIENT_KEY = SigningKey(bytes([22] * 32))


def settings(network: Network, secret_key: bytes = bytes([8] * 32)) -> ClientConfig:
    """A client's files; its account is that of the gateway unless another is given."""
    (network.folder / "genesis.json").write_text(json.dumps(genesis_document(network.node.chain.genesis)))
    for name, secret in (("client.key", secret_key), ("secret", SECRET)):
        (network.folder / name).write_text("0x" + secret.hex() + "\n")
        (network.folder / name).chmod(0o600)
    nodes = tuple(
        ValidatorNode(f"validator-{n}", f"http://127.0.0.1:{front.port}", "")
        for n, front in enumerate(network.fronts, 1)
    )
    folder = network.folder
    return ClientConfig(
        folder / "genesis.json", folder / "client.key", folder / "secret", nodes, ElectionsConfig(auto_create=True)
    )


async def test_a_vote_is_cast_read_and_recounted(network: Network) -> None:
    async with BlockchainClient(config=settings(network)) as client:
        receipt = await client.submit_vote("ann", 1, "§ sealed", "tx-1")
        assert (receipt["status"], receipt["ballot_index"], receipt["warning"]) == ("confirmed", 0, None)
        assert await client.submit_vote("ann", "1", b"\xc2\xa7 sealed", "tx-1") == receipt
        with pytest.raises(Problem) as conflict:
            await client.submit_vote("ann", 1, "another", "tx-2")
        assert (conflict.value.status, conflict.value.code) == (409, "already-cast")
        found = await client.get_transaction_receipt("tx-1", 1)
        assert found is not None
        assert found["block_hash"] == receipt["block_hash"]
        assert await client.get_transaction_receipt("nobody's", 1) is None
        status = await client.get_vote_confirmation_status("nobody's", 1)
        assert (status["status"], status["confirmations"]) == ("unknown", 0)
        results = await client.get_election_results(1)
        assert (results["sealed_count"], results["verified"], results["stale"]) == (1, True, False)
        state = await client.get_blockchain_state(1)
        assert (state["total"], state["level"], state["election_state"]) == (1, 1, "open")
        report = await client.verify_blockchain_integrity(1)
        assert (report["valid"], report["ballots_counted"]) == (True, 1)
        with pytest.raises(ClientError):
            await client.get_election_results(77)


async def test_a_voter_who_uses_both_roads_counts_once(network: Network) -> None:
    both = ["0x" + key.address.hex() for key in (GATEWAY_KEY, CLIENT_KEY)]
    body = {"election_id": 1, "title": "t", "options": ["a", "b"], "registrars": both}
    async with network.gateway() as (_, api):
        assert (await api.post("/api/elections", body, Prefer="wait=20")).status_code == 201
        async with BlockchainClient(config=settings(network, bytes([22] * 32))) as client:
            mine = await client.submit_vote("ann", 1, "§", "tx")
            theirs = await api.vote("ann", None, encrypted_vote="§", transaction_id="tx", wait=20)
            assert theirs.json()["ballot_index"] == mine["ballot_index"]
            assert (await api.vote("ann", 0, wait=20)).status_code == 409
            assert (await api.vote("bob", 0, transaction_id="bob's", wait=20)).status_code == 200
            with pytest.raises(Problem):
                await client.submit_vote("bob", 1, "§")
            assert (await client.get_vote_confirmation_status("bob's", 1))["status"] == "confirmed"
            assert (await client.get_election_results(1))["total"] == 2


async def test_it_waits_out_an_outage_and_says_so(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with BlockchainClient(config=settings(network), submit_wait_s=0.2) as client:
        await client.submit_vote("first", 1, "§", "first")
        await client.wait_for_confirmation("first", 1, 20)
        await client.get_election_results(1)
        network.kill_all()
        reports = await client.refresh_validator_status()
        assert {report["status"] for report in reports} == {"unreachable"}
        pending = await client.submit_vote("ann", 1, "§", "tx")
        assert pending["status"] == "pending"
        assert "memory alone" in str(pending["warning"])
        assert (await client.wait_for_confirmation("tx", 1, 0.1))["status"] == "pending"
        with pytest.raises(NoValidator):
            await client.get_vote_confirmation_status("nobody's", 1)
        assert (await client.get_election_results(1))["stale"]
        network.revive_all()
        confirmed = await client.wait_for_confirmation("tx", 1, 30)
        assert (confirmed["status"], confirmed["block_number"] is not None) == ("confirmed", True)
    text = caplog.text
    for line in (
        "✓ validator-1 is healthy",
        "✗ validator-3 is unreachable: ",
        "Validator health check: 3/3 healthy",
        "Validator health check: 0/3 healthy",
        "level 1: all validators",
        "level 3: ",
    ):
        assert line in text, line
    assert "ann" not in text
    assert "§" not in text
    assert "wait in the journal" not in text, "there is none"


async def test_votes_are_logged_at_debug_with_a_prefix_alone(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with BlockchainClient(config=settings(network)) as client:
        await client.submit_vote("a-recognisable-voter", 1, "§", "tx")
        nullifier = client._core.elections.key(1).nullifier("a-recognisable-voter").hex()  # type: ignore[union-attr]
    lines = [record for record in caplog.records if record.name == library.__name__]
    assert [record.levelname for record in lines] == ["DEBUG"]
    assert nullifier[:8] in lines[0].getMessage()
    assert nullifier not in caplog.text
    assert "recognisable" not in caplog.text


async def test_a_status_that_is_no_200_is_named(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/", busy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    nodes = (ValidatorNode("validator-2", f"http://127.0.0.1:{runner.addresses[0][1]}", ""),)
    async with BlockchainClient(nodes, config=settings(network)) as client:
        (report,) = await client.refresh_validator_status()
        assert report["status"] == ValidatorStatus.DEGRADED.value
        await until(lambda: "⚠ validator-2 returned status 503" in caplog.text, "it is logged")
    await runner.cleanup()


async def test_what_it_refuses_shows_neither_voter_nor_ballot(network: Network) -> None:
    async with BlockchainClient(config=settings(network)) as client:
        for voter, election, ballot, transaction in (
            ("SECRET" * 50, 1, "x", "t"),
            (["SECRET"], 1, "x", "t"),
            ("SECRET", "one", "x", "t"),
            ("SECRET", 1, "", "t"),
            ("SECRET", 1, None, "t"),
            ("SECRET", 1, "SECRET" * 20_000, "t"),
            ("SECRET", 1, b"SECRET \xff", "t"),
            ("SECRET", 1, "SECRET \ud800", "t"),
            ("SECRET", 1 << 256, "SECRET", "t"),
            ("SECRET", 1, "x", "SECRET" * 50),
        ):
            fields: Any = (voter, election, ballot, transaction)
            with pytest.raises(Problem) as refused:
                await client.submit_vote(*fields)
            assert refused.value.status == 422
            assert "SECRET" not in "".join(traceback.format_exception(refused.value))
        for identity in ("", "x" * 257):
            with pytest.raises(Problem, match="transaction_id has"):
                await client.wait_for_confirmation(identity, 1, 1)
        with pytest.raises(Problem, match="election_id: expected a whole number"):
            await client.get_election_results("one")


async def test_closing_leaves_no_task_behind_however_soon(network: Network) -> None:
    for pause_s in (0, 0.01, 0.1):
        client = BlockchainClient(config=settings(network))
        await client.start()
        await asyncio.sleep(pause_s)
        await client.close()
        await asyncio.sleep(0)  # what was cancelled last ends
        left = [task for task in asyncio.all_tasks() if "Pool." in repr(task) or "gateway/follower" in repr(task)]
        assert not left


async def test_one_client_for_a_process(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_client", None)
    with pytest.raises(ClientError, match="init_blockchain_client"):
        library.get_blockchain_client_sync()
    client = await library.init_blockchain_client(config=settings(network))
    assert library.get_blockchain_client_sync() is client
    assert await library.get_blockchain_client() is client
    await library.close_blockchain_client()
    with pytest.raises(ClientError):
        library.get_blockchain_client_sync()


def test_a_dev_network_writes_all_that_a_client_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(tmp_path / "data", local_network(3, Ports(), chain_id=7770, dev=True, block_interval_ms=100))
    monkeypatch.delenv(library.CONFIG_VARIABLE, raising=False)
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    found = library.load_client_config()
    assert found.validators == DEFAULT_VALIDATORS
    assert [node.rpc_url for node in found.validators] == [one.url for one in made.of_kind("validator")]
    assert BlockchainClient().validators == DEFAULT_VALIDATORS
    monkeypatch.setenv(library.CONFIG_VARIABLE, str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        BlockchainClient()


def test_importing_it_loads_no_server_and_no_database() -> None:
    code = (
        "import sys, gateway.blockchain_client; "
        "bad = {'plyvel', 'aiohttp.web', 'uvloop', 'gateway.server', 'node.store'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
