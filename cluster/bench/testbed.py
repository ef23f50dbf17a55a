"""The network that a benchmark runs on: its own, of real processes in a temporary folder, or one given by URLs."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.bench.follower import names_of
from cluster.bench.wire import Caller, RpcFailed
from cluster.creation import create
from cluster.network import ClusterError, Kind, Network, Ports, Process, local_network
from cluster.probe import Prober
from cluster.processes import ProcessTable, port_is_free
from cluster.supervisor import stop_all

CHAIN_ID = 7770
READY_WITHIN_S = 60.0
POLL_S = 0.05
PORTS = 20  # a block of so many: gateway, rpc from +1, p2p from +8, bootnode +15
PORTS_FROM, PORTS_TO = 10_000, 30_000  # below those that the system hands out by itself


@dataclass(slots=True)
class Testbed:
    """Where to send, whom to watch, and whose folders to look at. `table` is None for a network given by URLs."""

    gateway_url: str
    rpc_urls: dict[str, str]
    network: Network | None = None
    table: ProcessTable | None = None
    others: dict[str, int] = field(default_factory=dict)  # processes that are no network's: name to pid

    @property
    def own(self) -> tuple[Network, ProcessTable]:
        """The network and its processes. Raises ClusterError for one given by URLs."""
        if self.network is None or self.table is None:
            raise ClusterError("this needs a network of its own: leave --gateway and --rpc out")
        return self.network, self.table

    def pids(self) -> dict[str, int]:
        """The processes that run, and this one as `generator`."""
        found = {"generator": os.getpid(), **self.others}
        if self.network is not None and self.table is not None:
            for process in self.network:
                identity = self.table.alive(process.name)
                if identity is not None:
                    found[process.name] = identity.pid
        return found

    def folders(self) -> dict[str, Path]:
        """Where each validator's chain and the gateway's journal lie."""
        if self.network is None or self.table is None:
            return {}
        part: Mapping[Kind, str] = {"validator": "chain", "gateway": "journal"}
        return {one.name: self.table.folder(one) / part[one.kind] for one in self.network if one.kind in part}

    def caller(self, name: str = "") -> Caller:
        """JSON-RPC of a validator; of the first one without a name."""
        return Caller(self.rpc_urls[name or next(iter(self.rpc_urls))])

    def is_running(self, name: str) -> bool:
        """Whether a process should answer: one that a benchmark has killed need not."""
        return self.table is None or self.table.state(name) == "running"

    def kill(self, name: str) -> None:
        """SIGKILL a process."""
        _, table = self.own
        table.wait_gone([table.signal(name, signal.SIGKILL)])


def free_ports(count: int = PORTS) -> int:
    """The first of `count` consecutive ports that nobody listens on."""
    dice = random.Random(os.urandom(8))  # nosec B311 # no secret
    while True:
        first = dice.randrange(PORTS_FROM, PORTS_TO)
        if all(port_is_free("127.0.0.1", port) for port in range(first, first + count)):
            return first


def new_network(data_dir: Path, *, validators: int, block_interval_ms: int, first_port: int | None) -> Network:
    """Write a development network, as `psephos up` would, below `data_dir`."""
    first = free_ports() if first_port is None else first_port
    ports = Ports(gateway=first, rpc=first + 1, p2p=first + 8, bootnode=first + 15)
    network = local_network(validators, ports, chain_id=CHAIN_ID, dev=True, block_interval_ms=block_interval_ms)
    return create(data_dir, network)


async def await_ready(table: ProcessTable, processes: Sequence[Process]) -> None:
    """Wait until all of them say that they are ready. Raises ClusterError when one ends, or takes too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    with contextlib.closing(Prober()) as prober:
        while True:
            health = await asyncio.to_thread(prober.ask, processes)
            waiting = [process.name for process in processes if not _ready(process, health[process.name])]
            if not waiting:
                return
            for process in processes:
                if table.alive(process.name) is None:
                    raise ClusterError(f"{process.name} {table.exit_reason(process.name)}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{', '.join(waiting)} not ready within {READY_WITHIN_S:.0f} s: see {table.data_dir}"
                )
            await asyncio.sleep(POLL_S)


def _ready(process: Process, health: object) -> bool:
    ready, level = getattr(health, "ready", False), getattr(health, "level", None)
    return bool(ready) and (process.kind != "gateway" or level == 1)


@contextlib.asynccontextmanager
async def fresh(
    *,
    folder: Path | None = None,
    validators: int = 3,
    block_interval_ms: int = 100,
    first_port: int | None = None,
    kinds: Sequence[Kind] = ("bootnode", "validator", "gateway"),
    table_of: type[ProcessTable] = ProcessTable,
) -> AsyncIterator[Testbed]:
    """A network made and started here, below `folder` or where temporary files go; stopped and deleted at the end."""
    place = Path(tempfile.mkdtemp(prefix="psephos-bench-", dir=folder))
    try:
        network = new_network(
            place / "data", validators=validators, block_interval_ms=block_interval_ms, first_port=first_port
        )
        table = table_of(place / "data")
        started = [process for process in network if process.kind in kinds]
        try:
            for process in started:
                table.start(process)
            await await_ready(table, started)
            gateway = network.gateway
            urls = {process.name: process.url for process in network.of_kind("validator")}
            yield Testbed(gateway.url if gateway else "", urls, network, table)
        finally:
            await asyncio.to_thread(stop_all, table, network)
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def given(gateway_url: str, rpc_urls: Sequence[str]) -> Testbed:
    """A network that runs already. Raises ClusterError when a validator does not answer."""
    bed = Testbed(gateway_url, names_of(rpc_urls))
    for name in bed.rpc_urls:
        caller = bed.caller(name)
        try:
            await caller.call("eth_chainId")
        except RpcFailed as error:
            raise ClusterError(str(error)) from None
        finally:
            caller.close()
    return bed
