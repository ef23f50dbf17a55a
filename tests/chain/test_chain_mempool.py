"""The mempool: against a slow model of itself, geth's wordings, fairness, and its bounds."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.chain.errors import InvalidTransaction
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from tests.chain.conftest import GATEWAY, KEYS, POOR, RICH, STRANGER

GAS_MAX = 10**9
SENDERS = [GATEWAY, RICH]


class Accounts:
    """Nonces and balances as two dicts."""

    def __init__(self, balance: int = 10**24) -> None:
        self.nonces: dict[bytes, int] = {}
        self.balances: dict[bytes, int] = {}
        self.default = balance
        self.events: list[object] = []  # what came, and who was served, in order: of the slow model

    def nonce(self, address: bytes) -> int:
        return self.nonces.get(address, 0)

    def balance(self, address: bytes) -> int:
        return self.balances.get(address, self.default)

    def storage(self, address: bytes, slot: int) -> int:
        return 0  # an open network


def make(key: SigningKey = RICH, nonce: int = 0, tip: int = 0, **fields: Any) -> Transaction:
    values: dict[str, Any] = {"chain_id": 7770, "to": POOR.address, "gas_limit": 21_000} | fields
    return sign_transaction(key, nonce=nonce, max_fee_per_gas=tip, max_priority_fee_per_gas=tip, **values)


def pool(**limits: Any) -> Mempool:
    return Mempool(MempoolLimits(**limits), chain_id=7770, gas_max=GAS_MAX)


def select(mempool: Mempool, accounts: Accounts, gas_max: int = GAS_MAX, bytes_max: int = 1 << 23) -> list[Transaction]:
    return mempool.select(gas_max=gas_max, bytes_max=bytes_max, next_nonce=accounts.nonce)


def refusal(mempool: Mempool, transaction: Transaction, accounts: Accounts) -> str:
    before = list(mempool)
    with pytest.raises(InvalidTransaction) as error:
        mempool.add(transaction, state=accounts)
    assert list(mempool) == before
    return str(error.value)


def test_who_adds_after_blocks_that_the_pool_was_not_told_of_has_no_stale_ones() -> None:
    accounts = Accounts()
    mempool = pool(nonce_gap_max=3, sender_transactions_max=2)
    for nonce in (0, 1):
        mempool.add(make(nonce=nonce), state=accounts)
    accounts.nonces[RICH.address] = 2
    mempool.add(make(nonce=2), state=accounts)
    assert [transaction.nonce for transaction in select(mempool, accounts)] == [2]
    assert (len(mempool), mempool.ready_count) == (1, 1)
    accounts.nonces[RICH.address] = 9  # all that waited is stale
    mempool.add(make(nonce=10), state=accounts)
    assert select(mempool, accounts) == []
    mempool.add(make(nonce=9), state=accounts)
    assert [transaction.nonce for transaction in select(mempool, accounts)] == [9, 10]


def test_refusals_are_worded_as_geth_does() -> None:
    accounts = Accounts(balance=100_000)
    accounts.nonces[RICH.address] = 5
    mempool = pool(nonce_gap_max=3)
    mempool.add(make(nonce=5, tip=1), state=accounts)
    assert refusal(mempool, make(nonce=5, tip=1), accounts) == "already known"
    assert refusal(mempool, make(nonce=3), accounts) == "nonce too low: next nonce 5, tx nonce 3"
    assert refusal(mempool, make(nonce=10), accounts) == "nonce too high: next nonce 6, tx nonce 10"
    underpriced = "replacement transaction underpriced"
    assert refusal(mempool, make(nonce=5, tip=1, value=1), accounts).startswith(underpriced)
    assert refusal(mempool, make(nonce=5, tip=0), accounts).startswith(underpriced)
    assert refusal(mempool, make(nonce=6, tip=4), accounts) == (
        "insufficient funds for gas * price + value: balance 100000, queued cost 21000, tx cost 84000"
    )
    assert refusal(mempool, make(POOR, gas_limit=20_999), accounts) == (
        "intrinsic gas too low: gas 20999, minimum needed 21000"
    )
    assert refusal(mempool, make(POOR, gas_limit=GAS_MAX + 1), accounts).startswith("exceeds block gas limit")
    assert refusal(mempool, make(POOR, chain_id=1), accounts) == "invalid chain id for signer: have 1 want 7770"
    assert refusal(mempool, make(POOR, to=b""), accounts).startswith("contract creation is not supported")
    forged = make(POOR)
    forged._sender = None
    forged.signature = bytes(65)
    assert refusal(mempool, forged, accounts).startswith("invalid sender")


def test_a_higher_price_replaces_and_the_old_one_is_gone() -> None:
    accounts = Accounts()
    mempool = pool()
    old, new, behind = make(tip=1), make(tip=2), make(nonce=1)
    for transaction in (old, behind, new):
        mempool.add(transaction, state=accounts)
    assert old.hash not in mempool
    assert mempool.get(new.hash) is new
    assert (len(mempool), mempool.bytes_count) == (2, len(new.raw) + len(behind.raw))
    assert select(mempool, accounts) == [new, behind]
    assert mempool.pending_nonce(RICH.address, 0) == 2


def test_who_sends_little_does_not_wait_for_who_sends_much() -> None:
    accounts = Accounts()
    mempool = pool()
    flood = [make(RICH, nonce) for nonce in range(50)]
    for transaction in flood:
        mempool.add(transaction, state=accounts)
    modest = [make(POOR, nonce) for nonce in range(2)]
    paying = make(STRANGER, tip=7)
    for transaction in (*modest, paying):
        mempool.add(transaction, state=accounts)
    chosen = select(mempool, accounts, gas_max=21_000 * 6)
    assert chosen == [flood[0], modest[0], paying, flood[1], modest[1], flood[2]]


@settings(max_examples=60, deadline=None)
@given(
    floods=st.lists(st.tuples(st.sampled_from([21_000, 400_000, GAS_MAX]), st.integers(0, 9)), min_size=1, max_size=12),
    flooders=st.integers(1, 3),
    gas_limit=st.sampled_from([21_000, GAS_MAX]),
    before=st.integers(0, 3),
)
def test_a_flood_from_one_account_does_not_delay_anothers(
    floods: list[tuple[int, int]], flooders: int, gas_limit: int, before: int
) -> None:
    """Whatever a flooder offers and however large each is: another's is in the block after at most one of each."""
    accounts, mempool = Accounts(), pool()
    for key in KEYS[:flooders]:
        for nonce, (gas, tip) in enumerate(floods):
            mempool.add(make(key, nonce, tip, gas_limit=gas), state=accounts)

    def finish_block() -> list[Transaction]:
        chosen = select(mempool, accounts)
        for transaction in chosen:
            accounts.nonces[transaction.sender] = transaction.nonce + 1
        mempool.finalised(chosen, accounts.nonce)
        return chosen

    for _ in range(before):
        finish_block()
    modest = make(POOR, gas_limit=gas_limit)
    mempool.add(modest, state=accounts)
    blocks = [finish_block() for _ in range(flooders + 1)]
    assert modest in [transaction for block in blocks for transaction in block]


