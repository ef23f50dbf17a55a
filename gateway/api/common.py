"""What every route shares: bodies, answers, problem documents, request ids, and how long a caller wants to wait."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy
from pydantic import BaseModel, ValidationError

from gateway.access import Need
from gateway.api.pages import refuse_other_types, refuse_pages
from gateway.faults import invalid_body, not_valid
from gateway.models import ELECTION_ID_EXPECTED, parse_election_id
from gateway.problems import Problem
from gateway.service import Gateway
from gateway.validators import NoValidator
from serving.connections import ConnectionGuard
from serving.distribution import Calls
from serving.logs import REQUEST_ID, REQUEST_ID_HEADER, new_request_id, read_request_id
from serving.straight import Handler

log = logging.getLogger(__name__)

GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
NEEDS: web.AppKey[Mapping[object, Need]] = web.AppKey("needs")
GUARD: web.AppKey[ConnectionGuard] = web.AppKey("connections", ConnectionGuard)
CALLS: web.AppKey[Calls] = web.AppKey("calls", Calls)  # answers, by route

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6}(?:\.\d{1,3})?)\"?\s*(?:$|[,;])", re.ASCII | re.IGNORECASE)

Body = TypeVar("Body")
Model = TypeVar("Model", bound=BaseModel)


def answer(document: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json", headers=headers)


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The request's JSON body, validated. Raises Problem 400, 408, 413 or 422."""
    return await read_json(request, model.model_validate)


async def read_json(request: web.Request, read: Callable[[object], Body]) -> Body:
    """What `read` makes of the JSON body. Raises Problem 400, 408, 413; 422 where it raises ValidationError."""
    try:
        raw = _arrived(request) if request.content.is_eof() else await _read_in_time(request)
    except web.RequestPayloadError as error:
        raise Problem(400, "unreadable-body", f"The body cannot be read: {error}.") from None
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, "not-json", f"The body is not JSON: {error}.") from None
    try:
        return read(document)
    except ValidationError as error:
        raise invalid_body(error, document) from None


def _arrived(request: web.Request) -> bytes:
    """The body that has arrived with its head, as small ones do: it needs no timer, and nobody to wait for it.

    Raises HTTPRequestEntityTooLarge, as `request.read` does.
    """
    raw = request.content.read_nowait()
    if 0 < request.client_max_size < len(raw):
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, len(raw))
    return raw


async def _read_in_time(request: web.Request) -> bytes:
    sender_s = request.app[GATEWAY].config.limits.sender_s
    try:
        async with asyncio.timeout(request.app[GUARD].left_s(request)):  # the head took its part of the time
            return await request.read()
    except TimeoutError:
        raise Problem(408, "slow-body", f"The body did not arrive within {sender_s:g} s.") from None
    except ConnectionError:  # nobody is there to read the answer
        raise Problem(400, "cut-off", "The connection ended before the body did.") from None


def election_id_of(text: str | None) -> int:
    """The election id in a path or query. Raises Problem 400 or 422."""
    if text is None:
        raise Problem(400, "missing-parameter", "The query parameter 'election_id' is missing.")
    try:
        return parse_election_id(text)
    except ValueError:
        raise not_valid("election_id", text, ELECTION_ID_EXPECTED) from None


def wait_s(request: web.Request, gateway: Gateway) -> float:
    """Seconds that the caller is willing to wait (RFC 7240, `Prefer: wait=SECONDS`), within the configured bounds."""
    return waiting_s(request.headers, gateway)


def waiting_s(headers: CIMultiDictProxy[str], gateway: Gateway) -> float:
    """The same, of a request's headers."""
    preferences = headers.getall("Prefer", None)
    wanted_s = _preferred_s(",".join(preferences)) if preferences else None
    if wanted_s is None:
        return gateway.default_wait_s()
    return min(wanted_s, gateway.config.limits.wait_s_max)


@lru_cache(maxsize=64)  # a backend says the same each time
def _preferred_s(preferences: str) -> float | None:
    found = _WAIT.search(preferences)
    return None if found is None else float(found[1])


def number_of(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number of the query. Raises Problem 422."""
    text = request.query.get(name, str(default))
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise not_valid(name, text, f"a whole number from {least} to {most}")
    return int(text)


def presented(headers: CIMultiDictProxy[str]) -> str | None:
    """The API key that came with a request."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key")


def _admit(request: web.Request) -> None:
    """Let a request in, or raise Problem 401, 403, 415 or 429. Where no route fits, its refusal says all there is."""
    gatekeeper = request.app[GATEWAY].gatekeeper
    if not gatekeeper.asks_for_keys:
        refuse_pages(request)
    if request.match_info.http_exception is None:
        if gatekeeper.asks:
            need = request.app[NEEDS].get(request.match_info.handler, "read")
            gatekeeper.admit(presented(request.headers), request.remote or "", need)
        if request.method == hdrs.METH_POST:
            refuse_other_types(request)


@web.middleware
async def problems(
    request: web.Request, handler: Handler, began_s: float | None = None, request_id: str = ""
) -> web.StreamResponse:
    """Every failure is a problem document with a request id, and no stack trace leaves the process.

    `began_s`: when the request was begun with (time.perf_counter), where that is not just now. `request_id`: the one
    that it has already.
    """
    connection = request.app[GUARD].begin(request)
    began_s = time.perf_counter() if began_s is None else began_s
    status = 500
    try:
        response = await _answered(request, handler, request_id)
        status = response.status
        return response
    finally:
        request.app[GUARD].end(connection)
        resource = request.match_info.route.resource
        route = f"{request.method} {resource.canonical}" if resource else "unmatched"
        request.app[CALLS].note(route, time.perf_counter() - began_s, failures=int(status >= 500))


async def _answered(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    request_id = request_id or read_request_id(request.headers.get(REQUEST_ID_HEADER)) or new_request_id()
    REQUEST_ID.set(request_id)  # for what is logged from here on, and for the validators that are asked
    try:
        _admit(request)
        response = await handler(request)
    except Problem as problem:
        response = problem_answer(problem, request_id)
    except NoValidator as error:
        response = problem_answer(
            Problem(503, "no-validator", f"No validator can answer this now: {error}."), request_id
        )
    except web.HTTPException as error:
        code = (error.reason or "error").lower().replace(" ", "-")
        response = problem_answer(
            Problem(error.status, code, f"{error.reason}: {request.method} {request.path}."), request_id
        )
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Exception:
        log.exception("a request failed")
        response = problem_answer(
            Problem(500, "internal-error", "The gateway failed; its log has the reason."), request_id
        )
    response.headers[REQUEST_ID_HEADER] = request_id
    return response


def problem_answer(problem: Problem, request_id: str) -> web.Response:
    """A problem document as an answer."""
    log.debug("answered %d %s", problem.status, problem.code)
    document: dict[str, Any] = problem.document(request_id)
    response = web.Response(body=orjson.dumps(document), status=problem.status, content_type="application/problem+json")
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (408, 413):
        response.force_close()  # the rest of the body is not waited for
    if (wait_s := problem.extra.get("retry_after_s")) is not None:
        response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response
