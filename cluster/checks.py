"""The verbs that need no network of ours: `verify`, `monitor` and `merkle`; their options, and who does the work."""

import argparse
from collections.abc import Callable
from pathlib import Path

ALGORITHMS = ("rfc6962-sha256", "sha256-sorted-pairs", "sha256-hex-pipe")
FORMATS = ("lines", "jsonl", "json", "csv")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to the command line."""
    _verify(verbs)
    _monitor(verbs)
    _merkle(verbs)


def _trust(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--genesis", type=Path, metavar="FILE", help="the network's genesis.json, which you trust")
    which.add_argument("--genesis-hash", metavar="HASH", help="or only the hash of its block 0")
    parser.add_argument(
        "--override",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an override of a lost quorum that you believe; may be given several times",
    )


def _verify(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verify = verbs.add_parser(
        "verify",
        help="check a receipt, offline",
        description="Checks a receipt of a ballot, an anchor or a product, a log head, or a proof of a batch's tree. "
        "Exit code 0: it holds; 1: it does not.",
    )
    verify.add_argument("receipt", type=Path, metavar="FILE", help="the document; - for standard input")
    _trust(verify)
    verify.add_argument("--checkpoint", metavar="HASH", help="hash of a block that you know from elsewhere")
    verify.add_argument("--proof", type=Path, metavar="FILE", help="a product's proof, if FILE is its anchor's receipt")
    verify.add_argument("--explain", action="store_true", help="show every hash")


def _monitor(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    monitor = verbs.add_parser(
        "monitor",
        help="follow a log over HTTP and keep it honest",
        description="Verifies the log's head, and that it extends the last head seen, which a file remembers. "
        "Exit code 0: it does; 1: it does not, or the head does not hold; 2: it could not be looked at.",
    )
    monitor.add_argument("url", metavar="URL", help="a gateway (its anchors), or a log: http://127.0.0.1:8000/log/1")
    _trust(monitor)
    monitor.add_argument("--state", type=Path, metavar="FILE", help="where to remember (default: ./monitor-LOG.json)")
    monitor.add_argument("--every-s", type=float, metavar="S", help="look again and again, with this pause")


def _merkle(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    merkle = verbs.add_parser("merkle", help="trees of product batches")
    actions = merkle.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser(
        "build",
        help="print the root of a batch, and write its tree, from which every proof is made",
        description="A leaf is a line, a JSON value (a string's text; of others the canonical JSON), or a row of CSV.",
    )
    build.add_argument("file", type=Path, metavar="FILE", help="the leaves, in their order; any number of them")
    build.add_argument("--format", choices=FORMATS, help="default: by the file's ending, else lines")
    build.add_argument("--column", metavar="NAME", help="CSV: this column is the leaf, instead of the whole row")
    build.add_argument("--tree", type=Path, metavar="OUT", help="where the tree goes (default: FILE.tree)")
    build.add_argument("--proofs", type=Path, metavar="OUT", help="write every leaf's proof, too, a line of JSON each")
    build.add_argument(
        "--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0], help="unsafe ones only check old roots"
    )
    build.add_argument("--expect-root", metavar="ROOT", help="compare; exit code 1 when it is another")
    prove = actions.add_parser("prove", help="print the proof of one leaf, or a product's whole receipt")
    prove.add_argument("tree", type=Path, metavar="TREE", help="what `merkle build` wrote")
    prove.add_argument("--index", type=int, metavar="N", help="the leaf's number, from 0")
    prove.add_argument("--leaf", metavar="TEXT", help="or its text")
    prove.add_argument("--anchor", type=Path, metavar="FILE", help="the receipt of the batch's anchor, to go with it")
    verify = actions.add_parser("verify", help="check a proof, offline")
    verify.add_argument("proof", type=Path, metavar="FILE", help="what `merkle prove` printed; - for standard input")
    verify.add_argument("--leaf", metavar="TEXT", help="the text that the leaf must have")
    verify.add_argument("--root", metavar="ROOT", help="the root that the batch must have")


def _run_verify(options: argparse.Namespace) -> int:
    from cluster.verifying import verify

    return verify(options)


def _run_monitor(options: argparse.Namespace) -> int:
    from cluster.logwatch import run

    return run(options)


def _run_merkle(options: argparse.Namespace) -> int:
    from cluster.batches import run

    return run(options)


# Loaded only when asked for: a node needs none of it.
HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "verify": _run_verify,
    "monitor": _run_monitor,
    "merkle": _run_merkle,
}
