"""Ethereum's Merkle-Patricia trie (yellow paper, appendix D): roots of lists, batched updates, reads, proofs.

Nodes live with the caller, who hands in a function from a 32-byte hash to a node's bytes (or None),
and stores what `update` returns. Keys are used as they are; Ethereum's "secure" tries hash them first.
"""

from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TypeAlias, TypeVar

from merkle import rlp
from merkle.errors import InvalidProof
from merkle.keccak import keccak256
from merkle.trienode import (
    DIGITS,
    EMPTY,
    EMPTY_ROOT,
    FULL_BRANCH,
    HASH_REF,
    NIBBLES,
    VALUE,
    Branch,
    Node,
    Short,
    decode,
    seal,
    seal_root,
    string,
)

__all__ = [
    "EMPTY_ROOT",
    "InvalidProof",
    "MissingNode",
    "get",
    "ordered_root",
    "prove",
    "references",
    "update",
    "verify",
]

Nodes: TypeAlias = Callable[[bytes], bytes | None]

_T = TypeVar("_T")
_Entry: TypeAlias = tuple[str, bytes]  # nibble path of the whole key, RLP of the value
_Part: TypeAlias = tuple[str, Node]  # a node and the path to it


class MissingNode(RuntimeError):
    """The caller's store lacks a node that the trie refers to: its data are damaged, or the root was never stored."""

    def __init__(self, node_hash: bytes) -> None:
        super().__init__(f"trie node 0x{node_hash.hex()} is not stored")
        self.node_hash = node_hash


def ordered_root(values: Sequence[bytes]) -> bytes:
    """The root of a list: keys are rlp(index). Ethereum's transactions and receipts roots.

    Raises ValueError on an empty value.
    """
    if not all(values):
        raise ValueError(f"value {values.index(b'')} of the list is empty, and a trie holds no empty values")
    if not values:
        return EMPTY_ROOT
    # Sixteen keys that differ in their last digit alone make a branch, so that paths matter above those branches only.
    parts: list[_Part] = [(_index_path(0), Short("", True, rlp.encode(values[0])))]
    for begin in range(0, len(values), 16):
        first = begin or 1  # rlp(0) is 0x80, far from the others
        refs = list(map(_leaf_ref, values[first : begin + 16]))
        if len(refs) == 1:
            parts.append((_index_path(first), Short("", True, rlp.encode(values[first]))))
        elif refs:
            branch = [EMPTY] * (first - begin) + refs
            parts.append((_index_path(first)[:-1], branch + [EMPTY] * (17 - len(branch))))
    return seal_root(_join(sorted(parts, key=itemgetter(0)), 0), None)


