"""Solidity's storage layout: where mappings, dynamic arrays and strings lie in the slots of a contract."""

from functools import lru_cache
from typing import Protocol

from merkle.keccak import keccak256


class StorageReader(Protocol):
    """Contracts' 256-bit slots by number, to be read."""

    def storage(self, address: bytes, slot: int) -> int:
        """The value of a slot; 0 where nothing was stored."""


class Slots(StorageReader, Protocol):
    """What of the state the layout needs: slots to be read and written."""

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        """Store a value in a slot."""


@lru_cache(maxsize=4096)
def mapping_slot(key: int, slot: int) -> int:
    """The slot of `mapping[key]` for a mapping at `slot`; an address or bytes32 key is its integer."""
    return int.from_bytes(keccak256(key.to_bytes(32, "big") + slot.to_bytes(32, "big")), "big")


@lru_cache(maxsize=4096)
def data_slot(slot: int) -> int:
    """Where the elements of a dynamic array at `slot`, or the bytes of a long string there, begin."""
    return int.from_bytes(keccak256(slot.to_bytes(32, "big")), "big")


def read_string(state: Slots, contract: bytes, slot: int) -> str:
    """The UTF-8 string that `write_string` stored at `slot`."""
    head = state.storage(contract, slot)
    if head & 1 == 0:  # short: the text is in the slot itself, twice its length in the lowest byte
        return head.to_bytes(32, "big")[: (head & 0xFF) // 2].decode()
    length = head >> 1
    first = data_slot(slot)
    words = [state.storage(contract, first + i).to_bytes(32, "big") for i in range((length + 31) // 32)]
    return b"".join(words)[:length].decode()


def write_string(state: Slots, contract: bytes, slot: int, text: str) -> None:
    """Store a string in fresh slots; a longer one that was there before would leave its tail behind."""
    data = text.encode()
    if len(data) < 32:
        state.set_storage(contract, slot, int.from_bytes(data.ljust(32, b"\0"), "big") | len(data) * 2)
        return
    state.set_storage(contract, slot, len(data) * 2 + 1)
    first = data_slot(slot)
    for i in range(0, len(data), 32):
        state.set_storage(contract, first + i // 32, int.from_bytes(data[i : i + 32].ljust(32, b"\0"), "big"))


def read_addresses(state: Slots, contract: bytes, slot: int) -> tuple[bytes, ...]:
    """The address[] at `slot`, one address to a slot as Solidity keeps them."""
    count, first = state.storage(contract, slot), data_slot(slot)
    return tuple(state.storage(contract, first + i).to_bytes(32, "big")[12:] for i in range(count))


def write_addresses(state: Slots, contract: bytes, slot: int, addresses: tuple[bytes, ...]) -> None:
    """Store an address[] at `slot` and free what a longer one before it left behind."""
    first = data_slot(slot)
    for i in range(len(addresses), state.storage(contract, slot)):
        state.set_storage(contract, first + i, 0)
    state.set_storage(contract, slot, len(addresses))
    for i, address in enumerate(addresses):
        state.set_storage(contract, first + i, int.from_bytes(address, "big"))
