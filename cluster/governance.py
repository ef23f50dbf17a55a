"""`psephos validators` and `psephos gateways`: who is in the sets, what is proposed, who has voted; and to vote."""

import argparse
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster.creation import KEY_FILES
from cluster.keys import open_key
from cluster.network import ClusterError
from cluster.nodeclient import NodeClient, Refused, find_node, known_names
from node.chain.contracts.proposals import NOBODY, Kind, Status
from node.chain.signing import SigningKey
from node.config import parse_address
from node.consensus.quorum import crash_tolerance, quorum, tolerance
from serving.keyfiles import SecretError

KINDS = {
    ("validators", "add"): Kind.ADD_VALIDATOR,
    ("validators", "remove"): Kind.REMOVE_VALIDATOR,
    ("validators", "replace"): Kind.REPLACE_VALIDATOR,
    ("gateways", "add"): Kind.ADD_GATEWAY,
    ("gateways", "remove"): Kind.REMOVE_GATEWAY,
    ("gateways", "replace"): Kind.REPLACE_GATEWAY,
}
_WORDS = {kind: (which, verb) for (which, verb), kind in KINDS.items()}
SYNCED_BLOCKS = 2  # so far behind the head, a candidate still counts as synced
CLOSED_SHOWN = 10
PAGE = 100


def run(options: argparse.Namespace) -> int:
    """Run one of the verbs."""
    with closing(find_node(options.data_dir, options.rpc)) as node:
        if options.action == "propose":
            return _propose(options, node)
        if options.action == "votes":
            return _show_votes(options, node)
        return _show_members(options, node)


def strength(count: int) -> str:
    """What a set of `count` validators can bear, in words."""
    return (
        f"{count} validators, quorum {quorum(count)}: survive {crash_tolerance(count)} crashed and "
        f"{tolerance(count)} Byzantine"
    )


# --- propose -------------------------------------------------------------------------------------------------------


def _propose(options: argparse.Namespace, node: NodeClient) -> int:
    kind = KINDS[options.verb, options.change]
    account = _address(options.address)
    replacement = _replacement(options, kind)
    sets = node.ask("poa_getValidators")
    keys = _voters(options, {bytes.fromhex(each[2:]) for each in sets["next"]})
    if options.verb == "validators":
        count = len(sets["next"])
        after = count + (kind is Kind.ADD_VALIDATOR) - (kind is Kind.REMOVE_VALIDATOR)
        print(f"now:   {strength(count)}")
        print(f"after: {strength(after)}")
        if kind is not Kind.REMOVE_VALIDATOR:
            _warn_unless_synced(node, replacement if kind.replaces else account)
    names = known_names(options.data_dir)
    for key in keys:
        if _vote(node, key, kind, account, replacement, names):
            return 0
    return 0


def _vote(
    node: NodeClient, key: SigningKey, kind: Kind, account: bytes, replacement: bytes, names: dict[str, str]
) -> bool:
    """Propose, or vote for what is proposed already; whether it is decided."""
    who = _named("0x" + key.address.hex(), names)
    try:
        events = node.send(key, "propose", int(kind), account, replacement)
    except Refused as refusal:
        if refusal.name != "AlreadyVoted":
            raise
        print(f"{who} has voted for this already")
        return False
    decided = False
    for name, values in events:
        if name == "Voted":
            print(f"{who} voted for proposal {values[0]}: {values[2]} of {values[3]} votes needed")
        elif name == "Decided":
            print(f"decided: in force from height {values[4]} on")
            decided = True
    return decided


def _replacement(options: argparse.Namespace, kind: Kind) -> bytes:
    if kind.replaces and options.new is None:
        raise ClusterError("replace takes two addresses: who goes, and who comes")
    if not kind.replaces and options.new is not None:
        raise ClusterError(f"{options.change} takes one address")
    return _address(options.new) if kind.replaces else NOBODY


def _address(text: str) -> bytes:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ClusterError(str(error)) from None