def update(nodes: Nodes, root: bytes, changes: Mapping[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """Set every key of `changes` in the trie under `root`; an empty value deletes the key, present or not.

    One pass for the whole batch. Returns the new root and the nodes by hash that it needs beyond those of `root`
    (all of them reachable from the new root). Raises MissingNode.
    """
    if not changes:
        return root, {}
    batch = _Batch(nodes)
    entries = sorted((key.hex(), rlp.encode(value)) for key, value in changes.items())
    top = batch.load(EMPTY if root == EMPTY_ROOT else HASH_REF + root)
    new_root = seal_root(batch.apply(top, entries, 0), batch.sink)
    return new_root, batch.sink


def get(nodes: Nodes, root: bytes, key: bytes) -> bytes | None:
    """The value of `key` in the trie under `root`, or None. Raises MissingNode."""

    def fetch(node_hash: bytes) -> bytes:
        data = nodes(node_hash)
        if data is None:
            raise MissingNode(node_hash)
        return data

    return _walk(fetch, root, key)


def prove(nodes: Nodes, root: bytes, key: bytes) -> list[bytes]:
    """The nodes from the root towards `key`, as in `eth_getProof`: a proof of its value, or of its absence.

    Nodes shorter than 32 bytes stand inside their parents; the proof in an empty trie is empty. Raises MissingNode.
    """
    proof: list[bytes] = []

    def fetch(node_hash: bytes) -> bytes:
        data = nodes(node_hash)
        if data is None:
            raise MissingNode(node_hash)
        proof.append(data)
        return data

    _walk(fetch, root, key)
    return proof


def references(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Of a node's bytes, and of the nodes that stand inside it: the hashes of the nodes they refer to, and the values.

    Raises rlp.RlpError when it is no node.
    """
    hashes: list[bytes] = []
    values: list[bytes] = []
    waiting = [data]
    while waiting:
        node = decode(waiting.pop())
        if isinstance(node, Short) and node.is_leaf:
            values.append(string(node.payload))
            continue
        refs = [node.payload] if isinstance(node, Short) else node[:VALUE]
        if isinstance(node, list) and node[VALUE] != EMPTY:
            values.append(string(node[VALUE]))
        for ref in refs:
            if ref[0] == HASH_REF[0]:
                hashes.append(ref[1:])
            elif ref != EMPTY:
                waiting.append(ref)
    return hashes, values


def verify(root: bytes, key: bytes, proof: Sequence[bytes]) -> bytes | None:
    """The value that `proof` shows `key` to have under `root`, or None where it shows that there is none.

    Raises InvalidProof when it shows neither, or holds a node that is not on the way.
    """
    used = 0

    def fetch(node_hash: bytes) -> bytes:
        nonlocal used
        if used == len(proof):
            raise InvalidProof(f"the proof ends before node 0x{node_hash.hex()}")
        data = proof[used]
        if keccak256(data) != node_hash:
            raise InvalidProof(f"node {used} of the proof does not have the hash 0x{node_hash.hex()}")
        used += 1
        return data

    try:
        value = _walk(fetch, root, key)
    except rlp.RlpError as error:
        raise InvalidProof(f"node {used - 1} of the proof is malformed: {error}") from None
    if used != len(proof):
        raise InvalidProof(f"the proof has {len(proof)} nodes, and {used} lead to the key")
    return value


def _index_path(index: int) -> str:
    return rlp.encode(rlp.encode_int(index)).hex()


def _leaf_ref(value: bytes) -> bytes:
    """The ref of a leaf whose path ends above it."""
    if len(value) < 32:
        return seal(Short("", True, rlp.encode(value)), None)
    return HASH_REF + keccak256(_leaf_head(len(value)) + value)


@lru_cache(maxsize=1024)
def _leaf_head(length: int) -> bytes:
    """What stands before a value of so many bytes in the encoding of such a leaf."""
    return rlp.encode_list((b"\x20", rlp.encode(bytes(length))))[:-length]


def _walk(fetch: Callable[[bytes], bytes], root: bytes, key: bytes) -> bytes | None:
    path = key.hex()
    at = 0
    ref = EMPTY if root == EMPTY_ROOT else HASH_REF + root
    while ref != EMPTY:
        data = fetch(ref[1:]) if ref[0] == 0xA0 else ref
        if data[3::33] == FULL_BRANCH and at < len(path):  # no need to cut the whole node into pieces
            begin = 3 + 33 * NIBBLES[path[at]]
            ref = data[begin : begin + 33]
            at += 1
            continue
        node = decode(data)
        if isinstance(node, list):
            if at == len(path):
                return string(node[VALUE]) or None
            ref = node[NIBBLES[path[at]]]
            at += 1
            continue
        if not path.startswith(node.path, at):
            return None
        at += len(node.path)
        if node.is_leaf:
            return string(node.payload) if at == len(path) else None
        ref = node.payload
    return None


def _common(first: str, second: str, start: int) -> int:
    """Where two paths that agree up to `start` part."""
    end = min(len(first), len(second))
    while start < end and first[start] == second[start]:
        start += 1
    return start


def _groups(entries: list[tuple[str, _T]], depth: int) -> Iterator[tuple[int, list[tuple[str, _T]]]]:
    """Sorted entries by their nibble at `depth`; VALUE for the one that ends there."""
    start = 0
    if len(entries[0][0]) == depth:
        yield VALUE, entries[:1]
        start = 1
    digits = "".join([path[depth] for path, _ in entries[start:]]) if start else "".join([p[depth] for p, _ in entries])
    for digit in dict.fromkeys(digits):
        stop = start + digits.count(digit)
        yield NIBBLES[digit], entries[start:stop]
        start = stop


def _build(entries: list[_Entry], depth: int, sink: dict[bytes, bytes] | None) -> Node:
    """The trie of sorted entries with distinct keys that agree up to `depth`; all below the top is sealed."""
    if len(entries) == 1:
        path, value = entries[0]
        return Short(path[depth:], True, value)
    first = entries[0][0]
    fork = _common(first, entries[-1][0], depth)
    branch: Branch = [EMPTY] * 17
    below = fork + 1
    for index, group in _groups(entries, fork):
        if index == VALUE:
            branch[VALUE] = group[0][1]
        elif len(group) == 1:
            path, value = group[0]
            branch[index] = seal(Short(path[below:], True, value), sink)
        else:
            branch[index] = seal(_build(group, below, sink), sink)
    if fork == depth:
        return branch
    return Short(first[depth:fork], False, seal(branch, sink))


def _join(parts: list[_Part], depth: int) -> Node:
    """The trie over nodes at sorted paths that agree up to `depth`, none of them ahead of another."""
    path, node = parts[0]
    if len(parts) == 1:
        return _behind(path[depth:], node, None)
    fork = _common(path, parts[-1][0], depth)
    branch: Branch = [EMPTY] * 17
    for index, group in _groups(parts, fork):
        branch[index] = seal(_join(group, fork + 1), None)
    return _behind(path[depth:fork], branch, None)


def _behind(path: str, node: Node, sink: dict[bytes, bytes] | None) -> Node:
    """`node` moved down behind `path`."""
    if not path:
        return node
    if isinstance(node, list):
        return Short(path, False, seal(node, sink))
    return Short(path + node.path, node.is_leaf, node.payload)


class _Batch:
    """One pass of changes over a trie. A node is sealed only once its parent's shape is known, so that no node
    which a collapsing branch swallows gets into the sink."""

    __slots__ = ("nodes", "sink")

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.sink: dict[bytes, bytes] = {}

    def load(self, child: bytes | Node) -> Node | None:
        """The node behind a ref; a node that is not sealed yet is itself."""
        if not isinstance(child, bytes):
            return child
        if child == EMPTY:
            return None
        if child[0] != 0xA0:
            return decode(child)
        data = self.nodes(child[1:])
        if data is None:
            raise MissingNode(child[1:])
        return decode(data)

    def apply(self, node: Node | None, entries: list[_Entry], depth: int) -> Node | None:
        """What becomes of `node`, `depth` nibbles down, under these sorted changes; at least one."""
        if node is None:
            kept = [entry for entry in entries if entry[1] != EMPTY]
            return _build(kept, depth, self.sink) if kept else None
        if isinstance(node, list):
            return self._branch(list(node), entries, depth)
        path = node.path
        if node.is_leaf:
            key = entries[0][0][:depth] + path
            if len(entries) == 1 and entries[0][0] == key:  # by far the most common change
                return None if entries[0][1] == EMPTY else Short(path, True, entries[0][1])
            if all(entry[0] != key for entry in entries):
                entries = entries.copy()
                insort(entries, (key, node.payload))
            return self.apply(None, entries, depth)
        # An extension stays whole when every change lies below it; otherwise a branch takes its place at the fork.
        whole = entries[0][0][:depth] + path
        fork = min(_common(whole, entries[0][0], depth), _common(whole, entries[-1][0], depth))
        if fork == len(whole):
            return self._extend(path, self.apply(self.load(node.payload), entries, fork))
        children: list[bytes | Node] = [EMPTY] * 17
        below = whole[fork + 1 :]
        children[NIBBLES[whole[fork]]] = Short(below, False, node.payload) if below else node.payload
        return self._extend(whole[depth:fork], self._branch(children, entries, fork))

    def _branch(self, children: list[bytes | Node], entries: list[_Entry], depth: int) -> Node | None:
        """What becomes of a branch with these children; the list is used up."""
        for index, group in _groups(entries, depth):
            if index == VALUE:
                children[VALUE] = group[0][1]
            else:
                child = self.apply(self.load(children[index]), group, depth + 1)
                children[index] = EMPTY if child is None else child
        empty = children.count(EMPTY)
        if empty < 16:
            return [child if isinstance(child, bytes) else seal(child, self.sink) for child in children]
        if empty == 17:
            return None
        index, only = next((index, child) for index, child in enumerate(children) if child != EMPTY)
        if index == VALUE:
            assert isinstance(only, bytes)  # a value is never a node
            return Short("", True, only)
        return self._extend(DIGITS[index], self.load(only))

    def _extend(self, path: str, node: Node | None) -> Node | None:
        return None if node is None else _behind(path, node, self.sink)
