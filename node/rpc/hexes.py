"""Ethereum's two hex forms, strict and canonical: quantities (shortest form) and data (two digits a byte).

Source: the execution API specification's `uint` and `bytes` types; the wordings of refusals are geth's.
"""

import re
from binascii import Error as HexDigitsError
from binascii import unhexlify

_QUANTITY = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]*)", re.ASCII)
_DIGITS = re.compile(r"[0-9a-fA-F]*", re.ASCII)


class HexError(ValueError):
    """The text is not the canonical hex form that was expected; the message says what is wrong with it."""


def quantity(value: int) -> str:
    """`value` in its shortest hex form; zero is "0x0". Raises ValueError below zero."""
    if value < 0:
        raise ValueError(f"a quantity is not negative: {value}")
    return hex(value)


def data(value: bytes) -> str:
    """`value` as "0x" and two lower-case digits a byte; empty bytes are "0x"."""
    return "0x" + value.hex()


def parse_quantity(text: object, *, bits_max: int = 256) -> int:
    """The integer of a canonical quantity. Raises HexError on anything else, or above `bits_max` bits."""
    digits = _digits(text)
    if not digits:
        raise HexError("empty hex string")
    if len(digits) * 4 > bits_max + 3:
        raise HexError(f"hex number > {bits_max} bits")
    if not _QUANTITY.fullmatch("0x" + digits):
        if _DIGITS.fullmatch(digits):
            raise HexError("hex number with leading zero digits")
        raise HexError("invalid hex string")
    value = int(digits, 16)
    if value.bit_length() > bits_max:
        raise HexError(f"hex number > {bits_max} bits")
    return value


def parse_data(text: object, *, length: int | None = None) -> bytes:
    """The bytes of a data string, of exactly `length` bytes where that is given. Raises HexError on anything else."""
    digits = _digits(text)
    if len(digits) % 2:
        raise HexError("hex string of odd length")
    try:
        value = unhexlify(digits)
    except (HexDigitsError, ValueError):  # the second: not even ASCII
        raise HexError("invalid hex string") from None
    if length is not None and len(value) != length:
        raise HexError(f"hex string has length {len(digits)}, want {2 * length}")
    return value


def _digits(text: object) -> str:
    if not isinstance(text, str):
        raise HexError("not a hex string")
    if not text.startswith("0x"):
        raise HexError("hex string without 0x prefix" if text else "empty hex string")
    return text[2:]
