"""`txpool_` methods: what waits in this node's mempool."""

from collections.abc import Iterator

from node.chain.state import State
from node.chain.transaction import Transaction
from node.rpc.hexes import data, quantity
from node.rpc.methods import Kind, Param, rpc
from node.rpc.pacing import Pace
from node.rpc.params import ADDRESS, QUANTITY
from node.rpc.ports import NodePort
from node.rpc.results import TRANSACTION, record
from node.rpc.views import View, transaction_view

_BY_NONCE = Kind({"type": "object", "additionalProperties": TRANSACTION.schema})
_BY_SENDER = Kind({"type": "object", "additionalProperties": _BY_NONCE.schema})
_TEXTS = Kind({"type": "object", "additionalProperties": {"type": "object"}})

Placed = tuple[str, Transaction]  # "pending" or "queued", and the transaction


class MempoolMethods:
    """Waiting transactions: `pending` could be in the next block, `queued` wait for a nonce before theirs."""

    def __init__(self, node: NodePort) -> None:
        self._node = node

    @rpc("txpool_status", result=record("counts", pending=QUANTITY, queued=QUANTITY))
    def status(self) -> View:
        """How many transactions wait."""
        counts = {"pending": 0, "queued": 0}
        for group, _ in self._placed():
            counts[group] += 1
        return {group: quantity(count) for group, count in counts.items()}

    @rpc("txpool_content", result=record("content", pending=_BY_SENDER, queued=_BY_SENDER))
    async def content(self) -> View:
        """All waiting transactions, by sender and nonce."""
        pace = Pace()
        content: View = {"pending": {}, "queued": {}}
        for group, transaction in self._placed():
            of_sender = content[group].setdefault(data(transaction.sender), {})
            of_sender[str(transaction.nonce)] = transaction_view(transaction)
            await pace.breathe()
        return content

    @rpc(
        "txpool_contentFrom",
        Param("address", ADDRESS, "The sender."),
        result=record("content", pending=_BY_NONCE, queued=_BY_NONCE),
    )
    def content_from(self, address: bytes) -> View:
        """The waiting transactions of one sender, by nonce."""
        content: View = {"pending": {}, "queued": {}}
        for group, transaction in self._placed():
            if transaction.sender == address:
                content[group][str(transaction.nonce)] = transaction_view(transaction)
        return content

    @rpc("txpool_inspect", result=record("texts", pending=_TEXTS, queued=_TEXTS))
    async def inspect(self) -> View:
        """A line on each waiting transaction, by sender and nonce, as geth writes it."""
        pace = Pace()
        texts: View = {"pending": {}, "queued": {}}
        for group, transaction in self._placed():
            to = data(transaction.to) if transaction.to else "contract creation"
            line = f"{to}: {transaction.value} wei + {transaction.gas_limit} gas × {transaction.max_fee_per_gas} wei"
            texts[group].setdefault(data(transaction.sender), {})[str(transaction.nonce)] = line
            await pace.breathe()
        return texts

    def _placed(self) -> Iterator[Placed]:
        """Each waiting transaction with its group. A snapshot, since the pool changes while the caller pauses."""
        chain, mempool = self._node.chain, self._node.mempool
        state = State(chain, chain.head.state_root)
        next_nonces: dict[bytes, int] = {}
        for transaction in list(mempool):
            sender = transaction.sender
            if sender not in next_nonces:
                next_nonces[sender] = mempool.pending_nonce(sender, state.nonce(sender))
            yield "pending" if transaction.nonce < next_nonces[sender] else "queued", transaction
