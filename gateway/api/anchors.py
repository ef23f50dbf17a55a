"""Routes of anchors: take one, show one."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.api.common import GATEWAY, answer, read_body
from gateway.book import Item
from gateway.chain import Standing
from gateway.models import AnchorBody, parse_batch_id
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.service import Gateway
from gateway.validators import NoValidator

LOOK_UP_S = 0.04  # an anchor is answered within 60 ms; what the chain says later is in its status
MESSAGE = "Anchor request received. Processing in background."


def routes() -> list[web.RouteDef]:
    return [web.post("/v1/anchor", submit), web.get("/v1/anchor/{batch_id}", show)]


async def submit(request: web.Request) -> web.Response:
    """Take an anchor: 202 the first time, 200 after, 409 when the batch has another root."""
    gateway = request.app[GATEWAY]
    body = await read_body(request, AnchorBody)
    batch = parse_batch_id(body.batch_id)
    anchor = Anchor(batch.bytes + bytes(16), bytes.fromhex(body.merkle_root), body.product_count, body.algorithm)
    if gateway.book.anchor(anchor.batch_id) is None:
        standing: Standing | None = None
        try:
            async with asyncio.timeout(LOOK_UP_S):
                standing = await gateway.chain.anchor(anchor.batch_id)
        except (TimeoutError, NoValidator):
            standing = None  # the chain itself refuses a second root
        if standing is not None:
            if getattr(standing.record, "merkle_root", None) != anchor.merkle_root:
                raise Problem(409, "anchor-exists", "This batch is anchored with another Merkle root.")
            return answer(_receipt(batch, anchor, "completed"))
    item, is_new = await gateway.anchor(anchor)
    return answer(_receipt(batch, anchor, _status(item, gateway)), 202 if is_new else 200)


def _receipt(batch: uuid.UUID, anchor: Anchor, status: str) -> dict[str, Any]:
    return {
        "anchor_id": str(anchor_id(batch)),
        "batch_id": str(batch),
        "merkle_root": anchor.merkle_root.hex(),
        "status": status,
        "job_id": str(job_id(batch)),
        "message": MESSAGE,
    }


def anchor_id(batch: uuid.UUID) -> uuid.UUID:
    """The anchor's id: the same from every gateway."""
    return uuid.uuid5(batch, "psephos:anchor")


def job_id(batch: uuid.UUID) -> uuid.UUID:
    """The id of the work of anchoring it, of which there is one."""
    return uuid.uuid5(batch, "psephos:job")


def _status(item: Item, gateway: Gateway) -> str:
    if item.place is not None:
        return "completed"
    if item.reason is not None:
        return "failed"
    return "pending" if item.taken_by is None else "processing"


async def show(request: web.Request) -> web.Response:
    """Everything known of an anchor."""
    gateway = request.app[GATEWAY]
    try:
        batch = parse_batch_id(request.match_info["batch_id"])
    except ValueError as error:
        raise Problem(422, "not-valid", f"{error}.") from None
    key = batch.bytes + bytes(16)
    item = gateway.book.anchor(key)
    if item is not None and item.durable and item.place is None and isinstance(item.record, Anchor):
        return answer(_view(gateway, batch, item.record, item, None))
    standing = await gateway.chain.anchor(key, sure=True)
    if standing is None or not isinstance(standing.record, Anchor):
        raise Problem(404, "unknown-anchor", f"There is no anchor of batch {batch}.")
    return answer(_view(gateway, batch, standing.record, item, standing))


def _view(
    gateway: Gateway, batch: uuid.UUID, anchor: Anchor, item: Item | None, standing: Standing | None
) -> dict[str, Any]:
    received = _time(item.received_at_ms / 1000) if item is not None else None
    final = _time(standing.timestamp) if standing is not None else None
    return {
        "anchor_id": str(anchor_id(batch)),
        "id": str(anchor_id(batch)),
        "batch_id": str(batch),
        "merkle_root": anchor.merkle_root.hex(),
        "product_count": anchor.leaf_count,
        "status": "completed" if standing is not None or item is None else _status(item, gateway),
        "transaction_id": "0x" + standing.place.transaction_hash.hex() if standing is not None else None,
        "block_number": standing.place.block_number if standing is not None else None,
        "gas_used": standing.gas_used if standing is not None else None,
        "gas_price_gwei": 0.0 if standing is not None else None,
        "network": f"psephos-{gateway.domain.chain_id}",
        "error": item.reason if item is not None else None,
        "retry_count": 0 if item is None else item.attempts,
        "created_at": received or final,
        "updated_at": final or received,
        "anchored_at": final,
        "job_id": str(job_id(batch)),
        "algorithm": anchor.algorithm or "unspecified",
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
