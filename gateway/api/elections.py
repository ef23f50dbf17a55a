"""Routes of elections: create one, show one."""

from typing import Any

from aiohttp import web

from gateway.api.common import GATEWAY, answer, election_id_of, read_body, wait_s
from gateway.chain import Election
from gateway.elections import KINDS, state_name
from gateway.models import ElectionBody, show_election_id
from gateway.problems import Problem, refusal

_KIND_NAMES = {number: name for name, number in KINDS.items()}


def routes() -> list[web.RouteDef]:
    return [web.post("/api/elections", create), web.get("/api/elections/{election_id}", show)]


def view(election: Election) -> dict[str, Any]:
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
    }


async def create(request: web.Request) -> web.Response:
    """Create an election: 201 once it is final, 202 while it waits, 409 when another one has the id."""
    gateway = request.app[GATEWAY]
    body = await read_body(request, ElectionBody)
    call = gateway.elections.create_call(
        body.election_id,
        body.title,
        body.options,
        kinds=body.kinds,
        opens_at=body.opens_at or 0,
        closes_at=body.closes_at or 0,
        delivery_grace_s=body.delivery_grace_s,
        registrars=tuple(bytes.fromhex(address[2:]) for address in body.registrars),
    )
    item = await gateway.call(call)
    await item.wait(wait_s(request, gateway))
    id_ = show_election_id(body.election_id)
    if item.reason is not None:
        if item.reason.startswith("ElectionExists"):
            return await _existing(request, body)
        raise refusal(item.reason, election_id=id_)
    shown: dict[str, Any] = {"status": "pending", "election_id": id_, "level": gateway.level()}
    if item.place is None:
        return answer(shown, 202)
    election = await gateway.elections.get(body.election_id, fresh=True)
    shown |= {
        "status": "confirmed",
        "transaction_hash": "0x" + item.place.transaction_hash.hex(),
        "block_number": item.place.block_number,
        "block_hash": "0x" + item.place.block_hash.hex(),
    }
    return answer(shown | (view(election) if election else {}), 201)


async def _existing(request: web.Request, body: ElectionBody) -> web.Response:
    """The same election again is the same election; another one under its id is a conflict."""
    election = await request.app[GATEWAY].elections.get(body.election_id, fresh=True)
    wanted = (body.title, tuple(body.options), KINDS[body.kinds], body.closes_at or 0, body.delivery_grace_s)
    if election is not None:
        found = (election.title, election.options, election.kinds, election.closes_at, election.delivery_grace_s)
        if found == wanted:
            return answer({"status": "confirmed", **view(election)})
    raise Problem(409, "election-exists", f"There is another election with the id {body.election_id}.")


async def show(request: web.Request) -> web.Response:
    """One election's definition and state."""
    id_ = election_id_of(request.match_info["election_id"])
    election = await request.app[GATEWAY].elections.get(id_, fresh=True)
    if election is None:
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return answer(view(election))
