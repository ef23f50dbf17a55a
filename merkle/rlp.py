"""A strict RLP codec (Ethereum yellow paper, appendix B): one encoding for each value, and no other accepted."""

from collections.abc import Sequence
from typing import TypeAlias

Item: TypeAlias = "bytes | Sequence[Item]"  # what can be encoded
Decoded: TypeAlias = "bytes | list[Decoded]"  # what comes back

DEPTH_MAX = 32

_BYTES = [bytes((value,)) for value in range(256)]


class RlpError(ValueError):
    """The bytes are not the one canonical RLP encoding of anything, or not of what was expected."""


def encode(item: Item) -> bytes:
    """Encode bytes, or a sequence of such items nested to any depth."""
    if isinstance(item, (bytes, bytearray)):
        length = len(item)
        if length == 1 and item[0] < 0x80:
            return bytes(item)
        return (_BYTES[0x80 + length] if length < 56 else _prefix(length, 0x80)) + item
    return encode_list([encode(part) for part in item])


def encode_list(encoded_parts: Sequence[bytes]) -> bytes:
    """Encode a list whose parts are encoded already, so that what was encoded once need not be again."""
    body = b"".join(encoded_parts)
    return _prefix(len(body), 0xC0) + body


def encode_int(value: int) -> bytes:
    """Big-endian bytes of `value` without leading zeros; zero is the empty string. An item, not yet RLP."""
    if value < 0:
        raise ValueError(f"RLP has no negative integers: {value}")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode_int(item: Decoded, *, bits_max: int = 256) -> int:
    """The integer that `encode_int` wrote. Raises RlpError on leading zeros, a list, or more than `bits_max` bits."""
    if not isinstance(item, bytes):
        raise RlpError("expected an integer, found a list")
    if item[:1] == b"\x00":
        raise RlpError("an integer has leading zero bytes")
    if len(item) * 8 > bits_max:
        raise RlpError(f"an integer is longer than {bits_max} bits")
    return int.from_bytes(item, "big")


def decode(data: bytes, *, items_max: int = 1 << 20) -> Decoded:
    """Decode exactly one item that fills `data`. Raises RlpError on anything that is not canonical.

    `items_max` bounds what is in all its lists: a list of empty lists takes a byte and a microsecond for each.
    """
    item, end = _decode_at(data, 0, len(data), 0, [items_max])
    if end != len(data):
        raise RlpError(f"{len(data) - end} bytes follow the item")
    return item


def _prefix(length: int, offset: int) -> bytes:
    if length < 56:
        return _BYTES[offset + length]
    if length < 256:
        return bytes((offset + 56, length))
    if length < 1 << 16:
        return bytes((offset + 57, length >> 8, length & 0xFF))
    size = encode_int(length)
    return bytes((offset + 55 + len(size),)) + size


def _decode_at(data: bytes, start: int, end: int, depth: int, room: list[int]) -> tuple[Decoded, int]:
    if start >= end:
        raise RlpError("the data ends where an item should begin")
    first = data[start]
    if first < 0x80:
        return data[start : start + 1], start + 1
    is_list = first >= 0xC0
    begin, stop = _payload(data, start, end, first - (0xC0 if is_list else 0x80))
    if not is_list:
        if stop - begin == 1 and data[begin] < 0x80:
            raise RlpError("a single byte below 0x80 is its own encoding")
        return data[begin:stop], stop
    if depth >= DEPTH_MAX:
        raise RlpError(f"lists are nested more than {DEPTH_MAX} deep")
    parts: list[Decoded] = []
    left = room[0]
    while begin < stop:
        if left <= 0:
            raise RlpError("the lists have more items than are allowed")
        left -= 1
        first = data[begin]
        if first < 0x80:
            after = begin + 1
            parts.append(data[begin:after])
        elif first < 0xB8 and first != 0x81:  # short strings, in place: almost everything is one, and calls cost more
            after = begin + first - 0x7F
            if after > stop:
                raise RlpError(f"an item of {first - 0x80} bytes has only {stop - begin - 1} left")
            parts.append(data[begin + 1 : after])
        elif first == 0xC0 and depth + 1 < DEPTH_MAX:  # an empty list, as almost every access list is
            after = begin + 1
            parts.append([])
        else:
            room[0] = left
            part, after = _decode_at(data, begin, stop, depth + 1, room)
            left = room[0]
            parts.append(part)
        begin = after
    room[0] = left
    return parts, stop


def _payload(data: bytes, start: int, end: int, code: int) -> tuple[int, int]:
    """Where the payload of the item at `start` begins and stops; `code` is its first byte less the kind's offset."""
    if code < 56:
        begin, length = start + 1, code
    else:
        begin = start + 1 + code - 55
        size = data[start + 1 : min(begin, end)]
        if len(size) < code - 55:
            raise RlpError("the data ends inside a length")
        length = int.from_bytes(size, "big")
        if size[0] == 0 or length < 56:
            raise RlpError("a length is not in its shortest form")
    if begin + length > end:
        raise RlpError(f"an item of {length} bytes has only {end - begin} left")
    return begin, begin + length
