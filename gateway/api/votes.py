"""Routes of ballots: submit one, ask what became of it, read the tally."""

import asyncio
import time
from typing import Any

from aiohttp import web

from gateway.api.common import GATEWAY, answer, election_id_of, read_body, wait_s
from gateway.book import Item
from gateway.chain import Election, Standing
from gateway.elections import Result, state_name
from gateway.journal_format import Place
from gateway.models import VoteBody, show_election_id
from gateway.nullifier import InvalidId
from gateway.problems import Problem, refusal
from gateway.records import Ballot
from gateway.service import Gateway
from gateway.validators import NoValidator
from node.chain.contracts.elections import KIND_OPEN, KIND_SEALED, ElectionState

CREATE_S = 1.0  # in development: how long a ballot waits for its election before it goes to the journal unseen


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/votes/submit", submit),
        web.get("/api/votes/transaction-status", transaction_status),
        web.get("/api/votes/results", results),
    ]


async def submit(request: web.Request) -> web.Response:
    """One vote: 200 `confirmed`, 202 `pending`, or a problem that says why it does not count."""
    gateway = request.app[GATEWAY]
    body = await read_body(request, VoteBody)
    ballot, transaction_id = await _ballot(gateway, body)
    item = await gateway.cast(ballot)
    await item.wait(wait_s(request, gateway))
    shown = {"transaction_id": transaction_id, "election_id": show_election_id(body.election_id)}
    if item.reason is not None:
        raise await _refused(gateway, item, shown)
    shown |= _record(item.record, item.place, item.index) | {"validator": item.taken_by, "level": gateway.level()}
    if (warning := gateway.warning()) is not None:
        shown["warning"] = warning
    if item.place is None:
        return answer({"status": "pending", **shown}, 202)
    return answer({"status": "confirmed", **shown})


async def _ballot(gateway: Gateway, body: VoteBody) -> tuple[Ballot, str]:
    """The ballot of a request and its transaction id. Raises Problem where the election will surely not take it."""
    id_ = body.election_id
    election = await _election(gateway, id_)
    key = gateway.elections.key(id_)
    try:
        nullifier = key.nullifier(body.voter_id)
        transaction_id = body.transaction_id or key.made_transaction_id(nullifier)
        record_id = key.record_id(transaction_id)
    except InvalidId as error:
        raise Problem(422, "not-valid", f"{error}.") from None
    if body.encrypted_vote is not None:
        kind, content = KIND_SEALED, body.encrypted_vote.encode()
    else:
        kind, content = KIND_OPEN, bytes((_choice(election, body.choice),))
    if election is not None:
        _check_election(gateway, election, kind)
    return Ballot(id_, nullifier, record_id, kind, content), transaction_id


async def _election(gateway: Gateway, id_: int) -> Election | None:
    """The definition; None where no validator can say, and the journal takes the ballot unseen."""
    try:
        election = await gateway.elections.get(id_)
        if election is None and gateway.config.elections.auto_create:
            async with asyncio.timeout(CREATE_S):
                await gateway.elections.ensure(id_)
            election = await gateway.elections.get(id_)
    except (NoValidator, TimeoutError):
        return None
    if election is None:
        if gateway.config.elections.auto_create:
            return None  # it is on its way
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return election


def _choice(election: Election | None, choice: int | str | None) -> int:
    """The option's number. Raises Problem 422."""
    if isinstance(choice, str) and election is not None and choice in election.options:
        return election.options.index(choice)
    if isinstance(choice, str) and choice.isdecimal() and len(choice) <= 3:
        choice = int(choice)
    last = (len(election.options) if election is not None else 64) - 1
    if not isinstance(choice, int) or not 0 <= choice <= last:
        raise Problem(422, "choice-outside", f"'choice' is an option's number from 0 to {last}, or an option's name.")
    return choice


def _check_election(gateway: Gateway, election: Election, kind: int) -> None:
    if not gateway.elections.key_fits(election):
        detail = (
            "This gateway's secret is not the one that the election was created with, so it could count a voter twice."
        )
        raise Problem(409, "key-mismatch", detail)
    if not election.kinds >> kind & 1:
        taken = "sealed ballots ('encrypted_vote')" if kind == KIND_OPEN else "open ballots ('choice')"
        raise Problem(422, "not-allowed", f"This election takes only {taken}.")
    # The grace is for what came before closing: what comes now is too late, whatever the definition's age.
    if 0 < election.closes_at <= time.time() and election.state == ElectionState.OPEN:
        raise Problem(409, "election-not-open", "The election is closed.", state="delivering")
    if election.state in (ElectionState.CLOSED, ElectionState.CANCELLED, ElectionState.DELIVERING):
        raise Problem(409, "election-not-open", f"The election is {state_name(election)}.", state=state_name(election))


