"""The load generator: many connections that send requests prepared beforehand, in a closed or an open loop.

Closed: each connection sends its next request as soon as the last is answered. Open: request i is due at i / rate
seconds, whether or not anything was answered, and its latency counts from then: a system that stalls cannot hide that
by not being asked (no coordinated omission).
"""

import asyncio
import contextlib
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.bench.wire import CONNECT_AT_ONCE, Connection, Endpoint, connect

TICK_S = 0.001
FAILURES_SHOWN = 3
RECONNECT_S = 0.2
ATTEMPTS_MAX = 50

Judge = Callable[[int, bytes], int]  # status and body of an answer: how many records it takes in


@dataclass(frozen=True, slots=True)
class Requests:
    """What to send, in order. Request i holds `records` records and belongs to lane i % `lanes`.

    Requests of one lane go one after the other over one connection, as a sender's transactions must; with `lanes` 0
    any connection takes the next one.
    """

    data: Sequence[bytes]
    records: int
    lanes: int = 0


@dataclass(slots=True)
class Lane:
    """Requests that wait, by number, and the connections that have nothing to do."""

    first: int
    step: int
    end: int
    idle: list[Connection] = field(default_factory=list)


class Generator:
    """Sends `requests` over `clients` connections spread over `endpoints`. All times are of time.perf_counter."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        requests: Requests,
        judge: Judge,
        *,
        clients: int,
        rate: float | None = None,
        in_flight_max: int | None = None,
    ) -> None:
        """`rate`: requests a second (open loop). `in_flight_max`: most records sent beyond `settled`."""
        self._endpoints, self._requests, self._judge = endpoints, requests, judge
        self._rate, self._in_flight_max = rate, in_flight_max
        count = len(requests.data)
        self._clients = min(clients, count) if not requests.lanes else requests.lanes
        step = requests.lanes or 1
        self._lanes = [Lane(first, step, count) for first in range(step)]
        self.due = array("d", bytes(8 * count))  # when a request should have gone out
        self.sent = array("d", bytes(8 * count))
        self.answered = array("d", bytes(8 * count))  # 0 where no answer came
        self.taken = array("l", bytes(8 * count))  # records that the answer takes in
        self.failures: list[str] = []
        self.settled = 0  # records that are final, told by the follower; see `in_flight_max`
        self.began_s = 0.0
        self.left = count  # requests that lack an answer
        self._sent_records = 0
        self._done = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: list[Connection] = []

    async def connect(self) -> None:
        """Open all connections. Raises OSError or TimeoutError."""
        while len(self._connections) < self._clients:
            first = len(self._connections)
            numbers = range(first, min(first + CONNECT_AT_ONCE, self._clients))
            opened = await asyncio.gather(*(self._open(number) for number in numbers))
            for number, connection in zip(numbers, opened, strict=True):
                connection.lane = number % len(self._lanes)
                self._lanes[connection.lane].idle.append(connection)
                self._connections.append(connection)

    async def _open(self, number: int) -> Connection:
        return await connect(self._endpoints[number % len(self._endpoints)], self._on_answer, self._on_lost)

    def start(self) -> None:
        """The clock starts, and the load."""
        self.began_s = time.perf_counter()
        if self._rate is not None:
            self.due = array("d", (self.began_s + number / self._rate for number in range(len(self.due))))
        self._tick()

    async def wait(self) -> None:
        """Wait until each request was answered, or given up."""
        await self._done.wait()

    def close(self) -> None:
        """Close all connections."""
        if self._ticker is not None:
            self._ticker.cancel()
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.close()

    def settle(self, records: int) -> None:
        """So many records are final: more may be sent."""
        self.settled = records
        if self._rate is None and self._in_flight_max is not None:
            self.pump()

    def pump(self) -> None:
        """Send what is due over connections that are idle."""
        now = time.perf_counter()
        for lane in self._lanes:
            while lane.idle and self._may_send(lane, now):
                self._send_next(lane, lane.idle.pop(), now)

    def _tick(self) -> None:
        self.pump()
        if self._rate is not None and not self._done.is_set():
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _may_send(self, lane: Lane, now: float) -> bool:
        if lane.first >= lane.end or self.due[lane.first] > now:
            return False
        return self._in_flight_max is None or self._sent_records - self.settled < self._in_flight_max

    def _send_next(self, lane: Lane, connection: Connection, now: float) -> None:
        number = lane.first
        lane.first += lane.step
        self.sent[number] = now
        if self._rate is None:
            self.due[number] = now
        self._sent_records += self._requests.records
        connection.send(number, self._requests.data[number])

    def _on_answer(self, connection: Connection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        number, connection.request = connection.request, -1
        self.answered[number] = now
        taken = self.taken[number] = self._judge(status, body)
        if taken < self._requests.records and len(self.failures) < FAILURES_SHOWN:
            self.failures.append(f"{status} {body[:300].decode(errors='replace')}")
        self.left -= 1
        if self.left == 0:
            self._done.set()
            return
        lane = self._lanes[connection.lane]
        if self._may_send(lane, now):
            self._send_next(lane, connection, now)
        else:
            lane.idle.append(connection)

    def _on_lost(self, connection: Connection) -> None:
        """A process died, or closed an idle connection: go on elsewhere, with the same request."""
        lane = self._lanes[connection.lane]
        if connection in lane.idle:
            lane.idle.remove(connection)
        task = asyncio.get_running_loop().create_task(self._replace(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, lost: Connection) -> None:
        place = self._connections.index(lost)
        for attempt in range(ATTEMPTS_MAX):
            with contextlib.suppress(OSError, TimeoutError):
                fresh = self._connections[place] = await self._open(place + 1 + attempt)
                fresh.lane = lost.lane
                if lost.request >= 0:
                    fresh.send(lost.request, self._requests.data[lost.request])
                else:
                    self._lanes[fresh.lane].idle.append(fresh)
                    self.pump()
                return
            await asyncio.sleep(RECONNECT_S)
        if lost.request >= 0:
            self.failures.append(f"request {lost.request}: the connection was lost, and none could be opened again")
            self.left -= 1
            if self.left == 0:
                self._done.set()
