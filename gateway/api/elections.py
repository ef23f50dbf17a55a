"""Routes of elections: create, list, show, close, cancel."""

import re
from typing import Any

from aiohttp import web

from gateway import answers
from gateway.api.common import GATEWAY, answer, election_id_of, number_of, read_body, wait_s
from gateway.api.operations import Operation, Parameter, Reply
from gateway.book import Item
from gateway.definitions import Election
from gateway.elections import KINDS, state_name
from gateway.faults import not_valid
from gateway.models import ElectionBody, show_election_id
from gateway.problems import Problem, election_exists, key_mismatch, refusal
from gateway.service import Gateway
from node.chain.contracts.elections import ElectionState

PAGE_MAX = 100
_KIND_NAMES = {number: name for name, number in KINDS.items()}
_CURSOR = re.compile(r"\d{1,10}", re.ASCII)


def view(gateway: Gateway, election: Election) -> dict[str, Any]:
    """An election as callers see it."""
    return {
        "election_id": show_election_id(election.id),
        "title": election.title,
        "options": list(election.options),
        "kinds": _KIND_NAMES.get(election.kinds, "both"),
        "opens_at": election.opens_at or None,
        "closes_at": election.closes_at or None,
        "delivery_grace_s": election.delivery_grace_s,
        "state": state_name(election),
        "creator": "0x" + election.creator.hex(),
        "registrars": ["0x" + registrar.hex() for registrar in election.registrars],
        "voter_key": gateway.elections.voter_key(election),
    }


def _changed(gateway: Gateway, id_: int, item: Item, election: Election | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"status": "pending", "election_id": show_election_id(id_), "level": gateway.level()}
    if item.place is None:
        return shown if (warning := gateway.warning()) is None else shown | {"warning": warning}
    shown |= {
        "status": "confirmed",
        "transaction_hash": "0x" + item.place.transaction_hash.hex(),
        "block_number": item.place.block_number,
        "block_hash": "0x" + item.place.block_hash.hex(),
    }
    return shown | (view(gateway, election) if election else {})


async def create(request: web.Request) -> web.Response:
    """Create an election: 201 once it is final, 202 while it waits, 200 when the same one is there already."""
    gateway = request.app[GATEWAY]
    body = await read_body(request, ElectionBody)
    elections, id_ = gateway.elections, body.election_id
    key = await elections.random_key(id_) if body.voter_key == "random" else elections.keys.derived(id_)
    call = gateway.elections.create_call(
        body.election_id,
        body.title,
        body.options,
        kinds=body.kinds,
        opens_at=body.opens_at or 0,
        closes_at=body.closes_at or 0,
        delivery_grace_s=body.delivery_grace_s,
        registrars=tuple(bytes.fromhex(address[2:]) for address in body.registrars),
        key_check=key.check,
    )
    item = await gateway.call(call)
    await item.wait(wait_s(request, gateway))
    if item.reason is not None:
        if item.reason.startswith("ElectionExists"):
            return await _existing(gateway, body, key.check)
        raise refusal(item.reason, election_id=show_election_id(body.election_id))
    if item.place is None:
        return answer(_changed(gateway, body.election_id, item, None), 202)
    election = await gateway.elections.get(body.election_id, fresh=True)
    return answer(_changed(gateway, body.election_id, item, election), 201)


async def _existing(gateway: Gateway, body: ElectionBody, key_check: bytes) -> web.Response:
    """The same election again is the same election; another one under its id is a conflict."""
    election = await gateway.elections.get(body.election_id, fresh=True)
    if election is not None and _is_wanted(election, body):
        if election.key_check in (bytes(32), key_check):
            return answer({"status": "confirmed", "level": gateway.level(), **view(gateway, election)})
        if not gateway.elections.key_fits(election):
            raise key_mismatch()
    raise election_exists(body.election_id)


def _is_wanted(election: Election, body: ElectionBody) -> bool:
    """Whether the election is the one that a request describes. An early closing makes it no other one."""
    wanted = (body.title, tuple(body.options), KINDS[body.kinds], body.opens_at or 0, body.delivery_grace_s)
    found = (election.title, election.options, election.kinds, election.opens_at, election.delivery_grace_s)
    registrars = {bytes.fromhex(address[2:]) for address in body.registrars}
    if found != wanted or set(election.registrars) != registrars:
        return False
    closes_at = body.closes_at or 0
    has_ended = election.state not in (ElectionState.SCHEDULED, ElectionState.OPEN)
    return election.closes_at == closes_at or (has_ended and (closes_at == 0 or election.closes_at < closes_at))