def _voters(options: argparse.Namespace, members: set[bytes]) -> list[SigningKey]:
    """The keys to vote with: those named, or else all of validators that lie in the data directory."""
    named: list[Path] = options.key
    paths = named or sorted(options.data_dir.glob(f"*/{KEY_FILES['validator']}"))
    try:
        keys = [open_key(path, options.password_file) for path in paths]
    except SecretError as error:
        raise ClusterError(str(error)) from None
    for path, key in zip(paths, keys, strict=True):
        if named and key.address not in members:
            raise ClusterError(f"{path} is the key of 0x{key.address.hex()}, which is no validator and has no vote")
    voters = [key for key in keys if key.address in members]
    if not voters:
        raise ClusterError(f"{options.data_dir} holds no validator's key: name one with --key")
    return voters


def _warn_unless_synced(node: NodeClient, candidate: bytes) -> None:
    """A validator that cannot take part counts as crashed from its first height on."""
    status = node.ask("poa_status")
    address = "0x" + candidate.hex()
    if address == status["address"]:
        return
    peer = next((each for each in status["peers"] if each["address"] == address), None)
    height = int(status["height"], 16)
    if peer is None:
        print(
            f"warning: {address} is not connected to {status['name']}: list it there under [p2p] observers, start it, "
            "and let it sync first; as long as it is not there it counts as crashed"
        )
        return
    head = None if peer.get("height") is None else int(peer["height"], 16)
    if head is None or head + SYNCED_BLOCKS < height:
        print(
            f"warning: {address} is connected but not synced: at height {'?' if head is None else head} of {height}; "
            "until it is there it counts as crashed"
        )


# --- list and votes ------------------------------------------------------------------------------------------------


def _show_members(options: argparse.Namespace, node: NodeClient) -> int:
    sets, names = node.ask("poa_getValidators"), known_names(options.data_dir)
    if options.verb == "gateways":
        print(f"{len(sets['gateways'])} gateways after height {int(sets['height'], 16)}")
        for address in sets["gateways"]:
            print(f"  {_named(address, names)}")
        return 0
    status = node.ask("poa_status")
    heights = {peer["address"]: peer.get("height") for peer in status["peers"]} | {status["address"]: status["height"]}
    print(f"height {int(sets['height'], 16) + 1}: {strength(len(sets['next']))}")
    for address in sets["next"]:
        height = heights.get(address)
        seen = f"at height {int(height, 16)}" if height else "connected" if address in heights else "not connected"
        print(f"  {_named(address, names)}  {seen}")
    return 0


def _show_votes(options: argparse.Namespace, node: NodeClient) -> int:
    """The proposals that are open, and the last ones that no longer are."""
    names = known_names(options.data_dir)
    rows = [row for row in _proposals(node) if _WORDS[Kind(row[1])][0] == options.verb]
    is_open = [row for row in rows if row[6] == Status.OPEN]
    closed = [row for row in rows if row[6] != Status.OPEN]
    for row in (*closed[-CLOSED_SHOWN:], *is_open):
        _print_proposal(node, row, names)
    if not rows:
        print("nothing has been proposed yet")
    return 0


def _proposals(node: NodeClient) -> Iterable[tuple[Any, ...]]:
    for start in range(0, node.view("proposalCount"), PAGE):
        yield from node.view("proposals", start, PAGE)


def _print_proposal(node: NodeClient, row: tuple[Any, ...], names: dict[str, str]) -> None:
    index, kind, account, replacement, _, _, status, decided_at, counted, needed = row
    what = f"{_WORDS[Kind(kind)][1]} {_named(account, names)}"
    if Kind(kind).replaces:
        what += f" by {_named(replacement, names)}"
    if status == Status.DECIDED:
        print(f"{index}: {what}: decided at height {decided_at}")
        return
    if status == Status.STALE:
        print(f"{index}: {what}: stale")
        return
    print(f"{index}: {what}: {counted} of {needed} votes needed")
    for voter, counts in node.view("votes", index):
        print(f"     {_named(voter, names)}{'' if counts else ' (no longer counts)'}")


def _named(address: str, names: dict[str, str]) -> str:
    name = names.get(address)
    return f"{name} {address}" if name else address
