"""The verb `sim`: whole networks under every fault, from seeds. The simulator is in a checkout, not in the package."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SIMULATOR = Path("tests", "sim", "run.py")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add it to the command line."""
    sim = verbs.add_parser(
        "sim",
        help="simulate whole networks under every fault, from seeds (in a checkout)",
        description="Plays one network for each seed on every core: real nodes, and a simulated clock, network and "
        "disk that go wrong. A failure prints its seed and the fewest faults that still fail. Exit code 0: every "
        "invariant held; 1: one did not, or this is no checkout of the repository with the packages of its tests.",
    )
    sim.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (default: 100)")
    sim.add_argument("--from", dest="first", type=int, default=0, metavar="K", help="the first seed (default: 0)")
    sim.add_argument(
        "--nodes", type=int, choices=range(1, 8), metavar="N", help="1 to 7 validators (default: as the seed draws)"
    )
    sim.add_argument("--twins", action="store_true", help="every run has twins: one key on two nodes")


def _run_sim(options: argparse.Namespace) -> int:
    if not (CHECKOUT / SIMULATOR).is_file():
        print(
            f"✗ psephos sim: there is no {SIMULATOR} in {CHECKOUT}. The simulator is not installed with the package; "
            "clone the repository and run 'make sim', or this verb from its .venv",
            file=sys.stderr,
        )
        return 1
    command = [sys.executable, "-m", "tests.sim.run", "--seeds", str(options.seeds), "--from", str(options.first)]
    command += ["--nodes", str(options.nodes)] if options.nodes else []
    command += ["--twins"] if options.twins else []
    os.chdir(CHECKOUT)
    return os.execv(sys.executable, command)  # nosec B606 # no shell, numbers alone; it takes our place, and ends as we do


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {"sim": _run_sim}
