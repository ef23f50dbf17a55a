"""Recovers who signed transactions, on the event loop, giving way: for a block at once, for what is submitted in turns.

In a thread of its own it took a tenth more CPU, since each signature gives up the interpreter's lock and has to get it
back from a loop that is busy: 155 against 138 µs a transfer, medians of 4 interleaved runs.
"""

from collections.abc import Sequence

from node.chain.errors import InvalidTransaction
from node.chain.transaction import Transaction
from node.rpc.pacing import Pace, Turn, Turns


class Recovery:
    """Makes senders known where the signatures are valid, and raises nothing: who reads the sender next is told."""

    def __init__(self) -> None:
        self._turns = Turns()

    async def of_block(self, transactions: Sequence[Transaction]) -> None:
        """Those of a proposed or fetched block, which nothing else may hold up."""
        await _recover(transactions, Pace())

    async def of_submitted(self, transactions: Sequence[Transaction]) -> None:
        """Those on their way to the mempool: however many callers there are, a block waits for one slice of one."""
        unknown = [transaction for transaction in transactions if not transaction.is_sender_known]
        if not unknown:
            return
        if len(unknown) == 1 and self._turns.is_free:  # a turn costs a quarter of the signature
            _learn_sender(unknown[0])
            return
        async with self._turns.taken() as turn:
            await _recover(unknown, turn)


async def _recover(transactions: Sequence[Transaction], pace: Pace | Turn) -> None:
    for transaction in transactions:
        if not transaction.is_sender_known:
            _learn_sender(transaction)
            await pace.breathe()


def _learn_sender(transaction: Transaction) -> None:
    try:
        _ = transaction.sender
    except InvalidTransaction:  # whoever reads it next is told; `contextlib.suppress` takes half a µs of each
        return