async def _refused(gateway: Gateway, item: Item, shown: dict[str, Any]) -> Problem:
    """Why a ballot does not count; with the record that stands in its place, where there is one."""
    reason = item.reason or ""
    if reason.startswith("NULLIFIER_USED") and isinstance(item.record, Ballot):
        standing: Standing | None = None
        try:
            standing = await gateway.chain.ballot(item.record.election, nullifier=item.record.nullifier)
        except NoValidator as error:
            shown["warning"] = f"The record that stands cannot be shown now: {error}."
        if standing is not None:
            shown["standing"] = {
                "status": "confirmed",
                **_record(standing.record, standing.place, standing.index),
            }
        detail = "This voter has cast another ballot in this election; the first one stands."
        return Problem(409, "already-cast", detail, **shown)
    return refusal(reason, **shown)


def _record(record: object, place: Place | None, index: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "record_id": "0x" + record.record_id.hex() if isinstance(record, Ballot) else None,
        "transaction_hash": None,
        "block_number": None,
        "block_hash": None,
        "ballot_index": None,
    }
    if place is not None:
        shown["transaction_hash"] = "0x" + place.transaction_hash.hex()
        shown["block_number"] = place.block_number
        shown["block_hash"] = "0x" + place.block_hash.hex()
        shown["ballot_index"] = index
    return shown


async def transaction_status(request: web.Request) -> web.Response:
    """What is known of a ballot by its transaction id: pending, confirmed, rejected, or surely unknown."""
    gateway = request.app[GATEWAY]
    election = election_id_of(request.query.get("election_id"))
    transaction_id = request.query.get("transaction_id")
    if not transaction_id:
        raise Problem(400, "missing-parameter", "The query parameter 'transaction_id' is missing.")
    try:
        record_id = gateway.elections.key(election).record_id(transaction_id)
    except InvalidId as error:
        raise Problem(422, "not-valid", f"{error}.") from None
    shown: dict[str, Any] = {"transaction_id": transaction_id, "election_id": show_election_id(election)}
    item = gateway.book.ballot_by_record_id(record_id)
    if item is not None and item.durable and isinstance(item.record, Ballot) and item.record.election == election:
        return answer(_item_status(gateway, item, shown))
    standing = await gateway.chain.ballot(election, record_id=record_id, sure=True)
    if standing is None:
        return answer({"status": "unknown", **shown, "source": "poa"}, 404)
    shown |= _record(standing.record, standing.place, standing.index)
    confirmations = max(gateway.follower.head.header.number - standing.place.block_number + 1, 1)
    return answer({"status": "confirmed", **shown, "source": "poa", "confirmations": confirmations})


def _item_status(gateway: Gateway, item: Item, shown: dict[str, Any]) -> dict[str, Any]:
    shown |= _record(item.record, item.place, item.index)
    if item.place is not None:
        confirmations = max(gateway.follower.head.header.number - item.place.block_number + 1, 1)
        return {"status": "confirmed", **shown, "source": "poa", "confirmations": confirmations}
    if item.reason is not None:
        return {"status": "rejected", **shown, "reason": item.reason, "source": "poa", "confirmations": 0}
    return {"status": "pending", **shown, "source": "journal", "confirmations": 0, "level": gateway.level()}


async def results(request: web.Request) -> web.Response:
    """Counts, percentages and total, proven at the verified head; what still waits is counted apart."""
    gateway = request.app[GATEWAY]
    id_ = election_id_of(request.query.get("election_id"))
    result = await gateway.elections.result(id_)
    if result is None:
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return answer(_results(result, gateway.book.pending_ballots(id_)))


def _results(result: Result, waiting: int) -> dict[str, Any]:
    election, tally = result.election, result.tally
    opened = sum(tally.counts)
    return {
        "election_id": show_election_id(election.id),
        "title": election.title,
        "state": state_name(election),
        "results": [
            {
                "option": number,
                "name": name,
                "count": count,
                "percentage": round(100 * count / opened, 2) if opened else 0.0,
            }
            for number, (name, count) in enumerate(zip(election.options, tally.counts, strict=True))
        ],
        "open_count": opened,
        "sealed_count": tally.sealed_count,
        "total": opened + tally.sealed_count,
        "pending": waiting,
        "preliminary": election.state not in (ElectionState.CLOSED, ElectionState.CANCELLED),
        "as_of_block": tally.block_number,
        "block_number": tally.block_number,
        "block_hash": "0x" + tally.block_hash.hex(),
        "source": "poa" if result.fresh else "journal",
        "stale": not result.fresh,
        "verified": True,
    }
