"""`eth_` methods that read blocks, their transactions and their receipts."""

import time

from node.chain.execution import build_block
from node.rpc.blocks import Blocks, LoadedBlock
from node.rpc.hexes import data, quantity
from node.rpc.methods import Param, optional, rpc
from node.rpc.pacing import encoded
from node.rpc.params import BLOCK, BLOCK_NUMBER, BOOLEAN, HASH, INDEX, QUANTITY, BlockRef
from node.rpc.ports import NodePort
from node.rpc.results import BLOCK_VIEW, RECEIPT, TRANSACTION, list_of, nullable
from node.rpc.views import View, block_view, receipt_view, transaction_view

_NUMBER = Param("block", BLOCK_NUMBER, "The block's height, or a tag.")
_HASH = Param("blockHash", HASH, "The block's hash.")
_TRANSACTION = Param("transactionHash", HASH, "The transaction's hash.")
_INDEX = Param("index", INDEX, "Position in the block, from 0.")
_FULL = optional("full", BOOLEAN, "Whole transactions instead of their hashes.", False)


class BlockMethods:
    """Blocks and what is in them. Every block that is shown is final."""

    def __init__(self, node: NodePort, blocks: Blocks) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks

    @rpc("eth_blockNumber", result=QUANTITY)
    def block_number(self) -> str:
        """The height of the last final block."""
        return quantity(self._chain.head.number)

    @rpc("eth_getBlockByNumber", _NUMBER, _FULL, result=nullable(BLOCK_VIEW))
    async def block_by_number(self, ref: BlockRef, full: bool) -> View | None:
        """The block at a height; for `pending`, the empty block that this node would build on the head now."""
        return self._pending_block() if ref.tag == "pending" else await self._block(ref, full)

    @rpc("eth_getBlockByHash", _HASH, _FULL, result=nullable(BLOCK_VIEW))
    async def block_by_hash(self, block_hash: bytes, full: bool) -> View | None:
        """The block with this hash."""
        return await self._block(BlockRef(hash=block_hash), full)

    async def _block(self, ref: BlockRef, full: bool) -> View | None:
        loaded = await self._load(ref)
        if loaded is None:
            return None
        block = loaded.block
        if not full:
            return block_view(block, [data(transaction.hash) for transaction in block.transactions])
        views: list[object] = []
        async with self._blocks.turns.taken() as turn:
            for index, transaction in enumerate(block.transactions):
                views.append(encoded(transaction_view(transaction, block.header, index)))
                await turn.breathe()
        return block_view(block, views)

    def _pending_block(self) -> View:
        chain = self._chain
        built = build_block(
            chain,
            chain.head,
            [],
            miner=self._node.address,
            timestamp=max(int(time.time()), chain.head.timestamp),
            genesis=chain.genesis,
            domain=chain.domain,
        )
        return block_view(built.executed.block, []) | {"hash": None, "nonce": None, "miner": None}

    @rpc("eth_getBlockTransactionCountByNumber", _NUMBER, result=nullable(QUANTITY))
    async def transaction_count_by_number(self, ref: BlockRef) -> str | None:
        """How many transactions the block at a height has."""
        return await self._transaction_count(ref)

    @rpc("eth_getBlockTransactionCountByHash", _HASH, result=nullable(QUANTITY))
    async def transaction_count_by_hash(self, block_hash: bytes) -> str | None:
        """How many transactions the block with this hash has."""
        return await self._transaction_count(BlockRef(hash=block_hash))

    async def _transaction_count(self, ref: BlockRef) -> str | None:
        if ref.tag == "pending":
            return quantity(0)
        loaded = await self._load(ref)
        return None if loaded is None else quantity(len(loaded.block.transactions))

    @rpc("eth_getUncleCountByBlockNumber", _NUMBER, result=nullable(QUANTITY))
    def uncle_count_by_number(self, ref: BlockRef) -> str | None:
        """How many uncles the block at a height has: none, since blocks here are final."""
        return None if self._blocks.height_of(ref) is None else quantity(0)

    @rpc("eth_getUncleCountByBlockHash", _HASH, result=nullable(QUANTITY))
    def uncle_count_by_hash(self, block_hash: bytes) -> str | None:
        """How many uncles the block with this hash has: none, since blocks here are final."""
        return None if self._blocks.height_of(BlockRef(hash=block_hash)) is None else quantity(0)

    @rpc("eth_getUncleByBlockNumberAndIndex", _NUMBER, _INDEX, result=nullable(BLOCK_VIEW))
    def uncle_by_number(self, ref: BlockRef, index: int) -> None:
        """An uncle of the block at a height: always null."""

    @rpc("eth_getUncleByBlockHashAndIndex", _HASH, _INDEX, result=nullable(BLOCK_VIEW))
    def uncle_by_hash(self, block_hash: bytes, index: int) -> None:
        """An uncle of the block with this hash: always null."""

    @rpc("eth_getTransactionByHash", _TRANSACTION, result=nullable(TRANSACTION))
    async def transaction_by_hash(self, transaction_hash: bytes) -> View | None:
        """The transaction with this hash, final or waiting in this node's mempool."""
        place = self._blocks.locate(transaction_hash)
        if place is not None:
            return await self._transaction(BlockRef(height=place[0]), place[1])
        waiting = self._node.mempool.get(transaction_hash)
        return None if waiting is None else transaction_view(waiting)

    @rpc("eth_getTransactionByBlockHashAndIndex", _HASH, _INDEX, result=nullable(TRANSACTION))
    async def transaction_by_block_hash(self, block_hash: bytes, index: int) -> View | None:
        """The transaction at a position of the block with this hash."""
        return await self._transaction(BlockRef(hash=block_hash), index)

    @rpc("eth_getTransactionByBlockNumberAndIndex", _NUMBER, _INDEX, result=nullable(TRANSACTION))
    async def transaction_by_block_number(self, ref: BlockRef, index: int) -> View | None:
        """The transaction at a position of the block at a height."""
        return None if ref.tag == "pending" else await self._transaction(ref, index)

    async def _transaction(self, ref: BlockRef, index: int) -> View | None:
        loaded = await self._load(ref)
        if loaded is None or index >= len(loaded.block.transactions):
            return None
        return transaction_view(loaded.block.transactions[index], loaded.block.header, index)

    @rpc("eth_getTransactionReceipt", _TRANSACTION, result=nullable(RECEIPT))
    async def receipt(self, transaction_hash: bytes) -> View | None:
        """The receipt of a final transaction."""
        place = self._blocks.locate(transaction_hash)
        return None if place is None else receipt_view(await self._blocks.load(place[0]), place[1])

    @rpc("eth_getBlockReceipts", Param("block", BLOCK, "The block."), result=nullable(list_of(RECEIPT)))
    async def block_receipts(self, ref: BlockRef) -> list[object] | None:
        """The receipts of all transactions of a block."""
        loaded = await self._load(ref)
        if loaded is None:
            return None
        views: list[object] = []
        async with self._blocks.turns.taken() as turn:
            for index in range(len(loaded.receipts)):
                views.append(encoded(receipt_view(loaded, index)))
                await turn.breathe()
        return views

    async def _load(self, ref: BlockRef) -> LoadedBlock | None:
        height = self._blocks.height_of(ref)
        return None if height is None else await self._blocks.load(height)
