"""`psephos merkle`: builds the tree of a batch of products in one pass, makes proofs from it, and checks them."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.network import ClusterError
from cluster.treefile import TreeFile, TreeFileError, write_tree
from cluster.verifying import parse_hash, parse_proof, read_document
from gateway.product import (
    ProductReceipt,
    TreeProof,
    check_match,
    check_proof,
    parse_any,
    product_document,
    proof_document,
)
from gateway.receipt import InvalidReceipt, Receipt
from merkle import trees
from merkle.leaves import leaf_of

LINE_BYTES_MAX = 16 << 20
FORMAT_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv"}


def run(options: argparse.Namespace) -> int:
    """Run the action that `options` name."""
    try:
        return {"build": build, "prove": prove, "verify": verify}[options.action](options)
    except TreeFileError as error:
        raise ClusterError(str(error)) from None
    except OSError as error:
        raise ClusterError(f"{error.filename or options.action}: {error.strerror or error}") from None


def build(options: argparse.Namespace) -> int:
    """Print the root; write tree and proofs."""
    how = trees.algorithm(options.algorithm)
    expected = None if options.expect_root is None else parse_hash(options.expect_root, "--expect-root")
    if not how.safe:
        if expected is None:
            raise ClusterError(
                f"{how.name} only checks old roots (give --expect-root), because it is unsafe: {how.weakness}"
            )
        if options.tree is not None or options.proofs is not None:
            raise ClusterError(f"no tree and no proofs are made with {how.name}, because it is unsafe: {how.weakness}")
    kind = options.format or FORMAT_BY_SUFFIX.get(options.file.suffix.lower(), "lines")
    tree = options.tree or options.file.with_name(options.file.name + ".tree")
    with open(options.file, "rb") as file, _progress(options.file.stat().st_size) as progress:
        hashes = map(how.leaf_hash, _leaves(_Watched(file, progress), kind, options.column, options.file))
        if how.safe:
            size, root = write_tree(tree, hashes)
        else:
            level = list(hashes)
            size, root = len(level), trees.root(how, level) if level else b""
    if size == 0:
        if how.safe:
            tree.unlink()
        raise ClusterError(f"{options.file} holds no leaves")
    print(root.hex())
    note = f"{size} leaves, {how.name}" + (f"; tree in {tree}" if how.safe else f", unsafe: {how.weakness}")
    print(note, file=sys.stderr)
    if options.proofs is not None:
        _write_proofs(tree, options.proofs)
    if expected is not None and expected != root:
        print(f"✗ not the expected root {expected.hex()}", file=sys.stderr)
        return 1
    return 0


def _write_proofs(path: Path, out: Path) -> None:
    """A line of JSON for each leaf: the document that `merkle prove` prints."""
    with TreeFile(path) as tree, open(out, "w", encoding="utf-8") as file, _progress(tree.size) as progress:
        task = progress.task_ids[0]
        for index in range(tree.size):
            file.write(json.dumps(proof_document(_proof(tree, index, None)), separators=(",", ":")) + "\n")
            if index % 1_000 == 0:
                progress.update(task, completed=index)


def prove(options: argparse.Namespace) -> int:
    """Print a leaf's proof, or with its anchor's receipt the product's."""
    if options.index is None and options.leaf is None:
        raise ClusterError("which leaf? Give --index or --leaf")
    with TreeFile(options.tree) as tree:
        index = options.index
        if index is None:
            wanted = trees.algorithm(trees.RFC6962).leaf_hash(leaf_of(options.leaf))
            index = next((at for at, one in enumerate(tree.leaf_hashes()) if one == wanted), None)
            if index is None:
                raise ClusterError(f"{options.tree} has no leaf {options.leaf[:80]!r}")
        if not 0 <= index < tree.size:
            raise ClusterError(f"{options.tree} has leaves 0 to {tree.size - 1}, and no leaf {index}")
        proof = _proof(tree, index, options.leaf)
    try:
        check_proof(proof)  # also that the text given is the leaf's
        document = proof_document(proof)
        if options.anchor is not None:
            anchor = parse_any(read_document(options.anchor))
            if not isinstance(anchor, Receipt):
                raise ClusterError(f"{options.anchor} is no receipt of an anchor")
            check_match(proof, anchor)
            document = product_document(ProductReceipt(proof, anchor))
    except InvalidReceipt as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=1))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check a proof by itself; whose root it is, is another question (`psephos verify`)."""
    root = None if options.root is None else parse_hash(options.root, "--root")
    try:
        proof = parse_proof(options.proof)
        step = check_proof(proof)
        if root is not None and proof.root != root:
            raise InvalidReceipt("the batch", f"the proof leads to the root {proof.root.hex()}, not to {root.hex()}")
        how = trees.algorithm(proof.algorithm)
        if options.leaf is not None and how.leaf_hash(leaf_of(options.leaf)) != proof.leaf_hash:
            raise InvalidReceipt("the leaf", "the proof is that of another text")
    except InvalidReceipt as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    print(f"✓ {step.words} Its root is {proof.root.hex()}.")
    return 0


def _proof(tree: TreeFile, index: int, leaf: str | None) -> TreeProof:
    how = trees.algorithm(trees.RFC6962)
    parts, leaf_hash = tree.prove(index), tree.node(0, index)
    root = trees.root_of_proof(how, leaf_hash, trees.steps_of(index, tree.size, parts))
    return TreeProof(how.name, leaf, leaf_hash, index, tree.size, tuple(parts), root)


class _Watched:
    """A file's lines, of which the progress bar sees the bytes go by."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self.file = file
        self._progress = progress

    def __iter__(self) -> Iterator[bytes]:
        task, count = self._progress.task_ids[0], 0
        while line := self.file.readline(LINE_BYTES_MAX + 1):
            if len(line) > LINE_BYTES_MAX:
                raise ClusterError(f"a line has more than {LINE_BYTES_MAX} bytes")
            count += 1
            if count % 10_000 == 0:
                self._progress.update(task, completed=self.file.tell())
            yield line


