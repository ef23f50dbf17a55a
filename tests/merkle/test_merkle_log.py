"""RFC 6962 logs against the RFC's recursive definition, published roots, and mutated proofs."""

from collections.abc import Callable, Iterable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import InvalidProof, log

# Leaves and roots of certificate-transparency's own tests (merkle_tree_test in google/certificate-transparency).
KNOWN_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LEAVES = [log.leaf_hash(b"leaf %d" % index) for index in range(300)]

Subtree = Callable[[int, int], bytes]


def merkle_tree_hash(subtree_of_one: Callable[[int], bytes], begin: int, end: int) -> bytes:
    """MTH of RFC 6962, section 2.1, over leaves begin to end: slow, and plainly right."""
    if begin == end:
        return log.EMPTY_ROOT
    if end - begin == 1:
        return subtree_of_one(begin)
    middle = 1
    while middle * 2 < end - begin:
        middle *= 2
    left = merkle_tree_hash(subtree_of_one, begin, begin + middle)
    return log.node_hash(left, merkle_tree_hash(subtree_of_one, begin + middle, end))


@cache
def known_root(size: int) -> bytes:
    return merkle_tree_hash(LEAVES.__getitem__, 0, size)


def nodes_of(rows: Iterable[log.StoredRow]) -> list[log.StoredNode]:
    return [(level, index, digest) for level, first, row in rows for index, digest in enumerate(row, first)]


@pytest.fixture(scope="module")
def stored() -> dict[tuple[int, int], bytes]:
    """What a ledger would have stored of LEAVES."""
    rows = [(0, 0, LEAVES), *log.Frontier().extend(LEAVES)]
    return {(level, index): digest for level, index, digest in nodes_of(rows)}


def reader(stored: dict[tuple[int, int], bytes]) -> log.GetNode:
    return lambda level, index: stored[level, index]


def test_published_roots() -> None:
    hashes = [log.leaf_hash(leaf) for leaf in KNOWN_LEAVES]
    for size, expected in enumerate(KNOWN_ROOTS):
        assert log.root(hashes[:size]).hex() == expected


def test_published_inclusion_proof() -> None:
    proof = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    log.verify_inclusion(
        index=0,
        size=8,
        leaf_hash=log.leaf_hash(b""),
        proof=[bytes.fromhex(digest) for digest in proof],
        root=bytes.fromhex(KNOWN_ROOTS[8]),
    )


def test_append_agrees_with_the_definition_at_every_size(stored: dict[tuple[int, int], bytes]) -> None:
    frontier = log.Frontier()
    nodes = {(0, index): digest for index, digest in enumerate(LEAVES)}
    for size, digest in enumerate(LEAVES, 1):
        nodes |= {(level, index): node for level, index, node in frontier.append(digest)}
        assert frontier.size == size
        assert frontier.root() == known_root(size)
        assert log.Frontier.decode(frontier.encode()).encode() == frontier.encode()
    assert nodes == stored


@given(st.lists(st.integers(0, 70), max_size=6))
def test_extend_is_many_appends(counts: list[int]) -> None:
    one_by_one, at_once = log.Frontier(), log.Frontier()
    start = 0
    for count in counts:
        leaves = (LEAVES * 2)[start : start + count]
        start += count
        appended = [node for digest in leaves for node in one_by_one.append(digest)]
        assert sorted(nodes_of(at_once.extend(iter(leaves)))) == sorted(appended)
        assert at_once.encode() == one_by_one.encode()


def test_every_interior_node_is_yielded_once() -> None:
    nodes = nodes_of(log.Frontier().extend(LEAVES))
    expected = {(level, index) for level in range(1, 9) for index in range(len(LEAVES) >> level)}
    assert len(nodes) == len(expected)
    assert {(level, index) for level, index, _ in nodes} == expected
    for level, index, digest in nodes:
        assert digest == merkle_tree_hash(LEAVES.__getitem__, index << level, (index + 1) << level)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(8) + bytes(32),  # a peak too many
        (3).to_bytes(8, "big") + bytes(32),  # one too few
        (1).to_bytes(8, "big") + bytes(31),  # a short one
        (2).to_bytes(8, "big") + bytes(33),
    ],
)
def test_a_malformed_frontier_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"peak|bytes"):
        log.Frontier.decode(data)


