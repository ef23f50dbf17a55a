"""The verbs of `psephos keys` as the command line shows them; `cluster.keys` does what they say."""

import argparse
from pathlib import Path

KINDS = ("validator", "gateway")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `keys` to the command line."""
    keys = verbs.add_parser("keys", help="make, list, import and export the keys of validators and gateways")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key (mode 0600) and print its address")
    new.add_argument(
        "--genesis", type=Path, metavar="F", help="of a network that runs: makes a new validator's guard as well"
    )
    new.add_argument("--password-file", type=Path, metavar="F", help="make a keystore V3 under this file's first line")
    listing = actions.add_parser("list", help="the addresses of the keys below a folder; needs no password")
    listing.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: here")
    take = actions.add_parser(
        "import",
        help="bring a key from elsewhere: a line of hex, or a keystore V3 of geth or eth-account",
        description="Writes no guard: what the key has signed elsewhere is not known here, and its node finds out from "
        "the others. The key must not be used in two places.",
    )
    take.add_argument("file", type=Path, metavar="FILE")
    give = actions.add_parser(
        "export",
        help="write a key as a line of hex, or as a keystore V3 that geth and eth-account read",
        description="Writes a new file of mode 0600. Never run a validator's key in two places.",
    )
    give.add_argument("file", type=Path, metavar="FILE", help="node.key, gateway.key")
    where = give.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="F", help="the file to write")
    where.add_argument("--stdout", action="store_true", help="show it instead, to whoever can read your screen")
    for action in (take, give):
        action.add_argument("--password-file", type=Path, metavar="F", help="of FILE, where it is a keystore")
        action.add_argument(
            "--new-password-file", type=Path, metavar="F", help="write a keystore under this file's first line"
        )
    for action in (new, take):
        action.add_argument("--folder", type=Path, default=Path(), help="the process's folder (default: here)")
        action.add_argument("--kind", choices=KINDS, default="validator", help="default: validator")
