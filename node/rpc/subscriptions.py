"""What one WebSocket connection follows: each subscription pulls what is new, so that a slow reader fills no memory."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from node.chain.transaction import Transaction
from node.rpc.blocks import Blocks
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import LIMIT_EXCEEDED, RpcError, invalid_params
from node.rpc.limits import Limits
from node.rpc.logs import LogMatcher, LogSearch
from node.rpc.methods import BadValue, Kind, Param, optional, rpc, shown
from node.rpc.params import BOOLEAN, HASH, LOG_FILTER, QUANTITY, BlockRef, LogQuery
from node.rpc.ports import NodePort
from node.rpc.results import EVENT_LOG, HEADER, PROGRESS, TRANSACTION, record
from node.rpc.views import header_view, transaction_view

Tell = Callable[[object], Awaitable[None]]
Notify = Callable[[str, object], Awaitable[None]]  # a subscription's id and one result

KINDS = ("newHeads", "logs", "newPendingTransactions", "syncing")
EVERY_LOG = LogQuery(BlockRef(tag="latest"), BlockRef(tag="latest"), frozenset(), ())


# What the notifications of each kind hold, for whoever validates them.
NOTIFICATIONS: Mapping[str, Kind] = {
    "newHeads": HEADER,
    "logs": EVENT_LOG,
    "newPendingTransactions": Kind({"oneOf": [HASH.schema, TRANSACTION.schema]}),
    "syncing": Kind({"oneOf": [{"const": False}, record("change", syncing=BOOLEAN, status=PROGRESS).schema]}),
}


class TooSlow(Exception):
    """The reader has fallen so far behind that its connection is closed; the message is the reason it is told."""


class Subscription(Protocol):
    """Something that is followed."""

    async def pump(self, tell: Tell) -> bool:
        """Tell some of what is new, in order; whether there is more. Raises TooSlow when that is too much."""

    def added(self, transactions: Sequence[Transaction]) -> None:
        """These have entered the mempool."""


class _Follower:
    """Follows the chain by height: what was told is `next_height`'s past, and nothing is kept in between."""

    def __init__(self, blocks: Blocks, limits: Limits, next_height: int) -> None:
        self._blocks = blocks
        self._lag_max = limits.subscription_lag_blocks_max
        self._next_height = next_height
        self._has_caught_up = next_height > blocks.head_height  # else it began in the past, and may take its time

    async def pump(self, tell: Tell) -> bool:
        """Tell of the next block, or some more."""
        lag = self._blocks.head_height + 1 - self._next_height
        if lag <= 0:
            self._has_caught_up = True
            return False
        if self._has_caught_up and lag > self._lag_max:
            raise TooSlow(f"too slow: {lag} blocks behind the head, at most {self._lag_max}")
        self._next_height = await self._tell_from(self._next_height, tell)
        return True

    async def _tell_from(self, height: int, tell: Tell) -> int:
        """Tell of the block at `height`, or some more; the height to go on from."""
        header = self._blocks.header(BlockRef(height=height))
        if header is not None:
            await tell(header_view(header))
        return height + 1

    def added(self, transactions: Sequence[Transaction]) -> None:
        """It follows blocks, not the mempool."""


class NewHeads(_Follower):
    """Headers of final blocks, each once and in order."""


class NewLogs(_Follower):
    """Event logs of final blocks that match."""

    def __init__(self, blocks: Blocks, limits: Limits, next_height: int, query: LogQuery) -> None:
        super().__init__(blocks, limits, next_height)
        self._search = LogSearch(blocks, limits)
        self._matcher = LogMatcher(query)

    async def _tell_from(self, height: int, tell: Tell) -> int:
        found, next_height = await self._search.some(self._matcher, height, self._blocks.head_height)
        for log in found:
            await tell(log)
        return next_height


class NewTransactions:
    """Transactions that enter the mempool: hashes, or whole."""

    def __init__(self, limits: Limits, *, whole: bool) -> None:
        self._waiting: deque[Transaction] = deque()
        self._waiting_max = limits.subscription_waiting_max
        self._whole = whole
        self._has_overflown = False

    def added(self, transactions: Sequence[Transaction]) -> None:
        """Note them until the reader has time."""
        if len(self._waiting) + len(transactions) > self._waiting_max:
            self._has_overflown = True
            self._waiting.clear()
        if not self._has_overflown:
            self._waiting.extend(transactions)

    async def pump(self, tell: Tell) -> bool:
        """Tell of what was noted."""
        while self._waiting:
            transaction = self._waiting.popleft()
            await tell(transaction_view(transaction) if self._whole else data(transaction.hash))
        if self._has_overflown:
            raise TooSlow(f"too slow: more than {self._waiting_max} new transactions wait for this subscriber")
        return False


