"""RFC 6962 logs (RFC 9162, section 2.1): hashing, a compact frontier, and proofs that a log holds a leaf and only grew.

A log of any size is made of complete subtrees. `(level, index)` names the one over the 2^level leaves that begin
at leaf index × 2^level; level 0 are the leaf hashes. A complete subtree never changes, so what is stored of it
serves every later size, and every past one. What builds proofs reads stored nodes; what verifies them reads nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TypeAlias

from merkle.errors import InvalidProof

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "InvalidProof",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root",
    "root_from_inclusion_proof",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = sha256().digest()
HASH_BYTES = 32
SIZE_BYTES = 8

GetNode: TypeAlias = Callable[[int, int], bytes]  # (level, index) → hash
StoredNode: TypeAlias = tuple[int, int, bytes]  # level, index, hash
StoredRow: TypeAlias = tuple[int, int, list[bytes]]  # level, index of the first, hashes of neighbours


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte hash of a leaf: SHA-256(0x00 ‖ data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of an interior node: SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root of a log with these leaf hashes, in order."""
    frontier = Frontier()
    frontier.extend(leaf_hashes)
    return frontier.root()


class Frontier:
    """All that appending to a log needs: its size, and the hashes of the complete subtrees that make it up.

    `peaks` has the largest subtree first: one for each 1 in the binary form of `size`.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """Raises ValueError when the peaks cannot be those of a log of `size` leaves."""
        self.size = size
        self.peaks = list(peaks)
        if size < 0 or len(self.peaks) != size.bit_count():
            raise ValueError(f"a log of {size} leaves cannot have {len(self.peaks)} peaks")
        if not all(len(peak) == HASH_BYTES for peak in self.peaks):
            raise ValueError(f"a peak is a hash of {HASH_BYTES} bytes")

    def append(self, leaf_hash: bytes) -> list[StoredNode]:
        """Add a leaf by its hash. Returns the interior nodes that it completes, to be stored."""
        completed = []
        index = self.size
        level = 0
        digest = leaf_hash
        while index & 1:  # a complete left neighbour waits at this level
            digest = node_hash(self.peaks.pop(), digest)
            index >>= 1
            level += 1
            completed.append((level, index, digest))
        self.peaks.append(digest)
        self.size += 1
        return completed

    def extend(self, leaf_hashes: Iterable[bytes]) -> list[StoredRow]:
        """Add many leaves; the same as one `append` after another, but faster. Interior nodes come as a row a level."""
        hashes = list(leaf_hashes)
        completed: list[StoredRow] = []
        peaks = self.peaks
        below: list[bytes] = []  # the peaks left behind, smallest first
        index = self.size  # of hashes[0], at its level
        self.size += len(hashes)
        level = 0
        while hashes:
            if index & 1:  # the pairs of this level begin one earlier, with a peak
                hashes.insert(0, peaks.pop())
            if len(hashes) & 1:
                below.append(hashes.pop())
            level += 1
            index >>= 1
            pairs = zip(hashes[::2], hashes[1::2], strict=True)
            hashes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
            if hashes:
                completed.append((level, index, hashes.copy()))
        peaks += reversed(below)
        return completed

    def root(self) -> bytes:
        """The log's root at this size, 32 bytes."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT

    def encode(self) -> bytes:
        """The size as eight big-endian bytes, then the peaks."""
        return self.size.to_bytes(SIZE_BYTES, "big") + b"".join(self.peaks)

    @classmethod
    def decode(cls, data: bytes) -> "Frontier":
        """What `encode` wrote. Raises ValueError on anything else."""
        if len(data) < SIZE_BYTES:
            raise ValueError(f"an encoded frontier has at least {SIZE_BYTES} bytes, not {len(data)}")
        starts = range(SIZE_BYTES, len(data), HASH_BYTES)
        return cls(int.from_bytes(data[:SIZE_BYTES], "big"), [data[at : at + HASH_BYTES] for at in starts])


def inclusion_proof(index: int, size: int, get_node: GetNode) -> list[bytes]:
    """The proof that leaf `index` is in the log of the first `size` leaves (RFC 9162, 2.1.3.1), leaf's sibling first.

    Reads at most two stored nodes for each level. Raises ValueError unless 0 ≤ index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a log of {size} leaves has no leaf {index}")
    proof = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_subtree(middle, end, get_node))
            end = middle
        else:
            proof.append(_subtree(begin, middle, get_node))
            begin = middle
    proof.reverse()
    return proof


def consistency_proof(old_size: int, new_size: int, get_node: GetNode) -> list[bytes]:
    """The proof that the log of `new_size` leaves begins with the one of `old_size` (RFC 9162, 2.1.4.1).

    It is empty where `old_size` is 0 or `new_size`. Reads at most two stored nodes for each level.
    Raises ValueError unless 0 ≤ old_size ≤ new_size.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a log of {new_size} leaves was never one of {old_size}")
    if old_size == 0:
        return []
    proof = []
    begin, end = 0, new_size
    while end != old_size:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            proof.append(_subtree(middle, end, get_node))
            end = middle
        else:
            proof.append(_subtree(begin, middle, get_node))
            begin = middle
    if begin:  # else the old log is itself a complete subtree, whose hash the verifier has: the old root
        proof.append(_subtree(begin, end, get_node))
    proof.reverse()
    return proof


