"""Strict reading of JSON documents that prove something, pure: every field is named, typed, bounded and used once."""

import json
import re
from typing import Any

_DIGITS = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_QUANTITY = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]{0,63})", re.ASCII)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,77}", re.ASCII)
_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # strings, so that brackets in them do not count
DEPTH_MAX = 64


class Malformed(ValueError):
    """A document of another form than expected; the message names the field."""


def data(value: bytes) -> str:
    """`value` as "0x" and two lower-case digits a byte."""
    return "0x" + value.hex()


def quantity(value: int) -> str:
    """`value` in its shortest hex form."""
    return hex(value)


def loads(text: bytes, *, bytes_max: int) -> Any:
    """The value of a JSON text. Raises Malformed: no JSON, too long, nested too deep, or with a name twice."""
    if len(text) > bytes_max:
        raise Malformed(f"the document has {len(text)} bytes, at most {bytes_max} are read")
    _check_depth(text)
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        raise Malformed("the document is not UTF-8") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"the document is not JSON: {error}") from None


def _check_depth(text: bytes) -> None:
    """The standard parser recurses in C as far as the interpreter's limit, which any library may have raised past what
    the stack holds: that is a crash of the process, and no RecursionError."""
    depth = 0
    for token in _NESTING.finditer(text):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"the document is nested too deep, at most {DEPTH_MAX}")
        elif first in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("an object has one name twice")
    return found


def _constant(name: str) -> Any:
    raise Malformed(f"{name} is no JSON")


class Fields:
    """The fields of one JSON object, each taken by its name; `end` refuses what was not taken."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{where} is not an object")
        self._rest: dict[Any, Any] = dict(value)
        self._prefix = "" if where == "the document" else f"{where}."

    def end(self) -> None:
        """Raise Malformed when a field is left that nothing asked for."""
        if self._rest:
            raise Malformed(f"'{self._prefix}{next(iter(self._rest))!s:.60}' is not a field of this format")

    def text(self, name: str) -> str:
        """A string of characters that can be written in UTF-8."""
        value = self._take(name)
        if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
            raise self._wrong(name, "text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None for null. The field itself must be there."""
        return None if self._rest.get(name, "") is None and self._take(name) is None else self.text(name)

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole JSON number from `low` to `high`."""
        value = self._take(name)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def decimal(self, name: str, bits_max: int) -> int:
        """A number that may be too large for some readers of JSON, as decimal digits in a string."""
        text = self.text(name)
        if not _DECIMAL.fullmatch(text) or int(text).bit_length() > bits_max:
            raise self._wrong(name, f"decimal digits of a number below 2^{bits_max}")
        return int(text)

    def quantity(self, name: str) -> int:
        """A number in its shortest hex form."""
        text = self.text(name)
        if not _QUANTITY.fullmatch(text):
            raise self._wrong(name, "a number in its shortest lower-case hex form")
        return int(text, 16)

    def data(self, name: str, length: int | None = None) -> bytes:
        """Bytes in lower-case hex, exactly `length` of them where it is given."""
        return self._data(name, self._take(name), length)

    def data_list(self, name: str, low: int, high: int, length: int | None = None) -> list[bytes]:
        """From `low` to `high` byte strings."""
        return [self._data(f"{name}[{at}]", item, length) for at, item in enumerate(self._list(name, low, high))]

    def plain_hex(self, name: str, length: int) -> bytes:
        """As `data`, without the 0x: the way in which trees of products write hashes."""
        return self._data(name, self._take(name), length, "")

    def plain_hexes(self, name: str, low: int, high: int, length: int) -> list[bytes]:
        """From `low` to `high` byte strings without 0x."""
        return [self._data(f"{name}[{at}]", item, length, "") for at, item in enumerate(self._list(name, low, high))]

    def object(self, name: str) -> "Fields":
        """A nested object."""
        return Fields(self._take(name), self._prefix + name)

    def optional_object(self, name: str) -> "Fields | None":
        """A nested object, or None for null. The field itself must be there."""
        value = self._take(name)
        return None if value is None else Fields(value, self._prefix + name)

    def objects(self, name: str, low: int, high: int) -> list["Fields"]:
        """From `low` to `high` nested objects."""
        return [Fields(item, f"{self._prefix}{name}[{at}]") for at, item in enumerate(self._list(name, low, high))]

    def _take(self, name: str) -> Any:
        if name not in self._rest:
            raise Malformed(f"'{self._prefix}{name}' is missing")
        return self._rest.pop(name)

    def _list(self, name: str, low: int, high: int) -> list[Any]:
        value = self._take(name)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self._wrong(name, f"a list of {low} to {high} items")
        return value

    def _data(self, name: str, value: Any, length: int | None, prefix: str = "0x") -> bytes:
        if not isinstance(value, str) or not value.startswith(prefix) or not _DIGITS.fullmatch(value[len(prefix) :]):
            raise self._wrong(name, f"{prefix or 'no 0x'} and lower-case hex digits, two a byte")
        found = bytes.fromhex(value[len(prefix) :])
        if length is not None and len(found) != length:
            raise self._wrong(name, f"{length} bytes")
        return found

    def _wrong(self, name: str, expected: str) -> Malformed:
        return Malformed(f"'{self._prefix}{name}' is not what it should be: {expected}")
