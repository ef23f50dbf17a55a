"""Who may call, how often, how slowly, and on how many connections at once."""

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.cli import main
from gateway.access import KEY_PREFIX, Rate, hash_api_key, new_api_key
from gateway.config import ApiKeyConfig, GatewayConfig, LimitsConfig, check_exposure, load_config
from gateway.server import OPERATIONS
from serving.connections import raise_file_limit
from serving.settings import ConfigError
from tests.gateway.gateway_network import Caller, Network, until


def key_for(*scopes: str) -> tuple[str, dict[str, Any]]:
    key, digest = new_api_key()
    return key, {"name": "-".join(scopes), "sha256": digest, "scopes": scopes}


async def ask(api: Caller, method: str, path: str, key: str | None, **headers: str) -> httpx.Response:
    path = path.replace("{election_id}", "1").replace("{job_id}", "1").replace("{tx_id}", "00" * 32)
    path = path.replace("{batch_id}", "1").replace("{anchor_id}", "1")
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if method == "GET":
        return await api.get(path, headers=headers)
    return await api.post(path, {}, **headers)


async def test_every_call_needs_a_key_with_its_scope(network: Network) -> None:
    keys = {scope: key_for(scope) for scope in ("vote", "anchor", "read", "admin")}
    async with network.gateway(api_keys=tuple(ApiKeyConfig(**entry) for _, entry in keys.values())) as (_, api):
        for one in OPERATIONS:
            bare = await ask(api, one.method, one.path, None)
            if one.need == "open":
                assert bare.status_code == 200
                continue
            assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer"), one.path
            assert (await ask(api, one.method, one.path, KEY_PREFIX + "A" * 43)).status_code == 401
            for scope, (key, _) in keys.items():
                answer = await ask(api, one.method, one.path, key)
                if scope in (one.need, "admin"):
                    assert answer.status_code not in (401, 403), f"{scope} on {one.path}: {answer.text}"
                else:
                    assert (answer.status_code, answer.json()["code"]) == (403, "scope-missing")
        assert (await api.get("/log/anchors/head")).status_code == 401, "also what other rooms add"
        by_header = await api.get("/api/elections", headers={"X-API-Key": keys["read"][0]})
        assert by_header.status_code == 200


def test_a_key_is_written_nowhere_but_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["api-key", "shop", "--scope", "anchor", "--scope", "read"]) == 0
    shown = capsys.readouterr()
    key = shown.out.strip()
    assert hash_api_key(key) in shown.err
    assert key not in shown.err
    assert 'scopes = ["anchor", "read"]' in shown.err


def test_without_keys_it_listens_to_this_machine_alone() -> None:
    def config(bind: str, **more: Any) -> GatewayConfig:
        return GatewayConfig(bind=bind, validators=({"name": "v", "rpc_url": "http://v:1"},), **more)  # type: ignore[arg-type]

    for local in ("127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.9.1:1"):
        check_exposure(config(local))
    for open_ in ("0.0.0.0:1", "[::]:1", "192.168.0.7:1", "gateway:1"):
        with pytest.raises(ConfigError, match="api-key"):
            check_exposure(config(open_))
        check_exposure(config(open_, allow_anonymous=True))
        check_exposure(config(open_, api_keys=({"name": "n", "sha256": "0" * 64, "scopes": ("read",)},)))


def test_the_environment_allows_anonymous_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEPHOS_GATEWAY_ALLOW_ANONYMOUS", "true")
    assert GatewayConfig(validators=({"name": "v", "rpc_url": "http://v:1"},)).allow_anonymous  # type: ignore[arg-type]


def test_a_rate_lets_a_burst_through_and_then_a_steady_flow() -> None:
    now = 0.0
    rate = Rate(2.0, 3, lambda: now)
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.take("b") == 0, "another one's bucket is full"
    now = 0.5
    assert rate.take("a") == 0
    assert rate.take("a") == 0.5
    assert not any(Rate(0.0, 1, lambda: now).take("a") for _ in range(100)), "off"


async def test_rates_of_clients_and_voters(network: Network) -> None:
    rates = {"client_per_s": 0.01, "client_burst": 6, "voter_per_minute": 0.01, "voter_burst": 2}
    async with network.gateway(rates=rates) as (_, api):
        answers = [await api.vote("ann", 0, wait=20) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["retry-after"]) >= 1
        assert answers[2].json()["detail"] == "This voter comes too often."
        assert (await api.vote("bob", 0, wait=20)).status_code == 200
        batch = {
            "votes": [
                {"voter_id": "ann", "election_id": 1, "choice": 0},
                {"voter_id": "eve", "election_id": 1, "choice": 0},
            ]
        }
        statuses = [
            one["status"] for one in (await api.post("/api/votes/batch", batch, Prefer="wait=20")).json()["results"]
        ]
        assert statuses == ["not_taken", "confirmed"]
        assert (await api.get("/api/elections")).status_code == 200
        assert (await api.get("/api/elections")).status_code == 429
        assert (await api.get("/health")).status_code == 200, "who watches the process is not counted"


async def test_bodies_that_are_too_large_or_no_json_are_refused(network: Network) -> None:
    async with network.gateway(limits=LimitsConfig(body_bytes_max=1 << 17)) as (_, api):
        large = await api.post("/api/votes/submit", {"voter_id": "x" * (1 << 17)})
        assert large.status_code == 413
        for content in (b"", b"{", b"\xff", b"[1]", b"null", b'{"voter_id": 1e400}'):
            answer = await network.client.post(f"{api.url}/api/votes/submit", content=content, headers=JSON)
            assert answer.status_code in (400, 422), content
            assert answer.headers["content-type"] == "application/problem+json"
        unknown = await network.client.get(f"{api.url}/nothing")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found")
        wrong = await network.client.delete(f"{api.url}/v1/anchor")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