def test_all_proofs_of_all_small_sizes(stored: dict[tuple[int, int], bytes]) -> None:
    get_node = reader(stored)
    for size in range(1, 66):
        root = known_root(size)
        for index in range(size):
            proof = log.inclusion_proof(index, size, get_node)
            log.verify_inclusion(index=index, size=size, leaf_hash=LEAVES[index], proof=proof, root=root)
        for old in range(size + 1):
            proof = log.consistency_proof(old, size, get_node)
            log.verify_consistency(old_size=old, new_size=size, proof=proof, old_root=known_root(old), new_root=root)


@given(st.data())
def test_a_wrong_leaf_or_index_or_mutated_inclusion_proof_fails(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    nodes = {(level, at): digest for level, at, digest in nodes_of(log.Frontier().extend(LEAVES))}
    nodes |= {(0, at): digest for at, digest in enumerate(LEAVES)}
    proof = log.inclusion_proof(index, size, reader(nodes))
    root = known_root(size)

    def refused(index: int, leaf: bytes, proof: list[bytes], root: bytes) -> None:
        with pytest.raises(InvalidProof):
            log.verify_inclusion(index=index, size=size, leaf_hash=leaf, proof=proof, root=root)

    refused(data.draw(st.integers(-2, size + 2).filter(lambda other: other != index)), LEAVES[index], proof, root)
    refused(index, flip(data, LEAVES[index]), proof, root)
    refused(index, LEAVES[index], proof, flip(data, root))
    refused(index, LEAVES[index], mutate(data, proof), root)


@given(st.data())
def test_a_wrong_root_or_mutated_consistency_proof_fails(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, len(LEAVES)))
    old = data.draw(st.integers(0, new))
    nodes = {(level, at): digest for level, at, digest in nodes_of(log.Frontier().extend(LEAVES))}
    nodes |= {(0, at): digest for at, digest in enumerate(LEAVES)}
    proof = log.consistency_proof(old, new, reader(nodes))

    def refused(old_root: bytes, new_root: bytes, proof: list[bytes], old: int = old) -> None:
        with pytest.raises(InvalidProof):
            log.verify_consistency(old_size=old, new_size=new, proof=proof, old_root=old_root, new_root=new_root)

    refused(flip(data, known_root(old)), known_root(new), proof)
    if old:  # every log begins with the empty one, so nothing can be said about the new root
        refused(known_root(old), flip(data, known_root(new)), proof)
    refused(known_root(old), known_root(new), mutate(data, proof))
    refused(known_root(old), known_root(new), proof, data.draw(st.integers(-1, new + 1).filter(lambda o: o != old)))


