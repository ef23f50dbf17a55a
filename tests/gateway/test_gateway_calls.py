"""Calldata that is packed by hand is what the contracts' ABI says; questions about anchors share calls."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway import calls
from gateway.jsonrpc import RpcError, RpcFailure
from gateway.lookups import AnchorLookups
from gateway.records import Anchor
from gateway.validators import Pool
from node.chain.contracts.addresses import ANCHORS
from node.chain.receipt import EventLog, decode_receipt, make_receipt
from tests.gateway.gateway_network import until

PATIENCE_S = 60.0
words = st.binary(min_size=32, max_size=32)
ascii_text = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=64)


@given(words, words, st.integers(0, (1 << 64) - 1), ascii_text)
def test_an_anchors_calldata_is_that_of_the_abi(batch: bytes, root: bytes, count: int, algorithm: str) -> None:
    expected = calls.ANCHORS_ABI.encode_call("anchor", batch, root, count, algorithm)
    assert calls.anchor_call(Anchor(batch, root, count, algorithm)) == expected


class FakePool:
    """Validators that hold the anchors of some batches; faults: an error, or True for an answer that fits nothing."""

    def __init__(self, anchored: set[bytes], faults: Sequence[Exception | bool] = (False,)) -> None:
        self.anchored = anchored
        self.validators = [SimpleNamespace(reachable=True, probed=True, fault=one) for one in faults]
        self.asked: list[int] = []
        self.hold = asyncio.Event()  # cleared: nobody answers yet
        self.hold.set()

    def ordered(self) -> list[Any]:
        return self.validators

    async def call(self, validator: Any, method: str, parameters: Sequence[Any]) -> Any:
        log, ids = parameters
        assert (method, log) == ("poa_getLogIndexes", "anchors")
        self.asked.append(len(ids))
        await self.hold.wait()
        await asyncio.sleep(0)
        if isinstance(validator.fault, Exception):
            raise validator.fault
        if validator.fault:
            return ["0x0"] * (len(ids) + 1)  # more than was asked
        return ["0x7" if bytes.fromhex(id_[2:]) in self.anchored else None for id_ in ids]


def lookups_of(pool: FakePool) -> AnchorLookups:
    return AnchorLookups(cast(Pool, pool))


async def test_questions_that_come_together_go_in_few_calls_and_each_gets_its_answer() -> None:
    batches = [number.to_bytes(32, "big") for number in range(600)]
    pool = FakePool(set(batches[::3]))
    lookups = lookups_of(pool)
    told = await asyncio.gather(*(lookups.is_told(batch, PATIENCE_S) for batch in [*batches, batches[0]]))
    assert told == [number % 3 == 0 for number in range(600)] + [True]
    assert len(pool.asked) <= 3
    assert sum(pool.asked) == 600, "nothing is asked twice"


async def test_the_next_validator_is_asked_and_where_none_answers_nobody_knows() -> None:
    batch = b"\x01" * 32
    faults = RpcFailure("no answer"), RpcError(-32601, "the method does not exist"), True
    pool = FakePool({batch}, faults=(*faults, False))
    assert await lookups_of(pool).is_told(batch, PATIENCE_S) is True
    assert pool.asked == [1, 1, 1, 1]
    assert await lookups_of(FakePool({batch}, faults)).is_told(batch, PATIENCE_S) is None


async def test_who_loses_patience_takes_the_answer_from_nobody_else() -> None:
    batch = b"\x02" * 32
    pool = FakePool({batch})
    pool.hold.clear()
    lookups = lookups_of(pool)
    cancelled = asyncio.create_task(lookups.is_told(batch, PATIENCE_S))
    patient = asyncio.create_task(lookups.is_told(batch, PATIENCE_S))
    assert await lookups.is_told(batch, 0.01) is None, "nobody has said in time"
    cancelled.cancel()
    pool.hold.set()
    assert await patient is True
    await lookups.stop()


async def test_who_loses_patience_before_it_was_asked_is_forgotten() -> None:
    pool = FakePool(set())
    pool.hold.clear()
    lookups = lookups_of(pool)
    batches = [number.to_bytes(32, "big") for number in range(5)]
    first = asyncio.create_task(lookups.is_told(batches[0], PATIENCE_S))
    await until(lambda: pool.asked == [1], "the first one is being asked", PATIENCE_S)
    gone = asyncio.create_task(lookups.is_told(batches[1], PATIENCE_S))
    assert await asyncio.gather(*(lookups.is_told(batch, 0.01) for batch in batches[1:])) == [None] * 4
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert not lookups._waiting
    pool.hold.set()
    assert await first is False
    assert pool.asked == [1]
    await lookups.stop()


@given(words, words, st.integers(0, (1 << 48) - 1), st.integers(21_000, (1 << 40)), ascii_text, st.booleans())
def test_an_anchors_index_is_read_from_its_receipt_as_from_the_decoded_one(
    batch: bytes, root: bytes, index: int, gas: int, algorithm: str, succeeded: bool
) -> None:
    topics = (calls.ANCHORS_ABI.events["Anchored"].id, batch, index.to_bytes(32, "big"))
    padded = algorithm.encode() + bytes(-len(algorithm) % 32)
    heads = b"".join(word.to_bytes(32, "big") for word in (7, 96, len(algorithm)))
    logs = [EventLog(ANCHORS, topics, root + heads + padded)] if succeeded else []
    encoded = make_receipt(2, succeeded, gas, logs).encoded()
    decoded = calls.read_anchored(decode_receipt(encoded))
    assert calls.anchored_index(encoded, batch) == (None if decoded is None else decoded[1])
    assert calls.anchored_index(encoded, bytes((batch[0] ^ 1,)) + batch[1:]) is None
