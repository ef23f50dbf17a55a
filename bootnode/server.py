"""The bootnode: an HTTP server that passes signed peer records on. It vouches for nobody."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from aiohttp import web

from bootnode.config import BootnodeConfig, load_config
from bootnode.table import ForeignTable, Outdated, Table
from node.chain.errors import PeerError
from node.chain.genesis import domain_of, parse_genesis
from node.p2p.records import RECORD_DOCUMENT_BYTES_MAX
from node.version import VERSION
from serving.connections import ConnectionGuard, stop_listening
from serving.endpoint import parse_bind
from serving.logs import Format, configure
from serving.metrics import COMMON, DISK_FREE, INFO, Metric, MetricsServer, Page, disk_free_bytes
from serving.settings import ConfigError

RECORDS = Metric("psephos_bootnode_records", "gauge", "Peer records; expired ones are still a hint.", ("state",))
ANNOUNCEMENTS = Metric("psephos_bootnode_announcements_total", "counter", "Records that peers sent.", ("outcome",))
LISTINGS = Metric("psephos_bootnode_listings_total", "counter", "How often the records were asked for.")
METRICS = (*COMMON, RECORDS, ANNOUNCEMENTS, LISTINGS)
BODY_S_MAX = 4.0  # a record is read within this, or not at all
HEAD_S_MAX = 4.0  # so is a request's head; and who reads no answer for so long is cut off
LINGERING_S = 1.0  # how long the rest of a refused body is read, so that its sender sees the answer
IDLE_S_MAX = 15.0  # between two requests
CONNECTIONS_MAX = 512
CONNECTIONS_PER_ADDRESS_MAX = 64  # several nodes may share an address
BACKLOG = 512
SAVE_EVERY_S = 1.0
_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bootnode:
    """The table behind its HTTP routes, kept on disk."""

    def __init__(self, config: BootnodeConfig) -> None:
        """Reads the genesis and what was kept. Raises OSError, ValueError (also GenesisError)."""
        document = orjson.loads(config.genesis.read_bytes())
        if not isinstance(document, dict):
            raise ValueError(f"{config.genesis}: expected a JSON object")
        genesis = parse_genesis(document)
        self._config = config
        self._table = Table(
            domain_of(genesis),
            reserved={*genesis.validators, *(bytes.fromhex(address[2:]) for address in config.allow)},
            open_seats=config.limits.open_seats,
            record_life_s_max=config.limits.record_life_s_max,
        )
        self._announcements: Counter[str] = Counter(new=0, known=0, outdated=0, refused=0)
        self._listings = 0
        self._load()
        self._guard = ConnectionGuard(
            connections_max=CONNECTIONS_MAX,
            per_address_max=CONNECTIONS_PER_ADDRESS_MAX,
            sender_s=HEAD_S_MAX,
            idle_s=IDLE_S_MAX,
        )
        self._listing: bytes | None = None  # encoded once a change, not once a request
        self._saved = self._encoded()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=RECORD_DOCUMENT_BYTES_MAX, middlewares=[self._watch, _problems])
        application.router.add_get("/records", self._get_records)
        application.router.add_post("/records", self._post_record)
        application.router.add_get("/health", self._get_health)
        application.router.add_get("/ready", self._get_health)  # nothing to wait for: it serves what it has
        return application

    async def serve(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping`. Raises OSError when the address cannot be bound."""
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            keepalive_timeout=IDLE_S_MAX,
            lingering_time=LINGERING_S,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("the runner has no server")
        await self._guard.start()
        bind = self._config.endpoint
        metrics: MetricsServer | None = None
        server: asyncio.Server | None = None
        if self._config.metrics.bind is not None:
            endpoint = parse_bind(self._config.metrics.bind)
            metrics = MetricsServer(endpoint, METRICS, self._fill, self._config.metrics.url_file)
        try:
            make = self._guard.factory(runner.server)
            server = await asyncio.get_running_loop().create_server(
                make, bind.host, bind.port, reuse_address=True, backlog=BACKLOG
            )
            bound = server.sockets[0].getsockname()
            if metrics is not None:
                await metrics.start()
            _log.info("%s listens on %s with %d records", self._config.name, bound, len(self._table))
            while not stopping.is_set():
                await self._save()
                try:
                    async with asyncio.timeout(SAVE_EVERY_S):
                        await stopping.wait()
                except TimeoutError:
                    continue
        finally:
            if metrics is not None:
                await metrics.stop()
            if server is not None:
                await stop_listening(server)
            await runner.cleanup()
            await self._guard.stop()
            await self._save()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note for the guard that a request is under way."""
        connection = self._guard.begin(request)
        try:
            return await handler(request)
        finally:
            self._guard.end(connection)

    async def _fill(self, page: Page) -> None:
        """What Prometheus is told."""
        now_s = time.time()
        records = self._table.records()
        page.put(INFO, 1, VERSION, "bootnode", self._config.name, "")
        page.put(RECORDS, sum(record.expires_at_s > now_s for record in records), "valid")
        page.put(RECORDS, sum(record.expires_at_s <= now_s for record in records), "expired")
        page.put_counts(ANNOUNCEMENTS, self._announcements)
        page.put(LISTINGS, self._listings)
        page.put(DISK_FREE, disk_free_bytes(self._config.data.parent), "records")

    async def _get_records(self, _request: web.Request) -> web.Response:
        self._listings += 1
        return web.Response(body=self._encoded(), content_type="application/json")

    async def _post_record(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(BODY_S_MAX):
            body = await request.read()
        try:
            is_new = self._table.put(orjson.loads(body), now_s=int(time.time()))
        except Outdated as error:
            self._announcements["outdated"] += 1
            return _json(409, {"error": str(error), "sequence": error.standing})
        except (orjson.JSONDecodeError, PeerError) as error:
            self._announcements["refused"] += 1
            return _json(400, {"error": str(error)})
        self._announcements["new" if is_new else "known"] += 1
        if is_new:
            self._listing = None
        return _json(200, {"new": is_new, "records": len(self._table)})

    async def _get_health(self, _request: web.Request) -> web.Response:
        return _json(200, {"status": "ok", "name": self._config.name, "records": len(self._table)})

    def _encoded(self) -> bytes:
        if self._listing is None:
            self._listing = orjson.dumps(self._table.document())
        return self._listing

    def _load(self) -> None:
        try:
            self._table.load(orjson.loads(self._config.data.read_bytes()))
        except FileNotFoundError:
            return
        except (orjson.JSONDecodeError, ForeignTable) as error:  # hints only: peers announce themselves again
            _log.warning("%s cannot be used, records will be gathered anew: %s", self._config.data, error)

    async def _save(self) -> None:
        listing = self._encoded()
        if listing is self._saved:
            return
        try:
            await asyncio.to_thread(_replace, self._config.data, listing)
            self._saved = listing
        except OSError as error:
            _log.warning("cannot write %s: %s", self._config.data, error)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TimeoutError:
        return _json(408, {"error": f"the body did not come within {BODY_S_MAX:.0f} s"})
    except web.HTTPException as error:
        return _json(error.status, {"error": error.reason})


def _json(status: int, document: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")


def _replace(path: Path, content: bytes) -> None:
    """Replace a file, synced, as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


async def _serve_until_signal(bootnode: Bootnode) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await bootnode.serve(stopping)


def run(config_path: Path, log_format: Format | None = None) -> int:
    """Run one bootnode until SIGTERM or SIGINT; the exit code, 0 when it was stopped so and 1 when it cannot start.

    `log_format` goes before the configuration's.
    """
    try:
        config = load_config(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- logging is not set up yet
        return 1
    configure(config.name, config.log.level, log_format or config.log.format)
    try:
        asyncio.run(_serve_until_signal(Bootnode(config)))
    except (OSError, ValueError) as error:  # of its port, and of genesis
        print(f"bootnode: {config_path}: {error}", file=sys.stderr)  # noqa: T201 -- why it ends, to who started it
        return 1
    return 0