async def listing(request: web.Request) -> web.Response:
    """Elections in the order of creation, in pages."""
    limit = number_of(request, "limit", default=20, least=1, most=PAGE_MAX)
    cursor = request.query.get("cursor", "0")
    if not _CURSOR.fullmatch(cursor):
        raise not_valid("cursor", cursor, "what `next_cursor` of a page said")
    first = int(cursor)
    gateway = request.app[GATEWAY]
    total, found = await gateway.elections.page(first, limit)
    behind = first + limit
    page = {"elections": [view(gateway, election) for election in found], "total": total}
    return answer(page | {"next_cursor": str(behind) if behind < total else None})


async def show(request: web.Request) -> web.Response:
    """One election's definition and state."""
    gateway = request.app[GATEWAY]
    return answer(view(gateway, await _known(gateway, election_id_of(request.match_info["election_id"]))))


async def _known(gateway: Gateway, id_: int) -> Election:
    election = await gateway.elections.get(id_, fresh=True)
    if election is None:
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return election


async def close(request: web.Request) -> web.Response:
    """Close an election now. Ballots that were received before are still delivered during its grace."""
    return await _end(request, "close", (ElectionState.DELIVERING, ElectionState.CLOSED))


async def cancel(request: web.Request) -> web.Response:
    """Cancel an election: its ballots stay on the chain, and count for nothing."""
    return await _end(request, "cancel", (ElectionState.CANCELLED,))


async def _end(request: web.Request, function: str, already: tuple[ElectionState, ...]) -> web.Response:
    gateway = request.app[GATEWAY]
    id_ = election_id_of(request.match_info["election_id"])
    election = await _known(gateway, id_)
    if election.state in already:
        return answer({"status": "confirmed", "level": gateway.level(), **view(gateway, election)})
    item = await gateway.call(gateway.elections.end_call(id_, function))
    await item.wait(wait_s(request, gateway))
    if item.reason is not None:
        election = await _known(gateway, id_)
        if election.state in already:  # somebody else was quicker
            return answer({"status": "confirmed", "level": gateway.level(), **view(gateway, election)})
        raise refusal(item.reason, election_id=show_election_id(id_), state=state_name(election))
    if item.place is None:
        return answer(_changed(gateway, id_, item, None), 202)
    return answer(_changed(gateway, id_, item, await gateway.elections.get(id_, fresh=True)))


_WAITS = Reply(
    answers.ElectionChanged,
    "It is durable and waits to become final.",
    {"status": "pending", "transaction_hash": None, "block_number": None, "block_hash": None, "state": None},
)
_DONE = Reply(answers.ElectionChanged, "It is final, or was before.")
_ID = Parameter(
    "election_id", {"type": "string", "pattern": r"^[0-9]{1,78}$"}, "1", "the election", required=True, where="path"
)
_LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, 20, "how many at most")
_CURSOR_PARAMETER = Parameter(
    "cursor", {"type": "string", "pattern": r"^[0-9]{1,10}$"}, "0", "`next_cursor` of the page before"
)
_EXAMPLE = {"election_id": 1, "title": "Board 2026", "options": ["Ada", "Grace"], "kinds": "both"}

OPERATIONS = (
    Operation(
        "POST",
        "/api/elections",
        create,
        "vote",
        "elections",
        {
            200: Reply(answers.ElectionChanged, "The same election is there already."),
            201: Reply(answers.ElectionChanged, "The election is final."),
            202: _WAITS,
        },
        (400, 403, 408, 409, 413, 422, 503),
        ElectionBody,
        _EXAMPLE,
        waits=True,
    ),
    Operation(
        "GET",
        "/api/elections",
        listing,
        "read",
        "elections",
        {200: Reply(answers.ElectionPage, "One page.")},
        (422, 503),
        parameters=(_LIMIT, _CURSOR_PARAMETER),
    ),
    Operation(
        "GET",
        "/api/elections/{election_id}",
        show,
        "read",
        "elections",
        {200: Reply(answers.Election, "The election.")},
        (404, 422, 503),
        parameters=(_ID,),
    ),
    *(
        Operation(
            "POST",
            f"/api/elections/{{election_id}}/{name}",
            handler,
            "vote",
            "elections",
            {200: _DONE, 202: _WAITS},
            (403, 404, 409, 422, 503),
            parameters=(_ID,),
            waits=True,
        )
        for name, handler in (("close", close), ("cancel", cancel))
    ),
)
