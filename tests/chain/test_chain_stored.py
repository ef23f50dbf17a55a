"""What lies in the database of a block's receipts: all that says something, and never a bloom."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import rlp
from node.chain import stored as module
from node.chain.errors import LedgerError
from node.chain.receipt import BLOOM_BYTES, EventLog, Receipt, event_log_of, make_receipt
from node.chain.stored import pack_receipts, unpack_event_logs, unpack_receipts

EVENT_LOGS = st.builds(
    EventLog,
    st.binary(min_size=20, max_size=20),
    st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    st.binary(max_size=300),
)
GAS = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 127, 128, 255, 256, 0xB90100, 0xB90100B90100])
RECEIPTS = st.builds(make_receipt, st.sampled_from([0, 1, 2]), st.booleans(), GAS, st.lists(EVENT_LOGS, max_size=3))


@given(st.lists(RECEIPTS, max_size=5))
def test_receipts_come_back_as_they_were_and_lie_without_blooms(receipts: list[Receipt]) -> None:
    encoded = [receipt.encoded() for receipt in receipts]
    stored = pack_receipts(encoded)
    assert unpack_receipts(stored) == encoded
    assert unpack_receipts(stored, [receipt.bloom for receipt in receipts]) == encoded
    assert list(unpack_event_logs(stored, len(receipts))) == [receipt.event_logs for receipt in receipts]
    assert len(stored) <= sum(map(len, encoded)) - (BLOOM_BYTES - 5) * len(encoded) + 5


def test_a_receipt_of_a_hundred_thousand_bytes_comes_back() -> None:
    event_logs = [EventLog(b"\x11" * 20, (b"\xff" * 32,), bytes(1_000)) for _ in range(100)]
    encoded = [make_receipt(2, True, 21_000, event_logs).encoded()]
    assert unpack_receipts(pack_receipts(encoded)) == encoded


def test_blooms_are_made_only_where_nobody_knows_them_and_somebody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    receipts = [make_receipt(2, True, 21_000, [EventLog(bytes(20), (bytes(32),), b"")]) for _ in range(3)]
    stored = pack_receipts([receipt.encoded() for receipt in receipts])
    monkeypatch.delattr(module, "logs_bloom")
    assert len(unpack_receipts(stored, [receipt.bloom for receipt in receipts])) == 3
    decoded = 0

    def decode(item: rlp.Decoded) -> EventLog:
        nonlocal decoded
        decoded += 1
        return event_log_of(item)

    monkeypatch.setattr(module, "event_log_of", decode)
    found = unpack_event_logs(stored, 3)
    assert (next(found), decoded) == (receipts[0].event_logs, 1), "the others are not asked for yet"


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"\x05", msgpack.packb([b""]), msgpack.packb([b"\xf9"]), msgpack.packb([3])]
)
def test_damaged_receipts_are_named_so(value: bytes) -> None:
    with pytest.raises(LedgerError, match="stored receipts are damaged"):
        unpack_receipts(value)
    with pytest.raises(LedgerError, match="stored receipts are damaged"):
        list(unpack_event_logs(value, 1))


def test_receipts_of_another_number_are_damaged() -> None:
    value = pack_receipts([make_receipt(2, True, 21_000, []).encoded()] * 2)
    for read in (lambda: unpack_receipts(value, [bytes(BLOOM_BYTES)]), lambda: list(unpack_event_logs(value, 3))):
        with pytest.raises(LedgerError, match="stored receipts are damaged"):
            read()
