"""`psephos chaos` on real networks: as a person calls it, and two hundred kills in one run."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from rich.console import Console

from cluster.chaos import Chaos
from cluster.chaosreport import Result
from cluster.faults import Fault
from cluster.injector import Injector
from cluster.network import require
from cluster.processes import ProcessTable
from cluster.sampler import Usage
from cluster.supervisor import stop_all
from tests.e2e.harness import Cluster

KILLS = 200
EVERY_S = 2.0
MIB = 1 << 20


@pytest.mark.e2e
def test_a_short_run_keeps_every_promise(cluster: Cluster) -> None:
    cluster.up()
    faults = "kill,pause,gateway,gateway-pause,bootnode,blackout"
    told = cluster.verb("chaos", "--duration", "14", "--seed", "38", "--every", "2", "--faults", faults, "--rate", "25")
    assert "KEPT" in told, told
    (folder,) = (cluster.data_dir / "chaos").iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert report["violations"] == []
    # What a slow machine still has time for at the end is not the same in each run.
    assert report["faults"].keys() >= {"kill", "blackout", "gateway"}
    assert report["outcomes"]["ok"] > 20
    assert min(report["ballots"].values()) == max(report["ballots"].values()) > 50
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert len(history) == report["requests"]
    assert (folder / "chaos.png").read_bytes().startswith(b"\x89PNG")
    # Everything runs again, with all that it had.
    assert {row["state"] for row in cluster.status().values()} == {"running"}


def _kills(seed: int) -> list[Fault]:
    """One kill after the other; validator-1 is spared, so that what two hundred lost peers cost it can be seen."""
    dice = random.Random(seed)
    targets = dice.choices(["validator-2", "validator-3", "gateway", "bootnode"], [4, 4, 1, 1], k=KILLS)
    return [
        Fault("kill", "kill", (target,), 3 + index * EVERY_S, dice.uniform(0, 0.8 * EVERY_S))
        for index, target in enumerate(targets)
    ]


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_kills_lose_nothing_and_leak_nothing(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.up)
    network, table = require(cluster.data_dir), ProcessTable(cluster.data_dir)
    plan = _kills(1)

    async def disturb(injector: Injector) -> None:
        await injector.run(plan)

    try:
        chaos = Chaos(network, table, Console(quiet=True))
        result = await chaos.run(disturb, seed=1, duration_s=3 + KILLS * EVERY_S, rate=15, clients=4)
    finally:
        await asyncio.to_thread(stop_all, table, network)
    assert not result.violations, "\n".join(map(str, result.violations))
    assert len(result.done) == KILLS
    assert len({usage.pid for usage in result.usages}) > KILLS / 2
    check_growth(result)


def check_growth(result: Result) -> None:
    """No process holds more at the end of the run than after its first quarter, but for what caches may still take."""
    by_name: dict[str, list[Usage]] = defaultdict(list)
    for usage in result.usages:
        by_name[usage.name].append(usage)
    for name, usages in by_name.items():
        quarter = len(usages) // 4
        early, late = _most(usages[quarter : 2 * quarter]), _most(usages[-quarter:])
        assert late[1] <= early[1] + 6, f"{name}: {early[1]} → {late[1]} descriptors"
        assert late[0] <= early[0] + 24 * MIB, f"{name}: {early[0] / MIB:.0f} → {late[0] / MIB:.0f} MiB"


def _most(usages: Sequence[Usage]) -> tuple[int, int]:
    return max(usage.resident_bytes for usage in usages), max(usage.descriptors for usage in usages)