def test_what_does_not_fit_is_passed_over_with_what_waits_behind_it() -> None:
    accounts = Accounts()
    mempool = pool()
    large, behind, small = make(RICH, 0, gas_limit=500_000), make(RICH, 1), make(POOR, 0)
    for transaction in (large, behind, small):
        mempool.add(transaction, state=accounts)
    assert select(mempool, accounts, gas_max=400_000) == [small]
    assert select(mempool, accounts, bytes_max=len(large.raw) - 1) == [small]
    assert select(mempool, accounts) == [large, small, behind]


def test_room_is_bounded_and_a_part_is_kept_for_small_senders() -> None:
    accounts = Accounts()
    mempool = pool(transactions_max=40, reserved_share=0.25, reserved_transactions=4, sender_transactions_max=35)
    for nonce in range(30):
        mempool.add(make(RICH, nonce), state=accounts)
    full = "txpool is full: 30 transactions of"
    assert refusal(mempool, make(RICH, 30), accounts).startswith(full)
    mempool.add(make(RICH, 3, tip=1), state=accounts)  # in the place of another one, so it needs no room
    for nonce in range(4):
        mempool.add(make(POOR, nonce), state=accounts)
        mempool.add(make(STRANGER, nonce), state=accounts)
    assert refusal(mempool, make(POOR, 4), accounts).startswith("txpool is full")
    for key in KEYS[:2]:
        mempool.add(make(key), state=accounts)
    assert len(mempool) == 40
    assert refusal(mempool, make(KEYS[2]), accounts).startswith("txpool is full: 40 transactions")


def test_bytes_and_each_sender_are_bounded() -> None:
    accounts = Accounts()
    size = len(make(RICH, 1, data=b"x" * 1000, gas_limit=100_000).raw)
    mempool = pool(sender_transactions_max=3, sender_bytes_max=2 * size, bytes_max=3 * size, reserved_share=0.0)
    for nonce in (1, 2):
        mempool.add(make(RICH, nonce, data=b"x" * 1000, gas_limit=100_000), state=accounts)
    assert refusal(mempool, make(RICH, 3), accounts).startswith("txpool is full: 2 transactions of")
    mempool.add(make(POOR, 1, data=b"x" * 1000, gas_limit=100_000), state=accounts)
    assert refusal(mempool, make(STRANGER), accounts).startswith("txpool is full: 3 transactions of")
    mempool.remove(next(iter(mempool)).hash)
    for nonce in (0, 1, 3):
        mempool.add(make(STRANGER, nonce), state=accounts)
    assert refusal(mempool, make(STRANGER, 2), accounts).startswith("txpool is full: 3 transactions of")


