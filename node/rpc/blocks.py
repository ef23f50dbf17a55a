"""Final blocks with what their views need (receipts, gas and first event log of each transaction), kept a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from merkle.keccak import keccak256
from node.chain.block import Block, Header
from node.chain.errors import LedgerError
from node.chain.receipt import EventLog, Receipt
from node.rpc.jsonrpc import SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.pacing import Turns
from node.rpc.params import BlockRef
from node.rpc.ports import Chain

INLINE_GAS_MAX = 500 * 21_000  # a block of more transactions than this gas can pay for is decoded in a thread


@dataclass(frozen=True, slots=True)
class LoadedBlock:
    """A block and its receipts; `first_log[i]` is the index in the block of transaction i's first event log."""

    block: Block
    receipts: tuple[Receipt, ...]
    first_log: tuple[int, ...]

    def gas_used(self, index: int) -> int:
        """The gas that transaction `index` used."""
        before = self.receipts[index - 1].cumulative_gas_used if index else 0
        return self.receipts[index].cumulative_gas_used - before


class FoundLogs(NamedTuple):
    """The event logs of one transaction: its place, the first one's index in the block, and the transaction's hash.

    Of a transaction without event logs the hash may be empty.
    """

    place: int
    first_log: int
    event_logs: Sequence[EventLog]
    transaction_hash: bytes


class Blocks:
    """The final chain as methods read it: by height, hash, tag or transaction; the latest reads are cached."""

    def __init__(self, chain: Chain, limits: Limits) -> None:
        self._chain = chain
        self._limits = limits
        self._cache: OrderedDict[int, LoadedBlock] = OrderedDict()
        self._cached_bytes = 0
        self.turns = Turns()  # of those who read much
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rpc-read")  # one: more would only fight the event loop

    def close(self) -> None:
        """Wait for the read that still runs."""
        self._thread.shutdown()

    @property
    def head_height(self) -> int:
        """The height of the last final block."""
        return self._chain.head.number

    def height_of(self, ref: BlockRef) -> int | None:
        """The height of a final block, or None. All are final, so `safe`, `finalized` and `pending` are the head."""
        head = self._chain.head.number
        if ref.hash:
            height = self._chain.height_of(ref.hash)
            # A block is in the database a moment before it is the head; until then it is shown to nobody.
            return height if height is not None and height <= head else None
        if ref.tag:
            return 0 if ref.tag == "earliest" else head
        return ref.height if ref.height <= head else None

    def locate(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Height and index of a final transaction."""
        place = self._chain.locate(transaction_hash)
        return place if place is not None and place[0] <= self._chain.head.number else None

    def header(self, ref: BlockRef) -> Header | None:
        """The header of a final block, or None."""
        height = self.height_of(ref)
        if height is None:
            return None
        head = self._chain.head
        return head if height == head.number else self._chain.header(height)

    def known_header(self, ref: BlockRef) -> Header:
        """The header of a final block. Raises RpcError where there is none, in geth's words."""
        header = self.header(ref)
        if header is None:
            raise RpcError(SERVER_ERROR, "header for hash not found" if ref.hash else "header not found")
        return header

    def state_header(self, ref: BlockRef) -> Header:
        """The header whose state a call asks for. Raises RpcError where there is none, or its state is kept no more."""
        header = self.known_header(ref)
        oldest = self._chain.oldest_state
        if header.number < oldest:
            raise RpcError(
                SERVER_ERROR,
                f"historical state of block {header.number} is not available: "
                f"this node keeps states from block {oldest} on (setting keep_states); ask an archive",
            )
        return header

    def logs_of(self, height: int) -> Iterator[FoundLogs]:
        """The event logs of a final block, transaction by transaction, decoded no sooner than they are asked for.

        What was decoded for others is taken from there; else no transaction is decoded, since a search of old blocks
        wants a few hashes of them. Raises LedgerError if the block is not kept.
        """
        loaded = self._cache.get(height)
        if loaded is not None:
            for index, receipt in enumerate(loaded.receipts):
                yield FoundLogs(
                    index, loaded.first_log[index], receipt.event_logs, loaded.block.transactions[index].hash
                )
            return
        first = 0
        for index, (raw, logs) in enumerate(self._chain.event_logs(height)):
            yield FoundLogs(index, first, logs, keccak256(raw) if logs else b"")
            first += len(logs)

    async def load(self, height: int) -> LoadedBlock:
        """The block at a final height, decoded in a thread if it is large. Raises LedgerError if it is not kept."""
        loaded = self._cache.get(height)
        if loaded is not None:
            self._cache.move_to_end(height)
            return loaded
        header = self.header(BlockRef(height=height))
        if header is not None and header.gas_used <= INLINE_GAS_MAX:
            loaded = self._read(height)
        else:
            loaded = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, height)
        if height not in self._cache:  # somebody else may have read it meanwhile
            self._keep(height, loaded)
        return loaded

    def _read(self, height: int) -> LoadedBlock:
        block, receipts = self._chain.block(height), self._chain.receipts(height)
        if block is None or receipts is None or len(receipts) != len(block.transactions):
            raise LedgerError(f"block {height} is final, and the database lacks it or its receipts")
        counts = [len(receipt.event_logs) for receipt in receipts]
        return LoadedBlock(block, receipts, tuple(accumulate(counts[:-1], initial=0)) if counts else ())

    def _keep(self, height: int, loaded: LoadedBlock) -> None:
        size = loaded.block.bytes_count
        if size > self._limits.cached_bytes_max:
            return
        self._cache[height] = loaded
        self._cached_bytes += size
        while len(self._cache) > self._limits.cached_blocks_max or self._cached_bytes > self._limits.cached_bytes_max:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.block.bytes_count
