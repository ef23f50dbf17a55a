"""What executing a block yields: the block, its receipts, and everything that the database has to write."""

from dataclasses import dataclass

from node.chain.block import Block
from node.chain.errors import InvalidTransaction
from node.chain.receipt import Receipt
from node.chain.state import Values
from node.chain.transaction import Transaction


@dataclass(frozen=True)
class Executed:
    """A valid block and its consequences. Nothing of it is stored yet.

    `encoded_receipts` are the consensus encodings of `receipts`, in their order. `writes` holds database keys (of
    `node.chain.keyspace`) and values. `next_validators` decide the next height: addresses of 20 bytes, ascending.
    `changed` is what `writes` changes of the state.
    """

    block: Block
    receipts: tuple[Receipt, ...]
    encoded_receipts: tuple[bytes, ...]
    writes: dict[bytes, bytes]
    next_validators: tuple[bytes, ...]
    changed: Values


@dataclass(frozen=True)
class Built:
    """A block that was built here, and the transactions that no block on this head can hold, each with the reason.

    What merely did not fit, or waits for an earlier nonce, is in neither.
    """

    executed: Executed
    dropped: list[tuple[Transaction, InvalidTransaction]]


@dataclass(frozen=True, slots=True)
class CallResult:
    """The answer to a call that changes nothing. `output` is what was returned, or the revert data when refused."""

    succeeded: bool
    output: bytes
    gas_used: int
