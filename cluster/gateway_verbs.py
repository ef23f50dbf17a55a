"""The verbs for who runs a gateway: `journal verify` and `api-key`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

SCOPES = ("vote", "anchor", "read", "admin")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to the command line."""
    journal = verbs.add_parser("journal", help="look at what a gateway has accepted and not yet seen final")
    actions = journal.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="check the hash chain of a gateway's journal and spool",
        description="Reads every frame and link. Exit code 0: all hold; 1: something is damaged, and where.",
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="the gateway's folder, or its journal's")
    verify.add_argument("--genesis", type=Path, metavar="FILE", help="the network that it must be of")
    key = verbs.add_parser("api-key", help="make an API key; the gateway's configuration gets its hash")
    key.add_argument("name", metavar="NAME", help="whom it is for")
    key.add_argument("--scope", action="append", choices=SCOPES, required=True, help="give it once for each")


def _run_journal(options: argparse.Namespace) -> int:
    from gateway.config import load_genesis
    from gateway.journal_check import check_journal, folders_of
    from gateway.journal_format import JournalCorrupt
    from node.chain.genesis import domain_of
    from serving.settings import ConfigError

    try:
        domain = None if options.genesis is None else domain_of(load_genesis(options.genesis))
        for folder in folders_of(options.folder):
            report = check_journal(folder, domain)
            print(f"✓ {folder}: {report.segments} segments, {report.frames} frames, {report.waiting} records wait")
            for kind, count in sorted(report.records.items()):
                print(f"    {count:>9} {kind}")
            for name in report.torn:
                print(f"    {name} ends in bytes that were never acknowledged")
            if report.link:
                print(f"    last link {report.link.hex()}")
    except (JournalCorrupt, ConfigError, OSError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


def _run_api_key(options: argparse.Namespace) -> int:
    from gateway.access import new_api_key

    key, digest = new_api_key()
    scopes = ", ".join(f'"{scope}"' for scope in dict.fromkeys(options.scope))
    print(key)
    print(
        "# Shown once. In gateway.toml goes only its hash:\n"
        f'[[api_keys]]\nname = "{options.name}"\nsha256 = "{digest}"\nscopes = [{scopes}]',
        file=sys.stderr,
    )
    return 0


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {"journal": _run_journal, "api-key": _run_api_key}
