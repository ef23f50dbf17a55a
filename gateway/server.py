"""Runs one gateway: reads its configuration and serves its HTTP API until it is told to stop."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from gateway.api import anchors, elections, health, logs, trees, votes
from gateway.api.common import GATEWAY, problems
from gateway.config import ConfigError, GatewayConfig, load_config, load_genesis
from gateway.disk import FolderInUse
from gateway.journal_format import JournalCorrupt
from gateway.secrets import SecretError, read_secret
from gateway.service import Gateway
from node.chain.signing import SigningKey

log = logging.getLogger(__name__)

BACKLOG = 4096
SHUTDOWN_S = 3.0


def make_app(gateway: Gateway) -> web.Application:
    """The HTTP application of a gateway that somebody else starts and stops."""
    app = web.Application(middlewares=[problems], client_max_size=gateway.config.limits.body_bytes_max)
    app[GATEWAY] = gateway
    for room in (elections, votes, anchors, health, trees):
        app.add_routes(room.routes())
    logs.setup(app, gateway)
    return app


def open_gateway(config: GatewayConfig) -> Gateway:
    """A gateway with the files that its configuration names. Raises what they raise."""
    genesis = load_genesis(config.genesis)
    key = SigningKey(read_secret(config.key, "the gateway's key"))
    return Gateway(config, genesis, key, read_secret(config.master_secret, "the master secret"))


async def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    gateway = open_gateway(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await gateway.start()
    runner = web.AppRunner(make_app(gateway), access_log=None, shutdown_timeout=SHUTDOWN_S)
    try:
        await runner.setup()
        host, port = config.endpoint
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        log.info("%s serves http://%s, account 0x%s", config.name, config.bind, gateway.address.hex())
        await stop.wait()
    finally:
        await runner.cleanup()
        await gateway.stop()


def run(config_path: Path) -> int:
    """Run a gateway in the foreground; 0 after a clean stop, 1 when it cannot start (one sentence says why)."""
    try:
        config = load_config(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    logging.basicConfig(level=config.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        uvloop.run(serve(config))
    except (ConfigError, SecretError, FolderInUse, JournalCorrupt) as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("the gateway cannot start on %s: %s", config.bind, error)
        return 1
    return 0
