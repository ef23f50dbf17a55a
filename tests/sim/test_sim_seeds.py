"""Whole networks of real nodes under faults from seeds: no fork, nothing acknowledged lost, and progress afterwards."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.sim.faults import CHANGES, draw_plan
from tests.sim.run import describe, run_plan, run_seed, shrink
from tests.sim.world import World

SEEDS = 300
SEEDS_A_TEST = 10
REGRESSIONS = (
    18,  # a head with a timestamp from a clock that ran ahead, which nothing could follow
    53,  # a torn guard record of zeros, which read as an empty record
    74,  # a block that was written in the last moment before a crash, and shown by nobody
)


@pytest.mark.parametrize("first", range(1_000, 1_000 + SEEDS, SEEDS_A_TEST))
def test_seeds_hold_every_invariant(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        _hold(seed)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_seeds_that_once_failed(seed: int) -> None:
    """As they were when they failed: before sets of validators changed within a run."""
    plan = draw_plan(seed)
    faults = [fault for fault in plan.faults if fault.kind not in CHANGES and max(fault.nodes) < plan.nodes]
    result = run_plan(replace(plan, candidates=0, faults=faults))
    assert not result.invariant, result.detail


@pytest.mark.parametrize("nodes", range(1, 8))
def test_every_size(nodes: int) -> None:
    result = run_seed(nodes, nodes=nodes)
    assert not result.invariant, result.detail
    assert result.nodes == nodes


@pytest.mark.parametrize("nodes", range(4, 8))
def test_twins(nodes: int) -> None:
    plan = draw_plan(nodes, nodes=nodes, twins=True)
    assert plan.liars
    result = run_plan(plan)
    assert not result.invariant, result.detail


@pytest.mark.parametrize("kind", CHANGES)
def test_sets_change_and_quorums_are_lost_for_good(kind: str) -> None:
    """The faults that are drawn do happen: else no invariant about them says anything."""
    plans = [plan for plan in map(draw_plan, range(200)) if any(fault.kind == kind for fault in plan.faults)]
    worlds = [World(plan) for plan in plans[:6]]
    for world in worlds:
        world.run()
    happened = [world.governor.changes_count or world.quorum_loss.happened for world in worlds]
    assert sum(map(bool, happened)) >= 3
    assert any(world.referee.council.at(0) != world.referee.validators for world in worlds)


def _hold(seed: int) -> None:
    result = run_seed(seed)
    if result.invariant:
        plan, smallest = shrink(draw_plan(seed), runs_max=60)
        pytest.fail(describe(plan, smallest))


def _trace(seed: int) -> str:
    world = World(draw_plan(seed))
    world.run()
    hashes = b"".join(block.hash for block in world.referee.blocks)
    return f"{hashes.hex()} {world.scheduler.now_us} {world.network.delivered_count} {len(world.senders)}"


@pytest.mark.parametrize("seed", [3, 20])
def test_a_seed_replays_identically_in_another_process(seed: int) -> None:
    here = [_trace(seed), _trace(seed)]
    script = f"from tests.sim.test_sim_seeds import _trace; print(_trace({seed}))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert here[0] == here[1] == there.stdout.strip()


def test_a_failure_is_shrunk_to_the_faults_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from node.runtime import Runtime

    plan = next(plan for plan in map(draw_plan, range(100)) if len(plan.faults) >= 8 and plan.nodes >= 3)
    monkeypatch.setattr(Runtime, "_status", lambda self: _boast(self))
    result = run_plan(plan)
    assert result.invariant == "durable before shown"
    smallest, failing = shrink(plan)
    assert failing.invariant == result.invariant
    assert smallest.faults == []
    assert replace(smallest, faults=[]).liars == {}


def _boast(runtime: object) -> bytes:
    from node import payloads

    return payloads.pack_status(1_000_000, bytes(32))