def _leaves(lines: _Watched, kind: str, column: str | None, path: Path) -> Iterator[bytes]:
    """The leaves' data. Raises ClusterError naming the line that cannot be one."""
    if column is not None and kind != "csv":
        raise ClusterError("--column goes with CSV")
    if kind == "json":
        yield from _array(lines, path)
    elif kind == "csv":
        yield from _rows(lines, column, path)
    else:
        for number, line in enumerate(lines, 1):
            text = line.rstrip(b"\r\n")
            if not text:
                raise ClusterError(f"{path}:{number}: an empty line is no leaf")
            try:
                yield text if kind == "lines" else leaf_of(json.loads(text))
            except ValueError as error:
                raise ClusterError(f"{path}:{number}: {error}") from None


def _array(lines: _Watched, path: Path) -> Iterator[bytes]:
    try:
        values = json.load(lines.file)
        if not isinstance(values, list):
            raise ValueError("expected an array; for a value a line, use --format jsonl")
        yield from map(leaf_of, values)
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"{path}: {error}") from None


def _rows(lines: Iterable[bytes], column: str | None, path: Path) -> Iterator[bytes]:
    number = 1
    try:
        rows = csv.DictReader(
            (line.decode("utf-8-sig" if at == 0 else "utf-8") for at, line in enumerate(lines)), strict=True
        )
        if column is not None and column not in (rows.fieldnames or ()):
            raise ClusterError(f"{path} has no column {column!r}; it has {', '.join(rows.fieldnames or ())}")
        for row in rows:
            number = rows.line_num
            if None in row or None in row.values():
                raise ClusterError(f"{path}:{number}: the row does not have as many fields as the header")
            yield leaf_of(row if column is None else row[column])
    except (ValueError, csv.Error) as error:
        raise ClusterError(f"{path}:{number}: {error}") from None


def _progress(total: int) -> Progress:
    """A bar on standard error, where a person looks at it; nothing in a pipe."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("building"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    progress.add_task("building", total=total)
    return progress
