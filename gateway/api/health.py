"""Routes for whoever watches the gateway: alive, and ready at which level."""

from aiohttp import web

from gateway import answers
from gateway.api.common import GATEWAY, answer
from gateway.api.operations import Operation, Parameter, Reply
from gateway.faults import not_valid
from gateway.service import LEVELS


async def health(request: web.Request) -> web.Response:
    """200 while the process answers."""
    gateway = request.app[GATEWAY]
    return answer({"status": "ok", "name": gateway.config.name, "height": gateway.follower.head.header.number})


async def ready(request: web.Request) -> web.Response:
    """200 at levels 1 to 4 (or up to `max_level`), 503 beyond: below a quorum is when records must be taken."""
    gateway = request.app[GATEWAY]
    level = gateway.level()
    text = request.query.get("max_level", "4")
    if text not in ("1", "2", "3", "4"):
        raise not_valid("max_level", text, "1, 2, 3 or 4")
    head = gateway.follower.head.header
    shown = {
        "ready": level <= int(text),
        "level": level,
        "meaning": LEVELS[level],
        "validators": gateway.pool.reachable_count(),
        "height": head.number,
        "block_hash": "0x" + head.hash.hex(),
        "journal_depth": gateway.book.pending_count,
    }
    return answer(shown, 200 if level <= int(text) else 503)


_NOT_READY = {"ready": False, "level": 5, "meaning": LEVELS[5], "journal_depth": 12}

OPERATIONS = (
    Operation("GET", "/health", health, "open", "operation", {200: Reply(answers.Health, "It is alive.")}),
    Operation(
        "GET",
        "/ready",
        ready,
        "open",
        "operation",
        {
            200: Reply(answers.Ready, "Records are taken."),
            503: Reply(answers.Ready, "They are not, or the level is above `max_level`.", _NOT_READY),
        },
        (422,),
        parameters=(
            Parameter("max_level", {"type": "integer", "minimum": 1, "maximum": 4}, 4, "the worst level that is ready"),
        ),
    ),
)
