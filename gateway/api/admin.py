"""Routes for operators: how the validators are, and a look right now."""

import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway import answers
from gateway.anchorage import shown_time
from gateway.api.common import GATEWAY, answer
from gateway.api.operations import Operation, Reply
from gateway.validators import Pool, Validator, ValidatorStatus


async def validators_health(request: web.Request) -> web.Response:
    """How each validator is, as the probes of the last half second found it."""
    pool = request.app[GATEWAY].pool
    healthy = sum(one.status is ValidatorStatus.HEALTHY for one in pool.validators)
    total = len(pool.validators)
    summary = {"healthy": healthy, "total": total, "health_percentage": round(100 * healthy / total, 2)}
    return answer({"timestamp": _now(), "validators": views(pool), "summary": summary})


async def refresh_status(request: web.Request) -> web.Response:
    """Probe every validator now."""
    pool = request.app[GATEWAY].pool
    await pool.probe_all()
    return answer({"message": "Validator status refreshed", "validators": views(pool), "timestamp": _now()})


def views(pool: Pool) -> list[dict[str, Any]]:
    """Every validator of the pool."""
    best = pool.best_height()
    return [_view(validator, best) for validator in pool.validators]


def _view(validator: Validator, best_height: int) -> dict[str, Any]:
    seen = validator.height >= 0
    return {
        "node_id": validator.node.node_id,
        "rpc_url": validator.node.rpc_url,
        "p2p_url": validator.node.p2p_url,
        "status": validator.status.value,
        "height": validator.height if seen else None,
        "lag": max(best_height - validator.height, 0) if seen else None,
        "latency_ms": None if validator.latency_ms is None else round(validator.latency_ms, 2),
        "last_error": validator.last_error,
        "last_seen_at": None if validator.last_seen_at is None else shown_time(validator.last_seen_at),
        "address": "0x" + validator.address.hex() if validator.address else None,
    }


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/validators/health",
        validators_health,
        "admin",
        "admin",
        {200: Reply(answers.ValidatorsHealth, "All validators.")},
    ),
    Operation(
        "POST",
        "/api/admin/validators/refresh-status",
        refresh_status,
        "admin",
        "admin",
        {200: Reply(answers.ValidatorsRefreshed, "All validators, probed just now.")},
    ),
)
