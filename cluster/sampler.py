"""Looks at a running network many times a second: heights, the tally, memory and descriptors of each process."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from cluster.load import Load
from cluster.network import Network, Process
from cluster.processes import ProcessTable

INTERVAL_S = 0.2
USAGE_INTERVAL_S = 1.0
TIMEOUT_S = 1.0
SAMPLES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class HeightSample:
    """The final height that a validator told at a moment."""

    at_s: float
    name: str
    height: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took of the machine at a moment."""

    at_s: float
    name: str
    pid: int
    resident_bytes: int
    descriptors: int


def usage_of(pid: int) -> tuple[int, int] | None:
    """Resident bytes and open descriptors of a process; None when it is gone, or the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, ValueError, IndexError):
        return None
    return (pages * os.sysconf("SC_PAGE_SIZE"), descriptors) if pages else None  # none: it only waits to be reaped


class Sampler:
    """Samples until it is cancelled. `now_s` is the clock of all samples."""

    def __init__(self, network: Network, table: ProcessTable, load: Load, now_s: Callable[[], float]) -> None:
        self._network, self._table, self._load, self._now_s = network, table, load, now_s
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self.heights: list[HeightSample] = []
        self.usages: list[Usage] = []

    async def run(self) -> None:
        """Look at everything, each on its own, so that a paused process delays nobody's samples."""
        async with asyncio.TaskGroup() as tasks:
            for validator in self._network.of_kind("validator"):
                tasks.create_task(self._heights(validator))
            tasks.create_task(self._tally())
            tasks.create_task(self._usage())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def height(self, validator: Process) -> int | None:
        """The validator's final height; None when it does not answer in time."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
        try:
            return int((await self._http.post(validator.url, json=call)).json()["result"], 16)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None

    async def _heights(self, validator: Process) -> None:
        while len(self.heights) < SAMPLES_MAX:
            height = await self.height(validator)
            if height is not None:
                self.heights.append(HeightSample(self._now_s(), validator.name, height))
            await asyncio.sleep(INTERVAL_S)

    async def _tally(self) -> None:
        while len(self._load.tallies) < SAMPLES_MAX:
            await self._load.read_tally()
            await asyncio.sleep(INTERVAL_S)

    async def _usage(self) -> None:
        while len(self.usages) < SAMPLES_MAX:
            for process in self._network:
                identity = self._table.recorded(process.name)
                found = usage_of(identity.pid) if identity else None
                if identity and found:
                    self.usages.append(Usage(self._now_s(), process.name, identity.pid, *found))
            await asyncio.sleep(USAGE_INTERVAL_S)
