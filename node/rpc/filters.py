"""`eth_getLogs`, and filters that remember how far a client has read; bounded in number, forgotten when idle."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from orjson import Fragment

from node.rpc.blocks import Blocks
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.logs import LogMatcher, LogSearch
from node.rpc.methods import Kind, Param, rpc
from node.rpc.params import BOOLEAN, LOG_FILTER, QUANTITY, BlockRef, LogQuery
from node.rpc.ports import NodePort
from node.rpc.results import EVENT_LOG, HASHES, list_of

_ID = Param("filterId", QUANTITY, "The filter's id, as it was answered when the filter was made.")
_QUERY = Param("filter", LOG_FILTER, "Which event logs: blocks, addresses, topics.")
_CHANGES = Kind({"oneOf": [HASHES.schema, list_of(EVENT_LOG).schema]})


@dataclass(slots=True)
class Filter:
    """What one client follows: event logs of `query`, else block hashes or hashes of transactions.

    `next_height` is the first block it has not been told of, `seen` the waiting transactions it knows.
    """

    query: LogQuery | None
    next_height: int
    used_s: float
    follows_transactions: bool = False
    seen: frozenset[bytes] = field(default_factory=frozenset)
    is_busy: bool = False


class LogMethods:
    """Event logs, at once or by and by."""

    def __init__(self, node: NodePort, blocks: Blocks, limits: Limits) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks
        self._limits = limits
        self._search = LogSearch(blocks, limits)
        self._filters: dict[int, Filter] = {}

    @rpc("eth_getLogs", _QUERY, result=list_of(EVENT_LOG))
    async def get_logs(self, query: LogQuery) -> list[Fragment]:
        """The event logs of final blocks that a filter wants."""
        return await self._search.all(query)

    @rpc("eth_newFilter", _QUERY, result=QUANTITY)
    def new_filter(self, query: LogQuery) -> str:
        """Make a filter that follows event logs; poll it with eth_getFilterChanges."""
        if query.first.hash:
            raise RpcError(SERVER_ERROR, "a filter follows the chain: it takes fromBlock and toBlock, not blockHash")
        start = self._chain.head.number + 1
        if query.first.height >= 0 or query.first.tag == "earliest":
            start = max(query.first.height, 0)
        return self._add(Filter(query, start, time.monotonic()))

    @rpc("eth_newBlockFilter", result=QUANTITY)
    def new_block_filter(self) -> str:
        """Make a filter that follows the hashes of new blocks."""
        return self._add(Filter(None, self._chain.head.number + 1, time.monotonic()))

    @rpc("eth_newPendingTransactionFilter", result=QUANTITY)
    def new_transaction_filter(self) -> str:
        """Make a filter that follows the hashes of transactions that enter this node's mempool."""
        filter_ = Filter(None, self._chain.head.number + 1, time.monotonic(), follows_transactions=True)
        filter_.seen = self._waiting()
        return self._add(filter_)

    @rpc("eth_uninstallFilter", _ID, result=BOOLEAN)
    def uninstall_filter(self, filter_id: int) -> bool:
        """Forget a filter; true when there was one."""
        return self._filters.pop(filter_id, None) is not None

    @rpc("eth_getFilterChanges", _ID, result=_CHANGES)
    async def filter_changes(self, filter_id: int) -> list[Any]:
        """What is new since the last poll of a filter. After a long pause, or below the head, it comes in pieces."""
        filter_ = self._get(filter_id)
        if filter_.is_busy:  # two polls at once would be told the same
            raise RpcError(SERVER_ERROR, "the filter is being polled already")
        filter_.is_busy = True
        try:
            if filter_.query is not None:
                return await self._log_changes(filter_, filter_.query)
            if filter_.follows_transactions:
                return await self._transaction_changes(filter_)
            return self._block_changes(filter_)
        finally:
            filter_.is_busy = False

    @rpc("eth_getFilterLogs", _ID, result=list_of(EVENT_LOG))
    async def filter_logs(self, filter_id: int) -> list[Fragment]:
        """All event logs that a filter wants, whatever was polled before."""
        query = self._get(filter_id).query
        if query is None:
            raise RpcError(SERVER_ERROR, "filter not found: this one does not follow event logs")
        return await self._search.all(query)

    async def _log_changes(self, filter_: Filter, query: LogQuery) -> list[Fragment]:
        last = self._chain.head.number
        if query.last.height >= 0:
            last = min(last, query.last.height)
        if filter_.next_height > last:
            return []
        found, filter_.next_height = await self._search.some(LogMatcher(query), filter_.next_height, last)
        return found

    def _block_changes(self, filter_: Filter) -> list[str]:
        hashes = []
        for height in self._unseen(filter_, self._limits.filter_hashes_max):
            header = self._blocks.header(BlockRef(height=height))
            if header is not None:
                hashes.append(data(header.hash))
        return hashes

    async def _transaction_changes(self, filter_: Filter) -> list[str]:
        """Those that wait now, and those that came and became final between two polls; each once."""
        waiting = self._waiting()
        fresh = dict.fromkeys(waiting - filter_.seen)
        for height in self._unseen(filter_, self._limits.cached_blocks_max):
            for transaction in (await self._blocks.load(height)).block.transactions:
                if transaction.hash not in filter_.seen:
                    fresh[transaction.hash] = None
        filter_.seen = waiting
        return [data(transaction_hash) for transaction_hash in fresh]

    def _unseen(self, filter_: Filter, blocks_max: int) -> range:
        """The next heights that the filter has not been told of, which from now on it has."""
        span = range(filter_.next_height, min(self._chain.head.number + 1, filter_.next_height + blocks_max))
        filter_.next_height = max(filter_.next_height, span.stop)
        return span

    def _waiting(self) -> frozenset[bytes]:
        return frozenset(transaction.hash for transaction in self._node.mempool)

    def _add(self, filter_: Filter) -> str:
        self._forget_idle(filter_.used_s)
        if len(self._filters) >= self._limits.filters_max:
            raise RpcError(LIMIT_EXCEEDED, f"too many filters: at most {self._limits.filters_max}; uninstall one")
        filter_id = secrets.randbits(127) | 1 << 127
        self._filters[filter_id] = filter_
        return quantity(filter_id)

    def _get(self, filter_id: int) -> Filter:
        now = time.monotonic()
        self._forget_idle(now)
        filter_ = self._filters.get(filter_id)
        if filter_ is None:
            raise RpcError(SERVER_ERROR, "filter not found")
        filter_.used_s = now
        return filter_

    def _forget_idle(self, now_s: float) -> None:
        limit_s = now_s - self._limits.filter_idle_s
        for filter_id in [key for key, filter_ in self._filters.items() if filter_.used_s < limit_s]:
            del self._filters[filter_id]
