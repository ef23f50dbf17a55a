"""`psephos chaos`: disturbs a running network under load, then reads its disks and judges what it had promised."""

import argparse
import asyncio
import contextlib
import fcntl
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
from rich.console import Console

from cluster import chaosreport
from cluster.chaosreport import Result
from cluster.disks import read_disk
from cluster.faults import draw_plan, parse_kinds
from cluster.history import Violation, check
from cluster.injector import Injector
from cluster.load import OPTIONS, Load
from cluster.network import LOCAL, ClusterError, Network, require
from cluster.processes import ProcessTable
from cluster.sampler import Sampler
from gateway.nullifier import ElectionKey, election_key
from node.chain.genesis import domain_of
from node.service import load_genesis
from serving.keyfiles import SecretError, read_secret

FAULTS_SHARE = 0.85  # faults begin and end within this share of the duration; the load goes on to its end
SETTLE_S = 90.0
WATCH_S = 0.5
CREATE_TIMEOUT_S = 60.0
Disturbance = Callable[[Injector], Awaitable[None]]  # it undoes all that it did before it returns
RECOVERS = "the network recovers once the faults end"


class Chaos:
    """Runs on one network whose processes `table` can start and signal."""

    def __init__(self, network: Network, table: ProcessTable, console: Console) -> None:
        """Raises ClusterError when the network has no gateway, or something of it does not run."""
        gateway = network.gateway
        if gateway is None:
            raise ClusterError("chaos needs a network with a gateway")
        for process in network:
            if table.state(process.name) != "running":
                start = f"psephos up --detach --data-dir {table.data_dir}"
                raise ClusterError(f"{process.name} does not run: `{start}` starts the network")
        self.network, self.table = network, table
        self._console, self._gateway = console, gateway
        self._genesis = load_genesis(table.data_dir / "genesis.json")

    async def run(self, disturb: Disturbance, *, seed: int, duration_s: float, rate: float, clients: int) -> Result:
        """Load while `disturb` does its work, and to the end of `duration_s`; then quiet; then the power goes off.

        Every disk is read then, and everything runs again at the end.
        """
        key = self._key(await self._create_election())
        load = Load(self._gateway.url, key, seed, rate, clients)
        injector = Injector(self.network, self.table, load.now_s, self._tell)
        sampler = Sampler(self.network, self.table, load, load.now_s)
        result = Result(seed, load, duration_s, done=injector.done, heights=sampler.heights, usages=sampler.usages)
        try:
            async with asyncio.TaskGroup() as tasks:
                watchers = [tasks.create_task(sampler.run()), tasks.create_task(injector.watch(WATCH_S))]
                await self._disturb(disturb, load, injector, result)
                await self._settle(load, sampler, result)
                for watcher in watchers:
                    watcher.cancel()
            result.ended_s = load.now_s()
            await injector.power_off()
            await self._read_disks(key.election, result)
        finally:
            await injector.heal()
            injector.close()
            await sampler.close()
            await load.close()
        result.violations += [Violation("no process ends by itself", death) for death in injector.deaths]
        result.violations += check(load.requests, load.tallies, result.disks)
        return result

    def _tell(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    async def _create_election(self) -> int:
        """A new election, final; its id. Raises ClusterError."""
        id_ = time.time_ns() // 1_000_000
        document = {"election_id": id_, "title": "Chaos", "options": list(OPTIONS), "kinds": "open"}
        deadline = time.monotonic() + CREATE_TIMEOUT_S
        told = "no answer"
        async with httpx.AsyncClient(base_url=self._gateway.url, timeout=30, trust_env=False) as client:
            while time.monotonic() < deadline:
                try:
                    answer = await client.post("/api/elections", json=document, headers={"prefer": "wait=10"})
                except httpx.HTTPError as error:
                    told = repr(error)
                else:
                    told = f"{answer.status_code} {answer.text[:300]}"
                    if answer.status_code in (httpx.codes.OK, httpx.codes.CREATED):
                        return id_
                await asyncio.sleep(0.5)
        raise ClusterError(f"{self._gateway.name} created no election within {CREATE_TIMEOUT_S:.0f} s: {told}")

    def _key(self, election: int) -> ElectionKey:
        """The hashes under which ballots stand; only this way can a ballot be found whose answer never came."""
        try:
            secret = read_secret(self.table.data_dir / self._gateway.name / "master.secret", "master secret")
        except SecretError as error:
            raise ClusterError(str(error)) from None
        return ElectionKey(election_key(secret, domain_of(self._genesis), election), election)

    async def _disturb(self, disturb: Disturbance, load: Load, injector: Injector, result: Result) -> None:
        work = asyncio.create_task(load.run())
        try:
            await disturb(injector)
            result.faults_end_s = load.now_s()
            await asyncio.sleep(result.duration_s - result.faults_end_s)
            load.stopping = True
            await work
        finally:
            work.cancel()

    async def _settle(self, load: Load, sampler: Sampler, result: Result) -> None:
        """Wait until a new ballot is final on every validator and nothing waits at the gateway; note when."""
        began_s = load.now_s()
        vote = load.vote("last", "last voter", 0)
        validators = self.network.of_kind("validator")
        lacking = "nothing was seen"
        confirmed = False
        while load.now_s() - began_s < SETTLE_S:
            confirmed = confirmed or await load.submit(vote, 5) == "ok"
            needed = max(
                (request.place.block_number for request in load.requests if request.place is not None), default=0
            )
            waiting = await load.read_tally()
            heights = await asyncio.gather(*(sampler.height(validator) for validator in validators))
            behind = [
                validator.name
                for validator, height in zip(validators, heights, strict=True)
                if height is None or height < needed
            ]
            if confirmed and waiting == 0 and not behind:
                result.settled_s = load.now_s() - began_s
                return
            lacking = f"last ballot final: {confirmed}, waiting at the gateway: {waiting}, behind {needed}: {behind}"
            await asyncio.sleep(0.2)
        result.violations.append(Violation(RECOVERS, f"after {SETTLE_S:.0f} s: {lacking}"))

    async def _read_disks(self, election: int, result: Result) -> None:
        for validator in self.network.of_kind("validator"):
            self._tell(f"reading the disk of {validator.name}, which was killed …")
            folder = self.table.folder(validator) / "chain"
            disk = await asyncio.to_thread(read_disk, validator.name, folder, self._genesis, election)
            result.disks.append(disk)


@contextlib.contextmanager
def _alone(table: ProcessTable) -> Iterator[None]:
    """Two runs at once would take each other's faults for the network's own."""
    folder = table.data_dir / "run"
    folder.mkdir(exist_ok=True)
    with (folder / "chaos.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another `psephos chaos` is at work in {table.data_dir}") from None
        yield


def run(options: argparse.Namespace) -> int:
    """The verb. The exit code: 0 when every promise was kept, 1 when not."""
    for name, value, least in (
        ("duration", options.duration, 5),
        ("rate", options.rate, 0.1),
        ("every", options.every, 0.1),
    ):
        if value < least:
            raise ClusterError(f"--{name} {value:g}: at least {least:g}")
    if not 1 <= options.clients <= 200:
        raise ClusterError(f"--clients {options.clients}: from 1 to 200")
    console = Console(highlight=False)
    network, table = require(options.data_dir), ProcessTable(options.data_dir)
    strangers = [process.name for process in network if process.host != LOCAL]
    if strangers:
        raise ClusterError(f"{strangers[0]} was made for a host of its own: chaos needs all processes on this machine")
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    plan = draw_plan(seed, options.duration * FAULTS_SHARE, parse_kinds(options.faults), network, every_s=options.every)
    with _alone(table):
        chaos = Chaos(network, table, console)
        console.print(f"chaos: seed {seed}, {options.duration:g} s, {len(plan)} faults", soft_wrap=True)
        work = chaos.run(
            lambda injector: injector.run(plan),
            seed=seed,
            duration_s=options.duration,
            rate=options.rate,
            clients=options.clients,
        )
        result = asyncio.run(work)
        folder = table.data_dir / "chaos" / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{seed}"
        report = chaosreport.make(result, network)
        chaosreport.write(folder, result, network, report)
        chaosreport.show(console, report, folder)
    return 1 if result.violations else 0
