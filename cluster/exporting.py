"""`psephos export`: blocks, ballots and anchors of a stopped node as JSON lines, one block in memory at a time."""

import argparse
import sys
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from typing import BinaryIO

import orjson

from cluster.inspecting import Document, block_line
from cluster.network import ClusterError
from cluster.offline import Offline, opened, progress
from cluster.records import read_anchored, read_cast
from node.chain.contracts import elections
from node.chain.contracts.ballots import Outcome
from node.chain.errors import LedgerError
from node.chain.genesis import domain_of
from node.chain.receipt import Receipt
from node.chain.transaction import Transaction

KINDS = ("blocks", "ballots", "anchors")


def run(options: argparse.Namespace) -> int:
    """Write the lines to a file, or to standard output."""
    kinds = {kind.strip() for kind in options.only.split(",")}
    if not kinds <= set(KINDS):
        raise ClusterError(f"--only {options.only}: expected some of {', '.join(KINDS)}, with commas between them")
    with opened(options.data_dir, options.name) as node:
        head = node.store.head_height()
        last = head if options.to_height is None else min(options.to_height, head)
        if not 0 <= options.from_height <= last:
            raise ClusterError(f"--from-height {options.from_height}: {node.name} has blocks 0 to {last}")
        try:
            with nullcontext(sys.stdout.buffer) if options.out is None else open(options.out, "wb") as file:
                count = _write(node, range(options.from_height, last + 1), kinds, file)
        except BrokenPipeError:  # whoever read it has seen enough
            sys.stderr.close()
            return 0
        except OSError as error:
            raise ClusterError(f"{options.out or 'standard output'}: {error.strerror or error}") from None
    print(f"{count} lines of blocks {options.from_height} to {last}", file=sys.stderr)
    return 0


def _write(node: Offline, heights: range, kinds: Collection[str], file: BinaryIO) -> int:
    count = 0
    with progress("exporting blocks") as bar:
        for height in heights:
            for line in lines(node, height, kinds):
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
            if height % 100 == 0:
                bar.update(bar.task_ids[0], completed=height - heights.start, total=len(heights))
        file.flush()
    return count


def lines(node: Offline, height: int, kinds: Collection[str] = KINDS) -> Iterator[Document]:
    """The objects of one block: the block, then what its transactions cast and anchored, in their order."""
    block, receipts = node.store.block(height), node.store.receipts(height)
    if block is None or receipts is None:
        raise LedgerError(f"block {height} is missing below the head")
    if "blocks" in kinds:
        yield {"type": "block", **block_line(node, block, domain_of(node.genesis))}
    place = {"height": height, "timestamp": block.header.timestamp}
    for transaction, receipt in zip(block.transactions, receipts, strict=True):
        if "ballots" in kinds:
            yield from _ballots(transaction, receipt, place)
        if "anchors" in kinds:
            for anchor in read_anchored(receipt):
                yield {
                    "type": "anchor",
                    **place,
                    "transaction_hash": "0x" + transaction.hash.hex(),
                    "sender": "0x" + transaction.sender.hex(),
                    "index": anchor.index,
                    "batch_id": "0x" + anchor.batch_id.hex(),
                    "merkle_root": "0x" + anchor.merkle_root.hex(),
                    "leaf_count": anchor.leaf_count,
                    "algorithm": anchor.algorithm,
                }


def _ballots(transaction: Transaction, receipt: Receipt, place: Document) -> Iterator[Document]:
    cast = read_cast(transaction, receipt)
    if cast is None:
        return
    transaction_hash, sender, index = "0x" + transaction.hash.hex(), "0x" + transaction.sender.hex(), cast.first_index
    for position, (record, outcome) in enumerate(zip(cast.records, cast.outcomes, strict=True)):
        is_open, is_accepted = record.kind == elections.KIND_OPEN, outcome is Outcome.ACCEPTED
        yield {
            "type": "ballot",
            **place,
            "transaction_hash": transaction_hash,
            "sender": sender,
            "position": position,
            "election": str(cast.election),  # up to 256 bits: more than a number of JSON holds everywhere
            "index": index if is_accepted else None,
            "outcome": outcome.name.lower(),
            "nullifier": "0x" + record.nullifier.hex(),
            "record_id": "0x" + record.record_id.hex(),
            "kind": "open" if is_open else "sealed",
            "choice": record.content[0] if is_open and record.content else None,
            "content": "0x" + record.content.hex(),
        }
        index += is_accepted
