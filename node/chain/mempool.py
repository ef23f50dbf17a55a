"""Transactions that wait for a block: who gets in, who is replaced, and which go next. Policy, never validity.

Turns go to senders, not to prices. Everything is accepted for nothing here, so a price that bought precedence would
let one account, for a wei a transaction, keep all others out for as long as its queue lasts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple, Protocol

from node.chain.errors import InvalidTransaction
from node.chain.processing import check_sender, check_static, cost_max
from node.chain.transaction import Transaction

_MISFITS_MAX = 64  # senders whose next transaction does not fit, after which a block counts as full
_TRANSACTION_GAS_MIN = 21_000


class AccountView(Protocol):
    """What the mempool asks of the state after the head."""

    def nonce(self, address: bytes) -> int:
        """The nonce that the account's next transaction must have."""

    def balance(self, address: bytes) -> int:
        """The account's balance in wei."""

    def storage(self, address: bytes, slot: int) -> int:
        """The value of a contract's slot; 0 where nothing was stored."""


@dataclass(frozen=True, kw_only=True)
class MempoolLimits:
    """How much may wait: in all, for each sender, and ahead of a nonce that is missing.

    A share of the whole is kept for senders who have few transactions waiting, so that a few busy ones cannot lock
    everybody else out.
    """

    transactions_max: int = 50_000
    bytes_max: int = 128 << 20
    sender_transactions_max: int = 16_384
    sender_bytes_max: int = 48 << 20
    nonce_gap_max: int = 1_024
    reserved_share: float = 0.1
    reserved_transactions: int = 16  # a sender with fewer waiting may use the reserved share


class _Entry(NamedTuple):
    transaction: Transaction
    arrival: int
    tip: int  # wei per gas
    cost: int  # wei


class _Sender:
    """One account's queue by nonce. Those from `nonce` up to `ready_end` can be executed one after the other."""

    __slots__ = ("bytes_count", "cost", "nonce", "queue", "ready_end", "served")

    def __init__(self, nonce: int) -> None:
        self.nonce = nonce
        self.ready_end = nonce
        self.queue: dict[int, _Entry] = {}
        self.bytes_count = 0
        self.cost = 0
        self.served = 0  # when a block last held something of this account, counted as arrivals are

    def put(self, entry: _Entry) -> None:
        nonce = entry.transaction.nonce
        self.queue[nonce] = entry
        self.bytes_count += len(entry.transaction.raw)
        self.cost += entry.cost
        while self.ready_end in self.queue:
            self.ready_end += 1

    def take(self, nonce: int) -> _Entry:
        entry = self.queue.pop(nonce)
        self.bytes_count -= len(entry.transaction.raw)
        self.cost -= entry.cost
        if self.nonce <= nonce < self.ready_end:
            self.ready_end = nonce
        return entry

    def advance(self, nonce: int) -> list[_Entry]:
        """The account's next nonce is `nonce` now: take out and return what is below it."""
        if nonce <= self.nonce:
            return []
        few = nonce - self.nonce > len(self.queue)
        stale = [old for old in self.queue if old < nonce] if few else range(self.nonce, nonce)
        taken = []
        for old in stale:
            entry = self.queue.pop(old, None)
            if entry is not None:
                self.bytes_count -= len(entry.transaction.raw)
                self.cost -= entry.cost
                taken.append(entry)
        self.nonce = nonce
        self.ready_end = max(self.ready_end, nonce)
        while self.ready_end in self.queue:
            self.ready_end += 1
        return taken


