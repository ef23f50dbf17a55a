"""The nodes of Ethereum's Merkle-Patricia trie and their encoding (yellow paper, appendix D).

Inside this package a nibble path is a string of hex digits: slicing, comparing and packing it are
then done by C code. A child is kept as it stands in its parent's encoding, `ref`: the RLP of a
32-byte hash, or of the node itself where that takes less than 32 bytes, or of the empty string.
"""

from typing import NamedTuple, TypeAlias

from merkle import rlp
from merkle.keccak import keccak256

EMPTY = b"\x80"  # the RLP of the empty string: no child, no value
EMPTY_ROOT = keccak256(EMPTY)
HASH_REF = b"\xa0"  # what stands before a 32-byte hash in RLP
VALUE = 16  # where a branch keeps the value of the key that ends at it
NIBBLES = {digit: index for index, digit in enumerate("0123456789abcdef")}
DIGITS = "0123456789abcdef"

# A branch of sixteen hashes without a value: every 33rd byte behind the list's prefix, `data[3::33]`, begins an item.
FULL_BRANCH = HASH_REF * 16 + EMPTY
_STARTS = range(3, 3 + 16 * 33, 33)


class Short(NamedTuple):
    """A leaf or an extension. `payload` is the RLP of a leaf's value, or the ref of an extension's child."""

    path: str
    is_leaf: bool
    payload: bytes


Branch: TypeAlias = list[bytes]  # sixteen refs and the RLP of a value
Node: TypeAlias = Short | Branch


def encode(node: Node) -> bytes:
    """The RLP of a node."""
    if isinstance(node, list):
        return rlp.encode_list(node)
    path, is_leaf, payload = node
    length = len(path)
    # Hex-prefix encoding: the first nibble says leaf (2) or extension (0), plus 1 when the path's length is odd.
    if length & 1:
        packed = bytes.fromhex(("3" if is_leaf else "1") + path)
    else:
        packed = bytes.fromhex(("20" if is_leaf else "00") + path)
    if length > 1:  # else the path is one byte below 0x80, which is its own RLP
        packed = rlp.encode(packed)
    return rlp.encode_list((packed, payload))


def decode(data: bytes) -> Node:
    """The node of its RLP, one level deep. Raises rlp.RlpError when it is none."""
    if data[3::33] == FULL_BRANCH:  # near the root almost every branch is full
        return [data[at : at + 33] for at in _STARTS] + [EMPTY]
    items = split_list(data)
    if len(items) == 17:
        return items
    if len(items) != 2:
        raise rlp.RlpError(f"a trie node has 2 or 17 items, not {len(items)}")
    path = string(items[0]).hex()
    if not path or path[0] not in "0123" or (path[0] in "02" and path[1] != "0"):
        raise rlp.RlpError("a trie node's path has no valid hex prefix")
    return Short(path[1:] if path[0] in "13" else path[2:], path[0] in "23", items[1])


def seal(node: Node, sink: dict[bytes, bytes] | None) -> bytes:
    """The ref of a node; a node that is referred to by hash is put into `sink`."""
    data = encode(node)
    if len(data) < 32:
        return data
    digest = keccak256(data)
    if sink is not None:
        sink[digest] = data
    return HASH_REF + digest


def seal_root(node: Node | None, sink: dict[bytes, bytes] | None) -> bytes:
    """The root hash of the trie under `node`: a root is hashed however short it is."""
    if node is None:
        return EMPTY_ROOT
    data = encode(node)
    digest = keccak256(data)
    if sink is not None:
        sink[digest] = data
    return digest


def string(item: bytes) -> bytes:
    """The byte string of its RLP, which `split_list` has cut out. Raises rlp.RlpError for a list."""
    first = item[0]
    if first < 0x80:
        return item
    if first < 0xB8:
        return item[1:]
    if first < 0xC0:
        return item[1 + first - 0xB7 :]
    raise rlp.RlpError("expected a string, found a list")


def split_list(data: bytes) -> list[bytes]:
    """The items of an RLP list, each still encoded. Raises rlp.RlpError unless they fill `data` exactly.

    Laxer than `rlp.decode` about lengths in long form: a node is only ever read by its hash.
    """
    length = len(data)
    if length == 0 or data[0] < 0xC0:
        raise rlp.RlpError("expected a list")
    first = data[0]
    at = 1 if first < 0xF8 else first - 0xF6
    if at + (first - 0xC0 if first < 0xF8 else int.from_bytes(data[1:at], "big")) != length:
        raise rlp.RlpError("a list does not fill its bytes")
    items = []
    while at < length:
        first = data[at]
        if first == 0x80:
            stop = at + 1
        elif first == 0xA0:
            stop = at + 33
        elif first < 0x80:
            stop = at + 1
        elif first < 0xB8:
            stop = at + first - 0x7F
        elif first < 0xC0:
            stop = at + first - 0xB6
            stop += int.from_bytes(data[at + 1 : stop], "big")
        elif first < 0xF8:
            stop = at + first - 0xBF
        else:
            stop = at + first - 0xF6
            stop += int.from_bytes(data[at + 1 : stop], "big")
        items.append(data[at:stop])
        at = stop
    if at != length:
        raise rlp.RlpError("an item reaches beyond its list")
    return items
