"""How nodes find each other: through a bootnode, without it once they have met, and in spite of one that lies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from bootnode.config import BootnodeConfig
from bootnode.server import Bootnode
from node.chain.domain import Domain
from node.chain.genesis import Genesis, domain_of, genesis_document
from node.p2p.discovery import ANSWER_BYTES_MAX
from node.p2p.records import PeerRecord, record_document, sign_record
from serving.connections import stop_listening
from tests.p2p.conftest import DOMAIN, QUICK, Crowd, key_of, until

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(application: web.Application, port: int = 0) -> AsyncIterator[str]:
    """The URL of an application, on a free port where none is given."""
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await stop_listening(server)
        await runner.cleanup()


def real_bootnode(folder: Path) -> tuple[Bootnode, Domain]:
    genesis = Genesis(chain_id=7770, timestamp=1, validators=tuple(sorted(key_of(n).address for n in (1, 2, 3))))
    path = folder / "genesis.json"
    path.write_text(json.dumps(genesis_document(genesis)))
    return Bootnode(BootnodeConfig(genesis=path, data=folder / "records.json")), domain_of(genesis)


async def test_found_through_the_bootnode_and_without_it_after_a_restart(crowd: Crowd, tmp_path: Path) -> None:
    bootnode, domain = real_bootnode(tmp_path)
    async with serving(bootnode.application()) as url:
        nodes = [await crowd.start(number, domain=domain, bootnodes=[url]) for number in (1, 2, 3)]
        everybody = {node.address for node in nodes}
        await until(lambda: all(node.connected_to() == everybody - {node.address} for node in nodes))
    # The bootnode is dead now. The cluster goes on, and validator 3 is stopped and comes back, at another port.
    third = nodes.pop()
    await crowd.stop(third)
    await until(lambda: all(third.address not in node.connected_to() for node in nodes))
    assert all(len(node.connected_to()) == 1 for node in nodes)
    # The others know only its old port, so it is the file of its earlier life that brings them together.
    again = await crowd.start(3, domain=domain, bootnodes=[url])
    assert again.port != third.port
    await until(lambda: again.connected_to() == everybody - {again.address})
    await until(lambda: all(again.address in node.connected_to() for node in nodes))


async def test_a_restart_with_a_clock_that_was_ahead_announces_itself(crowd: Crowd, tmp_path: Path) -> None:
    """A record of ours with a sequence from the future is replaced by one with a still higher one."""
    bootnode, domain = real_bootnode(tmp_path)
    ahead = sign_record(
        key_of(1),
        domain,
        endpoints=("192.0.2.1:1",),
        sequence=int(time.time() + 86_400) * 1000,
        expires_at_s=int(time.time()) + 60,
    )
    assert bootnode._table.put(record_document(ahead), now_s=int(time.time()))
    async with serving(bootnode.application()) as url:
        node = await crowd.start(1, domain=domain, bootnodes=[url])
        await until(lambda: bootnode._table.records()[0].endpoints == (node.network.endpoint,))
    assert bootnode._table.records()[0].sequence == ahead.sequence + 1


async def test_a_bootnode_that_comes_late_is_found(crowd: Crowd, tmp_path: Path) -> None:
    bootnode, domain = real_bootnode(tmp_path)
    async with serving(web.Application()) as url:
        port = int(url.rpartition(":")[2])
    nodes = [await crowd.start(number, domain=domain, bootnodes=[url]) for number in (1, 2)]
    async with serving(bootnode.application(), port):
        await until(lambda: all(node.connected_to() for node in nodes))


def lie(answer: Respond) -> web.Application:
    async def accept(_request: web.Request) -> web.Response:
        return web.json_response({"new": True})

    application = web.Application()
    application.router.add_post("/records", accept)
    application.router.add_get("/records", answer)
    return application


async def test_a_lying_bootnode_vouches_for_nobody(crowd: Crowd) -> None:
    """Forged records lead nowhere, a stranger's genuine one is not dialled, a member's genuine one still counts."""
    calls: list[str] = []

    async def trap(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append("called")
        writer.close()

    forged_at = await asyncio.start_server(trap, "127.0.0.1", 0)
    trap_endpoint = f"127.0.0.1:{forged_at.sockets[0].getsockname()[1]}"
    member = await crowd.start(2)
    expiry_s = int(time.time()) + 600

    def record(number: int, endpoint: str, domain: Domain = DOMAIN) -> PeerRecord:
        return sign_record(key_of(number), domain, endpoints=(endpoint,), sequence=10, expires_at_s=expiry_s)

    genuine = record(2, member.network.endpoint)
    asked = 0

    async def answer(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        records = [
            "nonsense",
            {},
            record_document(replace(genuine, endpoints=(trap_endpoint,), sequence=99)),  # altered
            record_document(replace(record(99, trap_endpoint), address=key_of(3).address)),  # another's name
            record_document(record(3, trap_endpoint, Domain(1, DOMAIN.genesis_hash))),  # another network
            record_document(record(99, trap_endpoint)),  # a stranger's own
            record_document(record(1, trap_endpoint)),  # as if from ourselves: the key is known to this test alone
            record_document(genuine),
        ]
        return web.json_response({"records": records})

    async with serving(lie(answer)) as url:
        node = await crowd.start(1, bootnodes=[url])
        await until(lambda: node.connected_to() == {member.address})
        await until(lambda: asked >= 3)
    assert calls == []
    forged_at.close()
    await forged_at.wait_closed()


async def test_a_genuine_record_that_leads_to_somebody_else_gains_nothing(crowd: Crowd) -> None:
    """A member that lists another's endpoint as its own: who is dialled has to prove to be the one who was meant."""
    second = await crowd.start(2)
    expiry_s = int(time.time()) + 600
    liar = sign_record(key_of(3), DOMAIN, endpoints=(second.network.endpoint,), sequence=1, expires_at_s=expiry_s)
    asked = 0

    async def answer(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"records": [record_document(liar)]})

    async with serving(lie(answer)) as url:
        node = await crowd.start(1, bootnodes=[url])
        await until(lambda: asked >= 4)
    assert node.events == []
    assert second.events == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_bootnode_cannot_send_us_elsewhere(crowd: Crowd, method: str) -> None:
    """A redirect would have us speak to hosts that only we can reach."""
    elsewhere: list[str] = []
    redirected = 0

    async def record(request: web.Request) -> web.Response:
        elsewhere.append(request.method)
        return web.json_response({"records": []})

    trap = web.Application()
    trap.router.add_route("*", "/records", record)
    async with serving(trap) as trap_url:

        async def answer(request: web.Request) -> web.Response:
            nonlocal redirected
            if request.method != method:
                return web.json_response({"records": []})
            redirected += 1
            raise web.HTTPTemporaryRedirect(f"{trap_url}/records")

        application = web.Application()
        application.router.add_route("*", "/records", answer)
        async with serving(application) as url:
            await crowd.start(1, bootnodes=[url])
            await until(lambda: redirected >= 2)
    assert elsewhere == []


