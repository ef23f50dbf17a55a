"""A validator dies by SIGKILL at each of its syncs in turn, under load, and comes back to the same chain every time."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest
from rich.console import Console

from cluster.chaos import Chaos
from cluster.injector import Injector
from cluster.network import CONFIG_FILES, require
from cluster.processes import ProcessTable
from cluster.supervisor import stop_all
from node.leveldb import LevelDB
from node.store import Store
from tests.e2e.harness import ENVIRONMENT, Cluster

VICTIM = "validator-3"
DEATH_S = 60.0
DATABASE, GUARD = "database", "guardfile.GuardFile.append"
COMPACTION = ("guardfile._write", "guardfile._sync_folder")

Death = tuple[str, int, str]  # which sync, the how manieth, and the moment


class Syncs:
    """Runs the victim again and again, each time up to another sync."""

    def __init__(self, cluster: Cluster, table: ProcessTable, deaths: Sequence[Death]) -> None:
        self._cluster, self._table, self._deaths = cluster, table, deaths
        self._folder = cluster.data_dir / VICTIM
        self._report = cluster.data_dir / "failpoint.txt"
        self.places: Counter[str] = Counter()

    async def __call__(self, injector: Injector) -> None:
        """Kill at each sync, and look at the disk each time; leaves the victim running as before."""
        with injector.holding([VICTIM]):
            await asyncio.to_thread(self._table.stop, [VICTIM])
            for death in self._deaths:
                self._report.unlink(missing_ok=True)
                await asyncio.to_thread(self._die, death)
                self.places[self._report.read_text()] += 1
                await asyncio.to_thread(self._compare)
            self._table.start(require(self._cluster.data_dir).named(VICTIM))

    def _die(self, death: Death) -> None:
        config = self._folder / CONFIG_FILES["validator"]
        with (self._cluster.data_dir / "logs" / "failpoint.log").open("ab") as output:
            node = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.e2e.failpoint", config, *map(str, death), self._report],
                env=ENVIRONMENT,
                cwd=self._folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = node.wait(DEATH_S)
            finally:
                node.kill()
                node.wait()
        assert code == -signal.SIGKILL, f"{death}: exit code {code}{self._cluster.logs()}"

    def _compare(self) -> None:
        """What it has left on its disk is the others' chain."""
        database = LevelDB(self._folder / "chain")
        try:
            store = Store(database)
            height = store.head_height()
            header = store.header(height)
        finally:
            database.close()
        assert header is not None
        assert "0x" + header.hash.hex() == self._cluster.call(1, "eth_getBlockByNumber", hex(height), False)["hash"]


Run = Callable[[Sequence[Death]], Awaitable[Counter[str]]]


@pytest.fixture
def run(cluster: Cluster) -> Run:
    """Starts a network, kills as told under load, and lets the judge look at everything."""

    async def run_(deaths: Sequence[Death]) -> Counter[str]:
        await asyncio.to_thread(cluster.up)
        network, table = require(cluster.data_dir), ProcessTable(cluster.data_dir)
        syncs = Syncs(cluster, table, deaths)
        try:
            chaos = Chaos(network, table, Console(quiet=True))
            result = await chaos.run(syncs, seed=1, duration_s=0, rate=25, clients=4)
        finally:
            await asyncio.to_thread(stop_all, table, network)
        assert not result.violations, "\n".join(map(str, result.violations))
        assert result.load.requests
        return syncs.places

    return run_


@pytest.mark.e2e
async def test_death_at_some_syncs(run: Run) -> None:
    deaths = [(DATABASE, 2, "after"), (GUARD, 1, "before"), (GUARD, 2, "after"), (GUARD, 3, "before")]
    deaths += [(COMPACTION[0], 1, "before"), (COMPACTION[1], 1, "before")]
    places = await run(deaths)
    assert places == {DATABASE: 1, GUARD: 3, COMPACTION[0]: 1, COMPACTION[1]: 1}


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_death_before_and_after_each_sync(run: Run) -> None:
    every = [("any", number) for number in range(1, 31)]  # of a start, catching up, and the first heights
    every += [(GUARD, number) for number in range(1, 16)]  # of agreement: three or four a height
    every += [(place, number) for place in COMPACTION for number in (1, 2)]
    places = await run([(*sync, moment) for sync in every for moment in ("before", "after")])
    for place in (DATABASE, GUARD, *COMPACTION):
        assert places[place] >= 4, places
