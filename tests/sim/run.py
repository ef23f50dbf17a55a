"""Runs simulations from seeds on every core, and shrinks what fails to the fewest faults that still fail."""

import argparse
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.sim.faults import Fault, Plan, draw_plan
from tests.sim.network import Weather
from tests.sim.referee import Violation
from tests.sim.workers import workers
from tests.sim.world import World

SHRINK_RUNS_MAX = 200
SHOWN_MAX = 10
SAID_EVERY = 100  # seeds, where there is no terminal to show a bar
RUN_S_MAX = 30  # a run takes about a quarter of a second


@dataclass(frozen=True)
class Result:
    """How one seed went. `invariant` is empty when every one held; the rest are figures of the run."""

    seed: int
    nodes: int
    invariant: str = ""
    detail: str = ""
    height: int = 0
    simulated_ms: int = 0
    acknowledged: int = 0


def run_plan(plan: Plan) -> Result:
    """Play one plan. Whatever real code raises, and nothing should, is a broken invariant, too."""
    logging.disable(logging.CRITICAL)
    world = World(plan)
    try:
        with _step_limit():
            world.run()
    except Violation as violation:
        return Result(plan.seed, plan.nodes, violation.invariant, str(violation))
    except Exception as error:
        return Result(plan.seed, plan.nodes, f"no {type(error).__name__}", repr(error))
    finally:
        logging.disable(logging.NOTSET)
    return Result(
        plan.seed,
        plan.nodes,
        height=world.referee.height,
        simulated_ms=world.scheduler.now_us // 1000,
        acknowledged=len(world.referee.acknowledged),
    )


@contextmanager
def _step_limit() -> Iterator[None]:
    """Interrupt code that never returns. Processor time, so that a busy machine changes nothing."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Violation("every step ends", f"the run has taken {RUN_S_MAX} s of processor time")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, RUN_S_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_seed(seed: int, *, nodes: int | None = None, twins: bool = False) -> Result:
    """Draw the seed's plan and play it."""
    return run_plan(draw_plan(seed, nodes=nodes, twins=twins))


def shrink(plan: Plan, runs_max: int = SHRINK_RUNS_MAX) -> tuple[Plan, Result]:
    """The plan with as few faults as still break the same invariant, and how it goes then."""
    failing, runs_left = run_plan(plan), runs_max

    def still_fails(candidate: Plan) -> bool:
        nonlocal failing, runs_left
        if runs_left <= 0:
            return False
        runs_left -= 1
        result = run_plan(candidate)
        if result.invariant == failing.invariant:
            failing = result
            return True
        return False

    plan = replace(plan, faults=_fewest(plan, still_fails))
    for simplify in (_fair_weather, _true_clocks, _no_lies):
        if still_fails(simplify(plan)):
            plan = simplify(plan)
    return plan, failing


def _fair_weather(plan: Plan) -> Plan:
    return replace(plan, weather=Weather())


def _true_clocks(plan: Plan) -> Plan:
    count = plan.machines
    return replace(plan, skews_s=[0.0] * count, rates=[1.0] * count, sync_us=[1_000] * count)


def _no_lies(plan: Plan) -> Plan:
    return replace(plan, liars={})


def _fewest(plan: Plan, still_fails: Callable[[Plan], bool]) -> list[Fault]:
    """Leave out halves, then quarters, down to single faults, as long as it still fails."""
    faults, size = list(plan.faults), max(1, len(plan.faults) // 2)
    while faults:
        start, shorter = 0, False
        while start < len(faults):
            rest = faults[:start] + faults[start + size :]
            if still_fails(replace(plan, faults=rest)):
                faults, shorter = rest, True
            else:
                start += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return faults


def describe(plan: Plan, result: Result) -> str:
    """A failure as it is shown: seed, invariant, and the faults that are left."""
    lines = [f"seed {plan.seed}, {plan.nodes} nodes: {result.detail}", f"  {plan.weather}"]
    if any(plan.skews_s) or set(plan.rates) != {1.0}:
        lines.append(f"  clocks off by {[round(skew, 1) for skew in plan.skews_s]} s, rates {plan.rates}")
    lines += [f"  node {index} lies: {lie}" for index, lie in plan.liars.items()]
    return "\n".join([*lines, *(f"  {fault}" for fault in plan.faults)])


def _run_job(job: tuple[int, int | None, bool]) -> Result:
    seed, nodes, twins = job
    return run_seed(seed, nodes=nodes, twins=twins)


def run_many(seeds: Iterable[int], *, nodes: int | None = None, twins: bool = False) -> Iterator[Result]:
    """Play many seeds on every core, in whatever order they end."""
    jobs = [(seed, nodes, twins) for seed in seeds]
    with workers(min(len(os.sched_getaffinity(0)), len(jobs) or 1)) as pool:
        yield from pool.imap_unordered(_run_job, jobs, chunksize=4)


def main(seeds: int, first: int = 0, nodes: int | None = None, twins: bool = False) -> int:
    """Run `seeds` seeds from `first` on, show progress and every failure shrunk. 1 when any failed, else 0."""
    console = Console()
    failed: list[Result] = []
    heights = acknowledged = simulated_ms = 0
    began = time.monotonic()
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=seeds)
        for done, result in enumerate(run_many(range(first, first + seeds), nodes=nodes, twins=twins), 1):
            if result.invariant:
                failed.append(result)
                console.print(
                    f"seed {result.seed}, {result.nodes} nodes: {result.detail[:200]}", style="red", markup=False
                )
            heights, acknowledged = heights + result.height, acknowledged + result.acknowledged
            simulated_ms += result.simulated_ms
            per_minute = done / (time.monotonic() - began) * 60
            figures = f"{per_minute:.0f} seeds/min, {len(failed)} failed"
            progress.update(task, advance=1, description=figures)
            if not console.is_terminal and done % SAID_EVERY == 0:
                print(f"{done} of {seeds} seeds, {figures}", flush=True)  # noqa: T201 - a bar is not for files
    console.print(
        f"{seeds} seeds in {time.monotonic() - began:.0f} s ({seeds / (time.monotonic() - began) * 60:.0f} seeds/min): "
        f"{heights} heights, {acknowledged} ballots acknowledged, {simulated_ms / 3_600_000:.1f} simulated hours; "
        f"{len(failed)} failed"
    )
    for result in sorted(failed, key=lambda each: each.seed)[:SHOWN_MAX]:
        plan, smallest = shrink(draw_plan(result.seed, nodes=nodes, twins=twins))
        console.print(describe(plan, smallest), markup=False)
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument(
        "--nodes", type=int, choices=range(1, 8), help="how many validators (default: as the seed draws)"
    )
    parser.add_argument("--twins", action="store_true", help="every run has twins: one key on two nodes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    chosen = _parse(None)
    try:
        raise SystemExit(main(chosen.seeds, chosen.first, chosen.nodes, chosen.twins))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