async def flood(_request: web.Request) -> web.StreamResponse:
    """As JSON there is nothing wrong with it, but it is larger than any table."""
    return web.json_response({"records": [], "more": " " * ANSWER_BYTES_MAX})


async def test_it_stops_though_a_peer_is_lost_in_that_moment(crowd: Crowd) -> None:
    """The wake-up and the cancellation come in one turn of the loop; the second must not get lost."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"records": []})

    async with serving(lie(answer)) as url:
        node = await crowd.start(1, bootnodes=[url], policy=replace(QUICK, announce_first_ms=60_000))
        discovery = node.network._discovery
        await until(lambda: discovery._record is not None)
        await asyncio.sleep(0.1)  # the first round is over, and it waits for something to happen
        discovery.hurry()
        async with asyncio.timeout(5):
            await discovery.stop()


async def no_json(_request: web.Request) -> web.Response:
    return web.Response(body=b"{", content_type="application/json")


async def other_json(_request: web.Request) -> web.Response:
    return web.json_response([1])


@pytest.mark.parametrize("answer", [flood, no_json, other_json])
async def test_a_bad_bootnode_does_no_harm(
    crowd: Crowd, answer: Respond, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other bootnode still serves."""
    bootnode, domain = real_bootnode(tmp_path)
    async with serving(lie(answer)) as bad, serving(bootnode.application()) as good:
        nodes = [await crowd.start(number, domain=domain, bootnodes=[bad, good]) for number in (1, 2)]
        await until(lambda: all(node.connected_to() for node in nodes))
        await until(lambda: f"bootnode {bad} fails us" in caplog.text)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version": 1, "genesisHash": "0x00", "peers": []}'])
async def test_a_damaged_peers_file_is_no_obstacle(crowd: Crowd, content: bytes) -> None:
    """Its peers are learnt anew, and it is written anew."""
    first = await crowd.start(1)
    path = crowd.folder / "peers-2.json"
    path.write_bytes(content)
    second = await crowd.start(2)
    third = await crowd.start(3, knows=[(second.address, second.network.endpoint)])
    await until(lambda: third.address in second.connected_to())
    await until(lambda: third.network.endpoint.encode() in path.read_bytes())
    assert first.events == []
