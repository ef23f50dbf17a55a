"""Native contracts seen from outside: the JSON ABI, what it encodes and decodes, and dispatch by selector."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from merkle.keccak import keccak256
from node.chain.contracts.context import Call, Revert
from node.chain.receipt import EventLog

Handler = Callable[[Call], bytes]
CALLDATA_BYTES_MAX = 32_768  # of the functions that take arrays: their offsets may overlap, so decoding multiplies


class Signature(NamedTuple):
    """A function, an error or an event of an ABI. `id` is its 4-byte selector, or an event's 32-byte topic."""

    name: str
    id: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    indexed: tuple[bool, ...]
    view: bool


class Abi:
    """The ABI of one contract. `json` is the document that ships with the package (`poa_getContracts` shows it)."""

    def __init__(self, name: str, document: list[dict[str, Any]]) -> None:
        self.name = name
        self.json = document
        self.functions = {entry["name"]: _signature(entry) for entry in document if entry["type"] == "function"}
        self.errors = {entry["name"]: _signature(entry) for entry in document if entry["type"] == "error"}
        self.events = {entry["name"]: _signature(entry) for entry in document if entry["type"] == "event"}
        self._errors_by_id = {error.id: error for error in self.errors.values()}
        self._events_by_id = {event.id: event for event in self.events.values()}

    def encode_call(self, name: str, *arguments: object) -> bytes:
        """Calldata for a function: selector and arguments. Addresses may be bytes or 0x-hex."""
        function = self.functions[name]
        return function.id + encode(function.inputs, arguments)

    def decode_result(self, name: str, data: bytes) -> tuple[Any, ...]:
        """What a function returned; addresses as bytes. Raises ValueError when `data` is not that."""
        return _decode(self.functions[name].outputs, data)

    def encode_error(self, name: str, *arguments: object) -> bytes:
        """Revert data: the error's selector and arguments."""
        error = self.errors[name]
        return error.id + encode(error.inputs, arguments)

    def decode_error(self, data: bytes) -> tuple[str, tuple[Any, ...]] | None:
        """Name and arguments of the error in revert data; None when it is none of this contract's."""
        error = self._errors_by_id.get(data[:4])
        if error is None:
            return None
        try:
            return error.name, _decode(error.inputs, data[4:])
        except ValueError:
            return None

    def encode_event(self, contract: bytes, name: str, *arguments: object) -> EventLog:
        """The event log of an event; `arguments` in the ABI's order. Indexed ones must be of one word each."""
        event = self.events[name]
        topics, types, values = [event.id], [], []
        for kind, indexed, value in zip(event.inputs, event.indexed, arguments, strict=True):
            if indexed:
                topics.append(encode([kind], [value]))
            else:
                types.append(kind)
                values.append(value)
        return EventLog(contract, tuple(topics), encode(types, values))

    def decode_event(self, log: EventLog) -> tuple[str, tuple[Any, ...]] | None:
        """Name and arguments, in the ABI's order, of an event log of this contract; None when it is no known event."""
        event = self._events_by_id.get(log.topics[0]) if log.topics else None
        if event is None or len(log.topics) != 1 + sum(event.indexed):
            return None
        plain = [kind for kind, indexed in zip(event.inputs, event.indexed, strict=True) if not indexed]
        try:
            values = iter(_decode(plain, log.data))
            topics = iter(log.topics[1:])
            arguments = tuple(
                _decode([kind], next(topics))[0] if indexed else next(values)
                for kind, indexed in zip(event.inputs, event.indexed, strict=True)
            )
        except ValueError:
            return None
        return event.name, arguments

    def revert(self, name: str, *arguments: object) -> Revert:
        """The exception with which a contract refuses a call."""
        return Revert(self.encode_error(name, *arguments))

    def bind(
        self,
        name: str,
        gas: int,
        function: Callable[..., tuple[object, ...]],
        check: Callable[[bytes], None] = lambda _: None,
    ) -> Handler:
        """A handler that charges `gas`, decodes the arguments, calls `function` and encodes what it returns.

        `check` sees the calldata before anything is decoded.

        Views are refused to transactions: nobody sees what a transaction returns, and reading much costs little gas.
        """
        signature = self.functions[name]

        def handler(call: Call) -> bytes:
            call.charge(gas)
            if signature.view and call.in_transaction:
                raise self.revert("ReadOnly", signature.id)
            if len(call.data) > CALLDATA_BYTES_MAX:
                raise self.revert("InvalidCalldata", f"{len(call.data)} bytes, at most {CALLDATA_BYTES_MAX}")
            check(call.data)
            try:
                arguments = _decode(signature.inputs, call.data[4:])
            except ValueError:
                raise self.revert("InvalidCalldata", f"not the ABI encoding of {name}'s arguments") from None
            return encode(signature.outputs, function(call, *arguments))

        return handler

    def tail_bytes(self, data: bytes, words: int) -> tuple[int, int]:
        """Where the bytes or string that is the last of `words` arguments begins and ends in calldata.

        By hand, since hot calls cannot afford a library. Reverts unless it follows the arguments directly, as every
        encoder puts it.
        """
        begin = 4 + 32 * words + 32
        if len(data) < begin or int.from_bytes(data[begin - 64 : begin - 32], "big") != 32 * words:
            raise self.revert("InvalidCalldata", "the last argument does not follow the others")
        end = begin + int.from_bytes(data[begin - 32 : begin], "big")
        if end > len(data):
            raise self.revert("InvalidCalldata", "the last argument is longer than the calldata")
        return begin, end


