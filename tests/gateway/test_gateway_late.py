"""What was cast before an election's end and is sent again behind it is told where it stands, by whichever gateway."""

import asyncio
from typing import Any

import pytest

from gateway.blockchain_client import BlockchainClient, Problem
from gateway.core import LOOKED_FOR_AT_ONCE
from tests.gateway.gateway_network import Caller, Network, until
from tests.gateway.test_gateway_client import settings


async def ended(api: Caller, how: str) -> dict[str, Any]:
    """Cast one ballot and end the election; what was answered to the ballot."""
    election = {"election_id": 1, "title": "t", "options": ["a", "b"], "delivery_grace_s": 0}
    assert (await api.post("/api/elections", election, Prefer="wait=20")).status_code == 201
    first = await api.vote("ann", 1, transaction_id="ann's", wait=20)
    assert first.status_code == 200
    assert (await api.post(f"/api/elections/1/{how}", Prefer="wait=20")).status_code == 200
    return {**first.json(), "validator": None}


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_sent_again_behind_the_end(network: Network, how: str) -> None:
    async with network.gateway("one") as (_, api):
        first = await ended(api, how)
        again = await api.vote("ann", 1, transaction_id="ann's")
        assert (again.status_code, {**again.json(), "validator": None}) == (200, first)
    async with network.gateway("without that disk") as (gateway, api):
        again = await api.vote("ann", 1, transaction_id="ann's")
        assert (again.status_code, again.json()) == (200, first)
        other = await api.vote("ann", 0, transaction_id="another")
        assert (other.status_code, other.json()["code"]) == (409, "already-cast")
        standing = {name: first[name] for name in ("record_id", "transaction_hash", "block_number", "block_hash")}
        assert other.json()["standing"] == {"status": "confirmed", "ballot_index": 0, **standing}
        new = await api.vote("bob", 1)
        assert (new.status_code, new.json()["code"]) == (409, "election-not-open")
        votes = [{"voter_id": voter, "election_id": 1, "choice": 1} for voter in ("ann", "bob")]
        votes.append({"voter_id": "ann", "election_id": 1, "choice": 0})
        batch = (await api.post("/api/votes/batch", {"votes": votes})).json()
        told = [(one["status"], one.get("code")) for one in batch["results"]]
        assert told == [("confirmed", None), ("rejected", "election-not-open"), ("rejected", "already-cast")]
        assert gateway.book.pending_count == 0
        network.kill_all()
        assert (await api.vote("ann", 1)).status_code == 503, "nobody can say that it does not stand"


async def test_sent_again_unseen_in_an_outage_behind_the_end(network: Network) -> None:
    """A gateway without that disk takes it, since nobody says that the election is over; the chain refuses it then."""
    async with network.gateway("one") as (_, api):
        first = await ended(api, "cancel")
    network.kill_all()
    async with network.gateway("without that disk") as (gateway, api):
        for voter, choice in (("ann", 1), ("bob", 1)):
            unseen = await api.vote(voter, choice, transaction_id=f"{voter}'s", wait=0)
            assert unseen.status_code == 202
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "their ends are known", 20)

        async def status(voter: str) -> dict[str, Any]:
            found = await api.get("/api/votes/transaction-status", election_id=1, transaction_id=f"{voter}'s")
            return dict(found.json())

        ann, bob = await status("ann"), await status("bob")
        assert (ann["status"], ann["block_hash"], ann["ballot_index"]) == ("confirmed", first["block_hash"], 0)
        assert (bob["status"], bob["reason"].partition("(")[0]) == ("rejected", "ElectionNotOpen")
    network.kill_all()
    async with network.gateway("nor that one") as (gateway, api):
        assert (await api.vote("ann", 0, transaction_id="another", wait=0)).status_code == 202
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "its end is known", 20)
        other = (await api.get("/api/votes/transaction-status", election_id=1, transaction_id="another")).json()
        assert (other["status"], other["reason"].partition(":")[0]) == ("rejected", "NULLIFIER_USED")


async def test_a_crowd_behind_the_end_leaves_connections_to_the_others(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network.gateway() as (gateway, api):
        await ended(api, "cancel")
        look, looking, most = gateway.chain.ballot, 0, 0

        async def watched(*given: Any, **more: Any) -> Any:
            nonlocal looking, most
            looking += 1
            most = max(most, looking)
            try:
                return await look(*given, **more)
            finally:
                looking -= 1

        monkeypatch.setattr(gateway.chain, "ballot", watched)
        votes = [{"voter_id": f"many-{n}", "election_id": 1, "choice": 1} for n in range(20)]
        batch, *alone = await asyncio.gather(
            api.post("/api/votes/batch", {"votes": votes}), *(api.vote(f"alone-{n}", 1) for n in range(30))
        )
        assert {one["code"] for one in batch.json()["results"]} == {"election-not-open"}
        assert {(one.status_code, one.json()["code"]) for one in alone} == {(409, "election-not-open")}
        assert 1 < most <= LOOKED_FOR_AT_ONCE
        assert looking == 0


async def test_an_election_that_waits_comes_with_the_warning_that_says_why(network: Network) -> None:
    async with network.gateway() as (_, api):
        network.kill_all()
        await api.post("/api/admin/validators/refresh-status")
        election = {"election_id": 1, "title": "t", "options": ["a", "b"]}
        waits = await api.post("/api/elections", election, Prefer="wait=0")
        assert (waits.status_code, waits.json()["level"]) == (202, 3)
        assert "no quorum" in waits.json()["warning"]


async def test_the_client_is_told_alike(network: Network) -> None:
    async with network.gateway() as (_, api):
        election = {"election_id": 1, "title": "t", "options": ["a", "b"]}
        assert (await api.post("/api/elections", election, Prefer="wait=20")).status_code == 201
        first = await api.vote("ann", None, encrypted_vote="§", transaction_id="ann's", wait=20)
        assert (await api.post("/api/elections/1/close", Prefer="wait=20")).status_code == 200
    async with BlockchainClient(config=settings(network)) as client:
        again = await client.submit_vote("ann", 1, "§", "ann's")
        assert (again["status"], again["block_hash"]) == ("confirmed", first.json()["block_hash"])
        for voter, code in (("ann", "already-cast"), ("bob", "election-not-open")):
            with pytest.raises(Problem) as refused:
                await client.submit_vote(voter, 1, "another")
            assert (refused.value.status, refused.value.code) == (409, code)
