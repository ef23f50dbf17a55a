"""The way of a transaction from raw bytes into the mempool: known ones cost a hash, signatures are checked once."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from node.chain.block import Header
from node.chain.errors import InvalidTransaction, PeerError
from node.chain.known import KnownTransactions
from node.chain.mempool import Mempool
from node.chain.state import State
from node.chain.transaction import Transaction
from node.ledger import Ledger

log = logging.getLogger(__name__)

STATE_USES_MAX = 65_536  # transactions checked against one state, which remembers each sender


class GarbledTransaction(PeerError):
    """A peer passed on bytes that no honest node takes in."""


RecoverSenders = Callable[[Sequence[Transaction]], Awaitable[None]]


class Intake:
    """Decodes, checks and adds transactions.

    `known` is for whatever else brings transactions: what one way has decoded and recovered serves the others.

    Args:
        recover_senders: makes every transaction's sender known where its signature is valid, and raises nothing.
        on_added: told of each batch that entered the mempool, in order, and whether a client (not a peer) sent it.
    """

    def __init__(
        self,
        ledger: Ledger,
        mempool: Mempool,
        recover_senders: RecoverSenders,
        on_added: Callable[[list[Transaction], bool], None],
    ) -> None:
        self._ledger = ledger
        self._mempool = mempool
        self.known = KnownTransactions()
        self._recover_senders = recover_senders
        self._on_added = on_added
        self._state_header: Header | None = None
        self._state: State = ledger.state()
        self._state_uses = 0

    def state(self) -> State:
        """The accounts after the head; one object per head, since it remembers what it read, but not without bound."""
        if self._state_header is not self._ledger.head or self._state_uses > STATE_USES_MAX:
            self._state_header = self._ledger.head
            self._state = self._ledger.state()
            self._state_uses = 0
        return self._state

    async def submit(self, raws: Sequence[bytes], *, from_client: bool) -> list[bytes | InvalidTransaction]:
        """Add raw transactions; for each, in order, its hash or why it was refused.

        Raises GarbledTransaction, once the others are added, where a peer sent bytes that are no transaction, or one
        that nobody has signed: it passes on only what it has taken in itself.
        """
        garbled = ""
        outcomes: list[bytes | InvalidTransaction] = []
        fresh: list[tuple[int, Transaction]] = []
        for raw in raws:
            try:
                transaction = self.known.decode(raw)
            except InvalidTransaction as refusal:
                outcomes.append(refusal)
                garbled = garbled or str(refusal)
                continue
            if transaction.hash in self._mempool:
                outcomes.append(InvalidTransaction("already known"))
            else:
                fresh.append((len(outcomes), transaction))
                outcomes.append(transaction.hash)
        await self._recover_senders([transaction for _, transaction in fresh])
        added = []
        state = self.state()
        self._state_uses += len(fresh)
        for position, transaction in fresh:
            try:
                self._mempool.add(transaction, state=state)
            except InvalidTransaction as refusal:
                outcomes[position] = refusal
                if not transaction.is_sender_known:
                    garbled = garbled or str(refusal)
            else:
                added.append(transaction)
        if added:
            self._on_added(added, from_client)
        if garbled and not from_client:
            raise GarbledTransaction(f"passed on what is no transaction: {garbled}")
        return outcomes