class SyncingChanges:
    """When this node begins and ends to catch up, as geth tells it."""

    def __init__(self, node: NodePort) -> None:
        self._node = node
        self._was_syncing = node.syncing() is not None

    def added(self, transactions: Sequence[Transaction]) -> None:
        """It follows no mempool."""

    async def pump(self, tell: Tell) -> bool:
        """Tell if it has changed."""
        progress = self._node.syncing()
        if (progress is not None) == self._was_syncing:
            return False
        self._was_syncing = progress is not None
        if progress is None:
            await tell(False)
            return False
        status = {
            "startingBlock": quantity(progress.starting),
            "currentBlock": quantity(progress.current),
            "highestBlock": quantity(progress.highest),
        }
        await tell({"syncing": True, "status": status})
        return False


def _parse_kind(value: object) -> str:
    if value not in KINDS:
        raise BadValue(f"no {shown(value)} subscription; expected one of {', '.join(KINDS)}")
    return str(value)


def _parse_option(value: object) -> LogQuery | bool:
    if isinstance(value, bool):
        return value
    query: LogQuery = LOG_FILTER.parse(value)
    return query


_KIND = Kind({"type": "string", "enum": list(KINDS)}, _parse_kind)
_OPTION = Kind({"oneOf": [LOG_FILTER.schema, BOOLEAN.schema], "title": "filter, or whether whole"}, _parse_option)


class Subscriptions:
    """The subscriptions of one connection, and the methods that make and end them.

    A subscription is told of nothing before the answer that names it has been sent: `start` lets it begin.
    """

    def __init__(self, node: NodePort, blocks: Blocks, limits: Limits) -> None:
        self._node = node
        self._blocks = blocks
        self._limits = limits
        self._running: dict[str, Subscription] = {}
        self._made: dict[str, tuple[Subscription, object]] = {}  # not started yet, and who made it
        self._news = asyncio.Event()

    @rpc(
        "eth_subscribe",
        Param("kind", _KIND, "What to follow."),
        optional("option", _OPTION, "Of logs: a filter. Of newPendingTransactions: true for whole transactions."),
        result=QUANTITY,
    )
    def subscribe(self, kind: str, option: LogQuery | bool | None) -> str:
        """Follow new heads, event logs, waiting transactions or catching up, over WebSocket; answers the subscription.

        A `fromBlock` in the filter of `logs` begins in the past.
        """
        if len(self._running) + len(self._made) >= self._limits.subscriptions_max:
            at_most = self._limits.subscriptions_max
            raise RpcError(LIMIT_EXCEEDED, f"too many subscriptions: at most {at_most} on one connection")
        subscription = self._make(kind, option)
        identifier = quantity(secrets.randbits(127) | 1 << 127)
        self._made[identifier] = (subscription, asyncio.current_task())
        return identifier

    @rpc(
        "eth_unsubscribe",
        Param("subscription", QUANTITY, "What eth_subscribe answered."),
        result=BOOLEAN,
    )
    def unsubscribe(self, identifier: int) -> bool:
        """End a subscription of this connection; true when there was one."""
        key = quantity(identifier)
        return self._running.pop(key, None) is not None or self._made.pop(key, None) is not None

    def _make(self, kind: str, option: LogQuery | bool | None) -> Subscription:
        next_height = self._blocks.head_height + 1
        if kind == "logs":
            if isinstance(option, bool):
                raise invalid_params("invalid argument 1 (option): expected a filter object for logs")
            query = option or EVERY_LOG
            if query.first.hash or query.last.height >= 0:
                raise invalid_params("invalid argument 1 (option): a subscription has no last block and no blockHash")
            if query.first.height >= 0 or query.first.tag == "earliest":
                next_height = max(query.first.height, 0)
            return NewLogs(self._blocks, self._limits, next_height, query)
        if kind == "newPendingTransactions":
            if isinstance(option, LogQuery):
                raise invalid_params("invalid argument 1 (option): expected true or false")
            return NewTransactions(self._limits, whole=bool(option))
        if option is not None:
            raise invalid_params(f"invalid argument 1 (option): {kind} takes none")
        return NewHeads(self._blocks, self._limits, next_height) if kind == "newHeads" else SyncingChanges(self._node)

    def start(self) -> None:
        """The answer of this task's message is sent: what it made may be told of now."""
        task = asyncio.current_task()
        for identifier in [key for key, (_, maker) in self._made.items() if maker is task]:
            self._running[identifier] = self._made.pop(identifier)[0]
            self._news.set()

    def head_advanced(self) -> None:
        """A block has become final."""
        self._news.set()

    def transactions_added(self, transactions: Sequence[Transaction]) -> None:
        """These have entered the mempool."""
        for subscription in self._running.values():
            subscription.added(transactions)
        for subscription, _ in self._made.values():
            subscription.added(transactions)
        self._news.set()

    async def run(self, notify: Notify) -> None:
        """Tell every subscription's news until cancelled. Raises TooSlow."""
        while True:
            await self._news.wait()
            self._news.clear()
            behind = list(self._running.items())
            while behind:  # in turns: one that began in the past holds up no other
                behind = [
                    (identifier, subscription)
                    for identifier, subscription in behind
                    if identifier in self._running and await subscription.pump(self._teller(identifier, notify))
                ]

    def _teller(self, identifier: str, notify: Notify) -> Tell:
        async def tell(result: object) -> None:
            if identifier in self._running:  # it may have been ended while this was on its way
                await notify(identifier, result)

        return tell