class Mempool:
    """The transactions that wait, each valid by itself against the head it was last checked with.

    Args:
        limits: how much may wait.
        chain_id: the network's (EIP-155).
        gas_max: what a block may use.
    """

    def __init__(self, limits: MempoolLimits, *, chain_id: int, gas_max: int) -> None:
        self._limits = limits
        self._chain_id = chain_id
        self._gas_max = gas_max
        self._by_hash: dict[bytes, Transaction] = {}
        self._senders: dict[bytes, _Sender] = {}
        self._ready: dict[bytes, _Sender] = {}  # those of the senders who have something that can be executed
        self._moments = 0  # arrivals and servings, numbered
        self.bytes_count = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, transaction_hash: object) -> bool:
        return transaction_hash in self._by_hash

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._by_hash.values())

    @property
    def ready_count(self) -> int:
        """How many of them can be executed one after the other, as far as this pool knows; the rest lacks a nonce."""
        return sum(sender.ready_end - sender.nonce for sender in self._ready.values())

    def get(self, transaction_hash: bytes) -> Transaction | None:
        """The waiting transaction with this hash."""
        return self._by_hash.get(transaction_hash)

    def add(self, transaction: Transaction, *, state: AccountView) -> None:
        """Take a transaction in, in the place of one with the same sender and nonce that offers less.

        `state` is the head's. Raises InvalidTransaction, worded as geth does, and changes nothing then.
        """
        if transaction.hash in self._by_hash:
            raise InvalidTransaction("already known")
        check_static(transaction, chain_id=self._chain_id, gas_max=self._gas_max)
        address, nonce = transaction.sender, transaction.nonce
        check_sender(state, address)
        next_nonce = state.nonce(address)
        if nonce < next_nonce:
            raise InvalidTransaction("nonce too low", f"next nonce {next_nonce}, tx nonce {nonce}")
        sender = self._senders.get(address)
        if sender is not None and sender.nonce < next_nonce:
            self._advance(address, next_nonce)
            sender = self._senders.get(address)
        old = sender.queue.get(nonce) if sender else None
        tip = transaction.effective_tip(0) if transaction.max_priority_fee_per_gas else 0
        if old is not None and tip <= old.tip:
            raise InvalidTransaction("replacement transaction underpriced", f"tip {tip}, needs more than {old.tip}")
        cost = cost_max(transaction)
        queued = (sender.cost if sender else 0) - (old.cost if old else 0)
        if cost and cost + queued > (balance := state.balance(address)):
            raise InvalidTransaction(
                "insufficient funds for gas * price + value",
                f"balance {balance}, queued cost {queued}, tx cost {cost}",
            )
        self._check_room(transaction, sender, old, next_nonce)
        if sender is None:
            sender = self._senders[address] = _Sender(next_nonce)
        if old is not None:
            self._forget(sender.take(nonce))
        self._moments += 1
        sender.put(_Entry(transaction, self._moments, tip, cost))
        if sender.ready_end > sender.nonce:
            self._ready[address] = sender
        self._by_hash[transaction.hash] = transaction
        self.bytes_count += len(transaction.raw)

    def select(self, *, gas_max: int, bytes_max: int, next_nonce: Callable[[bytes], int]) -> list[Transaction]:
        """Transactions for the next block, in an order that can be executed, within these sums of gas limits and bytes.

        Each sender's first, then each sender's second, and so on; in each turn those first who have waited longest,
        since their transaction came or a block last held one of theirs. So who sends much does not delay who
        sends little, even when each of the many fills a block.
        """
        # turn, since when, nonce, address; two senders never wait since the same moment.
        heap = [
            (0, max(entry.arrival, sender.served), sender.nonce, address)
            for address, sender in self._ready.items()
            if (entry := sender.queue.get(sender.nonce)) is not None
        ]
        heapify(heap)
        selected: list[Transaction] = []
        misfits = 0
        while heap and gas_max >= _TRANSACTION_GAS_MIN and misfits <= _MISFITS_MAX:
            turn, _, nonce, address = heap[0]
            sender = self._senders[address]
            queue = sender.queue
            if turn == 0 and next_nonce(address) != nonce:  # a block that this pool was not told of
                heappop(heap)
                continue
            transaction = queue[nonce].transaction
            if transaction.gas_limit > gas_max or len(transaction.raw) > bytes_max:
                misfits += 1
                heappop(heap)
                continue
            selected.append(transaction)
            gas_max -= transaction.gas_limit
            bytes_max -= len(transaction.raw)
            entry = queue.get(nonce + 1)
            if entry is None:
                heappop(heap)
            else:
                heapreplace(heap, (turn + 1, max(entry.arrival, sender.served), nonce + 1, address))
        return selected

    def finalised(self, transactions: Iterable[Transaction], next_nonce: Callable[[bytes], int]) -> None:
        """A block with these transactions is final: drop them, and whatever of their senders is stale now."""
        for address in dict.fromkeys(transaction.sender for transaction in transactions):
            self._advance(address, next_nonce(address))
            if (sender := self._senders.get(address)) is not None:
                self._moments += 1
                sender.served = self._moments

    def remove(self, transaction_hash: bytes) -> None:
        """Drop one transaction; those of its sender behind it wait for another with its nonce."""
        transaction = self._by_hash.get(transaction_hash)
        if transaction is not None:
            address = transaction.sender
            sender = self._senders[address]
            self._forget(sender.take(transaction.nonce))
            self._file(address, sender)

    def pending_nonce(self, sender: bytes, account_nonce: int) -> int:
        """The nonce behind the sender's executable transactions here; `account_nonce` is the head's."""
        self._advance(sender, account_nonce)
        known = self._senders.get(sender)
        return account_nonce if known is None else known.ready_end

    def has_work(self, next_nonce: Callable[[bytes], int]) -> bool:
        """Whether any transaction can be executed now."""
        return any(next_nonce(address) in sender.queue for address, sender in self._ready.items())

    def _advance(self, address: bytes, nonce: int) -> None:
        sender = self._senders.get(address)
        if sender is None or nonce <= sender.nonce:
            return
        for entry in sender.advance(nonce):
            self._forget(entry)
        self._file(address, sender)

    def _file(self, address: bytes, sender: _Sender) -> None:
        """Keep the indexes of senders true after a change of this one's queue."""
        if not sender.queue:
            del self._senders[address]
        if sender.ready_end > sender.nonce:
            self._ready[address] = sender
        else:
            self._ready.pop(address, None)

    def _forget(self, entry: _Entry) -> None:
        del self._by_hash[entry.transaction.hash]
        self.bytes_count -= len(entry.transaction.raw)

    def _check_room(
        self, transaction: Transaction, sender: _Sender | None, old: _Entry | None, next_nonce: int
    ) -> None:
        limits = self._limits
        size = len(transaction.raw)
        count, count_bytes, ready_end = 0, 0, next_nonce
        if sender is not None:
            count, count_bytes, ready_end = len(sender.queue), sender.bytes_count, sender.ready_end
        gap_end = ready_end + limits.nonce_gap_max
        if transaction.nonce > gap_end:
            raise InvalidTransaction("nonce too high", f"next nonce {ready_end}, tx nonce {transaction.nonce}")
        more, more_bytes = 1, size
        if old is not None:
            more, more_bytes = 0, size - len(old.transaction.raw)
        if count + more > limits.sender_transactions_max or count_bytes + more_bytes > limits.sender_bytes_max:
            raise InvalidTransaction(
                "txpool is full", f"{count} transactions of {count_bytes} bytes of this sender wait already"
            )
        share = 1.0 if count < limits.reserved_transactions else 1.0 - limits.reserved_share
        total, total_bytes = len(self._by_hash) + more, self.bytes_count + more_bytes
        if total > limits.transactions_max * share or total_bytes > limits.bytes_max * share:
            raise InvalidTransaction(
                "txpool is full", f"{len(self._by_hash)} transactions of {self.bytes_count} bytes wait already"
            )
