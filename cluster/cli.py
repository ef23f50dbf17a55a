"""The command line `psephos`: makes networks, runs them, and kills their processes on request."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import checks, gateway_verbs, key_verbs, offline_verbs, sim_verb
from cluster.bench import verbs as bench_verbs
from cluster.network import VALIDATORS_MAX, ClusterError, Ports

DEFAULT_CHAIN_ID = 7770
CHAOS_FAULTS = "kill,pause,restart,blackout,gateway,gateway-pause,bootnode"
DESCRIPTION = """\
Psephos: a proof-of-authority validator network for ballots and Merkle anchors, and the gateway in front of it.

  psephos up                      three validators, a bootnode and a gateway in ./data; Ctrl-C stops them
  psephos status                  what runs, where, and how it is
  psephos kill validator-2        SIGKILL one process; `start` brings it back, `pause` and `resume` suspend it
"""


def _data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="D", help="the network's folder (default: ./data)"
    )


def _network_options(parser: argparse.ArgumentParser, *, ports: bool = True) -> None:
    """Options of verbs that make a network. Defaults are None where an existing network's own value must win."""
    parser.add_argument("--chain-id", type=int, metavar="N", help=f"EIP-155 chain id (default: {DEFAULT_CHAIN_ID})")
    parser.add_argument(
        "--block-interval-ms", type=int, metavar="MS", help="least time between blocks when work waits (default: 100)"
    )
    if not ports:
        return
    parser.add_argument(
        "--validators", type=int, metavar="N", help=f"how many validators, 1 to {VALIDATORS_MAX} (default: 3)"
    )
    default = Ports()
    for name, of in (
        ("gateway", "the gateway's port"),
        ("rpc", "the first validator's JSON-RPC port"),
        ("p2p", "the first validator's p2p port"),
        ("bootnode", "the bootnode's port"),
    ):
        known = getattr(default, name)
        parser.add_argument(f"--{name}-port", type=int, metavar="PORT", help=f"{of} (default: {known})")


def _closed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--closed", action="store_true", help="only validators, gateways and each --account may send transactions"
    )
    parser.add_argument(
        "--account", action="append", metavar="ADDRESS", default=[], help="who else may send on a closed network"
    )