def test_what_is_behind_a_removed_one_waits() -> None:
    accounts = Accounts()
    mempool = pool()
    queue = [make(RICH, nonce) for nonce in range(4)]
    for transaction in queue:
        mempool.add(transaction, state=accounts)
    mempool.remove(queue[1].hash)
    assert mempool.pending_nonce(RICH.address, 0) == 1
    assert select(mempool, accounts) == queue[:1]
    mempool.remove(queue[0].hash)
    assert not mempool.has_work(accounts.nonce)
    for transaction in queue[:2]:
        mempool.add(transaction, state=accounts)
    assert mempool.pending_nonce(RICH.address, 0) == 4
    assert select(mempool, accounts) == queue


nonces = st.integers(0, 5)  # few, and few senders, so that queues grow long enough to be cut
steps = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(SENDERS), nonces, st.integers(0, 2)),
    st.tuples(st.just("remove"), st.integers(0, 100), st.none(), st.none()),
    st.tuples(st.just("final"), st.integers(1, 6), st.none(), st.none()),
    st.tuples(st.just("jump"), st.sampled_from(SENDERS), st.integers(1, 3), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60))
def test_it_agrees_with_a_slow_model(script: list[tuple[Any, ...]]) -> None:
    accounts, mempool = Accounts(), pool()
    model: dict[tuple[bytes, int], Transaction] = {}  # by sender and nonce
    actions: dict[str, Callable[..., None]] = {"add": _add, "remove": _remove, "final": _final, "jump": _jump}
    for name, *arguments in script:
        actions[name](mempool, accounts, model, *arguments)
        assert set(mempool) == set(model.values())
        assert len(mempool) == len(model)
        assert mempool.bytes_count == sum(len(transaction.raw) for transaction in model.values())
        chosen = select(mempool, accounts)
        assert chosen == _choose(model, accounts)
        assert mempool.has_work(accounts.nonce) == bool(chosen)
        for key in SENDERS:
            nonce = accounts.nonce(key.address)
            while (key.address, nonce) in model:
                nonce += 1
            assert mempool.pending_nonce(key.address, accounts.nonce(key.address)) == nonce


Model = dict[tuple[bytes, int], Transaction]


def _add(mempool: Mempool, accounts: Accounts, model: Model, key: SigningKey, nonce: int, tip: int) -> None:
    transaction = make(key, nonce, tip)
    old = model.get((key.address, nonce))
    if nonce < accounts.nonce(key.address) or (old and old.max_fee_per_gas >= tip):
        with pytest.raises(InvalidTransaction):
            mempool.add(transaction, state=accounts)
    else:
        mempool.add(transaction, state=accounts)
        model[key.address, nonce] = transaction
        accounts.events.append(transaction)


def _remove(mempool: Mempool, accounts: Accounts, model: Model, which: int, *_: None) -> None:
    if model:
        place = sorted(model)[which % len(model)]
        mempool.remove(model.pop(place).hash)
    mempool.remove(bytes(32))


def _final(mempool: Mempool, accounts: Accounts, model: Model, count: int, *_: None) -> None:
    chosen = select(mempool, accounts)[:count]
    for transaction in chosen:
        accounts.nonces[transaction.sender] = transaction.nonce + 1
        del model[transaction.sender, transaction.nonce]
    mempool.finalised(chosen, accounts.nonce)
    accounts.events += dict.fromkeys(transaction.sender for transaction in chosen)


def _jump(mempool: Mempool, accounts: Accounts, model: Model, key: SigningKey, by: int, _: None) -> None:
    """A block of others: it holds transactions of this sender that were never here."""
    last = accounts.nonce(key.address) + by - 1
    accounts.nonces[key.address] = last + 1
    mempool.finalised([make(key, last, 9)], accounts.nonce)
    accounts.events.append(key.address)
    for place in [place for place in model if place[0] == key.address and place[1] <= last]:
        del model[place]


def _choose(model: Model, accounts: Accounts) -> list[Transaction]:
    """Over and over, of each sender's next one: the fewest chosen so far, then who has waited longest."""
    moments = {event: moment for moment, event in enumerate(accounts.events)}  # of equal ones the last counts
    taken: dict[bytes, int] = {}
    chosen: list[Transaction] = []
    while True:
        heads = [
            model[key.address, accounts.nonce(key.address) + taken.get(key.address, 0)]
            for key in SENDERS
            if (key.address, accounts.nonce(key.address) + taken.get(key.address, 0)) in model
        ]
        if not heads:
            return chosen
        best = min(
            heads, key=lambda head: (taken.get(head.sender, 0), max(moments[head], moments.get(head.sender, -1)))
        )
        chosen.append(best)
        taken[best.sender] = taken.get(best.sender, 0) + 1


def test_a_block_it_was_not_told_of_selects_nothing_stale() -> None:
    accounts = Accounts()
    mempool = pool()
    for nonce in range(3):
        mempool.add(make(RICH, nonce), state=accounts)
    accounts.nonces[RICH.address] = 2
    assert all(transaction.nonce >= 2 for transaction in select(mempool, accounts))
    assert mempool.has_work(accounts.nonce)
    assert mempool.pending_nonce(RICH.address, 2) == 3
    assert [transaction.nonce for transaction in select(mempool, accounts)] == [2]
