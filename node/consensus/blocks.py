"""The blocks of one height that may yet become final, and what execution said of each."""

from collections.abc import Collection

from node.chain.block import Block
from node.consensus.justification import check_body
from node.consensus.outbox import Outbox


class CandidateBlocks:
    """At most a few blocks by hash, each with the body that its header names, and the verdicts on them."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: dict[bytes, Block] = {}
        self._asked: dict[bytes, bool] = {}  # hash → whether it was asked as a fresh block
        self._verdicts: dict[bytes, bool] = {}
        self._refused_as_fresh: dict[bytes, None] = {}

    def add(self, block: Block, keep: Collection[bytes] = ()) -> Block:
        """Keep a block, and return the one known by its hash; the oldest give way, save those in `keep`.

        Raises InvalidMessage when its transactions are not those of its header.
        """
        known = self._blocks.get(block.hash)
        if known is not None:
            return known
        check_body(block)
        while len(self._blocks) >= self._blocks_max + len(keep):
            oldest = next((each for each in self._blocks if each not in keep), None)
            if oldest is None:
                break
            del self._blocks[oldest]
        self._blocks[block.hash] = block
        return block

    def get(self, block_hash: bytes) -> Block | None:
        return self._blocks.get(block_hash)

    def built(self, block: Block) -> None:
        """Keep a block that this node built itself, which is valid by construction."""
        self._blocks[block.hash] = block
        self._verdicts[block.hash] = True

    def known_valid(self, block_hash: bytes) -> bool:
        return self._verdicts.get(block_hash, False)

    def is_valid(self, block: Block, out: Outbox, *, fresh: bool) -> bool:
        """Whether execution found the block valid; asks for it when it is not known yet.

        A block refused as a fresh one, perhaps for its timestamp, is asked for again once a quorum vouches for it.
        """
        verdict = self._verdicts.get(block.hash)
        if verdict is not None:
            return verdict
        if block.hash not in self._asked and not (fresh and block.hash in self._refused_as_fresh):
            self._asked[block.hash] = fresh
            out.validate(block, fresh=fresh)
        return False

    def answer(self, block_hash: bytes, *, valid: bool) -> None:
        """Note what execution said; answers to questions that nobody asked are dropped."""
        fresh = self._asked.pop(block_hash, None)
        if fresh is None:
            return
        if valid or not fresh:
            self._verdicts[block_hash] = valid
        else:
            self._refused_as_fresh[block_hash] = None
