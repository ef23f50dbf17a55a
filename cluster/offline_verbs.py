"""The verbs that read a stopped node's database: `inspect` and `export`; their options, and who does the work."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to the command line."""
    inspect = verbs.add_parser(
        "inspect",
        help="what a stopped node's database holds, and whether it is sound",
        description="Shows head, sizes, elections and tallies of a stopped node. Exit code 1: --verify found a fault.",
    )
    _which(inspect)
    what = inspect.add_mutually_exclusive_group()
    what.add_argument("--block", metavar="HEIGHT|HASH", help="one block, its seals and what its transactions did")
    what.add_argument("--election", type=int, metavar="ID", help="one election with its tally")
    inspect.add_argument(
        "--verify",
        action="store_true",
        help="check everything from genesis on: links, certificates, roots by executing every block anew, tallies",
    )
    inspect.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="where --verify may write as much as the chain takes (default: /tmp)",
    )
    inspect.add_argument("--json", action="store_true", help="for programs")
    export = verbs.add_parser(
        "export",
        help="blocks, ballots and anchors of a stopped node, a JSON object a line",
        description="Lines come block by block: the block, then its ballots and anchors. docs/OPERATIONS.md lists the "
        "fields. Memory does not grow with the chain.",
    )
    _which(export)
    export.add_argument("--format", choices=("jsonl",), default="jsonl", help="default: jsonl")
    export.add_argument(
        "--only", default="blocks,ballots,anchors", metavar="LIST", help="default: blocks,ballots,anchors"
    )
    export.add_argument("--from-height", type=int, default=0, metavar="N", help="the first block (default: 0)")
    export.add_argument("--to-height", type=int, metavar="N", help="the last block (default: the head)")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="validator-2, observer … (default: the first node)")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="D", help="a network's folder, or one node's (./data)"
    )


def _inspect(options: argparse.Namespace) -> int:
    from cluster.inspecting import run

    return run(options)


def _export(options: argparse.Namespace) -> int:
    from cluster.exporting import run

    return run(options)


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {"inspect": _inspect, "export": _export}
