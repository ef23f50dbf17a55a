"""Merkle trees of batches, by the name of their algorithm, pure: roots and proofs, and what is unsafe about which.

`rfc6962-sha256` is the tree of RFC 6962 and 9162, and the only one that new batches are built with. The other two are
what existing services have built; they are known here so that their old roots can still be checked.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, NamedTuple

from merkle import log
from merkle.errors import InvalidProof

RFC6962 = "rfc6962-sha256"
SORTED_PAIRS = "sha256-sorted-pairs"
HEX_PIPE = "sha256-hex-pipe"

HASH_BYTES = 32
STEPS_MAX = 64

Position = Literal["left", "right"]


class ProofStep(NamedTuple):
    """A sibling on the way from a leaf to the root, and on which side of the path it stands."""

    hash: bytes
    position: Position


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to make a tree. `weakness` says why it is unsafe; None where it is not."""

    name: str
    leaf_hash: Callable[[bytes], bytes]
    node_hash: Callable[[bytes, bytes], bytes]
    weakness: str | None
    lone: Literal["promoted", "repeated"]  # what becomes of a level's last node that has no partner

    @property
    def safe(self) -> bool:
        return self.weakness is None


def _plain_leaf(data: bytes) -> bytes:
    return sha256(data).digest()


def _sorted_pair(left: bytes, right: bytes) -> bytes:
    return sha256(left + right if left <= right else right + left).digest()


def _hex_pipe(left: bytes, right: bytes) -> bytes:
    return sha256(f"{left.hex()}|{right.hex()}".encode()).digest()


ALGORITHMS = {
    one.name: one
    for one in (
        Algorithm(RFC6962, log.leaf_hash, log.node_hash, None, "promoted"),
        Algorithm(
            SORTED_PAIRS,
            _plain_leaf,
            _sorted_pair,
            "an interior node can be passed off as a leaf, since both are hashed alike, and a proof does not show the "
            "place of its leaf",
            "promoted",
        ),
        Algorithm(
            HEX_PIPE,
            _plain_leaf,
            _hex_pipe,
            "batches that differ in a repeated end have the same root (CVE-2012-2459), and an interior node can be "
            "passed off as a leaf, since both are hashed alike",
            "repeated",
        ),
    )
}


def algorithm(name: str) -> Algorithm:
    """The algorithm of this name. Raises ValueError naming those that there are."""
    found = ALGORITHMS.get(name)
    if found is None:
        raise ValueError(f"algorithm {name[:64]!r} is unknown; expected one of {', '.join(ALGORITHMS)}")
    return found


def root(how: Algorithm, leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes, in their order. Raises ValueError when there are none."""
    level = list(leaf_hashes)
    if not level:
        raise ValueError("a tree has at least one leaf")
    if how.name == RFC6962:
        return log.root(level)
    while len(level) > 1:
        level = _above(how, level)
    return level[0]


def prove(how: Algorithm, leaf_hashes: Sequence[bytes], index: int) -> list[ProofStep]:
    """The steps from leaf `index` to the root, the leaf's sibling first. Raises ValueError where there is none."""
    level = list(leaf_hashes)
    if not 0 <= index < len(level):
        raise ValueError(f"a tree of {len(level)} leaves has no leaf {index}")
    steps = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            steps.append(ProofStep(level[sibling], "left" if index & 1 else "right"))
        elif how.lone == "repeated":
            steps.append(ProofStep(level[index], "right"))
        level = _above(how, level)
        index >>= 1
    return steps


def steps_of(index: int, size: int, hashes: Sequence[bytes]) -> list[ProofStep]:
    """The steps of an RFC 9162 inclusion proof, which leaves the sides to index and size.

    Raises InvalidProof when a proof for this index and size has another length.
    """
    if not 0 <= index < size:
        raise InvalidProof(f"a tree of {size} leaves has no leaf {index}")
    steps: list[ProofStep] = []
    last = size - 1
    rest = iter(hashes)
    while last:
        if index & 1 or index < last:
            sibling = next(rest, None)
            if sibling is None:
                raise InvalidProof(f"a proof of this leaf in a tree of {size} has more than {len(hashes)} hashes")
            steps.append(ProofStep(sibling, "left" if index & 1 else "right"))
        index >>= 1
        last >>= 1
    if next(rest, None) is not None:
        raise InvalidProof(f"a proof of this leaf in a tree of {size} has {len(steps)} hashes, not {len(hashes)}")
    return steps


def root_of_proof(how: Algorithm, leaf_hash: bytes, steps: Sequence[ProofStep]) -> bytes:
    """The root that the tree must have if the steps are right. Raises InvalidProof on hashes of other lengths."""
    if len(steps) > STEPS_MAX:
        raise InvalidProof(f"a proof has at most {STEPS_MAX} steps, not {len(steps)}")
    digest = leaf_hash
    for number, step in enumerate((ProofStep(leaf_hash, "left"), *steps)):
        if len(step.hash) != HASH_BYTES:
            raise InvalidProof(f"hash {number} of the proof has {HASH_BYTES} bytes, not {len(step.hash)}")
    for step in steps:
        pair = (step.hash, digest) if step.position == "left" else (digest, step.hash)
        digest = how.node_hash(*pair)
    return digest


def verify(how: Algorithm, leaf_hash: bytes, steps: Sequence[ProofStep], expected_root: bytes) -> None:
    """Check that the steps lead from the leaf to the root. Raises InvalidProof."""
    found = root_of_proof(how, leaf_hash, steps)
    if found != expected_root:
        raise InvalidProof(f"the proof leads to the root {found.hex()}, not to {expected_root.hex()}")


def _above(how: Algorithm, level: list[bytes]) -> list[bytes]:
    node_hash = how.node_hash
    above = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
    if len(level) & 1:
        above.append(level[-1] if how.lone == "promoted" else node_hash(level[-1], level[-1]))
    return above