def load_abi(name: str) -> Abi:
    """The ABI of the contract `name`, from the JSON file in this package."""
    text = resources.files(__package__).joinpath("abi", f"{name}.json").read_text(encoding="utf-8")
    return Abi(name, json.loads(text))


class NativeContract:
    """A contract in Python: its ABI, its fixed address, and a handler for every function of the ABI."""

    def __init__(self, abi: Abi, address: bytes, handlers: Mapping[str, Handler]) -> None:
        if set(handlers) != set(abi.functions):
            raise ValueError(f"handlers of {abi.name} do not match its ABI: {set(handlers) ^ set(abi.functions)}")
        self.abi = abi
        self.name = abi.name
        self.address = address
        # 0xfe is EVM's INVALID: whoever runs this code elsewhere gets a failure, never another meaning.
        self.code = b"\xfe" + f"psephos:{abi.name}:1".encode()
        self._handlers = {abi.functions[name].id: handler for name, handler in handlers.items()}

    def call(self, call: Call) -> bytes:
        """Answer a call with its ABI-encoded output. Raises Revert or OutOfGas; the caller undoes the state."""
        if call.value:
            raise Revert(b"")  # as Solidity's functions that are not payable
        handler = self._handlers.get(call.data[:4])
        if handler is None:
            raise self.abi.revert("UnknownFunction", call.data[:4].ljust(4, b"\0"))
        return handler(call)


def _signature(entry: dict[str, Any]) -> Signature:
    inputs = tuple(_type(item) for item in entry["inputs"])
    outputs = tuple(_type(item) for item in entry.get("outputs", ()))
    digest = keccak256(f"{entry['name']}({','.join(inputs)})".encode())
    indexed = tuple(bool(item.get("indexed")) for item in entry["inputs"])
    id_ = digest if entry["type"] == "event" else digest[:4]
    return Signature(entry["name"], id_, inputs, outputs, indexed, entry.get("stateMutability") == "view")


def _type(item: dict[str, Any]) -> str:
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(part) for part in item['components'])}){kind[5:]}"


def _decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """eth_abi's decoding, with addresses as bytes and every failure a ValueError."""
    try:
        values = decode(types, data)
    except (DecodingError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return tuple(_plain(kind, value) for kind, value in zip(types, values, strict=True))


def _plain(kind: str, value: Any) -> Any:
    if kind == "address":
        return bytes.fromhex(value[2:])
    if kind == "address[]":
        return tuple(bytes.fromhex(item[2:]) for item in value)
    return value
