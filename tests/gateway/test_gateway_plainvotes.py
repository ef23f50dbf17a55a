"""Votes that are read without their models, against the models."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.models import ELECTION_ID_MAX, VOTES_MAX, VoteBatchBody, VoteBody
from gateway.plainvotes import Vote, read_vote, read_votes
from node.chain.contracts.ballots import CONTENT_BYTES_MAX

ELECTION_IDS = st.sampled_from([0, 1, -1, 1 << 63, "7", "", "-1", str(ELECTION_ID_MAX), str(ELECTION_ID_MAX + 1)])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 1 << 62)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | ELECTION_IDS
    | st.lists(st.text(max_size=2), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.none(), max_size=1)
)
FIELDS = ("voter_id", "election_id", "choice", "encrypted_vote", "transaction_id", "else")
VOTES = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))
GOOD = st.fixed_dictionaries(
    {"voter_id": st.text(max_size=4), "election_id": st.integers(0, 9)},
    optional={"transaction_id": VALUES, "choice": VALUES, "encrypted_vote": VALUES, "else": VALUES},
)


def of(body: VoteBody) -> Vote:
    return Vote(body.voter_id, body.election_id, body.choice, body.encrypted_vote, body.transaction_id)


def outcome(read: Any, document: object) -> object:
    try:
        return read(document)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)


@given(VALUES | VOTES | GOOD)
@example({"voter_id": "v", "election_id": 1, "choice": True})
@example({"voter_id": "v", "election_id": True, "choice": 1})
@example({"voter_id": "v", "election_id": 1, "choice": 0, "encrypted_vote": "s"})
@example({"voter_id": "v", "election_id": ELECTION_ID_MAX + 1, "choice": 0})
def test_a_vote_is_what_its_model_says(document: object) -> None:
    document = json.loads(json.dumps(document))
    assert outcome(read_vote, document) == outcome(lambda one: of(VoteBody.model_validate(one)), document)


@given(VALUES | st.fixed_dictionaries({"votes": VALUES | st.lists(GOOD | VOTES | VALUES, max_size=3)}))
def test_votes_are_what_their_model_says(document: object) -> None:
    document = json.loads(json.dumps(document))
    wanted = outcome(lambda one: [of(vote) for vote in VoteBatchBody.model_validate(one).votes], document)
    assert outcome(read_votes, document) == wanted


@pytest.mark.parametrize("count", [0, 1, VOTES_MAX, VOTES_MAX + 1])
def test_there_are_as_many_votes_as_the_model_takes(count: int) -> None:
    document = {"votes": [{"voter_id": str(n), "election_id": 1, "choice": 0} for n in range(count)]}
    wanted = outcome(lambda one: [of(vote) for vote in VoteBatchBody.model_validate(one).votes], document)
    assert outcome(read_votes, document) == wanted


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_sealed_ballot_is_as_long_as_the_model_takes(letter: str, beyond: int) -> None:
    text = letter * (CONTENT_BYTES_MAX // len(letter.encode()) + beyond)
    document = {"voter_id": "v", "election_id": 1, "encrypted_vote": text}
    wanted = outcome(lambda one: of(VoteBody.model_validate(one)), document)
    assert outcome(read_vote, document) == wanted
