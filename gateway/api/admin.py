"""Routes for operators: how the validators are, and a look right now."""

import time

from aiohttp import web

from gateway import answers
from gateway.api.common import GATEWAY, answer
from gateway.api.operations import Operation, Reply
from gateway.shown import shown_time
from gateway.validators import ValidatorStatus
from gateway.views import validators_shown


async def validators_health(request: web.Request) -> web.Response:
    """How each validator is, as the probes of the last half second found it."""
    pool = request.app[GATEWAY].pool
    healthy = sum(one.status is ValidatorStatus.HEALTHY for one in pool.validators)
    total = len(pool.validators)
    summary = {"healthy": healthy, "total": total, "health_percentage": round(100 * healthy / total, 2)}
    return answer({"timestamp": _now(), "validators": validators_shown(pool), "summary": summary})


async def refresh_status(request: web.Request) -> web.Response:
    """Probe every validator now."""
    pool = request.app[GATEWAY].pool
    await pool.probe_all()
    return answer({"message": "Validator status refreshed", "validators": validators_shown(pool), "timestamp": _now()})


def _now() -> str:
    return shown_time(time.time())


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
