"""Hex codecs: what is written is read back, one form only is accepted, and every refusal is a HexError."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.rpc.hexes import HexError, data, parse_data, parse_quantity, quantity


@given(st.integers(0, 2**256 - 1))
@example(0)
def test_quantities_round_trip(value: int) -> None:
    assert parse_quantity(quantity(value)) == value
    assert parse_quantity(quantity(value).upper().replace("0X", "0x")) == value


@given(st.binary(max_size=200))
def test_data_round_trips(value: bytes) -> None:
    assert parse_data(data(value)) == value
    assert parse_data(data(value), length=len(value)) == value


@given(st.one_of(st.text(alphabet="0x19afAF _+-\n\u0660", max_size=12), st.text(), st.integers(), st.none()))
def test_a_quantity_has_one_form(text: object) -> None:
    try:
        value = parse_quantity(text)
    except HexError:
        return
    assert isinstance(text, str)
    assert text.lower() == quantity(value)


@given(st.one_of(st.text(alphabet="0x19afAF _+-\n\u0660", max_size=12), st.text(), st.binary(), st.none()))
def test_data_has_one_form(text: object) -> None:
    try:
        value = parse_data(text)
    except HexError:
        return
    assert isinstance(text, str)
    assert text.lower() == data(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x", "empty hex string"),
        ("", "empty hex string"),
        ("12", "hex string without 0x prefix"),
        ("0x00", "hex number with leading zero digits"),
        ("0x01", "hex number with leading zero digits"),
        ("0x1g", "invalid hex string"),
        ("0x1_0", "invalid hex string"),
        (7, "not a hex string"),
        (True, "not a hex string"),
        ("0x1" + "0" * 64, "hex number > 256 bits"),
    ],
)
def test_refused_quantities_say_why(text: object, message: str) -> None:
    with pytest.raises(HexError) as caught:
        parse_quantity(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x1", "hex string of odd length"),
        ("0xzz", "invalid hex string"),
        ("0x 1 2", "invalid hex string"),
        ("1234", "hex string without 0x prefix"),
        ("0x12", "hex string has length 2, want 40"),
        ("0x" + "é" * 2, "invalid hex string"),
    ],
)
def test_refused_data_says_why(text: str, message: str) -> None:
    with pytest.raises(HexError) as caught:
        parse_data(text, length=20)
    assert str(caught.value) == message


@given(st.integers(1, 256))
def test_bits_are_bounded_exactly(bits_max: int) -> None:
    assert parse_quantity(quantity((1 << bits_max) - 1), bits_max=bits_max) == (1 << bits_max) - 1
    with pytest.raises(HexError, match=f"> {bits_max} bits"):
        parse_quantity(quantity(1 << bits_max), bits_max=bits_max)


def test_negative_numbers_have_no_hex_form() -> None:
    with pytest.raises(ValueError, match="not negative"):
        quantity(-1)
