"""Search of event logs: by height, address and topics, with the headers' bloom filters to skip blocks."""

from orjson import Fragment

from node.chain.block import Header
from node.chain.receipt import EMPTY_BLOOM, EventLog, bloom_bits
from node.rpc.blocks import Blocks
from node.rpc.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.pacing import Turn, encoded
from node.rpc.params import BlockRef, LogQuery
from node.rpc.views import log_view


class LogMatcher:
    """Which event logs a query wants, and which blocks cannot hold any."""

    def __init__(self, query: LogQuery) -> None:
        self._addresses = query.addresses
        self._topics = query.topics
        wanted = [alternatives for alternatives in (query.addresses, *query.topics) if alternatives]
        self._masks = [[bloom_bits(entry) for entry in alternatives] for alternatives in wanted]

    def may_match(self, header: Header) -> bool:
        """False when the block's bloom filter rules a match out."""
        if header.logs_bloom == EMPTY_BLOOM:
            return False
        bloom = int.from_bytes(header.logs_bloom, "big")
        return all(any(bloom & mask == mask for mask in masks) for masks in self._masks)

    def matches(self, log: EventLog) -> bool:
        """Whether the query wants this event log; a log with fewer topics than the query has positions is not."""
        if self._addresses and log.address not in self._addresses:
            return False
        if len(log.topics) < len(self._topics):
            return False
        return all(not wanted or topic in wanted for topic, wanted in zip(log.topics, self._topics, strict=False))


class LogSearch:
    """Searches the final chain, within the limits, and gives way to others while it does."""

    def __init__(self, blocks: Blocks, limits: Limits) -> None:
        self._blocks = blocks
        self._limits = limits

    async def all(self, query: LogQuery) -> list[Fragment]:
        """Every event log that the query wants. Raises RpcError when that is more than the limits allow."""
        span = self._span(query)
        blocks_max = self._limits.log_blocks_max
        if len(span) > blocks_max:
            raise RpcError(
                LIMIT_EXCEEDED,
                f"block range too wide: {len(span)} blocks, at most {blocks_max}; "
                f"try {span.start:#x} to {span.start + blocks_max - 1:#x}",
            )
        found, next_height = await self._scan(LogMatcher(query), span)
        if next_height < span.stop:
            raise RpcError(
                LIMIT_EXCEEDED,
                f"query returned more than {self._limits.logs_max} event logs; "
                f"try {span.start:#x} to {max(span.start, next_height - 1):#x}",
            )
        return found

    async def some(self, matcher: LogMatcher, first: int, last: int) -> tuple[list[Fragment], int]:
        """The event logs of as many blocks as the limits allow, from `first` on; and the height to go on from."""
        span = range(first, min(last + 1, first + self._limits.log_blocks_max))
        found, next_height = await self._scan(matcher, span)
        if next_height == first < span.stop:  # one block alone is above the limit; its logs must come at once
            header = self._blocks.header(BlockRef(height=first))
            if header is not None:
                async with self._blocks.turns.taken() as turn:
                    found = await self._select(matcher, header, turn)
            next_height = first + 1
        return found, next_height

    async def _scan(self, matcher: LogMatcher, span: range) -> tuple[list[Fragment], int]:
        """Event logs of whole blocks, at most `logs_max`; and the height of the first block that did not fit."""
        found: list[Fragment] = []
        async with self._blocks.turns.taken() as turn:
            for height in span:
                header = self._blocks.header(BlockRef(height=height))
                if header is not None and matcher.may_match(header):
                    selected = await self._select(matcher, header, turn)
                    if len(found) + len(selected) > self._limits.logs_max:
                        return found, height
                    found += selected
                await turn.breathe()
        return found, span.stop

    async def _select(self, matcher: LogMatcher, header: Header, turn: Turn) -> list[Fragment]:
        """The views of a block's matching event logs, encoded already."""
        selected: list[Fragment] = []
        for index, first_log, event_logs, transaction_hash in self._blocks.logs_of(header.number):
            for position, log in enumerate(event_logs):
                if matcher.matches(log):
                    view = log_view(log, header, transaction_hash, index, first_log + position)
                    selected.append(encoded(view))
            await turn.breathe()
        return selected

    def _span(self, query: LogQuery) -> range:
        first, last = query.first, query.last
        if first.hash:
            height = self._blocks.height_of(first)
            if height is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            return range(height, height + 1)
        start, stop = self._clamped(first), self._clamped(last)
        if first.height >= 0 and last.height >= 0 and first.height > last.height:
            raise RpcError(SERVER_ERROR, "invalid block range params")
        return range(start, min(stop, self._blocks.head_height) + 1)

    def _clamped(self, ref: BlockRef) -> int:
        """The height that a tag or number names; a number above the head is kept, and finds nothing yet."""
        height = self._blocks.height_of(ref)
        return ref.height if height is None else height
