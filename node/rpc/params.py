"""The kinds of parameters that Ethereum's methods take: how each is read, and the schema that says the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from node.chain.gas import AccessList
from node.rpc import hexes
from node.rpc.methods import BadValue, JsonSchema, Kind, shown

TAGS: Final = ("latest", "safe", "finalized", "earliest", "pending")
TOPICS_MAX: Final = 4
ALTERNATIVES_MAX: Final = 1_000  # addresses, and topics at one position, of a filter
PERCENTILES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block as a caller names it: by exactly one of tag, height and hash."""

    tag: str = ""
    height: int = -1
    hash: bytes = b""

    def __str__(self) -> str:
        return self.tag or (hexes.data(self.hash) if self.hash else str(self.height))


LATEST: Final = BlockRef(tag="latest")


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call as a caller describes it. Amounts in wei; `to` is empty for a creation; `gas` None means: enough."""

    sender: bytes
    to: bytes
    data: bytes
    value: int
    gas: int | None
    gas_price: int
    access_list: AccessList


class Slot(NamedTuple):
    """A storage slot, and the hex form, a word or a quantity, in which the caller named it."""

    number: int
    key: str


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A filter of event logs. No addresses: any. A position of `topics` that is empty matches any topic there."""

    first: BlockRef
    last: BlockRef
    addresses: frozenset[bytes]
    topics: tuple[frozenset[bytes], ...]


def _data(length: int | None = None) -> Callable[[object], bytes]:
    return lambda value: hexes.parse_data(value, length=length)


def _quantity(bits_max: int) -> Callable[[object], int]:
    return lambda value: hexes.parse_quantity(value, bits_max=bits_max)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValue(f"expected true or false, not {shown(value)}")
    return value


def _block_number(value: object) -> BlockRef:
    if isinstance(value, str) and value in TAGS:
        return BlockRef(tag=value)
    try:
        return BlockRef(height=hexes.parse_quantity(value, bits_max=64))
    except hexes.HexError as error:
        expected = f"expected a hex block number or one of {', '.join(TAGS)}"
        raise BadValue(f"{error}; {expected}, not {shown(value)}") from None


def _block(value: object) -> BlockRef:
    if isinstance(value, dict):
        return _block_object(value)
    if isinstance(value, str) and len(value) == 66:
        return BlockRef(hash=hexes.parse_data(value, length=32))
    return _block_number(value)


def _block_object(value: dict[str, Any]) -> BlockRef:
    """EIP-1898: a block by number or by hash. Every block here is canonical, so `requireCanonical` changes nothing."""
    unknown = value.keys() - {"blockNumber", "blockHash", "requireCanonical"}
    if unknown or len(value.keys() & {"blockNumber", "blockHash"}) != 1:
        raise BadValue("expected a block object with exactly one of 'blockNumber' and 'blockHash' (EIP-1898)")
    if "requireCanonical" in value:
        _boolean(value["requireCanonical"])
    if "blockHash" in value:
        return BlockRef(hash=hexes.parse_data(value["blockHash"], length=32))
    return _block_number(value["blockNumber"])


def _slot(value: object) -> Slot:
    """A storage slot: a quantity, or 32 bytes of data; geth takes shorter data and leading zeros, too."""
    if isinstance(value, str) and value.startswith("0x") and 2 < len(value) <= 66:
        word = hexes.parse_data("0x" + value[2:].zfill(64), length=32)
        number = int.from_bytes(word, "big")
        return Slot(number, hexes.data(word) if len(value) == 66 else hexes.quantity(number))
    raise BadValue(f"expected a storage slot of 1 to 32 bytes in hex, not {shown(value)}")


