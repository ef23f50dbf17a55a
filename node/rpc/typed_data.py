"""EIP-712: the digest of structured data, as eth_signTypedData signs it."""

import re
from dataclasses import dataclass
from typing import Final

import orjson

from merkle.keccak import keccak256
from node.rpc import hexes
from node.rpc.methods import BadValue, Kind, shown

_ARRAY = re.compile(r"(.+)\[(\d*)\]", re.ASCII)
_INTEGER = re.compile(r"(u?)int(\d*)", re.ASCII)
_FIXED = re.compile(r"bytes(\d+)", re.ASCII)
_DEPTH_MAX = 32  # structures and arrays within each other

Members = list[tuple[str, str]]  # name and type


@dataclass(frozen=True, slots=True)
class TypedData:
    """Structured data, read and hashed: the 32 bytes that are signed."""

    digest: bytes


def parse_typed_data(value: object) -> TypedData:
    """Read and hash a document, or its JSON text, with types, primaryType, domain and message. Raises BadValue."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise BadValue(f"expected an object or its JSON text (EIP-712): {error}") from None
    if not isinstance(value, dict) or not {"types", "primaryType", "domain", "message"} <= value.keys():
        raise BadValue("expected an object with 'types', 'primaryType', 'domain' and 'message' (EIP-712)")
    encoder = _Encoder(_types(value["types"]))
    primary = value["primaryType"]
    digest = encoder.hash_struct("EIP712Domain", value["domain"], "domain", 0)
    if primary != "EIP712Domain":
        digest += encoder.hash_struct(primary, value["message"], "message", 0)
    return TypedData(keccak256(b"\x19\x01" + digest))


def _types(document: object) -> dict[str, Members]:
    if not isinstance(document, dict) or "EIP712Domain" not in document:
        raise BadValue("field 'types': expected an object that has 'EIP712Domain'")
    types = {}
    for name, members in document.items():
        if not isinstance(members, list):
            raise BadValue(f"field 'types.{name}': expected an array of members")
        for member in members:
            if not isinstance(member, dict) or not all(isinstance(member.get(key), str) for key in ("name", "type")):
                raise BadValue(f"field 'types.{name}': expected members with 'name' and 'type', not {shown(member)}")
        types[name] = [(member["name"], member["type"]) for member in members]
    return types


class _Encoder:
    """Hashes values of the types of one document."""

    def __init__(self, types: dict[str, Members]) -> None:
        self._types = types
        self._hashes: dict[str, bytes] = {}

    def hash_struct(self, name: object, value: object, path: str, depth: int) -> bytes:
        """keccak256(type hash ‖ encoded members)."""
        if not isinstance(name, str) or name not in self._types:
            raise BadValue(f"field '{path}': type {shown(name)} is not among 'types'")
        if not isinstance(value, dict):
            raise BadValue(f"field '{path}': expected an object of type {name}, not {shown(value)}")
        parts = [self._type_hash(name)]
        for member, kind in self._types[name]:
            if member not in value:
                raise BadValue(f"field '{path}.{member}': missing, expected {kind}")
            parts.append(self._encode(kind, value[member], f"{path}.{member}", depth + 1))
        return keccak256(b"".join(parts))

    def _encode(self, kind: str, value: object, path: str, depth: int) -> bytes:
        """The 32 bytes that stand for a value."""
        if depth > _DEPTH_MAX:
            raise BadValue(f"field '{path}': nested more than {_DEPTH_MAX} deep")
        if array := _ARRAY.fullmatch(kind):
            return self._encode_array(array[1], array[2], value, path, depth)
        if kind in self._types:
            return bytes(32) if value is None else self.hash_struct(kind, value, path, depth)
        try:
            return _encode_atom(kind, value)
        except ValueError as error:
            raise BadValue(f"field '{path}': {error}") from None

    def _encode_array(self, kind: str, count: str, value: object, path: str, depth: int) -> bytes:
        if not isinstance(value, list):
            raise BadValue(f"field '{path}': expected an array of {kind}, not {shown(value)}")
        if count and len(value) != int(count):
            expected = f"Expected {count} items for array type {kind}[{count}], got {len(value)} items."
            raise BadValue(f"field '{path}': {expected}")
        parts = [self._encode(kind, item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        return keccak256(b"".join(parts))

    def _type_hash(self, name: str) -> bytes:
        """keccak256 of the type's text: itself first, then what it refers to, by name."""
        found = self._hashes.get(name)
        if found is None:
            others = sorted(self._reached(name, set()) - {name})
            found = self._hashes[name] = keccak256("".join(map(self._text, (name, *others))).encode())
        return found

    def _reached(self, name: str, seen: set[str]) -> set[str]:
        if name in self._types and name not in seen:
            seen.add(name)
            for _, kind in self._types[name]:
                self._reached(kind.partition("[")[0], seen)
        return seen

    def _text(self, name: str) -> str:
        return f"{name}({','.join(f'{kind} {member}' for member, kind in self._types[name])})"


def _encode_atom(kind: str, value: object) -> bytes:
    if kind == "string":
        if not isinstance(value, str):
            raise BadValue(f"expected a string, not {shown(value)}")
        return keccak256(value.encode())
    if kind == "bytes":
        return keccak256(hexes.parse_data(value))
    if kind == "bool":
        if not isinstance(value, bool):
            raise BadValue(f"expected true or false, not {shown(value)}")
        return int(value).to_bytes(32, "big")
    if kind == "address":
        return hexes.parse_data(value, length=20).rjust(32, b"\x00")
    if (fixed := _FIXED.fullmatch(kind)) and 1 <= int(fixed[1]) <= 32:
        return hexes.parse_data(value, length=int(fixed[1])).ljust(32, b"\x00")
    if (integer := _INTEGER.fullmatch(kind)) and int(integer[2] or 256) in range(8, 257, 8):
        return _encode_integer(_integer(value), bits=int(integer[2] or 256), signed=not integer[1])
    raise BadValue(f"type {shown(kind)} is neither Solidity's nor among 'types'")


def _integer(value: object) -> int:
    """A number, or its text in decimal or hex: JSON's numbers are too short for 256 bits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= 80 and re.fullmatch(r"0x[0-9a-fA-F]+|-?[0-9]+", value):
        return int(value, 16 if value.startswith("0x") else 10)
    raise BadValue(f"expected an integer, not {shown(value)}")


def _encode_integer(number: int, *, bits: int, signed: bool) -> bytes:
    try:
        number.to_bytes(bits // 8, "big", signed=signed)
    except OverflowError:
        raise BadValue(f"{number} does not fit {bits} bits") from None
    return number.to_bytes(32, "big", signed=signed)


TYPED_DATA: Final = Kind(
    {
        "type": ["object", "string"],
        "title": "typed data (EIP-712)",
        "required": ["types", "primaryType", "domain", "message"],
        "properties": {
            "types": {"type": "object"},
            "primaryType": {"type": "string"},
            "domain": {"type": "object"},
            "message": {"type": "object"},
        },
    },
    parse_typed_data,
)
