"""Histograms, pages and the listener that answers with them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving import metrics
from serving.distribution import FAST_S, Calls, Distribution
from serving.metrics import COMMON, Metric, MetricsServer, Page

GAUGE = Metric("psephos_test_gauge", "gauge", "A gauge.", ("what",))
COUNTER = Metric("psephos_test_total", "counter", "A counter.")
HISTOGRAM = Metric("psephos_test_seconds", "histogram", "A histogram.", ("what",))


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1000)), max_size=50))
def test_buckets_count_what_lies_at_or_below_their_bound(values: list[tuple[float, int]]) -> None:
    one = Distribution()
    for value, times in values:
        one.observe(value, times)
    for (name, count), bound in zip(one.buckets(), [*FAST_S, float("inf")], strict=True):
        assert float(name) == bound
        assert count == sum(times for value, times in values if value <= bound)
    assert one.count == sum(times for _, times in values)
    assert one.sum == pytest.approx(sum(value * times for value, times in values))


def test_a_page_names_every_metric_and_is_prometheus_text() -> None:
    page = Page((GAUGE, COUNTER, HISTOGRAM))
    page.put(GAUGE, 1.5, 'a "quoted"\nname')
    distribution = Distribution((1, 2))
    distribution.observe(1.5, 3)
    page.put_distribution(HISTOGRAM, distribution, "x")
    families = {family.name: family for family in text_string_to_metric_families(page.text().decode())}
    assert families["psephos_test_gauge"].samples[0].labels == {"what": 'a "quoted"\nname'}
    assert families["psephos_test_seconds"].type == "histogram"
    samples = {
        (sample.name, sample.labels.get("le")): sample.value for sample in families["psephos_test_seconds"].samples
    }
    assert samples["psephos_test_seconds_bucket", "2"] == 3.0
    assert samples["psephos_test_seconds_bucket", "1"] == 0.0
    assert samples["psephos_test_seconds_sum", None] == 4.5
    assert b"# TYPE psephos_test_total counter" in page.text()
    assert b"process_resident_memory_bytes" in page.text()


def test_calls_keep_failures_beside_times() -> None:
    calls = Calls()
    calls.note("eth_call", 0.01)
    calls.note("eth_call", 0.02, failures=1)
    assert [(name, one.count) for name, one in calls.seconds] == [("eth_call", 2)]
    assert calls.failed == {"eth_call": 1}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MetricsServer]:
    """A listener on a free port; its page has one gauge, whose value is the number of scrapes."""
    scrapes = 0

    async def fill(page: Page) -> None:
        nonlocal scrapes
        scrapes += 1
        if scrapes == 3:
            raise RuntimeError("the third scrape fails")
        page.put(GAUGE, scrapes, "scrapes")

    one = MetricsServer(("127.0.0.1", 0), (*COMMON, GAUGE), fill, tmp_path / "metrics.url")
    await one.start()
    yield one
    await one.stop()


async def test_the_listener_says_where_it_is_and_answers(server: MetricsServer, tmp_path: Path) -> None:
    url = (tmp_path / "metrics.url").read_text().strip()
    assert url == server.url
    async with httpx.AsyncClient(trust_env=False) as client:
        first = await client.get(url)
        assert first.status_code == 200
        assert first.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'psephos_test_gauge{what="scrapes"} 1.0' in first.text
        assert "psephos_event_loop_lag_seconds_bucket" in first.text
        assert (await client.get(url + "?x=1")).status_code == 200
        assert (await client.get(url)).status_code == 500  # and the process goes on
        assert (await client.get(url)).status_code == 200
        assert (await client.get(url.replace("/metrics", "/"))).status_code == 404
        assert (await client.post(url)).status_code == 405


async def test_who_sends_half_a_request_is_let_go(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_S_MAX", 0.2)
    port = int(server.url.split(":")[2].split("/")[0])
    for begin in (b"GET /metr", b"x" * (metrics.REQUEST_BYTES_MAX + 10)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        writer.close()


async def test_who_does_not_read_the_answer_is_let_go(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a reader is given up, and not kept for as long as the connection lasts."""
    size = 64 << 20  # more than sockets hold

    async def page() -> bytes:
        return bytes(size)

    monkeypatch.setattr(metrics, "REQUEST_S_MAX", 0.3)
    monkeypatch.setattr(server, "page", page)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.split(":")[2].split("/")[0]), limit=1)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    await asyncio.sleep(1.5)  # it does not read, for five times as long as it may
    taken = 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while chunk := await reader.read(1 << 20):
                taken += len(chunk)
    writer.close()
    assert taken < size


async def test_only_so_many_may_hold_a_connection(server: MetricsServer) -> None:
    port = int(server.url.split(":")[2].split("/")[0])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(metrics.CONNECTIONS_MAX)]
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    for _, one in held:
        one.close()


async def test_lag_is_seen_when_something_holds_the_loop(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(text: str) -> float:
        family = next(f for f in text_string_to_metric_families(text) if f.name == "psephos_event_loop_lag_seconds")
        count = {sample.labels.get("le"): sample.value for sample in family.samples if sample.name.endswith("_bucket")}
        return count["+Inf"] - count["0.1"]

    await asyncio.sleep(0)  # the watch begins
    deadline = time.monotonic() + 10
    while True:
        time.sleep(0.4)  # noqa: ASYNC251 - what a handler must not do
        await asyncio.sleep(0.01)
        with contextlib.suppress(RuntimeError):  # the third scrape
            if over((await server.page()).decode()):
                return
        assert time.monotonic() < deadline
