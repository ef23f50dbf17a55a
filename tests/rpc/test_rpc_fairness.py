"""Long reads give way: while one caller is answered, others on the event loop get their turns."""

import asyncio
import threading

import pytest

from node.chain.block import Block
from node.rpc import pacing
from node.rpc.blocks import INLINE_GAS_MAX, Blocks
from node.rpc.limits import Limits
from node.rpc.logs import LogSearch
from node.rpc.params import BlockRef, LogQuery
from tests.rpc.rpc_harness import ALICE, BOB, LoneNode


async def turns_during(work: asyncio.Task[object]) -> int:
    """How often another task gets its turn before `work` is done."""
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    work.result()
    return turns


async def test_a_search_gives_way(node: LoneNode) -> None:
    for _ in range(60):
        node.include()
    search = LogSearch(Blocks(node.chain, Limits()), Limits())
    everything = LogQuery(BlockRef(height=0), BlockRef(tag="latest"), frozenset(), ())
    original, pacing.SLICE_S = pacing.SLICE_S, 0.0  # a slice that is always over
    try:
        assert await turns_during(asyncio.create_task(search.all(everything))) >= 60
    finally:
        pacing.SLICE_S = original


async def test_a_large_cold_block_is_decoded_in_a_thread(node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.include(node.sign(ALICE, BOB.address))
    node.include(*[node.sign(ALICE, BOB.address) for _ in range(INLINE_GAS_MAX // 21_000 + 1)])
    threads: dict[int, threading.Thread] = {}
    read = node.chain.block

    def block(height: int) -> Block | None:
        threads[height] = threading.current_thread()
        return read(height)

    monkeypatch.setattr(node.chain, "block", block)
    blocks = Blocks(node.chain, Limits())
    small, large, again = await asyncio.gather(blocks.load(1), blocks.load(2), blocks.load(2))
    assert (len(small.block.transactions), len(large.block.transactions)) == (1, 501)
    assert again.block.hash == large.block.hash
    assert threads[1] is threading.main_thread()
    assert threads[2] is not threading.main_thread()
    assert await blocks.load(2) in (large, again)
    blocks.close()


async def test_the_cache_of_blocks_is_bounded_in_number_and_bytes(node: LoneNode) -> None:
    for _ in range(6):
        node.include(node.sign(ALICE, BOB.address, bytes(1_000)))
    size = node.chain.block(1).bytes_count  # type: ignore[union-attr]
    blocks = Blocks(node.chain, Limits(cached_blocks_max=3, cached_bytes_max=10 * size))
    first = await blocks.load(1)
    assert await blocks.load(1) is first
    for height in (2, 3, 4):
        await blocks.load(height)
    assert await blocks.load(1) is not first
    small = Blocks(node.chain, Limits(cached_blocks_max=100, cached_bytes_max=2 * size + size // 2))
    kept = [await small.load(height) for height in (1, 2, 3)]
    pairs = ((3, kept[2]), (2, kept[1]), (1, kept[0]))
    assert [await small.load(height) is loaded for height, loaded in pairs] == [True, True, False]
    none = Blocks(node.chain, Limits(cached_bytes_max=size - 1))
    assert await none.load(1) is not await none.load(1)