def flip(data: st.DataObject, digest: bytes) -> bytes:
    """`digest` with one bit changed."""
    bit = data.draw(st.integers(0, len(digest) * 8 - 1))
    changed = bytearray(digest)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def mutate(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """Another proof than `proof`."""
    extra = data.draw(st.integers(0, len(proof)))
    longer = [*proof[:extra], LEAVES[-1], *proof[extra:]]
    if not proof:
        return longer
    at = data.draw(st.integers(0, len(proof) - 1))
    flipped = [*proof[:at], flip(data, proof[at]), *proof[at + 1 :]]
    shorter = proof[:at] + proof[at + 1 :]
    cut = [*proof[:at], proof[at][:-1], *proof[at + 1 :]]
    choices = [longer, flipped, shorter, cut]
    if proof != proof[::-1]:
        choices.append(proof[::-1])
    return data.draw(st.sampled_from(choices))


@given(st.data())
def test_proofs_in_huge_logs_read_few_nodes(data: st.DataObject) -> None:
    """Up to 2^40 leaves, of which those before `border` are all alike, and those after it, too."""
    new = data.draw(st.integers(1, 1 << 40))
    old = data.draw(st.integers(0, new))
    index = data.draw(st.integers(0, new - 1))
    border = data.draw(st.sampled_from([0, old, new, index, index + 1]) | st.integers(0, new))
    kinds = (log.leaf_hash(b"before"), log.leaf_hash(b"after"))

    @cache
    def alike(kind: int, size: int) -> bytes:
        if size == 1:
            return kinds[kind]
        middle = 1 << ((size - 1).bit_length() - 1)
        return log.node_hash(alike(kind, middle), alike(kind, size - middle))

    def tree(begin: int, end: int) -> bytes:
        if begin == end:
            return log.EMPTY_ROOT
        if end <= border or begin >= border:
            return alike(int(begin >= border), end - begin)
        middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
        return log.node_hash(tree(begin, middle), tree(middle, end))

    reads = 0

    def get_node(level: int, at: int) -> bytes:
        nonlocal reads
        reads += 1
        assert (at + 1) << level <= new, "an incomplete subtree is not stored"
        return tree(at << level, (at + 1) << level)

    root = tree(0, new)
    proof = log.inclusion_proof(index, new, get_node)
    log.verify_inclusion(index=index, size=new, leaf_hash=tree(index, index + 1), proof=proof, root=root)
    proof = log.consistency_proof(old, new, get_node)
    log.verify_consistency(old_size=old, new_size=new, proof=proof, old_root=tree(0, old), new_root=root)
    assert reads <= 4 * 41


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (7, 5)])
def test_no_inclusion_proof_outside_the_log(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        log.inclusion_proof(index, size, lambda level, at: LEAVES[0])
    with pytest.raises(InvalidProof, match="has no leaf"):
        log.root_from_inclusion_proof(index=index, size=size, leaf_hash=LEAVES[0], proof=[])


def test_no_consistency_proof_backwards() -> None:
    with pytest.raises(ValueError, match="never one of"):
        log.consistency_proof(6, 5, lambda level, at: LEAVES[0])


def test_a_repeated_last_leaf_changes_the_root() -> None:
    """CVE-2012-2459: Bitcoin's tree, which pairs an odd last node with itself, gives both lists one root."""
    for size in (1, 3, 5, 6, 7):
        assert log.root(LEAVES[:size]) != log.root([*LEAVES[:size], LEAVES[size - 1]])
        assert log.root(LEAVES[:size]) != log.root(LEAVES[:size] + LEAVES[size - size % 4 : size])


def test_an_interior_node_is_no_leaf() -> None:
    """Second preimage: the bytes under an interior node, offered as a leaf of a smaller log, hash differently."""
    left, right = LEAVES[:2]
    forged = log.leaf_hash(left + right)
    with pytest.raises(InvalidProof):
        log.verify_inclusion(index=0, size=2, leaf_hash=forged, proof=[log.node_hash(*LEAVES[2:4])], root=known_root(4))


def test_hashes_cannot_trade_bytes_with_their_neighbours(stored: dict[tuple[int, int], bytes]) -> None:
    """A byte moved from the sibling to the leaf leaves what is hashed the same."""
    proof = log.inclusion_proof(0, 5, reader(stored))
    moved = [proof[0][1:], *proof[1:]]
    with pytest.raises(InvalidProof, match="32 bytes"):
        log.verify_inclusion(index=0, size=5, leaf_hash=LEAVES[0] + proof[0][:1], proof=moved, root=known_root(5))
    proof = log.consistency_proof(3, 5, reader(stored))
    moved = [proof[0] + proof[1][:1], proof[1][1:], *proof[2:]]
    with pytest.raises(InvalidProof, match="32 bytes"):
        log.verify_consistency(old_size=3, new_size=5, proof=moved, old_root=known_root(3), new_root=known_root(5))
