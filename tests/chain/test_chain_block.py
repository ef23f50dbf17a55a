"""Headers and blocks: the London header of mainnet, the `rlp` library, and encodings that are refused."""

from dataclasses import replace
from typing import Any

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.block import Block, Header, decode_header, pack_block, unpack_block
from node.chain.errors import InvalidBlock, InvalidTransaction
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction

# Ethereum mainnet's first London block, 12,965,000.
LONDON_HASH = "9b83c12c69edb74f6c8dd5d052765c1adf940e320bd1291696e6fa07829eee71"
LONDON_HEADER = bytes.fromhex(
    "f9021fa03de6bb3849a138e6ab0b83a3a00dc7433f1e83f7fd488e4bba78f2fe2631a633a01dcc4de8dec75d7aab85b567b6ccd41ad312451b"
    "948a7413f0a142fd40d49347947777788200b672a42421017f65ede4fc759564c8a041cf6e8e60fd087d2b00360dc29e5bfb21959bce1f4c24"
    "2fd1ad7c4da968eb87a0dfcb68d3a3c41096f4a77569db7956e0a0e750fad185948e54789ea0e51779cba08a8865cd785e2e9dfce7da83aca0"
    "10b10b9af2abbd367114b236f149534c821db9010024e74ad77d9a2b27bdb8f6d6f7f1cffdd8cfb47fdebd433f011f7dfcfbb7db638fadd5ff"
    "66ed134ede2879ce61149797fbcdf7b74f6b7de153ec61bdaffeeb7b59c3ed771a2fe9eaed8ac70e335e63ff2bfe239eaff8f94ca642fdf7ee"
    "5537965be99a440f53d2ce057dbf9932be9a7b9a82ffdffe4eeee1a66c4cfb99fe4540fbff936f97dde9f6bfd9f8cefda2fc174d23dfdb7d6f"
    "7dfef5f754fe6a7eec92efdbff779b5feff3beafebd7fd6e973afebe4f5d86f3aafb1f73bf1e1d0cdd796d89827edeffe8fb6ae6d7bf639ec5"
    "f5ff4c32f31f6b525b676c7cdf5e5c75bfd5b7bd1928b6f43aac7fa0f6336576e5f7b7dfb9e8ebbe6f6efe2f9dfe8b3f56871b81c1fe05b218"
    "83c5d4888401ca35428401ca262984610bdaa69768747470733a2f2f7777772e6b7279707465782e6f7267a09620b46a81a4795cf4449d48e3"
    "270419f58b09293a5421205f88179b563f815a88b223da049adf2216843b9aca00"
)

uint64 = st.integers(0, (1 << 64) - 1)
hashes = st.binary(min_size=32, max_size=32)
headers = st.builds(
    Header,
    parent_hash=hashes,
    miner=st.binary(min_size=20, max_size=20),
    state_root=hashes,
    transactions_root=hashes,
    receipts_root=hashes,
    logs_bloom=st.binary(min_size=256, max_size=256),
    number=uint64,
    gas_limit=uint64,
    gas_used=uint64,
    timestamp=uint64,
    extra_data=hashes,
    base_fee_per_gas=uint64,
)


def test_the_first_london_block_of_mainnet() -> None:
    fields: Any = rlp.decode(LONDON_HEADER)
    header = Header(
        parent_hash=fields[0],
        uncles_hash=fields[1],
        miner=fields[2],
        state_root=fields[3],
        transactions_root=fields[4],
        receipts_root=fields[5],
        logs_bloom=fields[6],
        difficulty=rlp.decode_int(fields[7]),
        number=12_965_000,
        gas_limit=30_029_122,
        gas_used=30_025_257,
        timestamp=1_628_166_822,
        extra_data=b"https://www.kryptex.org",
        mix_hash=fields[13],
        nonce=fields[14],
        base_fee_per_gas=10**9,
    )
    assert header.encoded == LONDON_HEADER
    assert header.hash.hex() == LONDON_HASH


def test_this_chain_refuses_free_text_in_extra_data() -> None:
    with pytest.raises(InvalidBlock, match="'extra_data' is not 32 bytes"):
        decode_header(LONDON_HEADER)


@given(headers)
def test_hash_is_that_of_sixteen_fields_with_nothing_left_out(header: Header) -> None:
    big = oracle.sedes.big_endian_int.serialize
    fields = [
        header.parent_hash,
        keccak256(b"\xc0"),
        header.miner,
        header.state_root,
        header.transactions_root,
        header.receipts_root,
        header.logs_bloom,
        b"\x01",
        big(header.number),
        big(header.gas_limit),
        big(header.gas_used),
        big(header.timestamp),
        header.extra_data,
        bytes(32),
        bytes(8),
        big(header.base_fee_per_gas),
    ]
    assert header.encoded == oracle.encode(fields)
    assert header.hash == keccak256(oracle.encode(fields))
    decoded = decode_header(header.encoded)
    assert decoded == header
    assert decoded.hash == header.hash


@given(headers, st.integers(0, 15), st.sampled_from([b"", b"\x00", bytes(21), bytes(33), b"\x01" * 9, []]))
def test_a_field_of_the_wrong_kind_is_refused(header: Header, index: int, wrong: Any) -> None:
    fields: Any = rlp.decode(header.encoded)
    if wrong == b"" and index in (7, 8, 9, 10, 11, 15):
        wrong = b"\x00\x01"
    fields[index] = wrong
    with pytest.raises(InvalidBlock):
        decode_header(rlp.encode(fields))


@given(headers)
def test_a_header_has_sixteen_fields(header: Header) -> None:
    fields: Any = rlp.decode(header.encoded)
    for wrong in (fields[:-1], [*fields, b""], []):
        with pytest.raises(InvalidBlock, match="16 fields"):
            decode_header(rlp.encode(wrong))
    for data in (header.encoded + b"\x00", header.encoded[:-1], b"", b"\x80"):
        with pytest.raises(InvalidBlock):
            decode_header(data)


@given(headers, st.integers(0, 3))
def test_blocks_pack_and_unpack(header: Header, count: int) -> None:
    key = SigningKey(b"\x11" * 32)
    transactions = tuple(
        sign_transaction(key, chain_id=7770, nonce=nonce, to=bytes(20), gas_limit=21_000) for nonce in range(count)
    )
    block = Block(header, transactions)
    unpacked = unpack_block(pack_block(block))
    assert unpacked == block
    assert unpacked.hash == header.hash
    assert unpacked.number == header.number
    assert block.bytes_count == len(header.encoded) + sum(len(transaction.raw) for transaction in transactions)


@pytest.mark.parametrize("index", range(8))
def test_packed_rubbish_is_refused(index: int) -> None:
    header = Header(
        parent_hash=bytes(32),
        miner=bytes(20),
        state_root=bytes(32),
        transactions_root=bytes(32),
        receipts_root=bytes(32),
        logs_bloom=bytes(256),
        number=1,
        gas_limit=1,
        gas_used=1,
        timestamp=1,
        extra_data=bytes(32),
    ).encoded
    rubbish: list[object] = [
        None,
        [],
        [header],
        [header, [], []],
        ["text", []],
        [header, b""],
        [header, ["x"]],
        [b"", []],
    ]
    with pytest.raises(InvalidBlock):
        unpack_block(rubbish[index])
    with pytest.raises(InvalidTransaction):
        unpack_block([header, [b"\x05"]])


@given(headers, uint64)
def test_a_changed_header_has_another_hash(header: Header, number: int) -> None:
    other = replace(header, number=number)
    assert (other.hash == header.hash) == (number == header.number)