JSON = {"Content-Type": "application/json"}


class Raw:
    """A connection that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, api: Caller) -> "Raw":
        url = httpx.URL(api.url)
        return cls(*await asyncio.open_connection(url.host, url.port))

    async def lifetime(self, drip: bytes = b"") -> float:
        """Seconds until the other side ends it, while one byte is sent now and then."""
        begin = time.monotonic()

        async def send() -> None:
            with contextlib.suppress(ConnectionError):
                while drip:
                    self.writer.write(drip)
                    await self.writer.drain()
                    await asyncio.sleep(0.05)

        sender = asyncio.create_task(send())
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(4096):
                pass
        sender.cancel()
        self.writer.close()
        return time.monotonic() - begin


HEAD = b"POST /api/votes/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),  # says nothing at all
        (b"GET /health HTTP/1.1\r\n", b"X"),  # a head that never ends
        (HEAD, b"x"),  # a body that never ends
        (HEAD.replace(b"POST /api/votes/submit", b"GET /health"), b"x"),  # a body that nobody asked for
    ],
    ids=["silent", "head", "body", "unasked"],
)
async def test_slow_senders_are_closed_in_time(network: Network, first: bytes, drip: bytes) -> None:
    assert LimitsConfig().sender_s + 1.5 < 10
    async with network.gateway(limits=LimitsConfig(sender_s=0.6)) as (_, api):
        raw = await Raw.open(api)
        raw.writer.write(first)
        async with asyncio.timeout(20):
            assert 0.3 < await raw.lifetime(drip) < 10


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET /health HTTP/9\r\n\r\n",
    ],
    ids=["line", "header", "tls", "version"],
)
async def test_what_cannot_be_read_is_answered_with_a_problem_document(network: Network, request_: bytes) -> None:
    async with network.gateway() as (_, api):
        raw = await Raw.open(api)
        raw.writer.write(request_)
        async with asyncio.timeout(20):
            head, _, body = (await raw.reader.read()).partition(b"\r\n\r\n")  # to the end: it is closed
        raw.writer.close()
        with contextlib.suppress(ConnectionError):
            await raw.writer.wait_closed()
        assert b" 400 " in head.split(b"\r\n")[0]
        assert b"Content-Type: application/problem+json" in head
        problem = json.loads(body)
        assert (problem["code"], problem["status"]) == ("not-http", 400)
        assert f"X-Request-Id: {problem['request_id']}".encode() in head
        assert (await api.get("/health")).status_code == 200


async def test_a_slow_body_is_told_why(network: Network) -> None:
    async with network.gateway(limits=LimitsConfig(sender_s=0.3)) as (_, api):
        raw = await Raw.open(api)
        raw.writer.write(HEAD + b"{")
        async with asyncio.timeout(20):
            answer = await raw.reader.read()
        raw.writer.close()
        with contextlib.suppress(ConnectionError):
            await raw.writer.wait_closed()
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"slow-body" in answer


async def connect(api: Caller) -> socket.socket:
    """A connection on which nothing is sent."""
    url = httpx.URL(api.url)
    one = socket.socket()
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, (url.host, url.port))
    return one


def is_ended(one: socket.socket) -> bool:
    """Whether the other side has closed it."""
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_idle_connections_do_not_stop_an_honest_client(network: Network) -> None:
    count = 2000 if raise_file_limit() > 5000 else 200
    limits = LimitsConfig(connections_max=count // 2, sender_s=60)
    async with network.gateway(limits=limits) as (_, api):
        idle = [await connect(api) for _ in range(count)]
        begin = time.monotonic()
        assert (await api.vote("honest", wait=20)).status_code == 200
        assert time.monotonic() - begin < 10
        assert sum(map(is_ended, idle)) >= count // 2, "who was idle longest made room"
        for one in idle:
            one.close()


async def test_a_busy_connection_is_not_ended_for_a_new_one(network: Network) -> None:
    limits = LimitsConfig(connections_max=8, sender_s=60)
    async with network.gateway(limits=limits) as (gateway, api):
        assert (await api.vote("first", wait=20)).status_code == 200
        network.mining = False
        waiting = [asyncio.create_task(api.vote(f"v{n}", wait=20)) for n in range(7)]
        await until(lambda: gateway.book.pending_count == 7, "all wait", 20)
        idle = [await connect(api) for _ in range(20)]
        network.mining = True
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        for one in idle:
            one.close()


def test_a_key_that_stands_where_its_hash_should_is_not_repeated(tmp_path: Path) -> None:
    """What is wrong with a configuration goes to standard error, hence into a journal that others read."""
    key, _ = new_api_key()
    validators = '[[validators]]\nname = "v"\nrpc_url = "http://127.0.0.1:1"\n'
    for line in (f'sha256 = "{key}"', f'key = "{key}"', f'sha256 = ["{key}"]'):
        path = tmp_path / "gateway.toml"
        path.write_text(f'{validators}[[api_keys]]\nname = "n"\nscopes = ["read"]\n{line}\n')
        with pytest.raises(ConfigError, match=r"api_keys\.0") as refusal:
            load_config(path)
        assert key not in str(refusal.value)


def test_a_variable_that_is_no_json_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEPHOS_GATEWAY_VALIDATORS", "http://127.0.0.1:8001")
    (tmp_path / "gateway.toml").write_text("")
    with pytest.raises(ConfigError, match=r"PSEPHOS_GATEWAY_.*validators.*lists and tables are JSON"):
        load_config(tmp_path / "gateway.toml")
