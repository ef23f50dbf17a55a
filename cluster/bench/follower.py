"""Watches what is final at each validator while a load runs, and what each process takes, as series over time."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.bench.figures import reached_s
from cluster.bench.machine import Snapshot, Taken, snapshot
from cluster.bench.wire import Caller, RpcFailed

INTERVAL_S = 0.02
USAGE_INTERVAL_S = 0.25
FIRST_WITHIN_S = 20.0

Read = Callable[[Caller], Awaitable[tuple[int, int]]]  # a validator's (height, records that are final there)


def log_reader(log: int | str) -> Read:
    """Records are the leaves of a log: an election's id, or "anchors". It is read once for each block."""
    name = log if isinstance(log, str) else hex(log)
    known: dict[str, tuple[int, int]] = {}  # by a node's URL

    async def read(caller: Caller) -> tuple[int, int]:
        height = int(await caller.call("eth_blockNumber"), 16)
        if height != known.get(caller.url, (-1, 0))[0]:
            head = await caller.call("poa_getLog", name)
            known[caller.url] = int(head["blockNumber"], 16), int(head["size"], 16)
        return known[caller.url]

    return read


def transactions_reader(first_height: int) -> Read:
    """Records are the transactions of all blocks from `first_height` on; blocks are counted once for all nodes."""
    totals = {first_height - 1: 0}  # transactions up to a height

    async def read(caller: Caller) -> tuple[int, int]:
        height = int(await caller.call("eth_blockNumber"), 16)
        if height < first_height:
            return height, 0
        known = max(known for known in totals if known <= height)
        for number in range(known + 1, height + 1):
            count = int(await caller.call("eth_getBlockTransactionCountByNumber", hex(number)), 16)
            totals[number] = totals[number - 1] + count
        return height, totals[height]

    return read


@dataclass(slots=True)
class Watched:
    """One node's series; `required` ends when it is killed on purpose."""

    caller: Caller
    required: bool = True
    height: int = 0
    records: int = 0
    heights: list[tuple[float, int]] = field(default_factory=list)


class Follower:
    """Polls nodes (name to URL) until it is stopped. What is final on all of them is in `final`, as (when, records)."""

    def __init__(self, urls: Mapping[str, str], read: Read, pids: Mapping[str, int]) -> None:
        self.nodes = {name: Watched(Caller(url, timeout_s=10.0)) for name, url in urls.items()}
        self.pids = dict(pids)
        self.final: list[tuple[float, int]] = []
        self.snapshots: list[Snapshot] = []
        self.on_final: Callable[[int], None] = lambda _: None
        self.last: dict[str, Taken] = {}  # what a process had taken when it was killed
        self._read = read
        self._tasks: list[asyncio.Task[None]] = []
        self._moved = asyncio.Event()

    async def start(self) -> None:
        """Look once at every node, and go on looking. Raises RpcFailed when one does not answer."""
        for node in self.nodes.values():
            self._take(node, *await self._first(node))
        self._tasks = [asyncio.create_task(self._poll(node)) for node in self.nodes.values()]
        self._tasks.append(asyncio.create_task(self._look()))

    async def _first(self, node: Watched) -> tuple[int, int]:
        """What a node has to begin with; one that is a block behind may lack the election that others have already."""
        deadline_s = time.perf_counter() + FIRST_WITHIN_S
        while True:
            try:
                return await self._read(node.caller)
            except RpcFailed:
                if time.perf_counter() > deadline_s:
                    raise
                await asyncio.sleep(INTERVAL_S)

    async def stop(self) -> None:
        """Stop looking; the series stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self.nodes.values():
            node.caller.close()

    @property
    def records(self) -> int:
        """Records that are final on all nodes now."""
        return self.final[-1][1] if self.final else 0

    async def reach(self, records: int, *, stalled_s: float) -> bool:
        """Wait until so many records are final on all nodes; False when nothing moves for `stalled_s` seconds."""
        while self.records < records:
            self._moved.clear()
            try:
                async with asyncio.timeout(stalled_s):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return True

    def drop(self, name: str) -> None:
        """A node was killed on purpose: what is final no longer has to be final there."""
        self.nodes[name].required = False
        self._settle(time.perf_counter())

    def reached_s(self, height: int) -> float:
        """When `height` was final on all nodes that are required; infinity if it never was seen."""
        return max(reached_s(node.heights, height) for node in self.nodes.values() if node.required)

    async def _poll(self, node: Watched) -> None:
        while True:
            if node.required:
                with contextlib.suppress(RpcFailed):
                    self._take(node, *await self._read(node.caller))
            await asyncio.sleep(INTERVAL_S)

    def _take(self, node: Watched, height: int, records: int) -> None:
        if height == node.height and node.heights:
            return
        now = time.perf_counter()
        node.height, node.records = height, records
        node.heights.append((now, height))
        self._settle(now)

    def _settle(self, now: float) -> None:
        records = min((node.records for node in self.nodes.values() if node.required), default=0)
        if not self.final or records > self.final[-1][1]:
            self.final.append((now, records))
            self._moved.set()
            self.on_final(records)

    async def _look(self) -> None:
        while True:
            self.snapshots.append(snapshot(self.pids))
            await asyncio.sleep(USAGE_INTERVAL_S)


def names_of(urls: Sequence[str]) -> dict[str, str]:
    """Names for nodes of which only URLs are known."""
    return {f"node-{number}": url for number, url in enumerate(urls, 1)}
