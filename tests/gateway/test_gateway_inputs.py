"""What callers send: a name is never taken for a number, and what is refused is named."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_network import Network


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        one = Network(tmp_path, client)
        await one.start()
        yield one
        await one.stop()


async def test_options_that_are_called_by_digits_go_by_their_names(network: Network) -> None:
    async with network.gateway() as (_, api):
        election = {"election_id": 1, "title": "Which ward", "options": ["1", "2", "10"]}
        assert (await api.post("/api/elections", election, Prefer="wait=20")).status_code == 201
        for voter, choice in enumerate(("1", "10", 2)):
            assert (await api.vote(voter, choice, wait=20)).status_code == 200
        for choice in ("0", "3", "１", "²", "-1", " 1", "01"):
            refused = await api.vote(f"refused {choice}", choice)
            assert (refused.status_code, refused.json()["code"]) == (422, "choice-outside"), choice
        counted = (await api.get("/api/votes/results", election_id=1)).json()["results"]
        assert [one["count"] for one in counted] == [1, 0, 2]


async def test_digits_are_numbers_where_no_option_is_called_by_digits(network: Network) -> None:
    async with network.gateway() as (_, api):
        election = {"election_id": 1, "title": "Board", "options": ["Ada", "Grace"]}
        assert (await api.post("/api/elections", election, Prefer="wait=20")).status_code == 201
        assert (await api.vote("ann", "1", wait=20)).status_code == 200
        assert (await api.vote("bob", "Ada", wait=20)).status_code == 200
        assert (await api.vote("cid", "١")).status_code == 422, "not everybody reads it as a digit"
        counted = (await api.get("/api/votes/results", election_id=1)).json()["results"]
        assert [one["count"] for one in counted] == [1, 1]


async def test_a_name_is_not_guessed_at_while_nobody_can_say_what_the_options_are_called(network: Network) -> None:
    """Taken for a number, the first option's "1" would be a vote for the second one."""
    async with network.gateway("one") as (_, api):
        election = {"election_id": 1, "title": "Which ward", "options": ["1", "2"]}
        assert (await api.post("/api/elections", election, Prefer="wait=20")).status_code == 201
    network.kill_all()
    async with network.gateway("two") as (gateway, api):
        for choice in ("1", "Ada"):
            unseen = await api.vote("ann", choice, wait=0)
            assert (unseen.status_code, unseen.json()["code"]) == (503, "no-validator"), choice
        many = {"votes": [{"voter_id": "ann", "election_id": 1, "choice": choice} for choice in ("1", 1)]}
        shown = (await api.post("/api/votes/batch", many, Prefer="wait=0")).json()["results"]
        assert [one["status"] for one in shown] == ["not_taken", "pending"]
        assert gateway.book.pending_count == 1
