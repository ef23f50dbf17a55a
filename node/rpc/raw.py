"""`debug_getRaw*` and `eth_getRawTransaction*`: what libraries re-verify, in the consensus encodings."""

from merkle import rlp
from node.rpc.blocks import Blocks
from node.rpc.hexes import data
from node.rpc.methods import Param, rpc
from node.rpc.params import BLOCK, BLOCK_NUMBER, DATA, HASH, INDEX, BlockRef
from node.rpc.ports import NodePort
from node.rpc.results import list_of, nullable

_BLOCK = Param("block", BLOCK, "The block.")
_TRANSACTION = Param("transactionHash", HASH, "The transaction's hash.")
_INDEX = Param("index", INDEX, "Position in the block, from 0.")


class RawMethods:
    """Encodings as they are hashed. What does not exist is null."""

    def __init__(self, node: NodePort, blocks: Blocks) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks

    @rpc("debug_getRawHeader", _BLOCK, result=nullable(DATA))
    def header(self, ref: BlockRef) -> str | None:
        """The RLP of a header; its Keccak-256 is the block's hash."""
        header = self._blocks.header(ref)
        return None if header is None else data(header.encoded)

    @rpc("debug_getRawBlock", _BLOCK, result=nullable(DATA))
    def block(self, ref: BlockRef) -> str | None:
        """The RLP of a block: header, transactions and (no) uncles."""
        encoded = self._encoded(ref)
        if encoded is None:
            return None
        header, raws = encoded
        # A legacy transaction is a list inside the list; a typed one is a byte string (EIP-2718).
        transactions = [raw if raw[0] >= 0xC0 else rlp.encode(raw) for raw in raws]
        return data(rlp.encode_list([header, rlp.encode_list(transactions), rlp.encode([])]))

    @rpc("debug_getRawReceipts", _BLOCK, result=nullable(list_of(DATA)))
    def receipts(self, ref: BlockRef) -> list[str] | None:
        """The encodings of a block's receipts, as the receipts root covers them."""
        height = self._blocks.height_of(ref)
        encoded = None if height is None else self._chain.encoded_receipts(height)
        return None if encoded is None else [data(receipt) for receipt in encoded]

    @rpc("debug_getRawTransaction", _TRANSACTION, result=nullable(DATA))
    def transaction(self, transaction_hash: bytes) -> str | None:
        """The signed bytes of a transaction, final or waiting; their Keccak-256 is its hash."""
        place = self._blocks.locate(transaction_hash)
        if place is not None:
            return self._at(BlockRef(height=place[0]), place[1])
        waiting = self._node.mempool.get(transaction_hash)
        return None if waiting is None else data(waiting.raw)

    @rpc("eth_getRawTransactionByHash", _TRANSACTION, result=nullable(DATA))
    def transaction_by_hash(self, transaction_hash: bytes) -> str | None:
        """The signed bytes of a transaction, final or waiting."""
        return self.transaction(transaction_hash)

    @rpc(
        "eth_getRawTransactionByBlockHashAndIndex",
        Param("blockHash", HASH, "The block's hash."),
        _INDEX,
        result=nullable(DATA),
    )
    def transaction_by_block_hash(self, block_hash: bytes, index: int) -> str | None:
        """The signed bytes of the transaction at a position of the block with this hash."""
        return self._at(BlockRef(hash=block_hash), index)

    @rpc(
        "eth_getRawTransactionByBlockNumberAndIndex",
        Param("block", BLOCK_NUMBER, "The block's height, or a tag."),
        _INDEX,
        result=nullable(DATA),
    )
    def transaction_by_block_number(self, ref: BlockRef, index: int) -> str | None:
        """The signed bytes of the transaction at a position of the block at a height."""
        return self._at(ref, index)

    def _at(self, ref: BlockRef, index: int) -> str | None:
        encoded = self._encoded(ref)
        return None if encoded is None or index >= len(encoded[1]) else data(encoded[1][index])

    def _encoded(self, ref: BlockRef) -> tuple[bytes, list[bytes]] | None:
        height = self._blocks.height_of(ref)
        return None if height is None else self._chain.encoded_block(height)
