"""Runs one gateway: reads its configuration and serves its HTTP API until it is told to stop."""

import asyncio
import gc
import json
import logging
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import hdrs, web

from gateway.access import Need
from gateway.api import admin, anchors, documentation, documented, elections, health, logs, trees, verification, votes
from gateway.api.common import CALLS, GATEWAY, GUARD, NEEDS, problems
from gateway.api.documentation import DOCUMENT, PAGE
from gateway.api.pages import HOSTS
from gateway.api.straight import Counter, Straight, all_or_rest
from gateway.config import GatewayConfig, load_config, load_genesis
from gateway.disk import FileLock, InUse
from gateway.journal_format import JournalCorrupt
from gateway.metrics import METRICS, fill
from gateway.service import Gateway
from serving.connections import ConnectionGuard, raise_file_limit, stop_listening
from serving.distribution import Calls
from serving.endpoint import parse_bind
from serving.hosts import Hosts
from serving.keyfiles import SecretError, load_key, read_secret
from serving.logs import Format, configure
from serving.metrics import MetricsServer
from serving.settings import ConfigError
from serving.shortcut import shortcut

log = logging.getLogger(__name__)

BACKLOG = 4096
SHUTDOWN_S = 3.0
LINGERING_S = 1.0  # how long the rest of a refused body is read, so that its sender sees the answer
FILES_SPARE = 256  # descriptors for everything else than callers

SUBMIT = "/api/votes/submit"  # what is called most
ANCHOR = "/v1/anchor"  # and next

OPERATIONS = (
    *votes.OPERATIONS,
    *elections.OPERATIONS,
    *anchors.OPERATIONS,
    *verification.OPERATIONS,
    *admin.OPERATIONS,
    *health.OPERATIONS,
    *documentation.OPERATIONS,
)


def make_app(gateway: Gateway) -> web.Application:
    """The HTTP application of a gateway that somebody else starts and stops."""
    limits = gateway.config.limits
    app = web.Application(middlewares=[problems], client_max_size=limits.body_bytes_max)
    app[GATEWAY] = gateway
    needs: dict[object, Need] = {one.handler: one.need for one in (*OPERATIONS, *documented.OPERATIONS)}
    app[NEEDS] = needs
    app[GUARD] = ConnectionGuard(connections_max=limits.connections_max, sender_s=limits.sender_s, idle_s=limits.idle_s)
    app[CALLS] = Calls()
    app[HOSTS] = Hosts(gateway.config.hosts, plain=True)
    document = documentation.openapi((*OPERATIONS, *documented.OPERATIONS), body_bytes_max=limits.body_bytes_max)
    app[DOCUMENT] = json.dumps(document).encode()  # orjson refuses the largest bounds in it
    app[PAGE] = documentation.page(document)
    for one in OPERATIONS:
        app.router.add_route(one.method, _route(one.path), one.handler)
    logs.setup(app, gateway)
    app.add_routes(trees.routes())
    return app


def _route(path: str) -> str:
    """The path as the router takes it: `/v1/verify/proof` is no batch, so what it allows is told apart."""
    return path.replace("/v1/verify/{batch_id}", "/v1/verify/{batch_id:(?!proof$)[^{}/]+}")


class HttpServer:
    """The listening socket of an application."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._guard = app[GUARD]
        self._idle_s = app[GATEWAY].config.limits.idle_s
        self._runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        await self._runner.setup()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner has no server")
        for path in (ANCHOR, SUBMIT):
            server.request_handler = shortcut(self._app, hdrs.METH_POST, path, server.request_handler, all_or_rest)
        await self._guard.start()
        loop = asyncio.get_running_loop()

        counter = Counter(self._app, SUBMIT, ANCHOR)

        def connection() -> Straight:
            return Straight(
                counter,
                server,
                loop=loop,
                access_log=None,  # AppRunner hands it on, too: no line for each request
                lingering_time=LINGERING_S,
                keepalive_timeout=self._idle_s,
            )

        self._server = await loop.create_server(self._guard.factory(connection), host, port, backlog=BACKLOG)
        port_bound: int = self._server.sockets[0].getsockname()[1]
        return port_bound

    async def stop(self) -> None:
        """Stop listening, and end what is under way."""
        if self._server is not None:
            await stop_listening(self._server)
        await self._runner.cleanup()
        await self._guard.stop()


def open_gateway(config: GatewayConfig) -> Gateway:
    """A gateway with the files that its configuration names. Raises what they raise."""
    genesis = load_genesis(config.genesis)
    key = load_key(config.key, config.key_password_file, what="the gateway's key")
    lock = FileLock(config.key, "a key")  # two processes would take each other's nonces, and every sending be a retry
    gateway = Gateway(config, genesis, key, read_secret(config.master_secret, "the master secret"))
    gateway.hold(lock)
    return gateway


async def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    files = raise_file_limit()
    if config.limits.connections_max > files - FILES_SPARE:
        limits = config.limits.model_copy(update={"connections_max": max(files - FILES_SPARE, FILES_SPARE)})
        config = config.model_copy(update={"limits": limits})
        log.warning("only %d files may be open, so at most %d connections", files, limits.connections_max)
    gateway = open_gateway(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await gateway.start()
    app = make_app(gateway)
    server = HttpServer(app)
    metrics: MetricsServer | None = None
    if config.metrics.bind is not None:
        metrics = MetricsServer(
            parse_bind(config.metrics.bind),
            METRICS,
            lambda page: fill(page, gateway, app[CALLS], app[GUARD]),
            config.metrics.url_file,
        )
    try:
        await server.start(*config.endpoint)
        if metrics is not None:
            await metrics.start()
        log.info("%s serves http://%s, account 0x%s", config.name, config.bind, gateway.address.hex())
        if not config.api_keys:
            log.warning("no api_keys are set: whoever reaches %s may do everything", config.bind)
        await stop.wait()
    finally:
        if metrics is not None:
            await metrics.stop()
        await server.stop()
        await gateway.stop()


def _calm_collector() -> None:
    """Let the cyclic collector run rarely, and never over what lives as long as the process.

    Almost nothing here is cyclic, and thousands of votes that wait are no garbage to be looked through again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def run(config_path: Path, log_format: Format | None = None) -> int:
    """Run a gateway in the foreground; 0 after a clean stop, 1 when it cannot start (one sentence says why).

    `log_format` goes before the configuration's.
    """
    try:
        config = load_config(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    configure(config.name, config.log.level, log_format or config.log.format)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # what is no HTTP is answered with 400, not logged
    try:
        _calm_collector()
        uvloop.run(serve(config))
    except (ConfigError, SecretError, InUse, JournalCorrupt) as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("the gateway cannot start on %s: %s", config.bind, error)
        return 1
    return 0
