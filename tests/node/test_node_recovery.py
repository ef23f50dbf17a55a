"""Signatures are recovered on the event loop: a block's at once, those of many callers one slice at a time."""

import asyncio
from collections.abc import Callable

import pytest

from merkle import rlp
from node.chain import transaction as transactions
from node.chain.signing import recover as real
from node.chain.transaction import Transaction, decode_transaction
from node.recovery import Recovery
from node.rpc import pacing
from tests.node.conftest import CHAIN_ID, RICH_KEY, transfer

_NUMBERS = [rlp.encode_int(number) for number in (CHAIN_ID, 7, 0, 0, 21_000)]


def fresh(count: int) -> list[Transaction]:
    """Transactions whose senders nobody has recovered yet."""
    return [decode_transaction(transfer(nonce).raw) for nonce in range(count)]


@pytest.fixture
def recovered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many signatures have been recovered so far; a slice is over after each."""
    count = 0

    def recover(digest: bytes, signature: bytes) -> bytes:
        nonlocal count
        count += 1
        return real(digest, signature)

    monkeypatch.setattr(transactions, "recover", recover)
    monkeypatch.setattr(pacing, "READ_SLICE_S", 0.0)
    monkeypatch.setattr(pacing, "SLICE_S", 0.0)
    return lambda: count


async def test_between_two_turns_of_others_one_caller_has_one_slice(recovered: Callable[[], int]) -> None:
    recovery, batches = Recovery(), [fresh(10) for _ in range(8)]
    callers = [asyncio.create_task(recovery.of_submitted(batch)) for batch in batches]
    most = 0
    while not all(caller.done() for caller in callers):
        before = recovered()
        await asyncio.sleep(0)
        most = max(most, recovered() - before)
    assert most == 1
    assert recovered() == 80
    assert {each.sender for batch in batches for each in batch} == {RICH_KEY.address}


async def test_a_single_one_waits_only_while_somebody_has_a_turn(recovered: Callable[[], int]) -> None:
    recovery, batch = Recovery(), fresh(10)
    alone = asyncio.create_task(recovery.of_submitted(fresh(1)))
    await asyncio.sleep(0)
    assert recovered() == 1
    await alone
    caller = asyncio.create_task(recovery.of_submitted(batch))
    await asyncio.sleep(0)
    before = recovered()
    behind = asyncio.create_task(recovery.of_submitted(fresh(1)))
    await asyncio.sleep(0)
    assert recovered() - before <= 1, "a slice of the batch, which has its turn"
    await behind
    assert not caller.done(), "and gives it away after a slice"
    await caller


async def test_a_block_does_not_wait_behind_callers(recovered: Callable[[], int]) -> None:
    recovery, block = Recovery(), fresh(10)
    callers = [asyncio.create_task(recovery.of_submitted(fresh(10))) for _ in range(8)]
    await asyncio.sleep(0)
    before = recovered()
    await recovery.of_block(block)
    assert recovered() - before <= 2 * len(block) + 1
    assert all(transaction.is_sender_known for transaction in block)
    await asyncio.gather(*callers)


async def test_a_signature_that_is_none_is_left_to_the_reader_and_what_is_known_costs_nothing(
    recovered: Callable[[], int],
) -> None:
    recovery, known = Recovery(), transfer(1)
    unsigned = decode_transaction(b"\x02" + rlp.encode([*_NUMBERS, bytes(20), b"", b"", [], b"", b"", b""]))
    for recover in (recovery.of_block, recovery.of_submitted):
        await recover([unsigned, known])
        await recover([known])
    assert not unsigned.is_sender_known
    assert recovered() == 2
