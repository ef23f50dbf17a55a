"""Receipts and blooms against the yellow paper's words and the `rlp` library."""

from typing import Any

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from merkle.keccak import keccak256
from node.chain.errors import InvalidBlock
from node.chain.receipt import (
    EMPTY_BLOOM,
    EventLog,
    Receipt,
    bloom_bits,
    decode_receipt,
    logs_bloom,
    make_receipt,
)

event_logs = st.lists(
    st.builds(
        EventLog,
        address=st.binary(min_size=20, max_size=20),
        topics=st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
        data=st.binary(max_size=100),
    ),
    max_size=4,
)
receipts = st.builds(
    make_receipt,
    type_=st.sampled_from([0, 1, 2]),
    succeeded=st.booleans(),
    cumulative_gas_used=st.integers(0, (1 << 64) - 1),
    event_logs=event_logs,
)


def slow_bloom(logs: list[EventLog]) -> bytes:
    """Bit by bit, as the yellow paper's 4.4.1 says it: three pairs of bytes, taken modulo 2,048, from the low end."""
    bits = [0] * 2048
    for log in logs:
        for entry in (log.address, *log.topics):
            digest = keccak256(entry)
            for pair in range(3):
                bits[2047 - (digest[2 * pair] * 256 + digest[2 * pair + 1]) % 2048] = 1
    return bytes(int("".join(map(str, bits[start : start + 8])), 2) for start in range(0, 2048, 8))


def test_a_published_bloom() -> None:
    """go-ethereum's TestBloomExtensively hashes the bloom of a hundred entries."""
    bits = 0
    for index in range(100):
        bits |= bloom_bits(b"xxxxxxxxxx data %d yyyyyyyyyyyyyy" % index)
    expected = "c8d3ca65cdb4874300a9e39475508f23ed6da09fdbc487f89a2dcf50b09eb263"
    assert keccak256(bits.to_bytes(256, "big")).hex() == expected


@given(event_logs)
def test_bloom_agrees_with_the_definition(logs: list[EventLog]) -> None:
    assert logs_bloom(logs) == slow_bloom(logs)


@given(receipts)
def test_encoding_agrees_with_the_library(receipt: Receipt) -> None:
    fields: list[Any] = [
        b"\x01" if receipt.succeeded else b"",
        oracle.sedes.big_endian_int.serialize(receipt.cumulative_gas_used),
        slow_bloom(list(receipt.event_logs)),
        [[log.address, list(log.topics), log.data] for log in receipt.event_logs],
    ]
    expected = oracle.encode(fields)
    if receipt.type:
        expected = bytes((receipt.type,)) + expected
    assert receipt.encoded() == expected
    assert decode_receipt(expected) == receipt == decode_receipt(expected, is_certified=True)


@given(receipts, st.integers(0, 1 << 16))
def test_a_changed_bit_is_refused_or_another_receipt(receipt: Receipt, bit: int) -> None:
    data = receipt.encoded()
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    try:
        other = decode_receipt(bytes(changed))
    except InvalidBlock:
        return
    assert other.encoded() == bytes(changed)
    assert other != receipt


def encoded(status: Any = b"\x01", gas: Any = b"", bloom: Any = EMPTY_BLOOM, logs: Any = ()) -> bytes:
    return bytes(oracle.encode([status, gas, bloom, list(logs)]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\xc0",
        encoded(status=b"\x02"),
        encoded(status=[]),
        encoded(gas=b"\x00"),
        encoded(bloom=bytes(255)),
        encoded(bloom=b"\x01" + bytes(255)),
        encoded(logs=[b"log"]),
        encoded(logs=[[bytes(20), []]]),
        encoded(logs=[[bytes(19), [], b""]], bloom=slow_bloom([EventLog(bytes(19), (), b"")])),
        encoded(logs=[[bytes(20), [bytes(31)], b""]], bloom=slow_bloom([EventLog(bytes(20), (bytes(31),), b"")])),
        encoded(logs=[[bytes(20), b"", b""]], bloom=slow_bloom([EventLog(bytes(20), (), b"")])),
        encoded(logs=[[bytes(20), [], []]], bloom=slow_bloom([EventLog(bytes(20), (), b"")])),
        oracle.encode([b"\x01", b"", EMPTY_BLOOM, b""]),
        encoded() + b"\x00",
    ],
)
def test_malformed_receipts_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBlock):
        decode_receipt(data)


def test_a_receipt_without_event_logs_shares_the_empty_bloom() -> None:
    assert make_receipt(0, True, 21_000, []).bloom is EMPTY_BLOOM
