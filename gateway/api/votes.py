"""Routes of ballots: submit one or many, ask what became of one, read the tally."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gateway import answers
from gateway.api.common import GATEWAY, answer, election_id_of, read_json, wait_s
from gateway.api.operations import Operation, Parameter, Reply
from gateway.book import Item
from gateway.calls import ballots_of, read_cast
from gateway.casting import Casting, Late, ballot_of, cast_votes, refused, stood
from gateway.core import Conflict, warning_at
from gateway.models import VoteBatchBody, VoteBody, show_election_id
from gateway.nullifier import InvalidId
from gateway.plainvotes import read_vote, read_votes
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.verify import receipt_at
from gateway.views import chain_status, confirmations, kept_status, results_shown, taken
from node.chain.transaction import decode_transaction

_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


async def submit(request: web.Request) -> web.Response:
    """One vote: 200 `confirmed`, 202 `pending`, or a problem that says why it does not count."""
    gateway = request.app[GATEWAY]
    body = await read_json(request, read_vote)
    try:
        ballot, transaction_id = await ballot_of(gateway, body, gateway.gatekeeper.admit_voter)
        item = gateway.keep(ballot)
    except Late as late:
        item, transaction_id = await stood(gateway, late), late.transaction_id
    except Conflict as found:
        raise await gateway.stands(found) from None
    await item.wait(wait_s(request, gateway))  # only what is durable gets an end; the rest is waited for behind it
    return await told(gateway, item, body.election_id, transaction_id)


async def told(gateway: Gateway, item: Item, election: int, transaction_id: str) -> web.Response:
    """What is said of a ballot once it is durable, with its end if it is known. Raises Problem."""
    await gateway.durable(item)
    if item.reason is not None:
        shown = {"transaction_id": transaction_id, "election_id": show_election_id(election)}
        raise await refused(gateway, item, shown)
    return answer(*shown_of(gateway, item, election, transaction_id))


def shown_of(gateway: Gateway, item: Item, election: int, transaction_id: str) -> tuple[dict[str, Any], int]:
    """The answer about a durable ballot that was not refused, and its status."""
    shown = taken(item, election, transaction_id)
    shown["level"] = level = gateway.level()
    if (warning := warning_at(level)) is not None:
        shown["warning"] = warning
    return shown, 202 if item.place is None else 200


async def batch(request: web.Request) -> web.Response:
    """Up to 1,000 votes; each is accepted or refused on its own, and the answer has an outcome for each."""
    gateway = request.app[GATEWAY]
    votes = await read_json(request, read_votes)
    castings = await cast_votes(gateway, votes, gateway.gatekeeper.admit_voter, wait_s(request, gateway))
    results = await _outcomes(gateway, castings)
    counts = dict.fromkeys(("confirmed", "pending", "rejected", "not_taken"), 0)
    for index, result in enumerate(results):
        result["index"] = index
        counts[result["status"]] += 1
    if counts["not_taken"] == len(results):
        code, detail = results[0]["code"], results[0]["reason"]
        raise Problem(503, code, detail, level=gateway.level())
    shown = {"results": results, "summary": {"total": len(results), **counts}, "level": gateway.level()}
    if (warning := gateway.warning()) is not None:
        shown["warning"] = warning
    return answer(shown)


async def _outcomes(gateway: Gateway, castings: Sequence[Casting]) -> list[dict[str, Any]]:
    """What is said of each vote, in order."""
    results: list[dict[str, Any]] = []
    refusals = []
    for casting in castings:
        item = casting.item
        if item is not None and item.reason is None and casting.transaction_id is not None:
            results.append(taken(item, casting.vote.election_id, casting.transaction_id))
        else:
            result: dict[str, Any] = {
                "transaction_id": casting.transaction_id,
                "election_id": show_election_id(casting.vote.election_id),
            }
            results.append(result)
            refusals.append(_tell_refusal(gateway, casting, result))
    await asyncio.gather(*refusals)
    return results


async def _tell_refusal(gateway: Gateway, casting: Casting, result: dict[str, Any]) -> None:
    problem = casting.problem
    if casting.item is not None:
        problem = await refused(gateway, casting.item, result)
    if problem is None:
        raise RuntimeError("a vote that has neither an item nor a problem")
    status = "not_taken" if problem.status in (429, 503) else "rejected"
    extra = {name: problem.extra[name] for name in ("standing", "warning") if name in problem.extra}
    result |= {"status": status, "code": problem.code, "reason": problem.detail} | extra


async def transaction_status(request: web.Request) -> web.Response:
    """What is known of a ballot by its transaction id or record id, or of a chain transaction by its hash.

    `unknown` is said only when a quorum of validators was asked; where that cannot be done, the answer is 503.
    """
    gateway = request.app[GATEWAY]
    election = election_id_of(request.query.get("election_id"))
    transaction_id = request.query.get("transaction_id")
    if not transaction_id:
        raise Problem(400, "missing-parameter", "The query parameter 'transaction_id' is missing.")
    shown: dict[str, Any] = {"transaction_id": transaction_id, "election_id": show_election_id(election)}
    try:
        found = kept_status(gateway, election, transaction_id, shown)
        if found is None and _HASH.fullmatch(transaction_id):
            found = await _of_hash(gateway, election, dict(shown))
        return answer(found or await chain_status(gateway, election, transaction_id, shown))
    except InvalidId as error:
        raise Problem(422, "not-valid", f"{error}.") from None


async def _of_hash(gateway: Gateway, election: int, shown: dict[str, Any]) -> dict[str, Any] | None:
    """The state of a chain transaction that casts ballots of this election; None where a quorum knows no such one."""
    transaction_hash = bytes.fromhex(shown["transaction_id"][2:])
    located = await gateway.chain.located(transaction_hash)
    if located is None:
        return None
    block, position = located
    receipt, _ = receipt_at(block, position)
    cast = read_cast(receipt) if receipt.succeeded else None
    transaction = decode_transaction(block.transactions[position])
    if cast is None or cast.election != election:
        tried = ballots_of(transaction.to, transaction.data)
        if not tried or tried[0].election != election:
            return None
    header = block.header
    shown |= {
        "transaction_hash": "0x" + transaction_hash.hex(),
        "block_number": header.number,
        "block_hash": "0x" + header.hash.hex(),
        "source": "poa",
        "confirmations": confirmations(gateway, header.number),
        "ballots": cast.count if cast is not None else 0,
    }
    if cast is None:
        return {"status": "rejected", "reason": "the transaction failed in its block", **shown}
    if len(cast.outcomes) == 1 and cast.count == 1:
        shown["ballot_index"] = cast.first_index
    return {"status": "confirmed", **shown}


async def results(request: web.Request) -> web.Response:
    """Counts, percentages and total, proven at the verified head; what still waits is counted apart."""
    gateway = request.app[GATEWAY]
    id_ = election_id_of(request.query.get("election_id"))
    result = await gateway.elections.result(id_)
    if result is None:
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return answer(results_shown(result, gateway.book.pending_ballots(id_)))


ELECTION_QUERY = Parameter(
    "election_id", {"type": "string", "pattern": r"^[0-9]{1,78}$"}, "1", "the election", required=True
)
_TRANSACTION = Parameter(
    "transaction_id",
    {"type": "string", "minLength": 1, "maxLength": 256},
    "7d0c4b1e-6d0f-4a36-9a53-0b6f9b1f2f11",
    "the caller's own id, the record_id of a ballot, or the hash of a chain transaction",
    required=True,
)
_PENDING = {
    "status": "pending",
    "transaction_hash": None,
    "block_number": None,
    "block_hash": None,
    "ballot_index": None,
    "level": 3,
    "warning": "no quorum of validators: records wait in the journal",
}
_ID = "7d0c4b1e-6d0f-4a36-9a53-0b6f9b1f2f11"
_OUTCOMES = {"results": [answers.example_of(answers.VoteOutcome)]}
_VOTE = {"voter_id": "voter-17", "election_id": 1, "choice": 0, "transaction_id": _ID}

OPERATIONS = (
    Operation(
        "POST",
        "/api/votes/submit",
        submit,
        "vote",
        "votes",
        {
            200: Reply(answers.Vote, "The ballot is in a final block that was checked."),
            202: Reply(answers.Vote, "The ballot is durable and not final yet: ask again.", _PENDING),
        },
        (400, 403, 404, 408, 409, 413, 422, 503),
        VoteBody,
        _VOTE,
        waits=True,
    ),
    Operation(
        "POST",
        "/api/votes/batch",
        batch,
        "vote",
        "votes",
        {200: Reply(answers.VoteBatch, "An outcome for each vote.", _OUTCOMES)},
        (400, 408, 413, 422, 503),
        VoteBatchBody,
        {"votes": [_VOTE]},
        waits=True,
    ),
    Operation(
        "GET",
        "/api/votes/transaction-status",
        transaction_status,
        "read",
        "votes",
        {200: Reply(answers.VoteStatus, "What is known.")},
        (400, 409, 422, 503),
        parameters=(ELECTION_QUERY, _TRANSACTION),
    ),
    Operation(
        "GET",
        "/api/votes/results",
        results,
        "read",
        "votes",
        {200: Reply(answers.Results, "The tally.")},
        (400, 404, 422, 503),
        parameters=(ELECTION_QUERY,),
    ),
)
