"""`psephos inspect`: what a stopped node's database holds, and whether it is what its blocks make of it."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cluster.integrity import Verdict, election_ids, verify
from cluster.network import ClusterError
from cluster.offline import Offline, opened, progress
from cluster.records import read_anchored, read_cast
from cluster.view import make_console
from node.chain.block import Block
from node.chain.contracts import anchors, ballots, elections, validators
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.domain import Domain
from node.chain.genesis import domain_of
from node.chain.state import State
from node.consensus.certificate import sealers
from node.store import KEY_CLASSES

Document = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """Show what the options ask for; 1 where `--verify` finds something wrong."""
    with opened(options.data_dir, options.name) as node, progress("reading entries") as bar:
        if options.block is not None:
            document = block_document(node, _height(node, options.block))
        elif options.election is not None:
            document = election_document(node, options.election)
        else:
            document = summary(node, bar)
        verdict = verify(node, options.scratch, _advancing(bar)) if options.verify else None
    if verdict is not None:
        document["integrity"] = _verdict_document(verdict)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        _show(document, make_console())
    return 0 if verdict is None or verdict.holds else 1


def summary(node: Offline, bar: Progress | None = None) -> Document:
    """Head, validators, sizes by kind of entry, elections and anchors."""
    store = node.store
    head = store.header(store.head_height())
    if head is None:
        raise ClusterError(f"{node.name}: the database lacks the block that it names as its head")
    state = State(node.database, head.state_root)
    return {
        "node": node.name,
        "chain_id": node.genesis.chain_id,
        "genesis_hash": _hex(domain_of(node.genesis).genesis_hash),
        "head": {"height": head.number, "hash": _hex(head.hash), "time": _time(head.timestamp)},
        "state_root": _hex(head.state_root),
        "next_validators": [_hex(address) for address in store.validators(head.number + 1)],
        "gateways": [_hex(address) for address in validators.gateways(state)],
        "anchors": state.storage(ANCHORS, anchors.SIZE_SLOT),
        "elections": [election_document(node, id_, state) for id_ in election_ids(state)],
        "entries": _entries(node, bar),
        "files_bytes": node.database.files_bytes(),
    }


def _entries(node: Offline, bar: Progress | None) -> Document:
    """How many keys of each kind there are, and how many bytes keys and values have."""
    found: Document = {}
    for name, prefix in KEY_CLASSES.items():
        count = size = 0
        for key, value in node.database.scan(prefix, bytes((prefix[0] + 1,))):
            count += 1
            size += len(key) + len(value)
            if bar is not None and count % 50_000 == 0:
                bar.update(bar.task_ids[0], description=f"reading {name}", completed=count)
        found[name] = {"count": count, "bytes": size}
    return found


def election_document(node: Offline, id_: int, state: State | None = None) -> Document:
    """One election at the head, with its tally. Raises ClusterError."""
    head = node.store.header(node.store.head_height())
    if head is None:
        raise ClusterError(f"{node.name}: the database lacks the block that it names as its head")
    state = state or State(node.database, head.state_root)
    found = elections.definition(state, id_) if 0 <= id_ < 1 << 256 else None
    if found is None:
        known = ", ".join(map(str, election_ids(state))) or "none"
        raise ClusterError(f"there is no election {id_} at height {head.number}: there are {known}")
    election = found.election
    tally = ballots.read_tally(state, election)
    size_slot, root_slot = elections.log_slots(id_)
    return {
        "id": id_,
        "title": found.title,
        "state": election.state_at(head.timestamp).name.lower(),
        "opens": _time(election.opens_at),
        "closes": _time(election.closes_at),
        "creator": _hex(election.creator),
        "registrars": [_hex(address) for address in found.registrars],
        "ballots": state.storage(ELECTIONS, size_slot),
        "log_root": _hex(state.storage(ELECTIONS, root_slot).to_bytes(32, "big")),
        "tally": dict(zip(found.options, tally.counts, strict=True)),
        "sealed": tally.sealed_count,
    }


def _height(node: Offline, text: str) -> int:
    """The height that a number, or a block's hash, names."""
    head = node.store.head_height()
    if text.isdecimal() and len(text) < 20:  # a hash may have digits alone, and heights have fewer
        if int(text) > head:
            raise ClusterError(f"there is no block {text}: {node.name} has 0 to {head}")
        return int(text)
    try:
        found = node.store.height_of(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        raise ClusterError(f"--block {text}: expected a height, or a hash of 64 hex digits") from None
    if found is None:
        raise ClusterError(f"--block {text}: no final block of this node has this hash")
    return found


def block_document(node: Offline, height: int) -> Document:
    """One block, with its seals, and what its transactions did. Raises ClusterError."""
    block, receipts, head = node.store.block(height), node.store.receipts(height), node.store.head_height()
    if block is None or receipts is None:
        raise ClusterError(f"there is no block {height}: {node.name} has 0 to {head}")
    shown = []
    for transaction, receipt in zip(block.transactions, receipts, strict=True):
        one: Document = {
            "hash": _hex(transaction.hash),
            "from": _hex(transaction.sender),
            "to": _hex(transaction.to),
            "succeeded": receipt.succeeded,
            "bytes": len(transaction.raw),
        }
        if (cast := read_cast(transaction, receipt)) is not None:
            accepted = cast.outcomes.count(ballots.Outcome.ACCEPTED)
            one["ballots"] = {"election": cast.election, "cast": len(cast.records), "accepted": accepted}
        if anchored := read_anchored(receipt):
            one["anchors"] = [_hex(anchor.batch_id) for anchor in anchored]
        shown.append(one)
    return block_line(node, block, domain_of(node.genesis)) | {"transactions": shown}


def block_line(node: Offline, block: Block, domain: Domain) -> Document:
    """What header and certificate say of a block; `transactions` is how many it has."""
    header, certificate = block.header, node.store.certificate(block.number)
    return {
        "height": block.number,
        "hash": _hex(block.hash),
        "parent_hash": _hex(header.parent_hash),
        "time": _time(header.timestamp),
        "miner": _hex(header.miner),
        "state_root": _hex(header.state_root),
        "gas_used": header.gas_used,
        "transactions": len(block.transactions),
        "round": None if certificate is None else certificate.round,
        "sealed_by": [] if certificate is None else [_hex(address) for address in sealers(certificate, domain)],
    }


def _advancing(bar: Progress) -> Any:
    def advance(what: str, done: int, total: int) -> None:
        bar.update(bar.task_ids[0], description=what, completed=done, total=total)

    return advance


def _verdict_document(verdict: Verdict) -> Document:
    return {
        "holds": verdict.holds,
        "blocks": verdict.blocks,
        "transactions": verdict.transactions,
        "ballots": verdict.ballots,
        "entries": verdict.entries,
        "states_from_height": verdict.oldest_state,
        "entries_not_kept": verdict.forgotten,
        "faults": verdict.faults,
    }


def _show(document: Document, console: Console) -> None:
    """For people: plain values first, then a table for each list of objects."""
    integrity = document.pop("integrity", None)
    tables = {}
    for name, value in document.items():
        if name == "entries":
            tables[name] = [{"kind": kind, **numbers} for kind, numbers in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables[name] = value
        else:
            console.print(f"{name.replace('_', ' '):<16}{_cell(value)}", soft_wrap=True, markup=False)
    for name, rows in tables.items():
        hidden = ("log_root", "registrars", "creator") if name == "elections" else ()
        table = Table(
            box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", title=name, title_justify="left"
        )
        headings = [heading for heading in dict.fromkeys(key for row in rows for key in row) if heading not in hidden]
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(heading, "")) for heading in headings))
        console.print()
        console.print(table, markup=False)
    if integrity is not None:
        console.print()
        if integrity["holds"]:
            console.print(
                f"[green]✓[/green] {integrity['blocks']} blocks, {integrity['transactions']} transactions and "
                f"{integrity['ballots']} ballots executed anew: "
                f"{integrity['entries'] - integrity['entries_not_kept']} entries are what they make"
            )
        if integrity["states_from_height"]:
            console.print(
                f"not compared: the stored states below height {integrity['states_from_height']}, which this node was "
                f"told to forget ({integrity['entries_not_kept']} trie nodes of them are not there); their roots were, "
                "by execution",
                soft_wrap=True,
            )
        for fault in integrity["faults"]:
            console.print(f"✗ {fault}", style="red", markup=False, soft_wrap=True)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " ".join(map(_cell, value)) or "–"
    return (
        "–" if value is None else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    )


def _time(seconds: int) -> str | None:
    """UTC; None for 0, which says that there is no such moment."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if 0 < seconds < 1 << 36 else None


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
