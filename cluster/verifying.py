"""`psephos verify`: checks a receipt offline and says each step in a voter's words."""

import argparse
import json
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cluster.network import ClusterError
from gateway.product import Checkable, ProductReceipt, TreeProof, check_any, check_match, parse_any
from gateway.receipt import DOCUMENT_BYTES_MAX, InvalidReceipt, LogHead, Receipt
from gateway.sets import check_overrides
from node.chain.domain import Domain
from node.chain.genesis import GenesisError, domain_of, parse_genesis
from node.consensus.override import Override, OverrideError
from node.overridefile import read_overrides

HONEST_LIMIT = (
    "This holds unless a quorum of validators of some time past works together to forge what came after it; "
    "name a block that you know from elsewhere with --checkpoint to rule that out."
)


def parse_hash(text: str, option: str) -> bytes:
    """The 32 bytes of an option. Raises ClusterError."""
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text, re.ASCII):
        raise ClusterError(f"{option} {text[:80]!r}: expected 64 hex digits")
    return bytes.fromhex(text.removeprefix("0x"))


def read_document(path: Path) -> bytes:
    """The bytes of a document, cut off behind what any may have; - is standard input. Raises ClusterError."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        with open(path, "rb") as file:
            return file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise ClusterError(f"{path} cannot be read: {error.strerror or error}") from None


def trusted_domain(options: argparse.Namespace, chain_id: int | None) -> Domain | None:
    """The network that the options name. Of a network known by its hash alone, the seals bind the chain id."""
    if options.genesis_hash is not None:
        return Domain(chain_id or 0, parse_hash(options.genesis_hash, "--genesis-hash"))
    if options.genesis is None:
        return None
    try:
        document = json.loads(read_document(options.genesis))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        return domain_of(parse_genesis(document))
    except (ValueError, GenesisError) as error:
        raise ClusterError(f"{options.genesis} is no genesis: {error}") from None


def believed_overrides(options: argparse.Namespace, trusted: Domain | None) -> tuple[Override, ...]:
    """The overrides that the options name, their signatures checked. Raises ClusterError."""
    found: list[Override] = []
    if trusted is None:
        return ()
    for path in options.override:
        try:
            overrides = read_overrides(path)
            check_overrides(overrides, trusted.genesis_hash)
        except OverrideError as error:
            raise ClusterError(f"--override {path}: {error}") from None
        found += overrides
    return tuple(found)


def _chain_id(found: Checkable) -> int | None:
    if isinstance(found, Receipt):
        return found.head.chain_id
    if isinstance(found, ProductReceipt):
        return found.anchor.head.chain_id
    return found.chain_id if isinstance(found, LogHead) else None


def verify(options: argparse.Namespace) -> int:
    """Check a document step by step, and say each step."""
    console = Console(highlight=False, soft_wrap=True)
    checkpoint = None if options.checkpoint is None else parse_hash(options.checkpoint, "--checkpoint")
    try:
        found = parse_any(read_document(options.receipt))
        if options.proof is not None:
            found = _with_proof(found, parse_proof(options.proof))
        trusted = trusted_domain(options, _chain_id(found))
        if trusted is None and not isinstance(found, TreeProof):
            raise ClusterError("which network? Give --genesis FILE, or --genesis-hash HASH, from where you trust it")
        overrides = believed_overrides(options, trusted)
        for step in check_any(found, trusted, checkpoint=checkpoint, overrides=overrides):
            console.print(f"[green]✓[/green] {escape(step.words)}")
            for name, value in step.details if options.explain else ():
                console.print(f"    [dim]{escape(name)}[/dim] {escape(value)}")
    except InvalidReceipt as error:
        console.print(f"[red]✗ It does not hold.[/red] {escape(error.step)}: {escape(error.reason)}")
        return 1
    console.print("[green bold]It holds.[/green bold]")
    if isinstance(found, Receipt) and found.record is None:
        console.print("The file was made without the record: it shows that it is there, not what it says.")
    if checkpoint is None and not isinstance(found, TreeProof):
        console.print(HONEST_LIMIT)
    return 0


def parse_proof(path: Path) -> TreeProof:
    """The tree proof in a file. Raises InvalidReceipt."""
    found = parse_any(read_document(path))
    if isinstance(found, ProductReceipt):
        return found.proof
    if not isinstance(found, TreeProof):
        raise ClusterError(f"{path} is no proof of a batch's tree")
    return found


def _with_proof(found: Checkable, proof: TreeProof) -> ProductReceipt:
    if not isinstance(found, Receipt):
        raise ClusterError("--proof takes a proof of a batch's tree, beside the receipt of the batch's anchor")
    check_match(proof, found)
    return ProductReceipt(proof, found)
