"""Numbers about a process for Prometheus: what a metric is, the page that a scrape reads, and the listener.

Processes keep plain integers and `Distribution`s, and put them on a `Page` when somebody asks: nothing is computed,
locked or allocated for metrics between two scrapes.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from serving.connections import stop_listening
from serving.distribution import Distribution

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BYTES_MAX = 8_192
REQUEST_S_MAX = 5.0  # a scraper that takes longer to ask, or to read the answer, is let go
CONNECTIONS_MAX = 16
LAG_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as the documentation lists it. Counters end with `_total`; units are base units, last in the name."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


_FAMILIES: dict[str, Callable[..., Family]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Page(Collector):
    """What one scrape is answered with: a family for each of `metrics`, in their order, even if it stays empty."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._families = {
            metric.name: _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels) for metric in metrics
        }

    def put(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a sample of a gauge or counter; `labels` are the values, in the order of the metric's names."""
        family = self._families[metric.name]
        assert isinstance(family, (GaugeMetricFamily, CounterMetricFamily))
        family.add_metric(labels, value)

    def put_distribution(self, metric: Metric, distribution: Distribution, *labels: str) -> None:
        """Add a histogram."""
        family = self._families[metric.name]
        assert isinstance(family, HistogramMetricFamily)
        family.add_metric(labels, distribution.buckets(), distribution.sum)

    def put_counts(self, metric: Metric, counts: Mapping[str, int]) -> None:
        """Add a sample for each value of the metric's one label."""
        for label, count in sorted(counts.items()):
            self.put(metric, count, label)

    def put_distributions(self, metric: Metric, distributions: Iterable[tuple[str, Distribution]]) -> None:
        """Add a histogram for each value of the metric's one label."""
        for label, distribution in distributions:
            self.put_distribution(metric, distribution, label)

    def collect(self) -> Iterable[Family]:
        """What prometheus-client writes out."""
        return self._families.values()

    def text(self) -> bytes:
        """The page in Prometheus's text format, with what the operating system knows of this process."""
        return generate_latest(self) + generate_latest(_PROCESS)


_PROCESS = ProcessCollector(registry=None)

INFO = Metric(
    "psephos_info",
    "gauge",
    "Always 1; says what runs here, and which account it has.",
    ("version", "kind", "name", "address"),
)
LOOP_LAG = Metric(
    "psephos_event_loop_lag_seconds",
    "histogram",
    "How late the event loop comes back to a task, seen 4 times a second.",
)
DISK_FREE = Metric("psephos_disk_free_bytes", "gauge", "Bytes left on the disk that this process writes to.", ("what",))
COMMON = (INFO, LOOP_LAG, DISK_FREE)


def disk_free_bytes(folder: Path) -> int:
    """What is left for this process on the disk that holds `folder`. Raises OSError."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


Fill = Callable[[Page], Awaitable[None]]


class MetricsServer:
    """Answers GET /metrics on a listener of its own, apart from what the public may reach.

    Args:
        bind: host and port; port 0 lets the system choose.
        metrics: all that there are, COMMON among them.
        fill: puts everything on a page; called for one scrape at a time.
        url_file: where to write the URL, since the port may be another one at each start.
    """

    def __init__(
        self, bind: tuple[str, int], metrics: Sequence[Metric], fill: Fill, url_file: Path | None = None
    ) -> None:
        self._bind = bind
        self._metrics = metrics
        self._fill = fill
        self._url_file = url_file
        self.url = ""  # once it has started
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lag = Distribution()
        self._connections = 0
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Listen, and watch the event loop. Raises OSError when the port is taken, or the URL cannot be written."""
        host, port = self._bind
        self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        self._watching = asyncio.create_task(self._watch(), name="lag")
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
        if self._url_file is not None:
            self._url_file.write_text(self.url + "\n")
        log.info("metrics on %s", self.url)

    async def stop(self) -> None:
        """Stop listening. Harmless when it never started."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._server is not None:
            await stop_listening(self._server)

    async def page(self) -> bytes:
        """What a scraper reads."""
        async with self._one_at_a_time:
            page = Page(self._metrics)
            await self._fill(page)
            page.put_distribution(LOOP_LAG, self._lag)
            return await asyncio.to_thread(page.text)  # some milliseconds, for which nothing else is to wait

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, loop.time() - due_s))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S_MAX):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(request))
                    writer.close()
                    await writer.wait_closed()  # once the answer has been taken
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks like this is no scraper
        finally:
            self._connections -= 1
            writer.transport.abort()  # closing would wait for who does not read, for ever

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        if rest.partition(b" ")[0].partition(b"?")[0] != b"/metrics":
            return _response("404 Not Found", b"the metrics are at /metrics\n")
        if method != b"GET":
            return _response("405 Method Not Allowed", b"GET is all there is\n")
        try:
            return _response("200 OK", await self.page())
        except Exception:
            log.exception("the metrics could not be gathered")
            return _response("500 Internal Server Error", b"the log has the reason\n")


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
