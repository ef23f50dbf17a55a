"""JSON-RPC over HTTP: POST / for calls, GET /health and /ready for whoever watches the process."""

import asyncio

import orjson
from aiohttp import web

from node.rpc import jsonrpc
from node.rpc.api import public_methods
from node.rpc.dispatch import Dispatcher
from node.rpc.hexes import data
from node.rpc.jsonrpc import RpcError
from node.rpc.limits import Limits
from node.rpc.ports import NodePort

JSON = "application/json"
SHUTDOWN_S = 0.5  # how long running calls may go on once the server stops; a long poll gains nothing from more
LINGERING_S = 1.0  # how long the rest of a refused body is read, so that its sender sees the answer


class RpcServer:
    """The JSON-RPC server of one node.

    Args:
        node: what the methods read.
        bind: host and port; port 0 lets the system choose.
    """

    def __init__(self, node: NodePort, bind: tuple[str, int], limits: Limits | None = None) -> None:
        self._node = node
        self._bind = bind
        self._limits = limits or Limits()
        self._dispatcher = Dispatcher(public_methods(node, self._limits), self._limits)
        self._runner: web.AppRunner | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; the host and port that were bound. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=self._limits.body_bytes_max)
        app.router.add_post("/", self._post)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, lingering_time=LINGERING_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._bind).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        host, port = runner.addresses[0][:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening and end what is running. Harmless when it never started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post(self, request: web.Request) -> web.Response:
        if request.content_type != JSON:  # a page in a browser cannot send this type unasked (CORS)
            return _refusal(415, f"invalid content type {request.content_type}: only {JSON} is supported")
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, f"request body too large: at most {self._limits.body_bytes_max} bytes")
        except TimeoutError:
            return _refusal(408, f"the request body did not arrive within {self._limits.body_timeout_s:g} s")
        answer = await self._dispatcher.answer(body)
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, content_type=JSON)

    async def _health(self, _request: web.Request) -> web.Response:
        """The process is alive and its event loop turns."""
        head = self._node.chain.head
        return _json(200, {"status": "ok", "name": self._node.name, "height": head.number, "head": data(head.hash)})

    async def _ready(self, _request: web.Request) -> web.Response:
        """Whether this node can serve."""
        ready, reason = self._node.ready()
        return _json(200 if ready else 503, {"ready": ready, "reason": reason})


def _json(status: int, document: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type=JSON)


def _refusal(status: int, message: str) -> web.Response:
    """An HTTP refusal whose body is a JSON-RPC error, so that clients of either kind can read it."""
    error = RpcError(jsonrpc.INVALID_REQUEST, message)
    response = web.Response(status=status, body=jsonrpc.write_error(None, error), content_type=JSON)
    response.force_close()  # the rest of the body was not read
    return response
