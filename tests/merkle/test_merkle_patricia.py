"""The Merkle-Patricia trie against the `trie` library and ethereum/tests; proofs, and what no proof may show."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trie.hexary import HexaryTrie

from merkle import InvalidProof, patricia, rlp
from merkle.keccak import keccak256

# Short keys over few digits make every shape: extensions that split, branches that collapse, keys inside keys.
crowded_keys = st.lists(st.sampled_from([0x00, 0x01, 0x10, 0x11, 0x1F]), max_size=4).map(bytes)
keys = crowded_keys | st.binary(max_size=3) | st.binary(min_size=32, max_size=32)
values = st.binary(min_size=1, max_size=3) | st.binary(min_size=28, max_size=70)
changes = st.dictionaries(keys, values | st.just(b""), max_size=12)

# emptyValues, jeff and insert-middle-leaf of TrieTests/trietest.json in ethereum/tests; None deletes.
EMPTY_VALUES: list[tuple[str, str | None]] = [
    ("do", "verb"),
    ("ether", "wookiedoo"),
    ("horse", "stallion"),
    ("shaman", "horse"),
    ("doge", "coin"),
    ("ether", None),
    ("dog", "puppy"),
    ("shaman", None),
]
JEFF: list[tuple[str, str | None]] = [
    (
        "0x0000000000000000000000000000000000000000000000000000000000000045",
        "0x22b224a1420a802ab51d326e29fa98e34c4f24ea",
    ),
    (
        "0x0000000000000000000000000000000000000000000000000000000000000046",
        "0x67706c2076330000000000000000000000000000000000000000000000000000",
    ),
    (
        "0x0000000000000000000000000000000000000000000000000000001234567890",
        "0x697c7b8c961b56f675d570498424ac8de1a918f6",
    ),
    ("0x000000000000000000000000697c7b8c961b56f675d570498424ac8de1a918f6", "0x1234567890"),
    (
        "0x0000000000000000000000007ef9e639e2733cb34e4dfc576d4b23f72db776b2",
        "0x4655474156000000000000000000000000000000000000000000000000000000",
    ),
    (
        "0x000000000000000000000000ec4f34c97e43fbb2816cfd95e388353c7181dab1",
        "0x4e616d6552656700000000000000000000000000000000000000000000000000",
    ),
    (
        "0x4655474156000000000000000000000000000000000000000000000000000000",
        "0x7ef9e639e2733cb34e4dfc576d4b23f72db776b2",
    ),
    (
        "0x4e616d6552656700000000000000000000000000000000000000000000000000",
        "0xec4f34c97e43fbb2816cfd95e388353c7181dab1",
    ),
    ("0x0000000000000000000000000000000000000000000000000000001234567890", None),
    (
        "0x000000000000000000000000697c7b8c961b56f675d570498424ac8de1a918f6",
        "0x6f6f6f6820736f2067726561742c207265616c6c6c793f000000000000000000",
    ),
    (
        "0x6f6f6f6820736f2067726561742c207265616c6c6c793f000000000000000000",
        "0x697c7b8c961b56f675d570498424ac8de1a918f6",
    ),
]
MIDDLE_LEAF: list[tuple[str, str | None]] = [
    ("key1aa", "0123456789012345678901234567890123456789xxx"),
    ("key1", "0123456789012345678901234567890123456789Very_Long"),
    ("key2bb", "aval3"),
    ("key2", "short"),
    ("key3cc", "aval3"),
    ("key3", "1234567890123456789012345678901"),
]


def nothing(node_hash: bytes) -> bytes | None:
    """The store that has no nodes."""
    return None


def as_bytes(text: str | None) -> bytes:
    if text is None:
        return b""
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()


def oracle_root(content: dict[bytes, bytes]) -> bytes:
    oracle = HexaryTrie({})
    for key, value in content.items():
        oracle[key] = value
    return bytes(oracle.root_hash)


@pytest.mark.parametrize(
    ("steps", "root"),
    [
        (EMPTY_VALUES, "5991bb8c6514148a29db676a14ac506cd2cd5775ace63c30a4fe457715e9ac84"),
        (JEFF, "9f6221ebb8efe7cff60a716ecb886e67dd042014be444669f0159d8e68b42100"),
        (MIDDLE_LEAF, "cb65032e2f76c48b82b5c24b3db8f670ce73982869d38cd39a624f23d62a9e89"),
    ],
)
def test_published_tries(steps: list[tuple[str, str | None]], root: str) -> None:
    stored: dict[bytes, bytes] = {}
    one_by_one = patricia.EMPTY_ROOT
    for key, value in steps:
        one_by_one, nodes = patricia.update(stored.get, one_by_one, {as_bytes(key): as_bytes(value)})
        stored |= nodes
    assert one_by_one.hex() == root
    last = {as_bytes(key): as_bytes(value) for key, value in steps}
    assert patricia.update(nothing, patricia.EMPTY_ROOT, last)[0].hex() == root


def test_the_empty_trie() -> None:
    assert patricia.EMPTY_ROOT.hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    assert patricia.ordered_root([]) == patricia.EMPTY_ROOT
    assert patricia.get(nothing, patricia.EMPTY_ROOT, b"key") is None
    assert patricia.prove(nothing, patricia.EMPTY_ROOT, b"key") == []
    assert patricia.verify(patricia.EMPTY_ROOT, b"key", []) is None
    assert patricia.update(nothing, patricia.EMPTY_ROOT, {b"key": b""}) == (patricia.EMPTY_ROOT, {})


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 18, 33, 127, 128, 129, 130, 144, 145, 256, 257, 258, 273])
def test_ordered_root_agrees_with_the_library(count: int) -> None:
    listed = [keccak256(index.to_bytes(2, "big")) * (1 + index % 5) for index in range(count)]
    expected = oracle_root({rlp.encode(rlp.encode_int(index)): value for index, value in enumerate(listed)})
    assert patricia.ordered_root(listed) == expected


@given(st.lists(values | st.sampled_from([b"x" * size for size in (28, 29, 31, 32, 55, 56, 253, 254)]), max_size=70))
def test_ordered_root_of_values_of_any_length(listed: list[bytes]) -> None:
    content = {rlp.encode(rlp.encode_int(index)): value for index, value in enumerate(listed)}
    assert patricia.ordered_root(listed) == patricia.update(nothing, patricia.EMPTY_ROOT, content)[0]


def test_ordered_root_beyond_two_bytes() -> None:
    listed = [index.to_bytes(3, "big") for index in range(65_536 + 33)]
    content = {rlp.encode(rlp.encode_int(index)): value for index, value in enumerate(listed)}
    assert patricia.ordered_root(listed) == patricia.update(nothing, patricia.EMPTY_ROOT, content)[0]


def test_ordered_root_refuses_what_no_trie_holds() -> None:
    with pytest.raises(ValueError, match=r"value 1 .* empty"):
        patricia.ordered_root([b"a", b""])


def reachable(stored: dict[bytes, bytes], root: bytes) -> set[bytes]:
    """The hashes of all nodes under `root`, by decoding each node whole."""
    found: set[bytes] = set()

    def visit(item: rlp.Decoded) -> None:
        if isinstance(item, bytes):
            if len(item) == 32 and item in stored and item not in found:
                found.add(item)
                visit(rlp.decode(stored[item]))
            return
        for part in item:
            visit(part)

    visit(root)
    return found


@settings(max_examples=200)
@given(st.lists(changes, min_size=1, max_size=6), st.lists(keys, max_size=4))
def test_batched_updates_reads_and_proofs(batches: list[dict[bytes, bytes]], absent: list[bytes]) -> None:
    stored: dict[bytes, bytes] = {}
    model: dict[bytes, bytes] = {}
    root = patricia.EMPTY_ROOT
    for batch in batches:
        root, nodes = patricia.update(stored.get, root, batch)
        stored |= nodes
        model = {key: value for key, value in (model | batch).items() if value}
        assert root == oracle_root(model)
        assert all(keccak256(data) == digest for digest, data in nodes.items())
        assert nodes.keys() <= reachable(stored, root), "a node that nothing refers to was returned"
    for key in {*model, *absent, *batches[0]}:
        assert patricia.get(stored.get, root, key) == model.get(key)
        assert patricia.verify(root, key, patricia.prove(stored.get, root, key)) == model.get(key)


@settings(max_examples=300)
@given(
    st.dictionaries(st.lists(st.sampled_from([0x00, 0x01]), min_size=3, max_size=3).map(bytes), values, min_size=1),
    st.dictionaries(st.lists(st.sampled_from([0x00, 0x01, 0x10]), min_size=3, max_size=3).map(bytes), values),
)
def test_extensions_that_a_batch_splits(before: dict[bytes, bytes], batch: dict[bytes, bytes]) -> None:
    root, stored = patricia.update(nothing, patricia.EMPTY_ROOT, before)
    assert patricia.update(stored.get, root, batch)[0] == oracle_root(before | batch)


@given(st.data())
def test_old_roots_stay_readable(data: st.DataObject) -> None:
    before = data.draw(st.dictionaries(keys, values, min_size=1, max_size=12))
    old_root, stored = patricia.update(nothing, patricia.EMPTY_ROOT, before)
    _, nodes = patricia.update(stored.get, old_root, data.draw(changes))
    stored |= nodes
    assert {key: patricia.get(stored.get, old_root, key) for key in before} == before


@given(st.data())
def test_a_mutated_proof_shows_nothing(data: st.DataObject) -> None:
    content = data.draw(st.dictionaries(keys, values, min_size=1, max_size=20))
    root, stored = patricia.update(nothing, patricia.EMPTY_ROOT, content)
    key = data.draw(st.sampled_from(sorted(content)) | keys)
    proof = patricia.prove(stored.get, root, key)
    at = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, len(proof[at]) * 8 - 1))
    changed = bytearray(proof[at])
    changed[bit // 8] ^= 1 << bit % 8
    mutated = data.draw(
        st.sampled_from(
            [
                [*proof[:at], bytes(changed), *proof[at + 1 :]],
                proof[:at] + proof[at + 1 :],
                [*proof[: at + 1], *proof[at:]],
                [*proof, b"\x80"],
                [b"", *proof],
            ]
        )
    )
    with pytest.raises(InvalidProof):
        patricia.verify(root, key, mutated)


@given(st.dictionaries(keys, values, min_size=1, max_size=12), keys)
def test_a_proof_under_another_root_is_refused(content: dict[bytes, bytes], key: bytes) -> None:
    root, stored = patricia.update(nothing, patricia.EMPTY_ROOT, content)
    with pytest.raises(InvalidProof, match="hash"):
        patricia.verify(bytes(32), key, patricia.prove(stored.get, root, key))
    with pytest.raises(InvalidProof, match="ends"):
        patricia.verify(root, key, [])


@pytest.mark.parametrize(
    "node",
    [
        b"",
        b"dog",
        b"\xc0",
        b"\xc1\x80",  # one item
        b"\xc3\x80\x80\x80",  # three
        b"\xc2\x80\x80",  # a path without hex prefix
        b"\xc2\x40\x01",  # an unknown prefix
        b"\xc2\x21\x01",  # an even path whose padding is not zero
        b"\xc6\x20\x83\x01\x02\x03",  # a list longer than its items
        b"\xc4\x20\x83\x01\x02",  # an item longer than its list
        b"\xc3\x20\xc1\x01",  # a leaf whose value is a list
        b"\xf9\x02",
    ],
)
def test_a_malformed_node_is_an_invalid_proof(node: bytes) -> None:
    """The root may be anyone's: whoever made it can hash what is no node."""
    with pytest.raises(InvalidProof, match="malformed"):
        patricia.verify(keccak256(node), b"", [node])


@given(st.binary(max_size=80), crowded_keys)
def test_arbitrary_bytes_never_crash_verification(node: bytes, key: bytes) -> None:
    try:
        value = patricia.verify(keccak256(node), key, [node])
    except InvalidProof:
        return
    assert value is None or value in node


def test_a_missing_node_is_named() -> None:
    content = {keccak256(bytes((index,))): b"value %d" % index for index in range(40)}
    root, stored = patricia.update(nothing, patricia.EMPTY_ROOT, content)
    key = next(iter(content))
    lost = keccak256(patricia.prove(stored.get, root, key)[1])
    del stored[lost]
    with pytest.raises(patricia.MissingNode, match=lost.hex()):
        patricia.get(stored.get, root, key)
    with pytest.raises(patricia.MissingNode, match=lost.hex()):
        patricia.prove(stored.get, root, key)
    with pytest.raises(patricia.MissingNode, match=lost.hex()):
        patricia.update(stored.get, root, {key: b"other"})


def test_no_change_needs_no_node() -> None:
    assert patricia.update(nothing, bytes(32), {}) == (bytes(32), {})
