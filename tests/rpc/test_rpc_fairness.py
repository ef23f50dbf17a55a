"""Long reads give way: while one caller is answered, others on the event loop get their turns."""

import asyncio
import threading

import orjson
import pytest

from node.chain.block import Block
from node.rpc import pacing
from node.rpc.blocks import INLINE_GAS_MAX, Blocks
from node.rpc.limits import Limits
from node.rpc.logs import LogSearch
from node.rpc.params import BlockRef, LogQuery
from tests.rpc.rpc_harness import ALICE, ANCHOR_CALL, BOB, GATEWAY_KEY, LoneNode


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
    original, pacing.READ_SLICE_S = pacing.READ_SLICE_S, 0.0  # a slice that is always over
    try:
        assert await turns_during(asyncio.create_task(search.all(everything))) >= 60
    finally:
        pacing.READ_SLICE_S = original


async def test_many_long_reads_take_turns_one_slice_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two passes of somebody else there is one slice, of whichever reader; and each reader comes to its end."""
    monkeypatch.setattr(pacing, "READ_SLICE_S", 0.0)
    turns, told = pacing.Turns(), list[str]()

    async def read(name: str) -> None:
        async with turns.taken() as turn:
            for _ in range(20):
                told.append(name)
                await turn.breathe()

    readers = [asyncio.create_task(read(name)) for name in "abcd"]
    while not all(reader.done() for reader in readers):
        told.append("|")
        await asyncio.sleep(0)
    slices = "".join(told).split("|")
    assert max(map(len, slices)) == 1
    worked = "".join(slices)
    assert {name: worked.count(name) for name in "abcd"} == dict.fromkeys("abcd", 20)
    assert {worked[start : start + 4] for start in range(4, 64, 4)} == {worked[4:8]}  # in a fixed order, none twice


@pytest.mark.parametrize("passes", range(8))
async def test_a_reader_that_is_cancelled_takes_nobodys_turn_along(
    monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    monkeypatch.setattr(pacing, "READ_SLICE_S", 0.0)
    turns = pacing.Turns()

    async def read(count: int) -> int:
        async with turns.taken() as turn:
            for _ in range(count):
                await turn.breathe()
        return count

    doomed, others = asyncio.create_task(read(1_000_000)), [asyncio.create_task(read(50)) for _ in range(3)]
    for _ in range(passes):
        await asyncio.sleep(0)
    doomed.cancel()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*others) == [50, 50, 50]
        assert await read(5) == 5
    assert doomed.cancelled()


async def test_old_blocks_are_searched_without_decoding_their_transactions(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found is the same as in a block that is decoded already."""
    node.include(node.sign(ALICE, BOB.address), node.call_contract(GATEWAY_KEY, *ANCHOR_CALL))
    query = LogQuery(BlockRef(height=1), BlockRef(height=1), frozenset(), ())
    warm, cold = Blocks(node.chain, Limits()), Blocks(node.chain, Limits())
    await warm.load(1)

    def block(height: int) -> Block | None:
        raise AssertionError(f"block {height} was decoded")

    monkeypatch.setattr(node.chain, "block", block)
    found = [orjson.dumps(await LogSearch(blocks, Limits()).all(query)) for blocks in (warm, cold)]
    assert found[0] == found[1]
    assert orjson.loads(found[0])[0]["transactionIndex"] == "0x1"


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
