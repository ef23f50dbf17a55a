"""Elections with a random key of their own, and the names under which a record is found whatever a gateway has lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway import electionkeys, service
from gateway.config import ElectionsConfig, GatewayConfig
from gateway.disk import InUse
from gateway.electionkeys import ElectionKeys
from gateway.problems import Problem
from gateway.records import Ballot
from gateway.server import open_gateway
from gateway.service import Gateway
from node.chain.genesis import genesis_document
from node.chain.signing import SigningKey
from serving.keyfiles import SecretError
from tests.gateway.conftest import DOMAIN
from tests.gateway.gateway_network import SECRET, Caller, Network, until
from tests.rpc.rpc_harness import ADDRESSES, GATEWAY_KEY

OTHER_KEY = SigningKey(bytes([21] * 32))
RANDOM = {"election_id": 1, "title": "Lunch", "options": ["soup", "bread"], "voter_key": "random"}


async def status(api: Caller, name: str) -> dict[str, Any]:
    answer = await api.get("/api/votes/transaction-status", transaction_id=name, election_id=1)
    return {"http": answer.status_code, **answer.json()}


async def test_a_record_is_found_by_its_record_id_after_every_loss(network: Network) -> None:
    """An equal ballot under a second transaction_id is the first record: its record_id finds it for ever."""
    async with network.gateway() as (_, api):
        record = (await api.vote("ann", 1, transaction_id="first", wait=20)).json()
        again = await api.vote("ann", 1, transaction_id="second", wait=20)
        assert (again.status_code, again.json()["record_id"]) == (200, record["record_id"])
        assert (await status(api, "second"))["status"] == "confirmed"
        receipt = await api.get("/api/votes/receipt", transaction_id="second", election_id=1)
        assert receipt.status_code == 200, receipt.text
    shutil.rmtree(network.folder / "gateway")
    async with network.gateway() as (_, api):
        forgotten = await status(api, "second")
        assert (forgotten["status"], "sent again" in forgotten["reason"]) == ("unknown", True)
        for name in ("first", record["record_id"], record["transaction_hash"]):
            found = await status(api, name)
            assert (found["status"], found["block_hash"]) == ("confirmed", record["block_hash"]), name
        again = await api.vote("ann", 1, transaction_id="second", wait=20)
        assert again.status_code == 200, again.text
        for name in ("record_id", "transaction_hash", "ballot_index", "block_hash"):
            assert (again.json()[name], (await status(api, "second"))[name]) == (record[name], record[name])
        receipt = await api.get("/api/votes/receipt", transaction_id="second", election_id=1)
        assert receipt.status_code == 200, receipt.text


async def test_a_random_key_casts_here_alone_and_is_erased_when_the_tally_is_final(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SAVE_INTERVAL_S", 0.05)
    file = network.folder / "one" / "election-keys" / "1.key"
    async with network.gateway("one") as (gateway, api):
        made = await api.post("/api/elections", RANDOM | {"delivery_grace_s": 0}, Prefer="wait=20")
        assert (made.status_code, made.json()["voter_key"]) == (201, "random"), made.text
        assert file.stat().st_mode & 0o777 == 0o600
        same = await api.post("/api/elections", RANDOM | {"delivery_grace_s": 0}, Prefer="wait=20")
        assert same.status_code == 200, same.text
        shared = await api.post("/api/elections", RANDOM | {"delivery_grace_s": 0, "voter_key": "shared"})
        assert (shared.status_code, shared.json()["code"]) == (409, "election-exists")
        record = (await api.vote("ann", 1, transaction_id="ann's", wait=20)).json()
        assert record["status"] == "confirmed"
        derived = gateway.elections.keys.derived(1)
        assert record["record_id"] != "0x" + derived.record_id("ann's").hex()
        async with network.gateway("two") as (_, other):
            assert (await other.get("/api/elections/1")).json()["voter_key"] == "elsewhere"
            refused = await other.vote("bob", 0)
            assert (refused.status_code, refused.json()["code"]) == (409, "key-mismatch")
            assert ((await status(other, "ann's"))["http"], (await status(other, "x"))["code"]) == (409, "key-mismatch")
            assert (await status(other, record["record_id"]))["status"] == "confirmed"
            lost = await other.get("/api/votes/receipt", transaction_id="ann's", election_id=1)
            assert (lost.status_code, lost.json()["code"]) == (409, "key-mismatch")
    async with network.gateway("one") as (gateway, api):  # a second life finds the key again
        assert (await api.vote("ann", 1, transaction_id="ann's", wait=20)).json()["record_id"] == record["record_id"]
        assert (await api.post("/api/elections/1/close", Prefer="wait=20")).status_code == 200
        network.node.mine()
        await until(lambda: not file.exists(), "the key is erased")
        assert (await api.get("/api/elections/1")).json()["voter_key"] == "elsewhere"
        assert (await status(api, record["record_id"]))["status"] == "confirmed"
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert (result["total"], result["preliminary"], result["verified"]) == (1, False, True)
    async with network.gateway("one") as (_, api):
        assert (await status(api, "never"))["code"] == "key-mismatch"


async def test_a_random_key_of_an_election_that_is_another_ones_is_erased(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SAVE_INTERVAL_S", 0.05)
    async with network.gateway() as (gateway, api):
        made = await api.post("/api/elections", RANDOM | {"voter_key": "shared"}, Prefer="wait=20")
        assert made.json()["voter_key"] == "shared"
        other = await api.post("/api/elections", RANDOM, Prefer="wait=20")
        assert (other.status_code, other.json()["code"]) == (409, "election-exists")
        await until(lambda: not gateway.elections.keys.random_ids(), "the key is erased")
        assert (await api.vote("ann", 1, wait=20)).status_code == 200


async def test_a_random_key_is_durable_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "keys"
    keys = ElectionKeys(SECRET, DOMAIN, folder)
    made = await keys.make(7)
    assert (await keys.make(7)) is made
    assert made.check != keys.derived(7).check
    assert keys.fitting(7, None) is keys.fitting(7, made.check) is made
    assert keys.fitting(7, keys.derived(7).check) is keys.fitting(7, bytes(32)) is keys.derived(7)
    (folder / "8.new").write_text("torn")  # a life that ended in the middle of making the next one
    again = ElectionKeys(SECRET, DOMAIN, folder)
    assert again.random_ids() == [7]
    assert again.fitting(7, None).check == made.check
    await again.make(8)
    await again.erase(7)
    assert ElectionKeys(SECRET, DOMAIN, folder).random_ids() == [8]
    monkeypatch.setattr(electionkeys, "RANDOM_MAX", 1)
    with pytest.raises(Problem, match="already"):
        await again.make(9)
    (folder / "8.key").chmod(0o644)
    with pytest.raises(SecretError, match="0600"):
        ElectionKeys(SECRET, DOMAIN, folder)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(Problem, match="cannot be kept"):
        await ElectionKeys(SECRET, DOMAIN, blocked / "keys").make(1)
    with pytest.raises(Problem, match="not kept here"):
        await ElectionKeys(SECRET, DOMAIN, None).make(1)


async def test_one_key_is_one_process(network: Network, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("genesis.json", "gateway.key", "master.secret")}
    files["genesis.json"].write_text(json.dumps(genesis_document(network.node.chain.genesis)))
    for name in ("gateway.key", "master.secret"):
        files[name].write_text("11" * 32)
        files[name].chmod(0o600)

    def config(name: str) -> GatewayConfig:
        paths = {"genesis": "genesis.json", "key": "gateway.key", "master_secret": "master.secret"}
        return network.config(name).model_copy(update={field: files[file] for field, file in paths.items()})

    first = open_gateway(config("one"))
    with pytest.raises(InUse, match="give this one a key of its own"):
        open_gateway(config("two"))
    await first.stop()
    second = open_gateway(config("one"))
    with pytest.raises(InUse, match=r"journal/LOCK is in use .* a folder of its own"):
        Gateway(config("one"), network.node.chain.genesis, OTHER_KEY, SECRET)
    await second.stop()


async def test_ballots_taken_unseen_under_a_random_key_are_cast_under_no_other(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The election that they were for was made by somebody else meanwhile: their voters would count twice."""
    monkeypatch.setattr(service, "SAVE_INTERVAL_S", 0.05)
    network.kill_all()
    async with network.gateway(elections=ElectionsConfig()) as (gateway, api):
        await until(lambda: gateway.level() == 3, "an outage")
        assert (await api.post("/api/elections", RANDOM, Prefer="wait=0")).status_code == 202
        assert (await api.vote("ann", 0, transaction_id="unseen", wait=0)).status_code == 202
        other = gateway.elections.create_call(1, "Lunch", ["soup", "bread"])
        network.node.include(network.node.sign(GATEWAY_KEY, ADDRESSES["Elections"], other.data))
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "their ends are known", 20)
        item = gateway.book.by_alias(gateway.elections.keys.derived(1).record_id("unseen"))
        assert item is None, "it was taken under the random key"
        (refused,) = [item for item in gateway.book._done if isinstance(item.record, Ballot)]
        assert (refused.place, (refused.reason or "").partition(":")[0]) == (None, "KeyMismatch")
        await until(lambda: not gateway.elections.keys.random_ids(), "the useless key is erased", 20)
        assert (await api.vote("ann", 1, wait=20)).status_code == 200
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert [one["count"] for one in result["results"]] == [0, 1]


async def test_no_random_key_is_made_where_ballots_wait_under_the_shared_one(network: Network) -> None:
    network.kill_all()
    async with network.gateway(elections=ElectionsConfig()) as (gateway, api):
        await until(lambda: gateway.level() == 3, "an outage")
        assert (await api.vote("ann", 0, wait=0)).status_code == 202
        refused = await api.post("/api/elections", RANDOM, Prefer="wait=0")
        assert (refused.status_code, refused.json()["code"]) == (409, "ballots-wait")
        assert not gateway.elections.keys.random_ids()
        assert (await api.post("/api/elections", RANDOM | {"voter_key": "shared"}, Prefer="wait=0")).status_code == 202
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "their ends are known", 20)
        assert (await api.get("/api/votes/results", election_id=1)).json()["total"] == 1
        late = await api.post("/api/elections", RANDOM, Prefer="wait=0")
        assert (late.status_code, late.json()["code"]) == (409, "election-exists")
        assert not gateway.elections.keys.random_ids(), "a key that nobody needs would stop all casting here"
