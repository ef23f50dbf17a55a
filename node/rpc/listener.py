"""One listening socket for JSON-RPC over HTTP and WebSocket: who may speak to it, how slowly, with which methods."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import orjson
from aiohttp import WSCloseCode, hdrs, web

from node.rpc import jsonrpc
from node.rpc.api import Api
from node.rpc.dispatch import Dispatcher
from node.rpc.jsonrpc import RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Method, methods_of
from node.rpc.ports import NodePort
from node.rpc.straight import Straight
from node.rpc.token import SCHEME, BadToken, check_token
from node.rpc.websocket import Connection
from serving.connections import ConnectionGuard, stop_listening
from serving.distribution import Calls
from serving.hosts import Hosts
from serving.logs import REQUEST_ID, REQUEST_ID_HEADER, read_request_id
from serving.shortcut import shortcut
from serving.straight import JSON, Handler, rest_of

SHUTDOWN_S = 0.5  # how long running calls may go on once the server stops; a long poll gains nothing from more
LINGERING_S = 1.0  # how long the rest of a refused body is read, so that its sender sees the answer
BACKLOG = 1_024


class Listener:
    """A socket that answers some of a node's methods.

    Args:
        methods: what it answers; `api` makes the subscriptions of its WebSockets.
        hosts: names, besides addresses and localhost, under which it may be reached; "*" for any.
        origins: the origins whose pages may open a WebSocket; other pages may not, and programs that are no page may.
        secret: what each request's token must be signed with; None: no token is asked for.
        elsewhere: methods that another listener of the node answers, so that the refusal can say so.
        calls: where it is noted how long each call took.
    """

    def __init__(
        self,
        node: NodePort,
        api: Api,
        methods: Mapping[str, Method],
        limits: Limits,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        secret: bytes | None = None,
        elsewhere: Collection[str] = (),
        calls: Calls | None = None,
    ) -> None:
        self._node = node
        self._api = api
        self._methods = methods
        self._limits = limits
        self._hosts = Hosts(hosts)
        self._origins = frozenset(origins)
        self._secret = secret
        self._elsewhere = frozenset(elsewhere)
        self._calls = calls or Calls()
        self._dispatcher = Dispatcher(methods, limits, self._elsewhere, self._calls)
        self._connections: set[Connection] = set()
        self._guard = ConnectionGuard(
            connections_max=limits.connections_max,
            per_address_max=limits.connections_per_address_max,
            sender_s=limits.sender_timeout_s,
            idle_s=limits.idle_timeout_s,
            bytes_max=max(limits.requests_bytes_max, limits.body_bytes_max),
        )
        self.routes: list[web.RouteDef] = [web.post("/", self._post), web.get("/", self._websocket)]
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the host and port that were bound. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=self._limits.body_bytes_max, middlewares=[self._admit])
        app.add_routes(self.routes)
        app.on_shutdown.append(self._end_connections)
        settings: dict[str, Any] = {  # of a connection's handler, whichever it is
            "access_log": None,  # no line for each request
            "lingering_time": LINGERING_S,
            "keepalive_timeout": self._limits.idle_timeout_s,
        }
        runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S, **settings)
        await runner.setup()
        assert runner.server is not None
        usual = runner.server.request_handler
        runner.server.request_handler = shortcut(app, hdrs.METH_POST, "/", usual, self._admit)
        connection = runner.server if self._secret is not None else self._straight(runner.server, settings)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._guard.factory(connection), host, port, backlog=BACKLOG)
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        await self._guard.start()
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return bound_host, bound_port

    def _straight(self, server: web.Server, settings: Mapping[str, Any]) -> Callable[[], asyncio.Protocol]:
        """What makes the handler of a connection."""
        return partial(
            Straight,
            self._guard,
            self._hosts,
            self._dispatcher,
            self._limits.body_bytes_max,
            server,
            loop=asyncio.get_running_loop(),
            **settings,
        )

    async def stop(self) -> None:
        """Stop listening and end what is running. Harmless when it never started."""
        if self._server is not None:
            await stop_listening(self._server)
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            await self._guard.stop()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer those who may speak to this listener; note when a request is under way."""
        REQUEST_ID.set(read_request_id(request.headers.get(REQUEST_ID_HEADER)))
        if (rest := rest_of(request)) is not None:
            handler = rest.handle
        connection = self._guard.begin(request)
        try:
            if not self._hosts.allow(request.headers.get(hdrs.HOST)):
                shown = request.headers[hdrs.HOST][:200]
                return refusal(403, f"invalid host specified: the setting 'hosts' of [rpc] does not list {shown!r}")
            if self._secret is not None:
                try:
                    check_token(request.headers.get("Authorization"), self._secret, now_s=time.time())
                except BadToken as error:
                    response = refusal(401, str(error))
                    response.headers["WWW-Authenticate"] = SCHEME.strip()
                    return response
            return await handler(request)
        finally:
            self._guard.end(connection)

    async def _post(self, request: web.Request) -> web.Response:
        # A page in a browser cannot send this type unasked (CORS). Almost everybody writes it without parameters.
        if request.headers.get(hdrs.CONTENT_TYPE) != JSON and request.content_type != JSON:
            return refusal(415, f"invalid content type {request.content_type}: only {JSON} is supported")
        try:
            if request.content.is_eof():  # it came with its head, as small ones do, and needs neither timer nor loop
                body = request.content.read_nowait()
                if len(body) > self._limits.body_bytes_max:
                    raise web.HTTPRequestEntityTooLarge(self._limits.body_bytes_max, len(body))
            else:
                async with asyncio.timeout(self._guard.left_s(request)):
                    body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, f"request body too large: at most {self._limits.body_bytes_max} bytes")
        except ConnectionResetError:
            return refusal(400, "the request did not arrive whole")  # its caller has gone: that is no mistake of ours
        except TimeoutError:
            return refusal(408, f"the request did not arrive within {self._limits.sender_timeout_s:g} s")
        answer = await self._dispatcher.answer(body)
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, content_type=JSON)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Upgrade to a WebSocket. A page in a browser may not, unless its origin is listed."""
        if not web.WebSocketResponse().can_prepare(request):
            return refusal(405, "POST JSON-RPC to this address, or connect to it by WebSocket")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            return refusal(403, f"pages of origin {origin[:200]} may not connect: setting 'origins' does not list it")
        if len(self._connections) >= self._limits.websockets_max:
            return refusal(503, f"too many WebSocket connections: at most {self._limits.websockets_max}")
        self._guard.upgraded(request)
        subscriptions = self._api.subscriptions()
        methods = dict(self._methods) | methods_of(subscriptions)
        dispatcher = Dispatcher(methods, self._limits, self._elsewhere, self._calls)
        connection = Connection(dispatcher, subscriptions, self._limits)
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


def json_response(status: int, document: dict[str, object]) -> web.Response:
    """A JSON document as an answer."""
    return web.Response(status=status, body=orjson.dumps(document), content_type=JSON)


def refusal(status: int, message: str) -> web.Response:
    """An HTTP refusal whose body is a JSON-RPC error, so that clients of either kind can read it."""
    error = RpcError(jsonrpc.INVALID_REQUEST, message)
    response = web.Response(status=status, body=jsonrpc.write_error(None, error), content_type=JSON)
    response.force_close()  # the rest of the body was not read
    return response
