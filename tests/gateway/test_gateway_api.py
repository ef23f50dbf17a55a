"""The rules of the HTTP API's tables, one by one, over real HTTP; each answer is held to its documentation, too."""

import asyncio
import json
import shutil
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.answers import example_of
from gateway.api import documented
from gateway.server import OPERATIONS
from node.chain.errors import InvalidTransaction
from node.chain.signing import SigningKey
from tests.gateway.gateway_network import Caller, Network, until
from tests.rpc.rpc_harness import GATEWAY_KEY

OTHER_KEY = SigningKey(bytes([21] * 32))


async def make_election(api: Caller, id_: int = 1, **more: object) -> dict[str, Any]:
    body = {"election_id": id_, "title": "Lunch", "options": ["soup", "bread"]} | more
    made = await api.post("/api/elections", body, Prefer="wait=20")
    assert made.status_code in (200, 201), made.text
    shown: dict[str, Any] = made.json()
    return shown


def anchor_body(batch: object, root: str = "ab" * 32, **more: object) -> dict[str, object]:
    return {"batch_id": str(batch), "merkle_root": root, "product_count": 3} | more


async def settled(api: Caller, path: str, statuses: set[str]) -> dict[str, Any]:
    """What a path shows once its status is one of these."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        shown: dict[str, Any] = (await api.get(path)).json()
        if shown["status"] in statuses:
            return shown
        assert asyncio.get_running_loop().time() < deadline, shown
        await asyncio.sleep(0.02)


async def completed(api: Caller, batch: object) -> dict[str, Any]:
    """The anchor once it is on the chain."""
    return await settled(api, f"/v1/anchor/{batch}", {"completed"})


# -- votes and elections --------------------------------------------------------------------------------------------


async def test_elections_are_listed_closed_and_cancelled(network: Network) -> None:
    async with network.gateway() as (_, api):
        for number in range(1, 6):
            await make_election(api, number)
        page = (await api.get("/api/elections", limit=2)).json()
        seen = [one["election_id"] for one in page["elections"]]
        assert (page["total"], page["next_cursor"]) == (5, "2")
        while page["next_cursor"]:
            page = (await api.get("/api/elections", limit=2, cursor=page["next_cursor"])).json()
            seen += [one["election_id"] for one in page["elections"]]
        assert seen == [1, 2, 3, 4, 5]
        closed = await api.post("/api/elections/2/close", Prefer="wait=20")
        assert (closed.status_code, closed.json()["state"]) == (200, "delivering")
        again = await api.post("/api/elections/2/close")
        assert (again.status_code, again.json()["state"]) == (200, "delivering")
        cancelled = await api.post("/api/elections/3/cancel", Prefer="wait=20")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        assert (await api.post("/api/elections/3/close", Prefer="wait=20")).status_code == 409
        assert (await api.post("/api/elections/99/close")).status_code == 404
        assert (await api.get("/api/elections", cursor="x")).status_code == 422
        same = await make_election(api, 1)
        assert same["status"] == "confirmed"
        other = await api.post(
            "/api/elections", {"election_id": 1, "title": "x", "options": ["a", "b"]}, Prefer="wait=20"
        )
        assert (other.status_code, other.json()["code"]) == (409, "election-exists")


async def test_a_batch_has_an_outcome_for_each_vote(network: Network) -> None:
    async with network.gateway() as (_, api):
        await make_election(api)
        await make_election(api, 2, kinds="sealed")
        await api.vote("early", 0, transaction_id="t-early")

        def vote(voter: str, choice: object, transaction: str | None = None, election: int = 1) -> dict[str, object]:
            return {"voter_id": voter, "election_id": election, "choice": choice, "transaction_id": transaction}

        votes = [vote(f"v{n}", n % 2) for n in range(20)]
        votes += [vote("early", 0, "t-early"), vote("early", 1, "t-other"), vote("v0", 1), vote("x", 7)]
        votes += [vote("y", 0, election=2), {"voter_id": "z", "election_id": 2, "encrypted_vote": "§"}]
        answer = await api.post("/api/votes/batch", {"votes": votes}, Prefer="wait=20")
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert [one["index"] for one in results] == list(range(26))
        assert {one["status"] for one in results[:21]} == {"confirmed"}
        assert [(one["status"], one.get("code")) for one in results[21:]] == [
            ("rejected", "already-cast"),
            ("rejected", "already-cast"),
            ("rejected", "choice-outside"),
            ("rejected", "not-allowed"),
            ("confirmed", None),
        ]
        assert results[21]["standing"]["transaction_hash"] == results[20]["transaction_hash"]
        summary = {"total": 26, "confirmed": 22, "pending": 0, "rejected": 4, "not_taken": 0}
        assert answer.json()["summary"] == summary
        sealed = (await api.get("/api/votes/results", election_id=2)).json()
        assert (sealed["sealed"], sealed["sealed_count"], sealed["preliminary"]) == (True, 1, True)
        assert (await api.post("/api/votes/batch", {"votes": []})).status_code == 422
        assert (await api.post("/api/votes/batch", {"votes": [votes[0]] * 1001})).status_code == 422


async def test_a_status_is_found_by_every_name_of_a_record(network: Network) -> None:
    async with network.gateway() as (_, api):
        await make_election(api)
        await make_election(api, 2)
        record = (await api.vote("ann", 1, transaction_id="first")).json()
        again = (await api.vote("ann", 1, transaction_id="second")).json()
        assert again["record_id"] == record["record_id"]

        async def status(transaction: str, election: int = 1) -> dict[str, Any]:
            found = await api.get("/api/votes/transaction-status", transaction_id=transaction, election_id=election)
            return dict(found.json())

        by_own, by_other = await status("first"), await status("second")
        assert by_own["ballot_index"] == by_other["ballot_index"] == 0
        by_hash = await status(record["transaction_hash"])
        assert (by_hash["status"], by_hash["ballots"], by_hash["ballot_index"]) == ("confirmed", 1, 0)
        assert by_hash["block_hash"] == record["block_hash"]
        assert by_hash["confirmations"] >= 1
        assert (await status(record["transaction_hash"], 2))["status"] == "unknown", "it casts in another election"
        assert (await status("0x" + "12" * 32))["status"] == "unknown"
        assert (await api.get("/api/votes/transaction-status", election_id=1)).status_code == 400


async def test_the_whole_chain_of_an_election_is_recounted(network: Network) -> None:
    async with network.gateway() as (_, api):
        await make_election(api)
        for number in range(6):
            await api.vote(f"v{number}", number % 2)
        await api.vote("sealed", None, encrypted_vote="§")
        found = await api.post("/api/votes/verify-blockchain", {"election_id": 1}, Prefer="wait=30")
        assert found.status_code == 200, found.text
        shown = found.json()
        assert (shown["status"], shown["valid"], shown["error"]) == ("complete", True, None)
        assert (shown["results"], shown["sealed_count"], shown["ballots_counted"]) == ([3, 3], 1, 7)
        assert all(shown["checks"].values())
        later = await api.post("/api/votes/verify-blockchain", {"election_id": 1}, Prefer="wait=0")
        assert (later.status_code, later.headers["location"]) == (202, later.json()["progress_url"])
        end = await settled(api, later.json()["progress_url"], {"complete", "failed"})
        assert (end["valid"], end["progress"]) == (True, 1.0)
        assert (await api.get("/api/votes/verify-blockchain/nothing")).status_code == 404
        assert (await api.post("/api/votes/verify-blockchain", {"election_id": 5})).status_code == 404


async def test_a_recount_names_who_lies_and_goes_on_without_them(network: Network) -> None:
    async with network.gateway() as (_, api):
        await make_election(api)
        await api.vote("ann", 1)

        def forge(method: str, result: Any) -> Any:
            if method == "poa_getBlocks":
                for block in result:
                    block["receipts"] = [f"{entry[:-1]}{int(entry[-1], 16) ^ 1:x}" for entry in block["receipts"]]
            return result

        for front in network.fronts[:2]:
            front.tamper = forge
        shown = (await api.post("/api/votes/verify-blockchain", {"election_id": 1}, Prefer="wait=30")).json()
        assert (shown["valid"], shown["validators"]) == (True, ["validator-3"]), shown
        network.fronts[2].tamper = forge
        shown = (await api.post("/api/votes/verify-blockchain", {"election_id": 1}, Prefer="wait=30")).json()
        assert (shown["status"], shown["valid"]) == ("complete", False)
        assert set(shown["distrusted"]) == {"validator-1", "validator-2", "validator-3"}


async def test_validators_are_shown_and_probed(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        health = (await api.get("/api/admin/validators/health")).json()
        assert health["summary"] == {"healthy": 3, "total": 3, "health_percentage": 100.0}
        network.fronts[1].alive = False
        refreshed = (await api.post("/api/admin/validators/refresh-status")).json()
        assert refreshed["message"] == "Validator status refreshed"
        assert [one["status"] for one in refreshed["validators"]] == ["healthy", "unreachable", "healthy"]
        assert refreshed["validators"][1]["last_error"]
        assert gateway.level() == 2


async def test_two_gateways_with_keys_of_their_own_race_for_the_same_voters(network: Network) -> None:
    both = ["0x" + key.address.hex() for key in (GATEWAY_KEY, OTHER_KEY)]
    async with network.gateway("one") as (_, left), network.gateway("two", key=OTHER_KEY) as (_, right):
        await make_election(left, registrars=both)
        votes = [api.vote(f"v{n}", choice, wait=20) for n in range(30) for choice, api in enumerate((left, right))]
        answers = await asyncio.gather(*votes)
        for mine, theirs in zip(answers[::2], answers[1::2], strict=True):
            assert sorted((mine.status_code, theirs.status_code)) == [200, 409], (mine.text, theirs.text)
            winner, loser = sorted((mine, theirs), key=lambda one: one.status_code)
            assert loser.json()["standing"]["transaction_hash"] == winner.json()["transaction_hash"]
        result = (await right.get("/api/votes/results", election_id=1)).json()
        assert result["total"] == 30
        assert result["results"][0]["count"] == sum(answer.status_code == 200 for answer in answers[::2])


# -- anchors --------------------------------------------------------------------------------------------------------


async def test_anchors_are_listed_counted_and_verified(network: Network) -> None:
    batches = [uuid.uuid4() for _ in range(7)]
    async with network.gateway() as (_, api):
        for batch in batches:
            assert (await api.post("/v1/anchor", anchor_body(batch, algorithm="rfc6962-sha256"))).status_code == 202
        shown = [await completed(api, batch) for batch in batches]
        by_id = (await api.get(f"/v1/anchor/{shown[0]['anchor_id']}")).json()
        assert by_id["batch_id"] == str(batches[0])
        listed: list[str] = []
        cursor = None
        while True:
            page = (await api.get("/v1/anchors", limit=3, cursor=cursor, status="completed")).json()
            listed += [one["batch_id"] for one in page["anchors"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(listed) == sorted(map(str, batches))
        heights = {one["batch_id"]: one["block_number"] for one in shown}
        assert [heights[one] for one in listed] == sorted(heights.values(), reverse=True), "newest first"
        stats = (await api.get("/v1/anchors/stats")).json()
        assert (stats["completed"], stats["failed"], stats["total"]) == (7, 0, 7)
        assert stats["seconds_to_final"]["measured"] == 7
        good = (await api.get(f"/v1/verify/{batches[0]}")).json()
        assert (good["valid"], good["checks"]) == (True, {"merkle_root": True, "certificate": True, "proof": True})
        bad = (await api.get(f"/v1/verify/{batches[0]}", merkle_root="cd" * 32)).json()
        assert (bad["valid"], bad["checks"]["merkle_root"]) == (False, False)
        transaction = (await api.get(f"/v1/verify/transaction/{shown[0]['transaction_id']}")).json()
        assert (transaction["valid"], transaction["block_number"]) == (True, shown[0]["block_number"])
        assert len(transaction["certificate"]["validators"]) == transaction["certificate"]["quorum"] == 2
        nowhere = (await api.get("/v1/verify/transaction/0x" + "00" * 32)).json()
        assert (nowhere["valid"], nowhere["final"]) == (False, False)
        assert (await api.get(f"/v1/verify/{uuid.uuid4()}")).status_code == 404
        assert (await api.post(f"/v1/anchor/{batches[0]}/retry")).status_code == 400
        assert (await api.post(f"/v1/anchor/{uuid.uuid4()}/retry")).status_code == 404
        assert (await api.get("/v1/anchors", cursor="w.x.y")).status_code == 422
        assert (await api.get("/v1/anchors", status="done")).status_code == 422
        changed = {"seconds_to_final", "timestamp", "completed_per_minute"}
        before = stats
    # Without its disk, a gateway still answers for everything that is final.
    shutil.rmtree(network.folder / "gateway")
    async with network.gateway() as (_, api):
        kept = (await api.get(f"/v1/anchor/{batches[3]}")).json()
        assert {name for name in kept if kept[name] != shown[3][name]} <= {"created_at", "updated_at", "retry_count"}
        assert kept["updated_at"] == kept["anchored_at"]
        assert (kept["created_at"], kept["retry_count"]) == (kept["anchored_at"], None)
        page = (await api.get("/v1/anchors", limit=100)).json()
        assert [one["batch_id"] for one in page["anchors"]] == listed
        after = (await api.get("/v1/anchors/stats")).json()
        assert {name: after[name] for name in after if name not in changed} == {
            name: before[name] for name in before if name not in changed
        }


async def test_an_outage_leaves_an_anchor_processing_and_counts_as_no_attempt(network: Network) -> None:
    batch = uuid.uuid4()
    async with network.gateway() as (gateway, api):
        await api.vote("someone")
        network.kill_all()
        await until(lambda: gateway.level() == 3, "level 3")
        answer = await api.post("/v1/anchor", anchor_body(batch))
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        shown = (await api.get(f"/v1/anchor/{batch}")).json()
        assert (shown["status"], shown["retry_count"]) == ("processing", 0)
        verdict = (await api.get(f"/v1/verify/{batch}")).json()
        assert (verdict["valid"], verdict["checks"]["certificate"]) == (False, False)
        assert (await api.get("/v1/anchors", status="processing")).json()["anchors"][0]["batch_id"] == str(batch)
        assert (await api.get("/v1/anchors/stats")).json()["stale"] is True
        network.revive_all()
        assert (await completed(api, batch))["retry_count"] == 0


class Refusing:
    """Makes the validators refuse anchors, as they would for a price that is too low."""

    def __init__(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self.count = True, 0
        submit = network.node.submit

        async def refuse(raw: Any) -> Any:
            if not self.on:
                return await submit(raw)
            self.count += 1
            return [InvalidTransaction("transaction underpaid") for _ in raw]

        monkeypatch.setattr(network.node, "submit", refuse)


async def test_refused_anchors_back_off_fail_and_are_tried_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, settings = uuid.uuid4(), {"backoff_ms": 5, "attempts_max": 3, "retry_failed_s": 3600.0}
    async with network.gateway(anchors=settings) as (gateway, api):
        refusing = Refusing(network, monkeypatch)
        await api.post("/v1/anchor", anchor_body(batch))
        await until(lambda: len(gateway.book.failed_anchors()) == 1, "it has failed", 20)
        shown = (await api.get(f"/v1/anchor/{batch}")).json()
        assert (shown["status"], shown["retry_count"]) == ("failed", 3)
        assert "underpaid" in shown["error"]
        assert (await api.get("/v1/anchors/stats")).json()["failed"] == 1
        assert (await api.post("/v1/anchor", anchor_body(batch))).json()["status"] == "failed"
        assert (await api.post("/v1/anchor", anchor_body(batch, "cd" * 32))).status_code == 409
    # A failed one is still in the journal, and a new life tries it again.
    async with network.gateway(anchors=settings) as (gateway, api):
        await until(lambda: len(gateway.book.failed_anchors()) == 1, "it has failed again", 20)
        refusing.on = False
        answer = await api.post(f"/v1/anchor/{shown['anchor_id']}/retry")
        assert (answer.status_code, answer.json()["anchor_id"]) == (200, shown["anchor_id"])
        assert (await completed(api, batch))["error"] is None


async def test_failed_anchors_are_tried_again_by_themselves(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, settings = uuid.uuid4(), {"backoff_ms": 5, "attempts_max": 2, "retry_failed_s": 0.2}
    async with network.gateway(anchors=settings) as (_, api):
        refusing = Refusing(network, monkeypatch)
        await api.post("/v1/anchor", anchor_body(batch))
        await until(lambda: refusing.count > 12, "refused through several rounds", 20)
        refusing.on = False
        await completed(api, batch)


# -- documentation --------------------------------------------------------------------------------------------------


async def test_the_api_documents_itself_without_a_network(network: Network) -> None:
    async with network.gateway() as (_, api):
        document = (await api.get("/openapi.json")).json()
        routes = {(one.method.lower(), one.path) for one in (*OPERATIONS, *documented.OPERATIONS)}
        assert {(method, path) for path in document["paths"] for method in document["paths"][path]} == routes
        page = await api.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert all(path in page.text for path in document["paths"])
        for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
            assert outside not in page.text.replace("http://127.0.0.1", ""), outside


@pytest.mark.parametrize("operation", [*OPERATIONS, *documented.OPERATIONS], ids=lambda one: one.name)
def test_every_example_is_literal_and_of_the_documented_form(operation: Any) -> None:
    assert operation.text
    for reply in operation.replies.values():
        assert reply.shown is not None
        if not isinstance(reply.model, Mapping):
            reply.model.model_validate(reply.shown)
            assert set(example_of(reply.model)) <= set(reply.shown)
    if operation.body is not None:
        operation.body.model_validate_json(json.dumps(operation.body_example))
