"""What a gateway counts, and a request's id on its way to the validators."""

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.common import CALLS, GUARD
from gateway.metrics import METRICS, fill
from gateway.server import HttpServer, make_app
from gateway.service import Gateway
from node.rpc import listener, straight
from serving.logs import REQUEST_ID, read_request_id
from serving.metrics import Page
from tests.gateway.gateway_network import Caller, Network, until

UNREACHABLE = ("psephos_gateway_validator_status", ("unreachable", "validator-1"))


async def page_of(gateway: Gateway, app: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and label values."""
    page = Page(METRICS)
    await fill(page, gateway, app[CALLS], app[GUARD])
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(page.text().decode())
        for sample in family.samples
    }


async def test_records_are_counted_by_what_became_of_them(network: Network) -> None:
    async with network.gateway() as (gateway, caller):
        app = make_app(gateway)  # another front of the same gateway, whose page we read
        server = HttpServer(app)
        caller = Caller(network.client, f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}")
        for voter in range(5):
            assert (await caller.vote(f"v{voter}", voter % 3)).json()["status"] == "confirmed"
        assert (await caller.vote("v0", 2)).status_code == 409
        assert (await caller.get("/nowhere")).status_code == 404
        await until(lambda: gateway.durability.oldest_received_at_ms() is None, "ends are written down")
        found = await page_of(gateway, app)
        assert found["psephos_gateway_records_total", ("accepted", "ballot")] == 5
        assert found["psephos_gateway_durable_total", ()] >= 5
        assert found["psephos_gateway_finality_seconds_count", ()] >= 5
        assert found["psephos_gateway_journal_depth", ()] == 0
        assert found["psephos_gateway_journal_age_seconds", ()] == 0
        assert found["psephos_gateway_level", ()] == 1
        assert found["psephos_gateway_http_seconds_count", ("POST /api/votes/submit",)] == 6
        assert found["psephos_gateway_http_seconds_count", ("unmatched",)] == 1
        assert not [labels for _, labels in found if any("v0" in label or "nowhere" in label for label in labels)]
        await server.stop()


async def test_what_waits_grows_old_and_the_level_tells_why(network: Network) -> None:
    async with network.gateway() as (gateway, caller):
        app = make_app(gateway)
        assert (await caller.vote("first")).json()["status"] == "confirmed"
        network.kill_all()
        await until(lambda: gateway.level() == 3, "no validator is there")
        assert (await caller.vote("second", wait=0)).status_code == 202
        for _ in range(200):  # the first failure tells the level, the next probe tells of each validator
            found = await page_of(gateway, app)
            if found[UNREACHABLE] == 1:
                break
            await asyncio.sleep(0.05)
        assert found[UNREACHABLE] == 1
        assert found["psephos_gateway_level", ()] == 3
        assert found["psephos_gateway_journal_depth", ()] == 1
        age_s = found["psephos_gateway_journal_age_seconds", ()]
        assert 0 < age_s < 60
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "the journal is delivered")
        await until(lambda: gateway.durability.oldest_received_at_ms() is None, "the journal is settled")


async def test_a_request_id_goes_on_to_the_validators(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    real = read_request_id

    def noted(given: str | None) -> str:
        asked.append(given or "")
        return real(given)

    for way in (listener, straight):
        monkeypatch.setattr(way, "read_request_id", noted)
    async with network.gateway() as (_, caller):
        await caller.vote("anybody")
        answer = await caller.get("/api/votes/results", election_id=1, headers={"X-Request-Id": "mine-1"})
        assert answer.headers["X-Request-Id"] == "mine-1"
        assert "mine-1" in asked, f"no validator was asked under the caller's id: {set(asked)}"
        answer = await caller.get("/api/votes/results", election_id=1, headers={"X-Request-Id": "not allowed"})
        assert answer.headers["X-Request-Id"] not in ("", "not allowed")
        assert "not allowed" not in asked
        own = [given for given in asked if given and given != "mine-1"]
        assert len(set(own)) > 3, "what nobody asked for has ids of its own"
    assert REQUEST_ID.get() == ""
    with caplog.at_level(logging.DEBUG):
        network.kill_all()
        async with network.gateway("other") as (_, caller):
            refused = await caller.get("/api/elections/77", headers={"X-Request-Id": "mine-2"})
            assert refused.status_code == 503
    assert any("mine-2" in record.getMessage() for record in caplog.records)
