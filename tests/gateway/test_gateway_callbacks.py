"""Callbacks: only to allowed hosts, signed, tried again, and not forgotten by a restart."""

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.callbacks import sign
from gateway.config import CallbacksConfig
from serving.keyfiles import SecretError
from tests.gateway.gateway_network import Network, until

KEY = bytes([3] * 32)


class Backend:
    """What a factory service would run to be told."""

    def __init__(self) -> None:
        self.port = 0
        self.refuse = 0
        self.told: list[dict[str, Any]] = []
        self.calls = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/anchored", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = await request.read()
        fields = dict(part.split("=") for part in request.headers["Psephos-Signature"].split(","))
        # With nothing but the standard library, as docs/INTEGRATION.md shows it.
        wanted = hmac.new(KEY, fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(wanted, fields["v1"])
        assert abs(time.time() - int(fields["t"])) < 60
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=500)
        self.told.append(json.loads(body))
        return web.Response()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/anchored"


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    one = Backend()
    await one.start()
    yield one
    await one.stop()


def settings(network: Network, *hosts: str) -> CallbacksConfig:
    secret = network.folder / "callback.secret"
    secret.write_text(KEY.hex() + "\n")
    secret.chmod(0o600)
    return CallbacksConfig(hosts=hosts, secret=secret, folder=network.folder / "callbacks", backoff_ms=10)


def body(batch: uuid.UUID, url: str) -> dict[str, object]:
    return {"batch_id": str(batch), "merkle_root": "ab" * 32, "product_count": 3, "callback_url": url}


async def test_the_end_is_told_until_it_is_taken(network: Network, backend: Backend) -> None:
    batch = uuid.uuid4()
    backend.refuse = 2
    async with network.gateway(callbacks=settings(network, f"127.0.0.1:{backend.port}")) as (_, api):
        assert (await api.post("/v1/anchor", body(batch, backend.url))).status_code == 202
        await until(lambda: len(backend.told) == 1, "it was told", 20)
        shown = (await api.get(f"/v1/anchor/{batch}")).json()
        told = backend.told[0]
        assert (told["event"], told["status"], backend.calls) == ("anchor.completed", "completed", 3)
        for name in ("anchor_id", "batch_id", "merkle_root", "transaction_id", "block_number", "job_id"):
            assert told[name] == shown[name]
        await until(lambda: not list((network.folder / "callbacks").glob("*.json")), "it is forgotten then", 10)
        again = await api.post("/v1/anchor", body(batch, backend.url))
        assert (again.status_code, again.json()["status"]) == (200, "completed")
        await until(lambda: len(backend.told) == 2, "of what has ended, one is told at once", 20)


async def test_a_restart_forgets_no_callback(network: Network, backend: Backend) -> None:
    batch, config = uuid.uuid4(), settings(network, f"127.0.0.1:{backend.port}")
    backend.refuse = 10_000
    async with network.gateway(callbacks=config) as (_, api):
        await api.post("/v1/anchor", body(batch, backend.url))
        await until(lambda: backend.calls > 0, "it was tried", 20)
    backend.refuse = 0
    async with network.gateway(callbacks=config) as (_, api):
        await until(lambda: len(backend.told) == 1, "the next life tells it", 20)
    # Accepted in one life, final in the next.
    batch = uuid.uuid4()
    async with network.gateway(callbacks=config) as (_, api):
        network.mining = False
        await api.post("/v1/anchor", body(batch, backend.url))
    network.mining = True
    async with network.gateway(callbacks=config):
        await until(lambda: len(backend.told) == 2, "it is told once it is final", 20)
    assert backend.told[1]["batch_id"] == str(batch)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://example.com/",
        "https://allowed.test:8443/",
        "http://allowed.test@evil.test/",
        "http://user:pass@allowed.test/",
        "ftp://allowed.test/",
        "file:///etc/passwd",
        "//allowed.test/",
        "http://allowed.test.evil.test/",
        "http://allowed.test:99999/",
        "http://[::1/",
        "nonsense",
    ],
)
async def test_other_hosts_are_never_called(network: Network, url: str) -> None:
    async with network.gateway(callbacks=settings(network, "allowed.test")) as (gateway, api):
        answer = await api.post("/v1/anchor", body(uuid.uuid4(), url))
        assert answer.status_code in (403, 422), answer.text
        assert gateway.book.pending_count == 0, "and nothing is anchored on the way"
        gateway.callbacks.check("http://allowed.test/x")
        gateway.callbacks.check("https://ALLOWED.test:443/x")


async def test_a_refused_conflict_leaves_the_first_callers_callback(network: Network, backend: Backend) -> None:
    batch, config = uuid.uuid4(), settings(network, f"127.0.0.1:{backend.port}")
    async with network.gateway(callbacks=config) as (_, api):
        network.mining = False
        await api.post("/v1/anchor", body(batch, backend.url))
        other = body(batch, backend.url + "?stolen") | {"merkle_root": "cd" * 32}
        assert (await api.post("/v1/anchor", other)).status_code == 409
        network.mining = True
        await until(lambda: len(backend.told) == 1, "the first caller is told", 20)
        assert backend.told[0]["merkle_root"] == "ab" * 32


async def test_hosts_without_a_secret_are_refused_at_start(network: Network) -> None:
    config = CallbacksConfig(hosts=("a",), secret=network.folder / "none", folder=network.folder / "callbacks")
    with pytest.raises(SecretError, match="callbacks"):
        async with network.gateway(callbacks=config):
            pass


def test_a_signature_covers_time_and_body() -> None:
    assert sign(KEY, b"{}", 1) != sign(KEY, b"{}", 2)
    assert sign(KEY, b"{}", 1) != sign(KEY, b"{ }", 1)
    assert sign(KEY, b"{}", 1) == sign(KEY, b"{}", 1)


async def test_an_anchor_that_failed_may_end_otherwise_after_a_restart(network: Network, backend: Backend) -> None:
    """Its failure was told, and it was retried and completed in the last moment of a life: that is still to be told."""
    batch, folder = uuid.uuid4(), network.folder / "callbacks"
    url = f"http://127.0.0.1:{backend.port}/anchored"
    async with network.gateway() as (_, api):
        made = {"batch_id": str(batch), "merkle_root": "ab" * 32, "product_count": 1}
        assert (await api.post("/v1/anchor", made)).status_code == 202
        deadline = time.monotonic() + 20
        while (await api.get(f"/v1/anchor/{batch}")).json()["status"] != "completed":
            assert time.monotonic() < deadline
    folder.mkdir()
    key = batch.bytes + bytes(16)
    told = {"event": "anchor.failed", "batch_id": str(batch), "status": "failed"}
    entry = {"batch_id": key.hex(), "url": url, "body": told, "ended": False}
    (folder / f"{key.hex()}.json").write_text(json.dumps(entry))
    secret = network.folder / "callback.secret"
    secret.write_text(KEY.hex())
    secret.chmod(0o600)
    config = CallbacksConfig(hosts=(f"127.0.0.1:{backend.port}",), secret=secret, folder=folder)
    async with network.gateway(callbacks=config):
        await until(lambda: "completed" in [one["status"] for one in backend.told], "it is told", 20)
        await until(lambda: not list(folder.glob("*.json")), "and that is the end of it")