def _verbs_that_make(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = verbs.add_parser("init", help="write one self-contained folder per process, and start nothing")
    _data_dir(init)
    _network_options(init)
    _closed_options(init)
    init.add_argument("--dev", action="store_true", help="fund the development accounts, create elections on demand")
    init.add_argument(
        "--containers",
        action="store_true",
        help="one host per process, named as the process is: listen on all interfaces, reach each other by name",
    )
    init.add_argument("--if-missing", action="store_true", help="succeed when the network exists already")
    init.add_argument("--observer", action="store_true", help="add a node that follows the chain and signs nothing")

    genesis = verbs.add_parser(
        "genesis",
        help="make a network from addresses; the keys stay on their hosts",
        description="Writes one folder per process without keys. Copy each to its host, beside the key made there by "
        "`psephos keys new`. Copy the guard once, at the beginning: never put an old one back.",
    )
    _data_dir(genesis)
    _network_options(genesis, ports=False)
    _closed_options(genesis)
    one = {"action": "append", "metavar": "ADDRESS@HOST", "default": []}
    genesis.add_argument("--validator", required=True, help="a validator; give it once for each", **one)  # type: ignore[arg-type]
    genesis.add_argument("--gateway", help="a gateway; give it once for each", **one)  # type: ignore[arg-type]
    genesis.add_argument("--bootnode", action="append", metavar="HOST", default=[], help="a bootnode's host")
    genesis.add_argument("--dev", action="store_true", help="fund the development accounts; never for real elections")


def _verbs_that_run(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    up = verbs.add_parser("up", help="start a network, made on first use, and stay with it")
    _data_dir(up)
    _network_options(up)
    up.add_argument("--detach", action="store_true", help="return once it runs; `psephos down` stops it")
    up.add_argument(
        "--ready-timeout-s", type=float, default=60.0, metavar="S", help="how long to wait for readiness (default: 60)"
    )
    down = verbs.add_parser("down", help="stop everything that runs in a data directory")
    _data_dir(down)
    status = verbs.add_parser("status", help="what runs, where, and how it is")
    _data_dir(status)
    status.add_argument("--once", action="store_true", help="print once, as it does where no terminal is")
    status.add_argument("--json", action="store_true", help="for programs; prints once")
    status.add_argument("--interval-s", type=float, default=1.0, metavar="S", help="between two looks (default: 1)")
    for verb, meaning in (
        ("kill", "end a process at once (SIGKILL)"),
        ("start", "start a process that does not run"),
        ("pause", "suspend a process (SIGSTOP)"),
        ("resume", "wake a suspended process (SIGCONT)"),
    ):
        parser = verbs.add_parser(verb, help=meaning)
        parser.add_argument("name", metavar="NAME", help="validator-2, gateway, bootnode …")
        _data_dir(parser)
    for verb, what in (("node", "validator or observer"), ("bootnode", "bootnode"), ("gateway", "gateway")):
        parser = verbs.add_parser(verb, help=f"run one {what} in the foreground")
        parser.add_argument("--config", type=Path, required=True, metavar="F", help="its TOML file")
        parser.add_argument(
            "--log-format", choices=("text", "json"), help="lines for people, or JSON for machines (default: as in F)"
        )


def _verb_that_disturbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    chaos = verbs.add_parser(
        "chaos",
        help="disturb a running network under load, and check that it kept every promise",
        description="Random faults under load, then SIGKILL for all and a look at every disk: what was acknowledged is "
        "there exactly once, what was refused is not, tallies only grew. Everything runs again afterwards. Leaves a "
        "history, a report and a picture in D/chaos; ends with 1 when a promise was broken.",
    )
    _data_dir(chaos)
    chaos.add_argument("--duration", type=float, default=120.0, metavar="S", help="seconds of load (default: 120)")
    chaos.add_argument("--seed", type=int, metavar="N", help="of faults and ballots (default: drawn, and told)")
    chaos.add_argument("--faults", default=CHAOS_FAULTS, metavar="LIST", help=f"which ones (default: {CHAOS_FAULTS})")
    chaos.add_argument("--every", type=float, default=4.0, metavar="S", help="seconds between faults (default: 4)")
    chaos.add_argument("--rate", type=float, default=40.0, metavar="N", help="new ballots a second (default: 40)")
    chaos.add_argument("--clients", type=int, default=8, metavar="N", help="callers at once (default: 8)")


def _verbs_that_govern(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for verb, what in (("validators", "validator"), ("gateways", "gateway")):
        parser = verbs.add_parser(verb, help=f"who the {verb} are; propose and vote on others")
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        propose = actions.add_parser(
            "propose",
            help="propose a change, or vote for the one that is proposed",
            description="More than half of the validators decide. Proposing what is proposed already is a vote for it. "
            f"Without --key, every validator's key below --data-dir votes until the {what}s change.",
        )
        propose.add_argument("change", choices=("add", "remove", "replace"))
        propose.add_argument("address", metavar="ADDRESS")
        propose.add_argument("new", nargs="?", metavar="NEW", help="replace: who comes for ADDRESS")
        propose.add_argument(
            "--key", type=Path, action="append", default=[], metavar="F", help="a validator's key file"
        )
        propose.add_argument("--password-file", type=Path, metavar="F", help="of keys that are keystores")
        listing = actions.add_parser("list", help=f"the {verb} now")
        votes = actions.add_parser("votes", help="what is proposed, and who has voted")
        for action in (propose, listing, votes):
            action.add_argument("--rpc", metavar="URL", help="the node to ask (default: one of --data-dir)")
            _data_dir(action)


def _verbs_that_mend(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    folder = {"type": Path, "metavar": "FOLDER", "help": "the stopped node's folder, or its node.toml"}
    guard = verbs.add_parser("guard", help="look at a stopped validator's sign guard, or resume a lost one")
    actions = guard.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("show", help="what it has promised").add_argument("folder", **folder)  # type: ignore[arg-type]
    resume = actions.add_parser("resume", help="let a validator sign again whose guard is lost; explains the risk")
    resume.add_argument("folder", **folder)  # type: ignore[arg-type]
    resume.add_argument("--above", type=int, metavar="HEIGHT", help="it signs only above this height")
    resume.add_argument("--yes", action="store_true", help="you have read what it risks")

    override = verbs.add_parser("override", help="name other validators where a quorum is lost for good")
    actions = override.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="write an override of the height after a stopped node's head")
    make.add_argument("folder", **folder)  # type: ignore[arg-type]
    make.add_argument("--validator", action="append", required=True, metavar="ADDRESS", help="once for each")
    make.add_argument("--out", type=Path, default=Path("override.json"), metavar="F", help="default: override.json")
    sign = actions.add_parser("sign", help="add signatures; each validator that it names signs")
    sign.add_argument("--key", type=Path, action="append", required=True, metavar="F", help="a validator's key file")
    sign.add_argument("--password-file", type=Path, metavar="F", help="of keys that are keystores")
    for action in (sign, actions.add_parser("show", help="what it says, and who has signed")):
        action.add_argument("file", type=Path, metavar="FILE")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="psephos", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verbs_that_run(verbs)
    _verb_that_disturbs(verbs)
    _verbs_that_govern(verbs)
    _verbs_that_mend(verbs)
    _verbs_that_make(verbs)
    key_verbs.add_verbs(verbs)
    checks.add_verbs(verbs)
    gateway_verbs.add_verbs(verbs)
    offline_verbs.add_verbs(verbs)
    bench_verbs.add_verbs(verbs)
    sim_verb.add_verbs(verbs)
    return parser


def _run_node(options: argparse.Namespace) -> int:
    from node.service import run

    return run(options.config, options.log_format)


def _run_bootnode(options: argparse.Namespace) -> int:
    from bootnode.server import run

    return run(options.config, options.log_format)


def _run_gateway(options: argparse.Namespace) -> int:
    from gateway.server import run

    return run(options.config, options.log_format)


def _managed(options: argparse.Namespace) -> int:
    from cluster import commands  # not at the top: a node needs neither rich nor httpx

    return commands.run(options)


# One process in the foreground loads only what it needs itself.
_PROCESSES: dict[str, Callable[[argparse.Namespace], int]] = {
    "node": _run_node,
    "bootnode": _run_bootnode,
    "gateway": _run_gateway,
    **checks.HANDLERS,
    **gateway_verbs.HANDLERS,
    **offline_verbs.HANDLERS,
    **bench_verbs.HANDLERS,
    **sim_verb.HANDLERS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return _PROCESSES.get(options.verb, _managed)(options)
    except ClusterError as error:
        print(f"psephos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
