"""Routes of anchors: take one, show one, list them, statistics, and another try for one that failed."""

import time
from typing import Any

from aiohttp import web

from gateway import answers
from gateway.anchorage import STATUSES, BadCursor, anchor_id, job_id, status_of, view
from gateway.api.common import GATEWAY, answer, number_of, read_body
from gateway.api.operations import Operation, Parameter, Reply
from gateway.chain import Standing
from gateway.faults import not_valid
from gateway.models import ALGORITHM_CHARS_MAX, PRODUCTS_MAX, AnchorBody, parse_batch_id, show_batch_id
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.service import Gateway
from gateway.shown import shown_time
from gateway.validators import NoValidator

LOOK_UP_S = 0.03  # an anchor is answered within 60 ms; what the chain says later is in its status
MESSAGE = "Anchor request received. Processing in background."
PAGE_MAX = 100
ROOT_BYTES = 32


async def submit(request: web.Request) -> web.Response:
    """Take an anchor: 202 the first time, 200 after, 409 when the batch has another root."""
    gateway = request.app[GATEWAY]
    body = await read_body(request, AnchorBody)
    anchor = anchor_of(body)
    if body.callback_url is not None:
        gateway.callbacks.check(body.callback_url)
    return answer(*await take(gateway, anchor, body.callback_url))


def anchor_of(body: AnchorBody) -> Anchor:
    """The anchor that a body tells of."""
    root = bytes.fromhex(body.merkle_root)
    return Anchor(parse_batch_id(body.batch_id), root, body.product_count, body.algorithm or "")


def read_plain_anchor(document: object) -> Anchor | None:
    """The anchor of a body without `callback_url`, where each field has the very form that it is usually sent in.

    None: the model shall say what it makes of it, which takes it five times as long.
    """
    if type(document) is not dict or document.get("callback_url") is not None:
        return None
    batch, root = document.get("batch_id"), document.get("merkle_root")
    count, algorithm = document.get("product_count"), document.get("algorithm")
    if type(batch) is not str or type(root) is not str or len(root) != 2 * ROOT_BYTES:
        return None
    if type(count) is not int or not 0 <= count <= PRODUCTS_MAX:
        return None
    if algorithm is None:
        algorithm = ""
    elif type(algorithm) is not str or len(algorithm) > ALGORITHM_CHARS_MAX or not algorithm.isascii():
        return None
    try:
        batch_id, merkle_root = parse_batch_id(batch), bytes.fromhex(root)
    except ValueError:
        return None
    if len(merkle_root) != ROOT_BYTES:  # there was a space between two digits
        return None
    return Anchor(batch_id, merkle_root, count, algorithm)


async def take(gateway: Gateway, anchor: Anchor, callback_url: str | None = None) -> tuple[dict[str, Any], int]:
    """The answer, with its status, once the anchor is durable, or found. Raises Problem."""
    known = gateway.book.anchor(anchor.batch_id)
    # What the chain refused for good stands there with another root.
    unknown = known is None or known.reason is not None
    if unknown and (standing := await _standing(gateway, anchor)) is not None:
        if callback_url is not None:
            await gateway.anchorage.tell_completed(standing, callback_url)
        return _receipt(anchor, "completed"), 200
    item, is_new = await gateway.anchorage.submit(anchor, callback_url)
    return _receipt(anchor, "pending" if is_new else status_of(item)), 202 if is_new else 200


async def _standing(gateway: Gateway, anchor: Anchor) -> Standing | None:
    """The same anchor on the chain, if that can be known in time. Raises Problem 409 where it has another root."""
    try:
        is_told = await gateway.anchorage.is_told(anchor.batch_id, LOOK_UP_S)
        # A new one is answered at once; of one that is there already, what it says is worth waiting for.
        standing = await gateway.chain.anchor(anchor.batch_id) if is_told else None
    except NoValidator:
        return None  # the chain itself refuses a second root
    if standing is not None and getattr(standing.record, "merkle_root", None) != anchor.merkle_root:
        raise Problem(409, "anchor-exists", "This batch is anchored with another Merkle root.")
    return standing


def _receipt(anchor: Anchor, status: str) -> dict[str, Any]:
    batch_id = anchor.batch_id
    return {
        "anchor_id": anchor_id(batch_id),
        "batch_id": show_batch_id(batch_id),
        "merkle_root": anchor.merkle_root.hex(),
        "status": status,
        "job_id": job_id(batch_id),
        "message": MESSAGE,
    }


def batch_in(request: web.Request, name: str) -> bytes:
    """The batch id, or anchor id in its form, of a UUID of the path. Raises Problem 422."""
    text = request.match_info[name]
    try:
        return parse_batch_id(text)
    except ValueError:
        raise not_valid(name, text, "a UUID") from None


