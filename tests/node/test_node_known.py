"""Transactions that come by several ways are decoded once, and what is kept of them is bounded."""

import pytest

from node.chain.errors import InvalidTransaction
from node.chain.known import KnownTransactions
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, decode_transaction, sign_transaction
from node.p2p.kinds import Kind
from node.payloads import GOSSIP_BATCH, GOSSIP_RAW_BYTES_MAX, pack_gossip, unpack_hashes, unpack_transactions

KEY = SigningKey(b"\1" * 32)


def make(nonce: int, data: bytes = b"") -> Transaction:
    return sign_transaction(KEY, chain_id=1, nonce=nonce, to=b"\2" * 20, gas_limit=21_000, data=data)


def test_equal_bytes_are_one_transaction_with_one_recovered_sender() -> None:
    known = KnownTransactions()
    raw = make(0).raw
    first = known.decode(raw)
    assert first == decode_transaction(raw)
    assert first.sender == KEY.address
    again = known.decode(bytes(bytearray(raw)))  # another object with the same bytes, as from another socket
    assert again is first
    assert again.is_sender_known


def test_what_is_refused_is_refused_again_and_not_kept() -> None:
    known = KnownTransactions()
    for _ in range(2):
        with pytest.raises(InvalidTransaction):
            known.decode(b"\x05rubbish")
    assert len(known) == 0


def test_the_oldest_give_way_by_count_and_by_bytes() -> None:
    raws = [make(nonce).raw for nonce in range(4)]
    few = KnownTransactions(count_max=3)
    objects = [few.decode(raw) for raw in raws]
    assert len(few) == 3
    assert few.decode(raws[3]) is objects[3]
    assert few.decode(raws[0]) is not objects[0]
    small = KnownTransactions(bytes_max=2 * len(raws[0]))
    for raw in raws:
        small.decode(raw)
    assert len(small) == 2
    large = make(9, bytes(1_000))
    assert small.decode(large.raw) is small.decode(large.raw)  # one always fits
    assert len(small) == 1


def test_gossip_sends_small_transactions_and_announces_large_ones() -> None:
    small = [make(nonce) for nonce in range(GOSSIP_BATCH + 1)]
    large = make(0, bytes(GOSSIP_RAW_BYTES_MAX))
    messages = list(pack_gossip([*small, large]))
    assert [kind for kind, _ in messages] == [Kind.TRANSACTIONS, Kind.TRANSACTIONS, Kind.TRANSACTION_HASHES]
    sent = [raw for _, payload in messages[:2] for raw in unpack_transactions(payload)]
    assert sent == [transaction.raw for transaction in small]
    assert unpack_hashes(messages[2][1]) == [large.hash]
    assert list(pack_gossip([])) == []
