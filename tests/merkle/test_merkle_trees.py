"""Trees of batches: each algorithm against its definition, and the attacks that make two of them unsafe."""

import json
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import log, trees
from merkle.errors import InvalidProof
from merkle.leaves import leaf_of

SAFE = trees.algorithm(trees.RFC6962)
SORTED = trees.algorithm(trees.SORTED_PAIRS)
PIPE = trees.algorithm(trees.HEX_PIPE)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def pipe_root(leaves: list[str]) -> str:
    """As existing factory services build it, in text."""
    level = [digest(leaf) for leaf in leaves]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [digest(f"{level[at]}|{level[at + 1]}") for at in range(0, len(level), 2)]
    return level[0]


def sorted_root(leaves: list[str]) -> str:
    level = [sha256(leaf.encode()).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [sha256(b"".join(sorted(pair))).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0].hex()


def mth(leaves: list[str]) -> str:
    """RFC 6962, 2.1, word for word."""

    def hash_of(entries: list[bytes]) -> bytes:
        if len(entries) == 1:
            return sha256(b"\0" + entries[0]).digest()
        k = 1
        while 2 * k < len(entries):
            k *= 2
        return sha256(b"\1" + hash_of(entries[:k]) + hash_of(entries[k:])).digest()

    return hash_of([leaf.encode() for leaf in leaves]).hex()


ORACLES: dict[str, Callable[[list[str]], str]] = {
    trees.RFC6962: mth,
    trees.SORTED_PAIRS: sorted_root,
    trees.HEX_PIPE: pipe_root,
}


@pytest.mark.parametrize("name", trees.ALGORITHMS)
def test_roots_and_proofs_of_all_small_sizes(name: str) -> None:
    how = trees.algorithm(name)
    for size in range(1, 40):
        leaves = [f"product {number}" for number in range(size)]
        hashes = [how.leaf_hash(leaf.encode()) for leaf in leaves]
        root = trees.root(how, hashes)
        assert root.hex() == ORACLES[name](leaves)
        for index in range(size):
            steps = trees.prove(how, hashes, index)
            trees.verify(how, hashes[index], steps, root)
            for number, step in enumerate(steps):
                changed = [*steps]
                changed[number] = step._replace(hash=bytes(32))
                with pytest.raises(InvalidProof):
                    trees.verify(how, hashes[index], changed, root)
            for wrong in ([*steps, trees.ProofStep(bytes(32), "left")], steps[:-1] if steps else None):
                if wrong is not None:
                    with pytest.raises(InvalidProof):
                        trees.verify(how, hashes[index], wrong, root)


@given(st.integers(1, 300), st.data())
def test_steps_are_those_of_the_log(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    hashes = [log.leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    steps = trees.prove(SAFE, hashes, index)
    parts = [step.hash for step in steps]
    assert trees.steps_of(index, size, parts) == steps
    log.verify_inclusion(index=index, size=size, leaf_hash=hashes[index], proof=parts, root=trees.root(SAFE, hashes))
    for wrong in ([*parts, bytes(32)], parts[:-1]):
        if wrong != parts:
            with pytest.raises(InvalidProof):
                trees.steps_of(index, size, wrong)


def test_unsafe_ones_say_so() -> None:
    assert [how.name for how in trees.ALGORITHMS.values() if how.safe] == [trees.RFC6962]
    assert "CVE-2012-2459" in (PIPE.weakness or "")
    with pytest.raises(ValueError, match="expected one of rfc6962-sha256"):
        trees.algorithm("md5")
    with pytest.raises(ValueError, match="at least one leaf"):
        trees.root(SAFE, [])


def test_cve_2012_2459_repeated_ends() -> None:
    """Two batches with one root, in the tree that repeats its last node, and in no other."""
    three, four = (["a", "b", "c"], ["a", "b", "c", "c"])
    for how in trees.ALGORITHMS.values():
        roots = [trees.root(how, [how.leaf_hash(leaf.encode()) for leaf in leaves]) for leaves in (three, four)]
        assert (roots[0] == roots[1]) == (how is PIPE)


def test_an_interior_node_passed_off_as_a_leaf() -> None:
    """A second preimage: the text of an interior node is a leaf of a smaller tree with the same root."""
    leaves = [b"a", b"b", b"c", b"d"]
    forged: dict[str, list[bytes]] = {}
    for how in (SORTED, PIPE, SAFE):
        hashes = [how.leaf_hash(leaf) for leaf in leaves]
        if how is PIPE:
            forged[how.name] = [f"{hashes[at].hex()}|{hashes[at + 1].hex()}".encode() for at in (0, 2)]
        else:
            pairs = [sorted(hashes[at : at + 2]) if how is SORTED else hashes[at : at + 2] for at in (0, 2)]
            forged[how.name] = [b"".join(pair) for pair in pairs]
        again = trees.root(how, [how.leaf_hash(leaf) for leaf in forged[how.name]])
        assert (again == trees.root(how, hashes)) == (not how.safe)


def test_proofs_of_another_form_are_refused() -> None:
    for steps in ([trees.ProofStep(b"short", "left")], [trees.ProofStep(bytes(32), "left")] * 65):
        with pytest.raises(InvalidProof):
            trees.root_of_proof(SAFE, bytes(32), steps)
    with pytest.raises(InvalidProof):
        trees.root_of_proof(SAFE, bytes(31), [])
    with pytest.raises(InvalidProof):
        trees.steps_of(3, 3, [])


def test_leaves_of_json_values() -> None:
    assert leaf_of("ä\n") == "ä\n".encode()
    assert leaf_of({"b": [1, 2.5, None, True], "a": "ä"}) == '{"a":"ä","b":[1,2.5,null,true]}'.encode()
    assert leaf_of(12) == b"12" == leaf_of("12")
    for value in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(ValueError, match=r"leaf|JSON"):
            leaf_of(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")), st.lists))
def test_a_leaf_can_be_read_back(value: object) -> None:
    if not isinstance(value, str):
        assert json.loads(leaf_of(value)) == value