async def show(request: web.Request) -> web.Response:
    """Everything known of an anchor, by its batch id; an anchor id does while this gateway remembers it."""
    gateway = request.app[GATEWAY]
    batch_id = gateway.anchorage.batch_id(batch_in(request, "batch_id"))
    item = gateway.book.anchor(batch_id)
    chain_id = gateway.domain.chain_id
    if item is not None and item.durable and item.place is None and isinstance(item.record, Anchor):
        return answer(view(chain_id, item.record, item, None))
    standing = await gateway.chain.anchor(batch_id, sure=True)
    if standing is None or not isinstance(standing.record, Anchor):
        raise Problem(404, "unknown-anchor", f"There is no anchor of batch {show_batch_id(batch_id)}.")
    return answer(view(chain_id, standing.record, item, standing))


async def retry(request: web.Request) -> web.Response:
    """Try a failed anchor again now; 400 where it is not failed."""
    gateway = request.app[GATEWAY]
    batch_id = gateway.anchorage.batch_id(batch_in(request, "anchor_id"))
    item = gateway.book.anchor(batch_id)
    if item is None or not item.durable:
        if await gateway.chain.anchor(batch_id, sure=True) is not None:
            raise Problem(400, "not-failed", "This anchor is completed.")
        raise Problem(404, "unknown-anchor", f"There is no anchor with the id {request.match_info['anchor_id']}.")
    if item.failed is not None:
        gateway.delivery.again(item)
    elif item.reason is not None and isinstance(item.record, Anchor):
        await gateway.anchor(item.record)  # journaled as a new one: the old one's end is written down already
    else:
        raise Problem(400, "not-failed", f"This anchor is {status_of(item)}.")
    message = "Retry started. Processing in background."
    return answer({"message": message, "anchor_id": anchor_id(batch_id), "job_id": job_id(batch_id)})


async def listing(request: web.Request) -> web.Response:
    """Anchors in pages, newest first: those that wait here, then those on the chain, each checked in its block."""
    gateway = request.app[GATEWAY]
    status = request.query.get("status")
    if status is not None and status not in STATUSES:
        raise not_valid("status", status, f"one of {', '.join(STATUSES)}")
    limit = number_of(request, "limit", default=20, least=1, most=PAGE_MAX)
    try:
        entries, cursor = await gateway.anchorage.page(status, request.query.get("cursor"), limit)
    except BadCursor as error:
        raise Problem(422, "not-valid", f"{error}.") from None
    chain_id = gateway.domain.chain_id
    shown = [view(chain_id, entry.anchor, entry.item, entry.standing) for entry in entries]
    return answer({"anchors": shown, "next_cursor": cursor})


async def stats(request: web.Request) -> web.Response:
    """Counts per status, times to final, throughput."""
    found = await request.app[GATEWAY].anchorage.stats()
    waiting = found.pending + found.processing + found.failed
    return answer(
        {
            "pending": found.pending,
            "processing": found.processing,
            "completed": found.completed,
            "failed": found.failed,
            "total": None if found.completed is None else waiting + found.completed,
            "seconds_to_final": {"measured": found.measured, "median": found.median_s, "p95": found.p95_s},
            "completed_per_minute": found.completed_per_minute,
            "stale": found.stale,
            "timestamp": shown_time(time.time()),
        }
    )


def _path(name: str, text: str) -> Parameter:
    return Parameter(name, {"type": "string", "format": "uuid"}, answers.BATCH, text, required=True, where="path")


BATCH_PATH = _path("batch_id", "the batch")
_CURSORS = r"^(c\.[0-9]{1,15}|w\.[0-9]{1,15}\.[0-9a-f]{64})$"
_AGAIN = {"status": "completed"}

OPERATIONS = (
    Operation(
        "POST",
        "/v1/anchor",
        submit,
        "anchor",
        "anchors",
        {
            200: Reply(answers.AnchorReceived, "The same anchor is known already.", _AGAIN),
            202: Reply(answers.AnchorReceived, "The anchor is durable, and on its way."),
        },
        (400, 403, 408, 409, 413, 422, 503),
        AnchorBody,
        {"batch_id": answers.BATCH, "merkle_root": answers.ROOT, "product_count": 250, "algorithm": "rfc6962-sha256"},
    ),
    Operation(
        "GET",
        "/v1/anchors",
        listing,
        "read",
        "anchors",
        {200: Reply(answers.AnchorPage, "One page.", {"anchors": [answers.example_of(answers.Anchor)]})},
        (422, 503),
        parameters=(
            Parameter("status", {"type": "string", "enum": list(STATUSES)}, "completed", "only these"),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}, 20, "how many at most"),
            Parameter("cursor", {"type": "string", "pattern": _CURSORS}, "c.42", "`next_cursor` of the page before"),
        ),
    ),
    Operation(
        "GET", "/v1/anchors/stats", stats, "read", "anchors", {200: Reply(answers.AnchorStats, "Counts and times.")}
    ),
    Operation(
        "GET",
        "/v1/anchor/{batch_id}",
        show,
        "read",
        "anchors",
        {200: Reply(answers.Anchor, "The anchor.")},
        (404, 422, 503),
        parameters=(BATCH_PATH,),
    ),
    Operation(
        "POST",
        "/v1/anchor/{anchor_id}/retry",
        retry,
        "anchor",
        "anchors",
        {200: Reply(answers.AnchorRetried, "It is tried again.")},
        (400, 404, 422, 503),
        parameters=(_path("anchor_id", "the anchor, or its batch"),),
    ),
)
