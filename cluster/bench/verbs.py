"""The options of `psephos bench`, and who does the work."""

import argparse
from collections.abc import Callable
from pathlib import Path

DESCRIPTION = """\
Starts a fresh network of real processes in a temporary folder, prepares and signs everything, starts the clock, and
counts only what is final on all validators; then checks the tally. Ends with 1 when it does not add up.
"""


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, metavar="N", help="how many records (default: some seconds of work)")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="a fresh network for each; medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every run")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG of the last run")
    parser.add_argument("--validators", type=int, default=3, metavar="N", help="how many (default: 3)")
    parser.add_argument("--block-interval-ms", type=int, default=100, metavar="MS", help="default: 100")
    parser.add_argument(
        "--folder", type=Path, metavar="D", help="where the network's folder is made (default: temporary)"
    )
    parser.add_argument(
        "--port", type=int, metavar="PORT", help="the first of 20 ports, below 32768 (default: free ones are found)"
    )


def _load(parser: argparse.ArgumentParser, *, modes: bool = True, gateway: bool = True) -> None:
    if modes:
        parser.add_argument("--mode", choices=("single", "batch"), default="single", help="default: single")
        parser.add_argument("--batch", type=int, metavar="N", help="records in a request of --mode batch")
    parser.add_argument("--clients", type=int, metavar="N", help="connections")
    parser.add_argument(
        "--rate",
        type=float,
        metavar="R",
        help="records a second, due by the clock: an open loop. Latency counts from then",
    )
    parser.add_argument("--in-flight", type=int, default=10_000, metavar="N", help="most records sent and not final")
    if gateway:
        parser.add_argument(
            "--kill-at", type=float, metavar="SHARE", help="kill one validator when this share (0 to 1) is final"
        )
        parser.add_argument("--gateway", metavar="URL", help="of a network that runs already")
    parser.add_argument("--rpc", metavar="URL", action="append", default=[], help="its validators; once for each")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bench` to the command line."""
    bench = verbs.add_parser("bench", help="measure a network of its own", description=DESCRIPTION)
    kinds = bench.add_subparsers(dest="kind", required=True, metavar="KIND")
    votes = kinds.add_parser("votes", help="ballots through the gateway, until confirmed")
    _common(votes)
    _load(votes)
    transactions = kinds.add_parser("transactions", help="Ethereum transfers by JSON-RPC")
    _common(transactions)
    _load(transactions, gateway=False)
    anchors = kinds.add_parser("anchors", help="Merkle roots through the gateway")
    _common(anchors)
    _load(anchors, modes=False)

    catch_up = kinds.add_parser("catch-up", help="a validator whose database was wiped, until it is at the head")
    _common(catch_up)
    catch_up.add_argument("--of", choices=("ballots", "transactions"), default="ballots", help="default: ballots")
    growth = kinds.add_parser("growth", help="one large election: cost of a ballot, disk, memory, start")
    _common(growth)
    growth.add_argument(
        "--ballot-bytes", type=int, default=150, metavar="N", help="of a packed record, its 69 bytes of head included"
    )


def _run(options: argparse.Namespace) -> int:
    from cluster.bench import command

    return command.run(options)


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {"bench": _run}
