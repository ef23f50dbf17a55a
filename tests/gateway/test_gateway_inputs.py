"""What callers send: a name is never taken for a number, and what is refused is named."""

import math
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.trees import ProofBody
from gateway.faults import invalid_body
from gateway.models import AnchorBody, ElectionBody, VoteBatchBody, VoteBody
from tests.gateway.gateway_network import Network


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


ROOT = "ab" * 32
ANCHOR = {"batch_id": "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11", "merkle_root": ROOT, "product_count": 1}
ELECTION = {"election_id": 1, "title": "t", "options": ["a", "b"]}
SECRET = "k" * 300  # no answer repeats it


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (AnchorBody, ANCHOR | {"batch_id": "x"}, 'batch_id: expected a UUID (given: "x")'),
        (
            AnchorBody,
            ANCHOR | {"product_count": -1},
            "product_count: Input should be greater than or equal to 0 (given: -1)",
        ),
        (AnchorBody, ANCHOR | {"merkle_root": "0x" + "z" * 65}, '(given: text of 65 characters, "' + "z" * 64 + '"…)'),
        (
            AnchorBody,
            ANCHOR | {"callback_url": [SECRET]},
            "callback_url: Input should be a valid string (given: a list of 1)",
        ),
        (AnchorBody, {"merkle_root": ROOT}, "batch_id: Field required; product_count: Field required."),
        (AnchorBody, [ANCHOR], "body: expected an object (given: a list of 1)"),
        (
            ElectionBody,
            ELECTION | {"kinds": "each"},
            "kinds: Input should be 'open', 'sealed' or 'both' (given: \"each\")",
        ),
        (ElectionBody, ELECTION | {"options": ["a", None]}, "options.1: Input should be a valid string (given: null)"),
        (ElectionBody, ELECTION | {"election_id": 2.0**64}, "2^64 - 1 (given: 1.8446744073709552e+19)"),
        (VoteBody, {"voter_id": [SECRET], "election_id": 1, "choice": 0}, "64 bits (given: a list of 1)"),
        (
            VoteBody,
            {"voter_id": 1.5, "election_id": 1, "choice": 0},
            "voter_id: expected a string, or a whole number of 64 bits (given: a number)",
        ),
        (
            VoteBody,
            {"voter_id": "v", "election_id": 1, "choice": 1.5},
            "choice: Input should be a valid integer, or Input should be a valid string (given: a number)",
        ),
        (
            VoteBody,
            {"voter_id": "v", "election_id": 1, "encrypted_vote": "k" * 65_537},
            "encrypted_vote: String should have at most 65536 characters (given: text of 65537 characters)",
        ),
        (
            VoteBody,
            {"voter_id": SECRET, "election_id": 1, "encrypted_vote": "é" * 40_000},
            "body: 'encrypted_vote' has 80000 bytes in UTF-8, expected 1 to 65536.",
        ),
        (VoteBatchBody, {"votes": [SECRET]}, "votes.0: expected an object (given: text of 300 characters)"),
        (
            VoteBatchBody,
            {"votes": [{"voter_id": "v", "election_id": "x", "choice": 0}]},
            "votes.0.election_id: expected a whole number",
        ),
        (
            ProofBody,
            {"leaf": 1, "proof": ["z"], "root": ROOT},
            "proof.0: expected an object, or String should match pattern '^[0-9a-f]{64}$' (given: \"z\")",
        ),
    ],
)
def test_what_is_refused_is_named_with_what_was_given_and_what_was_expected(
    model: type[BaseModel], body: Any, words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(body)
    problem = invalid_body(refused.value, body)
    assert problem.status == 422
    assert words in problem.detail
    assert SECRET[:20] not in str(problem.document("id"))


@pytest.mark.parametrize("odd", [True, math.inf, "", {}, [], {"a": [{}]}, 1 << 63, -1.5], ids=repr)
def test_no_kind_of_value_is_too_odd_to_be_named(odd: Any) -> None:
    body = dict.fromkeys(("voter_id", "election_id", "choice", "encrypted_vote", "transaction_id"), odd)
    with pytest.raises(ValidationError) as refused:
        VoteBody.model_validate(body)
    named = {fault["field"] for fault in invalid_body(refused.value, body).extra["errors"]}
    assert "encrypted_vote" in named
    assert named <= set(body)


@pytest.mark.parametrize("odd", [1 << 256, -(1 << 63) - 1, 1 << 20_000, "\ud800", b"\xff"], ids=lambda odd: "odd")
def test_what_json_has_no_form_for_is_named_too(odd: Any) -> None:
    """It comes from callers of the client library."""
    body = {"voter_id": "v", "election_id": odd, "choice": 0}
    with pytest.raises(ValidationError) as refused:
        VoteBody.model_validate(body)
    problem = invalid_body(refused.value, body)
    assert problem.extra["errors"][0]["field"] == "election_id"
    assert "(given: " in problem.detail
    problem.detail.encode()


async def test_parameters_are_named_with_what_was_given(network: Network) -> None:
    async with network.gateway() as (_, api):
        for path, words in (
            ("/api/elections/x", "election_id: expected a whole number from 0 to 2^256 - 1"),
            ("/api/elections?limit=0", 'limit: expected a whole number from 1 to 100 (given: "0")'),
            ("/api/elections?cursor=x", '(given: "x")'),
            (
                "/v1/anchors?status=done",
                'status: expected one of pending, processing, completed, failed (given: "done")',
            ),
            ("/v1/anchor/x", 'batch_id: expected a UUID (given: "x")'),
            ("/v1/verify/transaction/0x12", "tx_id: expected"),
            ("/ready?max_level=9", 'max_level: expected 1, 2, 3 or 4 (given: "9")'),
            ("/api/votes/results?election_id=" + "9" * 99, f'(given: text of 99 characters, "{"9" * 64}"…)'),
        ):
            refused = await api.get(path.partition("?")[0], **dict(parse_qsl(path.partition("?")[2])))
            assert refused.status_code == 422
            assert words in refused.json()["detail"]
        body = await api.post("/v1/anchor", {"batch_id": "x", "merkle_root": 1})
        assert [fault["field"] for fault in body.json()["errors"]] == ["batch_id", "merkle_root", "product_count"]
        assert body.json()["errors"][0] == {"field": "batch_id", "message": "expected a UUID", "given": '"x"'}
