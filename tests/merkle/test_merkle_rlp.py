"""The RLP codec against the `rlp` library and the yellow paper's examples."""

from typing import Any

import pytest
import rlp as oracle
from hypothesis import example, given
from hypothesis import strategies as st

from merkle import rlp

items = st.recursive(
    st.binary(max_size=70) | st.sampled_from([bytes(55), bytes(56), bytes(255), bytes(256), bytes(65536)]),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (b"dog", "83646f67"),
        ([b"cat", b"dog"], "c88363617483646f67"),
        (b"", "80"),
        ([], "c0"),
        (b"\x00", "00"),
        (b"\x0f", "0f"),
        (b"\x04\x00", "820400"),
        ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
        (b"\x80", "8180"),
    ],
)
def test_published_examples(item: Any, encoded: str) -> None:
    assert rlp.encode(item).hex() == encoded
    assert rlp.decode(bytes.fromhex(encoded)) == item


@given(items)
def test_agrees_with_the_library(item: Any) -> None:
    encoded = rlp.encode(item)
    assert encoded == oracle.encode(item)
    assert rlp.decode(encoded) == item


@given(st.lists(items, max_size=5))
def test_encode_list_joins_what_is_encoded(parts: list[Any]) -> None:
    assert rlp.encode_list([rlp.encode(part) for part in parts]) == rlp.encode(parts)


@given(st.binary(max_size=60))
@example(b"\x81\x00")
@example(b"\xb8\x01\x00")
@example(b"\xb8\x37" + bytes(55))
@example(b"\xb9\x00\x38" + bytes(56))
@example(b"\xf8\x00")
@example(b"\xbf" + b"\xff" * 8)
@example(b"\xc1")
@example(b"\x83ab")
@example(b"\xc2\x83a")
@example(b"\x80\x80")
@example(b"")
def test_arbitrary_bytes_decode_as_in_the_library_or_not_at_all(data: bytes) -> None:
    try:
        expected = oracle.decode(data)
    except oracle.exceptions.DecodingError:
        with pytest.raises(rlp.RlpError):
            rlp.decode(data)
    else:
        assert rlp.decode(data) == expected
        assert rlp.encode(expected) == data


@given(st.integers(0, (1 << 256) - 1))
def test_integers(value: int) -> None:
    encoded = rlp.encode_int(value)
    assert encoded == oracle.sedes.big_endian_int.serialize(value)
    assert rlp.decode_int(encoded) == value


@pytest.mark.parametrize(
    ("item", "reason"),
    [(b"\x00", "leading zero"), (b"\x00\x01", "leading zero"), ([], "list"), (b"\x01" + bytes(32), "256 bits")],
)
def test_what_is_no_integer(item: Any, reason: str) -> None:
    with pytest.raises(rlp.RlpError, match=reason):
        rlp.decode_int(item)


def test_bits_of_an_integer_are_bounded() -> None:
    assert rlp.decode_int(b"\xff" * 8, bits_max=64) == (1 << 64) - 1
    with pytest.raises(rlp.RlpError, match="64 bits"):
        rlp.decode_int(b"\x01" + bytes(8), bits_max=64)
    with pytest.raises(ValueError, match="negative"):
        rlp.encode_int(-1)


def test_depth_is_bounded() -> None:
    nested: Any = []
    for _ in range(rlp.DEPTH_MAX - 1):
        nested = [nested]
    assert rlp.decode(rlp.encode(nested)) == nested
    with pytest.raises(rlp.RlpError, match="nested"):
        rlp.decode(rlp.encode([nested]))


@pytest.mark.parametrize("nested", [[b"\1"] * 9, [[]] * 9, [[b""] * 4, [b""] * 4], [[[b""] * 8]]])
def test_items_are_bounded(nested: Any) -> None:
    encoded = rlp.encode(nested)
    assert rlp.decode(encoded, items_max=10) == nested
    with pytest.raises(rlp.RlpError, match="more items"):
        rlp.decode(encoded, items_max=7)
