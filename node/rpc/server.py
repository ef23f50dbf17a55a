"""JSON-RPC over HTTP and WebSocket on one port; GET /health and /ready for whoever watches the process."""

import asyncio
import ipaddress
import logging
from collections.abc import Collection

import orjson
from aiohttp import WSCloseCode, web

from node.rpc import jsonrpc
from node.rpc.api import Api
from node.rpc.dev_accounts import DevAccounts, dev_accounts
from node.rpc.dispatch import Dispatcher
from node.rpc.hexes import data
from node.rpc.jsonrpc import RpcError
from node.rpc.limits import Limits
from node.rpc.methods import methods_of
from node.rpc.ports import NodePort
from node.rpc.websocket import Connection

logger = logging.getLogger(__name__)

JSON = "application/json"
SHUTDOWN_S = 0.5  # how long running calls may go on once the server stops; a long poll gains nothing from more
LINGERING_S = 1.0  # how long the rest of a refused body is read, so that its sender sees the answer


class RpcServer:
    """The JSON-RPC server of one node.

    Args:
        node: what the methods read.
        bind: host and port; port 0 lets the system choose.
        limits: what one caller may ask for at once.
        origins: the origins whose pages may open a WebSocket; other pages may not, and programs that are no page may.
        dev_accounts: whether to sign for callers with the development mnemonic's accounts; on loopback only.
    """

    def __init__(
        self,
        node: NodePort,
        bind: tuple[str, int],
        limits: Limits | None = None,
        *,
        origins: Collection[str] = (),
        dev_accounts: bool = False,
    ) -> None:
        self._node = node
        self._bind = bind
        self._limits = limits or Limits()
        self._origins = frozenset(origins)
        self._api = Api(node, self._limits, _accounts(node, bind[0]) if dev_accounts else DevAccounts())
        self._dispatcher = Dispatcher(self._api.methods, self._limits)
        self._connections: set[Connection] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; the host and port that were bound. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=self._limits.body_bytes_max)
        app.router.add_post("/", self._post)
        app.router.add_get("/", self._websocket)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.on_shutdown.append(self._end_connections)
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
            self._api.close()

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

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Upgrade to a WebSocket. A page in a browser may not, unless its origin is listed."""
        if not web.WebSocketResponse().can_prepare(request):
            return _refusal(405, "POST JSON-RPC to this address, or connect to it by WebSocket")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            return _refusal(403, f"pages of origin {origin[:200]} may not connect: setting 'origins' does not list it")
        if len(self._connections) >= self._limits.websockets_max:
            return _refusal(503, f"too many WebSocket connections: at most {self._limits.websockets_max}")
        subscriptions = self._api.subscriptions()
        methods = self._api.methods | methods_of(subscriptions)
        connection = Connection(Dispatcher(methods, self._limits), subscriptions, self._limits)
        self._connections.add(connection)
        self._node.watch(subscriptions)
        try:
            return await connection.serve(request)
        finally:
            self._node.unwatch(subscriptions)
            self._connections.discard(connection)

    async def _end_connections(self, _app: web.Application) -> None:
        for connection in self._connections:
            connection.end(WSCloseCode.GOING_AWAY, "the node stops")

    async def _health(self, _request: web.Request) -> web.Response:
        """The process is alive and its event loop turns."""
        head = self._node.chain.head
        return _json(200, {"status": "ok", "name": self._node.name, "height": head.number, "head": data(head.hash)})

    async def _ready(self, _request: web.Request) -> web.Response:
        """Whether this node can serve."""
        ready, reason = self._node.ready()
        return _json(200 if ready else 503, {"ready": ready, "reason": reason})


def _accounts(node: NodePort, host: str) -> DevAccounts:
    """What to sign with for callers; nothing where somebody else could call."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    if is_local:
        return dev_accounts(node.chain.genesis)
    logger.warning("eth_accounts stays empty: JSON-RPC is bound to %s, and only on loopback does this node sign", host)
    return DevAccounts()


def _json(status: int, document: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type=JSON)


def _refusal(status: int, message: str) -> web.Response:
    """An HTTP refusal whose body is a JSON-RPC error, so that clients of either kind can read it."""
    error = RpcError(jsonrpc.INVALID_REQUEST, message)
    response = web.Response(status=status, body=jsonrpc.write_error(None, error), content_type=JSON)
    response.force_close()  # the rest of the body was not read
    return response
