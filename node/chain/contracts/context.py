"""What a native contract is given: the block it runs in, the call it answers, and the gas it may use."""

from dataclasses import dataclass, field

from node.chain.domain import Domain
from node.chain.receipt import EventLog
from node.chain.state import State


class Revert(Exception):
    """The contract refuses the call; `data` is the ABI-encoded error."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"reverted with 0x{data[:36].hex()}")
        self.data = data


class OutOfGas(Exception):
    """The call needs more gas than it was given."""


@dataclass(slots=True)
class Appended:
    """Entries that a block appends to one log: the index of the first, and each one (id first) and its leaf hash."""

    first_index: int
    entries: list[bytes] = field(default_factory=list)
    leaf_hashes: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class BlockContext:
    """The block under execution. `timestamp` is in seconds; `position` is the running transaction's, from 0.

    `appended` gathers log entries by log number until the block ends. A contract appends as the last thing it does
    in a call, when nothing can fail any more: unlike the state, these lists have no journal.
    """

    state: State
    number: int
    timestamp: int
    domain: Domain
    appended: dict[int, Appended] = field(default_factory=dict)
    position: int = 0


@dataclass(slots=True)
class Call:
    """One call of a contract. `gas_used` starts with the intrinsic gas; `value` is in wei, already credited."""

    block: BlockContext
    sender: bytes
    value: int
    data: bytes
    gas_limit: int
    in_transaction: bool
    gas_used: int = 0
    event_logs: list[EventLog] = field(default_factory=list)

    def charge(self, gas: int) -> None:
        """Count `gas` as used. Raises OutOfGas when the call's limit does not cover it."""
        self.gas_used += gas
        if self.gas_used > self.gas_limit:
            raise OutOfGas(f"needs {self.gas_used} gas, has {self.gas_limit}")