def verify_inclusion(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf is number `index` of the log with this size and root. Raises InvalidProof."""
    if root_from_inclusion_proof(index=index, size=size, leaf_hash=leaf_hash, proof=proof) != root:
        raise InvalidProof(f"the proof of leaf {index} leads to another root than 0x{root.hex()}")


def root_from_inclusion_proof(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that the log must have if the proof is right. Raises InvalidProof when no log gives such a proof."""
    if not 0 <= index < size:
        raise InvalidProof(f"a log of {size} leaves has no leaf {index}")
    _check_hashes("the leaf hash", [leaf_hash])
    _check_hashes("the inclusion proof", proof)
    # Up to the level `inner` the path may turn either way; above it, it runs along the log's right border.
    inner = (index ^ (size - 1)).bit_length()
    length = inner + (index >> inner).bit_count()
    if len(proof) != length:
        raise InvalidProof(f"the proof of leaf {index} of {size} has {length} hashes, not {len(proof)}")
    return _climb_border(_climb(leaf_hash, proof[:inner], index), proof[inner:])


def verify_consistency(
    *, old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the log with the new size and root begins with the log of the old ones. Raises InvalidProof."""
    if not 0 <= old_size <= new_size:
        raise InvalidProof(f"a log of {new_size} leaves was never one of {old_size}")
    _check_hashes("the consistency proof", proof)
    if old_size in (0, new_size):
        if proof:
            raise InvalidProof(f"the proof from {old_size} to {new_size} leaves is empty, not {len(proof)} hashes")
        if old_root != (new_root if old_size else EMPTY_ROOT):
            raise InvalidProof(f"0x{old_root.hex()} is not the root of the log of {old_size} leaves")
        if new_size == 0 and new_root != EMPTY_ROOT:
            raise InvalidProof(f"0x{new_root.hex()} is not the root of the empty log")
        return
    # The path climbs from the last complete subtree of the old log; where that is all of it, its hash is the old root.
    shift = (old_size & -old_size).bit_length() - 1
    path = (old_size - 1) >> shift
    inner = (path ^ ((new_size - 1) >> shift)).bit_length()
    seeded = path == 0
    length = (not seeded) + inner + (path >> inner).bit_count()
    if len(proof) != length:
        raise InvalidProof(f"the proof from {old_size} to {new_size} leaves has {length} hashes, not {len(proof)}")
    seed, rest = (old_root, proof) if seeded else (proof[0], proof[1:])
    left_only = [sibling for level, sibling in enumerate(rest[:inner]) if path >> level & 1]
    if _climb_border(_climb_border(seed, left_only), rest[inner:]) != old_root:
        raise InvalidProof(f"the proof does not lead to the old root 0x{old_root.hex()}")
    if _climb_border(_climb(seed, rest[:inner], path), rest[inner:]) != new_root:
        raise InvalidProof(f"the proof does not lead to the new root 0x{new_root.hex()}")


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _fold(peaks: Sequence[bytes]) -> bytes:
    digest = peaks[-1]
    for peak in reversed(peaks[:-1]):
        digest = node_hash(peak, digest)
    return digest


def _subtree(begin: int, end: int, get_node: GetNode) -> bytes:
    """The hash over the leaves from `begin` to `end`, where `begin` is a multiple of a power of two ≥ their number."""
    peaks = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        peaks.append(get_node(level, begin >> level))
        begin += 1 << level
    return _fold(peaks)


def _climb(digest: bytes, siblings: Sequence[bytes], path: int) -> bytes:
    for level, sibling in enumerate(siblings):
        digest = node_hash(sibling, digest) if path >> level & 1 else node_hash(digest, sibling)
    return digest


def _climb_border(digest: bytes, siblings: Sequence[bytes]) -> bytes:
    for sibling in siblings:
        digest = node_hash(sibling, digest)
    return digest


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    for position, digest in enumerate(hashes):
        if len(digest) != HASH_BYTES:
            raise InvalidProof(f"hash {position} of {what} has {HASH_BYTES} bytes, not {len(digest)}")
