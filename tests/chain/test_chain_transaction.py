"""Transactions against EIP-155's example, eth-account's signatures and the `rlp` library."""

from dataclasses import astuple
from typing import Any

import pytest
import rlp as oracle
from eth_account import Account
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.errors import InvalidSignature, InvalidTransaction
from node.chain.signing import ORDER, SigningKey, recover
from node.chain.transaction import TRANSACTION_BYTES_MAX, decode_transaction, sign_transaction

SECRET = b"\x46" * 32  # EIP-155's example
EIP_155 = bytes.fromhex(
    "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a7640000802"
    "5a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276"
    "a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
)

uint64 = st.integers(0, (1 << 64) - 1)
wei = st.integers(0, (1 << 256) - 1)
small_secrets = st.integers(1, 1 << 64).map(lambda number: number.to_bytes(32, "big"))
accesses = st.lists(
    st.tuples(st.binary(min_size=20, max_size=20), st.lists(st.binary(min_size=32, max_size=32), max_size=2)),
    max_size=2,
)


def checksummed(address: bytes) -> str:
    digits = address.hex()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) > 7 else c for c, d in zip(digits, digest, strict=False))


def test_the_example_of_eip_155() -> None:
    transaction = decode_transaction(EIP_155)
    assert transaction.signing_hash.hex() == "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"
    assert transaction.sender.hex() == "9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f"
    assert (transaction.type, transaction.chain_id, transaction.nonce) == (0, 1, 9)
    assert transaction.max_fee_per_gas == transaction.max_priority_fee_per_gas == 20 * 10**9
    assert (transaction.gas_limit, transaction.value, transaction.data) == (21_000, 10**18, b"")
    assert transaction.to == b"\x35" * 20
    assert SigningKey(SECRET).sign(transaction.signing_hash) == transaction.signature


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What eth-account is asked to sign: any of the three types."""
    request: dict[str, Any] = {
        "chainId": draw(st.integers(1, (1 << 53) - 1)),
        "nonce": draw(st.integers(0, (1 << 64) - 2)),
        "gas": draw(uint64),
        "to": checksummed(draw(st.binary(min_size=20, max_size=20))) if draw(st.booleans()) else b"",
        "value": draw(wei),
        "data": draw(st.binary(max_size=80)),
    }
    kind = draw(st.sampled_from([0, 1, 2]))
    if kind < 2:
        request["gasPrice"] = draw(wei)
    else:
        request["maxFeePerGas"] = draw(wei)
        request["maxPriorityFeePerGas"] = draw(wei)
    if kind:
        request["type"] = kind
        request["accessList"] = [
            {"address": checksummed(address), "storageKeys": ["0x" + key.hex() for key in slots]}
            for address, slots in draw(accesses)
        ]
    return request


@settings(max_examples=60, deadline=None)
@given(requests(), small_secrets)
def test_reads_what_eth_account_signs(request: dict[str, Any], secret: bytes) -> None:
    account = Account.from_key(secret)
    signed = account.sign_transaction(request)
    transaction = decode_transaction(bytes(signed.raw_transaction))
    assert transaction.sender == bytes.fromhex(account.address[2:]) == SigningKey(secret).address
    assert transaction.hash == bytes(signed.hash)
    assert transaction.raw == bytes(signed.raw_transaction)
    assert transaction.type == request.get("type", 0)
    assert transaction.chain_id == request["chainId"]
    assert transaction.nonce == request["nonce"]
    assert transaction.gas_limit == request["gas"]
    assert transaction.value == request["value"]
    assert transaction.data == request["data"]
    assert transaction.to == (bytes.fromhex(request["to"][2:]) if request["to"] else b"")
    assert transaction.max_fee_per_gas == request.get("maxFeePerGas", request.get("gasPrice"))
    assert transaction.max_priority_fee_per_gas == request.get("maxPriorityFeePerGas", request.get("gasPrice"))
    listed = [(entry["address"], entry["storageKeys"]) for entry in request.get("accessList", [])]
    assert [
        (checksummed(address), ["0x" + key.hex() for key in slots]) for address, slots in transaction.access_list
    ] == listed


@settings(max_examples=40, deadline=None)
@given(st.data(), small_secrets, accesses)
def test_signs_as_eth_account_does(data: st.DataObject, secret: bytes, access_list: list[Any]) -> None:
    fields: dict[str, Any] = {
        "chain_id": data.draw(st.integers(1, (1 << 53) - 1)),
        "nonce": data.draw(st.integers(0, (1 << 64) - 2)),
        "gas_limit": data.draw(uint64),
        "to": data.draw(st.binary(min_size=20, max_size=20)),
        "value": data.draw(wei),
        "data": data.draw(st.binary(max_size=80)),
        "max_fee_per_gas": data.draw(uint64 | wei),
        "max_priority_fee_per_gas": data.draw(uint64 | wei),
    }
    transaction = sign_transaction(SigningKey(secret), **fields, access_list=access_list)
    request = {
        "type": 2,
        "chainId": fields["chain_id"],
        "nonce": fields["nonce"],
        "gas": fields["gas_limit"],
        "to": checksummed(fields["to"]),
        "value": fields["value"],
        "data": fields["data"],
        "maxFeePerGas": fields["max_fee_per_gas"],
        "maxPriorityFeePerGas": fields["max_priority_fee_per_gas"],
        "accessList": [
            {"address": checksummed(address), "storageKeys": ["0x" + key.hex() for key in slots]}
            for address, slots in access_list
        ],
    }
    assert transaction.raw == bytes(Account.sign_transaction(request, secret).raw_transaction)
    decoded = decode_transaction(transaction.raw)
    assert transaction.sender == SigningKey(secret).address == decoded.sender
    assert astuple(transaction) == astuple(decoded), "what was signed is what everybody else decodes"


def mutated_legacy(index: int, value: Any) -> bytes:
    fields: Any = rlp.decode(EIP_155)
    fields[index] = value
    return rlp.encode(fields)


def high_s() -> bytes:
    fields: Any = rlp.decode(EIP_155)
    return mutated_legacy(8, rlp.encode_int(ORDER - int.from_bytes(fields[8], "big")))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "typed transaction too short"),
        (b"\x03" + EIP_155, "transaction type not supported"),
        (b"\x00" + EIP_155, "transaction type not supported"),
        (b"\x7f", "transaction type not supported"),
        (b"\x80", "transaction type not supported"),
        (b"\x02", "rlp"),
        (b"\x02\xc0", "rlp"),
        (EIP_155 + b"\x00", "rlp"),
        (EIP_155[:-1], "rlp"),
        (mutated_legacy(0, b"\x00\x09"), "rlp"),  # a leading zero
        (mutated_legacy(0, b"\x01" + bytes(8)), "rlp"),  # nonce of more than 64 bits
        (mutated_legacy(0, []), "rlp"),
        (mutated_legacy(3, bytes(19)), "rlp"),
        (mutated_legacy(4, b"\x01" + bytes(32)), "rlp"),  # value of more than 256 bits
        (mutated_legacy(5, [b"\x01"]), "rlp"),
        (mutated_legacy(6, b"\x1b"), "only replay-protected (EIP-155) transactions allowed over RPC"),
        (mutated_legacy(6, b"\x1c"), "only replay-protected (EIP-155) transactions allowed over RPC"),
        (mutated_legacy(6, b"\x22"), "invalid sender"),
        (mutated_legacy(7, b"\x01" + bytes(32)), "rlp"),
        (bytes(TRANSACTION_BYTES_MAX + 1), "oversized data"),
    ],
)
def test_malformed_transactions_are_refused_by_name(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidTransaction) as caught:
        decode_transaction(raw)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "raw",
    [
        high_s(),
        mutated_legacy(7, b""),
        mutated_legacy(8, b""),
        mutated_legacy(7, rlp.encode_int(ORDER)),
    ],
)
def test_a_signature_that_is_none_has_no_sender(raw: bytes) -> None:
    with pytest.raises(InvalidTransaction, match="invalid sender"):
        _ = decode_transaction(raw).sender


def test_y_parity_of_typed_transactions_is_a_bit() -> None:
    raw = sign_transaction(SigningKey(SECRET), chain_id=1, nonce=0, to=bytes(20), gas_limit=21_000).raw
    fields: Any = rlp.decode(raw[1:])
    fields[-3] = b"\x02"
    with pytest.raises(InvalidTransaction, match="invalid sender"):
        decode_transaction(b"\x02" + rlp.encode(fields))


@pytest.mark.parametrize(
    "access_list",
    [b"\x01", [b"\x01"], [[bytes(20)]], [[bytes(19), []]], [[bytes(20), [bytes(31)]]], [[bytes(20), b""]]],
)
def test_malformed_access_lists_are_refused(access_list: Any) -> None:
    raw = sign_transaction(SigningKey(SECRET), chain_id=1, nonce=0, to=bytes(20), gas_limit=21_000).raw
    fields: Any = rlp.decode(raw[1:])
    fields[8] = access_list
    with pytest.raises(InvalidTransaction, match="rlp"):
        decode_transaction(b"\x02" + rlp.encode(fields))


@pytest.mark.parametrize("item", [[], [b"\x01"], [b""]])
@pytest.mark.parametrize(("kind", "at"), [(kind, at) for kind in (0, 1, 2) for at in range((9, 11, 12)[kind])])
def test_a_list_is_taken_for_no_other_field(kind: int, at: int, item: Any) -> None:
    """An empty list is as false as the empty string, which is zero."""
    number, address = b"\x01", bytes(20)
    kinds: list[list[Any]] = [
        [number, number, number, address, b"", b"", b"\x25", number, number],
        [number, number, number, number, address, b"", b"", [], b"", number, number],
        [number, number, b"", b"", number, address, b"", b"", [], b"", number, number],
    ]
    fields = kinds[kind]
    prefix = bytes((kind,)) if kind else b""
    decode_transaction(prefix + rlp.encode(fields))
    if fields[at] == [] == item:
        return
    fields[at] = item
    with pytest.raises(InvalidTransaction, match="rlp"):
        decode_transaction(prefix + rlp.encode(fields))


@pytest.mark.parametrize("entry", [(bytes(20), ()), (bytes(20), (bytes(32),) * 100)])
def test_an_access_list_may_fill_the_transaction(entry: tuple[bytes, tuple[bytes, ...]]) -> None:
    count = (TRANSACTION_BYTES_MAX - 200) // len(rlp.encode([entry[0], list(entry[1])]))
    key = SigningKey(SECRET)
    transaction = sign_transaction(
        key, chain_id=1, nonce=0, to=bytes(20), gas_limit=21_000, access_list=[entry] * count
    )
    assert len(decode_transaction(transaction.raw).access_list) == count


@pytest.mark.parametrize("filling", [b"\1", b"\xc0", b"\xc1\xc0"])
def test_a_megabyte_of_tiny_items_is_refused_early(filling: bytes) -> None:
    """Read to its end, each such transaction would hold a node up for a second."""
    raw = b"\x02" + rlp.encode_list([filling * (500_000 // len(filling))])
    with pytest.raises(InvalidTransaction, match="more items than are allowed"):
        decode_transaction(raw)


VALID = [
    EIP_155,
    bytes(
        Account.sign_transaction(
            {"type": 1, "chainId": 7770, "nonce": 1, "gas": 21_000, "gasPrice": 1, "to": "0x" + "11" * 20, "value": 1},
            SECRET,
        ).raw_transaction
    ),
    sign_transaction(
        SigningKey(SECRET),
        chain_id=7770,
        nonce=1,
        to=bytes(20),
        gas_limit=90_000,
        access_list=[(bytes(20), [bytes(32)])],
    ).raw,
]


@settings(max_examples=300)
@given(st.sampled_from(VALID), st.integers(0, 1 << 12), st.integers(0, 255))
@example(EIP_155, 2, 9)
def test_each_accepted_byte_string_is_canonical(raw: bytes, at: int, byte: int) -> None:
    """Whatever byte is changed: refused by name, or it is the very encoding that the library would make."""
    changed = bytearray(raw)
    changed[at % len(raw)] = byte
    try:
        transaction = decode_transaction(bytes(changed))
    except InvalidTransaction:
        return
    body = bytes(changed) if transaction.type == 0 else bytes(changed[1:])
    assert oracle.encode(oracle.decode(body, strict=True)) == body
    assert transaction.hash == keccak256(bytes(changed))
    if bytes(changed) != raw:
        try:
            sender = transaction.sender
        except InvalidTransaction:
            return
        assert sender != SigningKey(SECRET).address, "another transaction passed with the same signature's signer"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(raw: bytes) -> None:
    for prefix in (b"", b"\x01", b"\x02"):
        with pytest.raises(InvalidTransaction):
            decode_transaction(prefix + raw)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (bytes(64), "65 bytes"),
        (bytes(64) + b"\x02", "parity"),
        (bytes(65), "no public key"),
        (b"\x01" * 32 + b"\xff" * 32 + b"\x00", "upper half"),
        (b"\xff" * 32 + b"\x01" * 32 + b"\x00", "no public key"),
    ],
)
def test_malformed_signatures_are_refused(signature: bytes, reason: str) -> None:
    with pytest.raises(InvalidSignature, match=reason):
        recover(bytes(32), signature)


@settings(max_examples=50)
@given(small_secrets, st.binary(min_size=32, max_size=32))
def test_signatures_are_low_s_and_deterministic(secret: bytes, digest: bytes) -> None:
    key = SigningKey(secret)
    signature = key.sign(digest)
    assert recover(digest, signature) == key.address
    assert key.sign(digest) == signature
    mirrored = ORDER - int.from_bytes(signature[32:64], "big")
    with pytest.raises(InvalidSignature, match="upper half"):
        recover(digest, signature[:32] + mirrored.to_bytes(32, "big") + bytes((signature[64] ^ 1,)))


def test_a_key_never_shows_its_secret() -> None:
    key = SigningKey(SECRET)
    assert SECRET.hex() not in repr(key)
    assert repr(key) == "SigningKey(address=0x9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f)"
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SigningKey(SECRET[1:])
    with pytest.raises(ValueError, match="greater than 0"):
        SigningKey(bytes(32))
