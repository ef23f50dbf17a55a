"""The bootnode as it is used: over HTTP, across a restart, and as a process with its configuration."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from bootnode import server
from bootnode.config import load_config
from bootnode.server import Bootnode, run
from node.chain.genesis import Genesis, domain_of, genesis_document
from node.chain.signing import SigningKey
from node.p2p.records import parse_record, record_document, sign_record
from serving.connections import SWEEP_S

KEY = SigningKey(b"\x01" * 32)
GENESIS = Genesis(chain_id=7770, timestamp=1, validators=(KEY.address,))
DOMAIN = domain_of(GENESIS)
ROOT = Path(__file__).resolve().parents[2]


def document_of(*, sequence: int = 1, life_s: int = 600) -> dict[str, object]:
    return record_document(
        sign_record(
            KEY, DOMAIN, endpoints=("validator-1:30303",), sequence=sequence, expires_at_s=int(time.time()) + life_s
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "genesis.json").write_text(json.dumps(genesis_document(GENESIS)))
    (tmp_path / "bootnode.toml").write_text(
        'name = "bootnode"\ngenesis = "genesis.json"\nbind = "127.0.0.1:0"\ndata = "records.json"\n'
        '[log]\nlevel = "INFO"\n'
    )
    return tmp_path


@pytest_asyncio.fixture
async def url(folder: Path) -> AsyncIterator[str]:
    runner = web.AppRunner(Bootnode(load_config(folder / "bootnode.toml")).application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def post(url: str, body: bytes) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as client, client.post(f"{url}/records", data=body) as response:
        return response.status, await response.json()


async def get(url: str, path: str) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as client, client.get(f"{url}{path}") as response:
        return response.status, await response.json()


async def test_a_record_is_passed_on_unchanged(url: str) -> None:
    document = document_of()
    assert await post(url, json.dumps(document).encode()) == (200, {"new": True, "records": 1})
    assert await post(url, json.dumps(document).encode()) == (200, {"new": False, "records": 1})
    status, listing = await get(url, "/records")
    assert status == 200
    assert listing["records"] == [document]
    assert listing["genesisHash"] == "0x" + DOMAIN.genesis_hash.hex()
    parse_record(document, DOMAIN)


async def test_an_older_record_is_answered_with_the_sequence_that_stands(url: str) -> None:
    await post(url, json.dumps(document_of(sequence=7)).encode())
    status, answer = await post(url, json.dumps(document_of(sequence=6)).encode())
    assert (status, answer["sequence"]) == (409, 7)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1e999", b"\xff", b"[" * 4000, json.dumps(document_of(life_s=-5)).encode()]
)
async def test_what_is_no_record_is_refused_with_a_reason(url: str, body: bytes) -> None:
    status, answer = await post(url, body)
    assert status == 400
    assert answer["error"]
    assert (await get(url, "/records"))[1]["records"] == []


async def test_bodies_are_bounded_in_size_and_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await post(url, b" " * 5000))[0] == 413
    monkeypatch.setattr("bootnode.server.BODY_S_MAX", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"POST /records HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readline(), 5)
    assert b" 408 " in answer
    writer.close()
    await writer.wait_closed()


@pytest_asyncio.fixture
async def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    """A bootnode with its own listener, impatient: host and port."""
    monkeypatch.setattr("bootnode.server.HEAD_S_MAX", 0.3)
    monkeypatch.setattr("bootnode.server.CONNECTIONS_PER_ADDRESS_MAX", 8)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("PSEPHOS_BOOTNODE_BIND", f"127.0.0.1:{port}")
    stopping = asyncio.Event()
    task = asyncio.create_task(Bootnode(load_config(folder / "bootnode.toml")).serve(stopping))
    deadline = time.monotonic() + 10
    while True:
        try:
            await get(f"http://127.0.0.1:{port}", "/health")
            break
        except aiohttp.ClientConnectionError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    yield "127.0.0.1", port
    stopping.set()
    await task


async def test_who_sends_slowly_or_comes_too_often_is_cut_off(serving: tuple[str, int]) -> None:
    slow = [await asyncio.open_connection(*serving) for _ in range(12)]
    for _, writer in slow:
        writer.write(b"GET /records HTTP/1.1\r\nHost: ")
    async with asyncio.timeout(10):
        for reader, _ in slow:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
    assert (await get("http://{}:{}".format(*serving), "/records"))[0] == 200
    for _, writer in slow:
        writer.close()


def test_a_slow_sender_is_gone_within_ten_seconds() -> None:
    assert server.HEAD_S_MAX + SWEEP_S + server.BODY_S_MAX + server.LINGERING_S < 10


async def test_nothing_is_amplified(url: str) -> None:
    """No answer to a record is longer than the record, none repeats what a stranger wrote, and nobody is called."""
    called: list[str] = []

    async def trap(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append("called")
        writer.close()

    listener = await asyncio.start_server(trap, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    good = record_document(
        sign_record(
            SigningKey(b"\x09" * 32),
            DOMAIN,
            endpoints=(f"127.0.0.1:{port}",),
            sequence=5,
            expires_at_s=int(time.time()) + 600,
            rpc_url=f"http://127.0.0.1:{port}",
        )
    )
    marked = good | {"name": "mark" * 16}
    for document in (good, good, good | {"sequence": 4}, marked, {"mark": ["mark" * 400]}):
        body = json.dumps(document).encode()
        _, answer = await post(url, body)
        assert len(json.dumps(answer)) < len(body)
        assert "markmark" not in json.dumps(answer)
    assert (await get(url, "/records"))[1]["records"] == [good]
    assert called == []
    listener.close()
    await listener.wait_closed()


async def test_health_and_unknown_paths(url: str) -> None:
    for path in ("/health", "/ready"):
        assert await get(url, path) == (200, {"status": "ok", "name": "bootnode", "records": 0})
    assert (await get(url, "/elsewhere"))[0] == 404
    async with aiohttp.ClientSession() as client, client.delete(f"{url}/records") as response:
        assert response.status == 405


def test_relative_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(folder / "bootnode.toml")
    assert (config.genesis, config.data) == (folder / "genesis.json", folder / "records.json")
    monkeypatch.setenv("PSEPHOS_BOOTNODE_BIND", "0.0.0.0:1234")
    monkeypatch.setenv("PSEPHOS_BOOTNODE_LOG__LEVEL", "DEBUG")
    config = load_config(folder / "bootnode.toml")
    assert (config.bind, config.log.level, config.name) == ("0.0.0.0:1234", "DEBUG", "bootnode")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('bind = "nowhere"', "bind"),
        ("colour = 1", "colour"),
        ('name = "line\\nbreak"', "1 to 64 printable characters"),
        ('allow = ["0x12"]', "40 hexadecimal digits"),
        ("name = ", "line"),
        ('genesis = "missing.json"', "missing.json"),
    ],
)
def test_a_bad_configuration_is_one_clear_message(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    (folder / "bad.toml").write_text(line + "\n")
    assert run(folder / "bad.toml") == 1
    assert expected in capsys.readouterr().err


def start_process(folder: Path, port: int) -> subprocess.Popen[bytes]:
    program = "import sys; from pathlib import Path; from bootnode.server import run; sys.exit(run(Path(sys.argv[1])))"
    environment = os.environ | {"PSEPHOS_BOOTNODE_BIND": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", program, str(folder / "bootnode.toml")], env=environment)


async def answer_of(url: str, path: str, process: subprocess.Popen[bytes]) -> dict[str, object]:
    deadline = time.monotonic() + 20
    while True:
        try:
            return (await get(url, path))[1]
        except aiohttp.ClientConnectionError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_process_keeps_its_records_and_stops_cleanly(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    document = document_of()
    process = start_process(folder, port)
    try:
        await answer_of(url, "/health", process)
        assert (await post(url, json.dumps(document).encode()))[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    process = start_process(folder, port)
    try:
        assert (await answer_of(url, "/records", process))["records"] == [document]
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 20) == 0


def test_a_damaged_table_is_no_obstacle(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"", b"{}", b"\xff"):
        (folder / "records.json").write_bytes(content)
        Bootnode(load_config(folder / "bootnode.toml"))
    assert caplog.text.count("cannot be used") == 3