def _list(parse: Callable[[object], Any], items_max: int) -> Callable[[object], list[Any]]:
    def parse_list(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise BadValue(f"expected an array, not {shown(value)}")
        if len(value) > items_max:
            raise BadValue(f"an array of {len(value)} items, at most {items_max}")
        return [parse(item) for item in value]

    return parse_list


def _count(value: object) -> int:
    """A small count: a quantity, or (as geth allows) a plain number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    return hexes.parse_quantity(value, bits_max=64)


def _percentiles(value: object) -> list[float]:
    values = _list(lambda item: item, PERCENTILES_MAX)(value)
    previous = 0.0
    for item in values:
        if isinstance(item, bool) or not isinstance(item, (int, float)) or not 0 <= item <= 100:
            raise BadValue(f"invalid reward percentile: expected a number from 0 to 100, not {shown(item)}")
        if item < previous:
            raise BadValue(f"invalid reward percentile: {item} follows {previous}; expected ascending order")
        previous = float(item)
    return [float(item) for item in values]


def read_field(value: dict[str, Any], name: str, parse: Callable[[object], Any], default: Any) -> Any:
    """A field of an object, read; `default` where it is absent or null. Raises BadValue that names the field."""
    found = value.get(name)
    if found is None:
        return default
    try:
        return parse(found)
    except ValueError as error:
        raise BadValue(f"field '{name}': {error}") from None


def _call(value: object) -> CallRequest:
    if not isinstance(value, dict):
        raise BadValue(f"expected a transaction object, not {shown(value)}")
    data = read_field(value, "data", _data(), None)
    input_ = read_field(value, "input", _data(), data)
    if data is not None and data != input_:
        raise BadValue(
            'both "data" and "input" are set and not equal. Please use "input" to pass transaction call data'
        )
    price = read_field(value, "gasPrice", _quantity(256), None)
    fee_cap = read_field(value, "maxFeePerGas", _quantity(256), None)
    tip = read_field(value, "maxPriorityFeePerGas", _quantity(256), 0)
    if price is not None and fee_cap is not None:
        raise BadValue("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")
    if fee_cap is not None and fee_cap < tip:
        raise BadValue(f"maxFeePerGas ({fee_cap}) < maxPriorityFeePerGas ({tip})")
    return CallRequest(
        sender=read_field(value, "from", _data(20), bytes(20)),
        to=read_field(value, "to", _data(20), b""),
        data=input_ or b"",
        value=read_field(value, "value", _quantity(256), 0),
        gas=read_field(value, "gas", _quantity(64), None),
        gas_price=price or fee_cap or 0,
        access_list=tuple(read_field(value, "accessList", _list(_access, 1_024), [])),
    )


def _overrides(value: object) -> None:
    if value != {}:
        raise BadValue("state overrides are not supported; expected nothing, null or {}")


def _access(value: object) -> tuple[bytes, tuple[bytes, ...]]:
    if not isinstance(value, dict):
        raise BadValue(f"expected an access list entry, not {shown(value)}")
    address = read_field(value, "address", _data(20), None)
    if address is None:
        raise BadValue("an access list entry needs field 'address'")
    return address, tuple(read_field(value, "storageKeys", _list(_data(32), 1_024), []))


def _log_query(value: object) -> LogQuery:
    if not isinstance(value, dict):
        raise BadValue(f"expected a filter object, not {shown(value)}")
    block_hash = read_field(value, "blockHash", _data(32), None)
    first = read_field(value, "fromBlock", _block_number, None)
    last = read_field(value, "toBlock", _block_number, None)
    if block_hash is not None:
        if first is not None or last is not None:
            raise BadValue("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other")
        first = last = BlockRef(hash=block_hash)
    topics = read_field(value, "topics", _list(_one_or_more(_data(32)), TOPICS_MAX), [])
    addresses = read_field(value, "address", _one_or_more(_data(20)), frozenset())
    return LogQuery(first or LATEST, last or LATEST, addresses, tuple(topics))


def _one_or_more(parse: Callable[[object], bytes]) -> Callable[[object], frozenset[bytes]]:
    """One value, an array of alternatives, or null; an empty set means: any."""
    parse_list = _list(parse, ALTERNATIVES_MAX)

    def parse_either(value: object) -> frozenset[bytes]:
        if value is None:
            return frozenset()
        return frozenset(parse_list(value) if isinstance(value, list) else [parse(value)])

    return parse_either


def array_of(kind: Kind, items_max: int) -> Kind:
    """An array of at most `items_max` values of a kind."""
    schema = {"type": "array", "items": kind.schema, "maxItems": items_max}
    return Kind(schema, _list(kind.parse, items_max))


def _hex(pattern: str, title: str) -> JsonSchema:
    return {"type": "string", "pattern": pattern, "title": title}


_BYTES = "^0x([0-9a-fA-F]{2})*$"
_UINT = "^0x(0|[1-9a-fA-F][0-9a-fA-F]*)$"

ADDRESS: Final = Kind(_hex("^0x[0-9a-fA-F]{40}$", "address"), _data(20))
HASH: Final = Kind(_hex("^0x[0-9a-fA-F]{64}$", "hash of 32 bytes"), _data(32))
DATA: Final = Kind(_hex(_BYTES, "bytes"), _data())
QUANTITY: Final = Kind(_hex(_UINT, "quantity"), _quantity(256))
INDEX: Final = Kind(_hex(_UINT, "index or identifier"), _quantity(64))
BOOLEAN: Final = Kind({"type": "boolean"}, _boolean)
_TAG: Final[JsonSchema] = {"type": "string", "enum": list(TAGS), "title": "tag"}
BLOCK_NUMBER: Final = Kind({"oneOf": [_hex(_UINT, "height"), _TAG], "title": "height or tag"}, _block_number)
_BLOCK_OBJECT: Final[JsonSchema] = {
    "type": "object",
    "title": "block object (EIP-1898)",
    "properties": {
        "blockNumber": BLOCK_NUMBER.schema,
        "blockHash": HASH.schema,
        "requireCanonical": BOOLEAN.schema,
    },
    "additionalProperties": False,
}
BLOCK: Final = Kind({"anyOf": [BLOCK_NUMBER.schema, HASH.schema, _BLOCK_OBJECT], "title": "block"}, _block)
SLOT: Final = Kind(_hex("^0x[0-9a-fA-F]{1,64}$", "storage slot"), _slot)
COUNT: Final = Kind({"oneOf": [_hex(_UINT, "quantity"), {"type": "integer", "minimum": 0}]}, _count)
PERCENTILES: Final = Kind(
    {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 100}, "maxItems": PERCENTILES_MAX},
    _percentiles,
)
_ACCESS_ENTRY: Final[JsonSchema] = {
    "type": "object",
    "required": ["address"],
    "properties": {"address": ADDRESS.schema, "storageKeys": {"type": "array", "items": HASH.schema}},
}
CALL: Final = Kind(
    {
        "type": "object",
        "title": "transaction object",
        "properties": {
            "from": ADDRESS.schema,
            "to": ADDRESS.schema,
            "gas": QUANTITY.schema,
            "gasPrice": QUANTITY.schema,
            "maxFeePerGas": QUANTITY.schema,
            "maxPriorityFeePerGas": QUANTITY.schema,
            "value": QUANTITY.schema,
            "input": DATA.schema,
            "data": DATA.schema,
            "accessList": {"type": "array", "items": _ACCESS_ENTRY},
        },
    },
    _call,
)
OVERRIDES: Final = Kind({"type": "object", "maxProperties": 0}, _overrides)


def _one_or_more_schema(kind: Kind) -> JsonSchema:
    many = {"type": "array", "items": kind.schema, "maxItems": ALTERNATIVES_MAX}
    return {"oneOf": [kind.schema, many, {"type": "null"}]}


LOG_FILTER: Final = Kind(
    {
        "type": "object",
        "title": "filter",
        "properties": {
            "fromBlock": BLOCK_NUMBER.schema,
            "toBlock": BLOCK_NUMBER.schema,
            "blockHash": HASH.schema,
            "address": _one_or_more_schema(ADDRESS),
            "topics": {"type": "array", "items": _one_or_more_schema(HASH), "maxItems": TOPICS_MAX},
        },
    },
    _log_query,
)
