"""Payloads come back as they were packed, and nothing else is taken for one."""

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import payloads
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.genesis import Genesis, build_genesis
from node.consensus.certificate import pack_certificate
from node.payloads import BadPayload
from tests.node.conftest import certify, transfer

HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=20)
UNPACKERS: list[Callable[[bytes], object]] = [
    payloads.unpack_status,
    payloads.unpack_hashes,
    payloads.unpack_transactions,
    payloads.unpack_get_blocks,
    payloads.unpack_blocks,
]


@given(st.integers(min_value=0, max_value=2**63 - 1), st.binary(min_size=32, max_size=32))
def test_status(height: int, block_hash: bytes) -> None:
    assert payloads.unpack_status(payloads.pack_status(height, block_hash)) == (height, block_hash)


@given(HASHES)
def test_hashes(hashes: list[bytes]) -> None:
    assert payloads.unpack_hashes(payloads.pack_hashes(hashes)) == hashes


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_transactions(raws: list[bytes]) -> None:
    assert payloads.unpack_transactions(payloads.pack_transactions(raws)) == raws


def test_get_blocks_is_capped() -> None:
    assert payloads.unpack_get_blocks(payloads.pack_get_blocks(7, 3)) == (7, 3)
    assert payloads.unpack_get_blocks(payloads.pack_get_blocks(7, 10**6)) == (7, payloads.BLOCKS_MAX)


def test_blocks(genesis: Genesis) -> None:
    block = build_genesis(genesis).block
    certificate = certify(Domain(7770, block.hash), 5, block.hash)
    raws = [transfer(0).raw, transfer(1).raw]
    packed = payloads.pack_blocks([(block.header.encoded, raws, pack_certificate(certificate))])
    [(got, got_certificate)] = payloads.unpack_blocks(packed)
    assert got.hash == block.hash
    assert [transaction.raw for transaction in got.transactions] == raws
    assert got_certificate == certificate


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.integers() | st.binary(max_size=40) | st.none() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4),
    )
    .filter(lambda value: not isinstance(value, int) or abs(value) < 2**63)
    .map(lambda value: _packed(value))
)
def test_whatever_comes_is_read_or_refused(payload: bytes) -> None:
    for unpack in UNPACKERS:
        try:
            unpack(payload)
        except PeerError:
            continue


def _packed(value: object) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except OverflowError:
        return b"\xc1"


@pytest.mark.parametrize(
    ("unpack", "value"),
    [
        (payloads.unpack_status, [1]),
        (payloads.unpack_status, [-1, bytes(32)]),
        (payloads.unpack_status, [True, bytes(32)]),
        (payloads.unpack_status, [1, bytes(31)]),
        (payloads.unpack_hashes, [bytes(31)]),
        (payloads.unpack_hashes, [bytes(32)] * (payloads.HASHES_MAX + 1)),
        (payloads.unpack_hashes, {"a": 1}),
        (payloads.unpack_transactions, ["text"]),
        (payloads.unpack_blocks, [[1, 2, 3]]),
        (payloads.unpack_blocks, [None] * (payloads.BLOCKS_MAX + 1)),
    ],
)
def test_what_is_refused(unpack: Callable[[bytes], object], value: object) -> None:
    with pytest.raises(BadPayload):
        unpack(msgpack.packb(value))
