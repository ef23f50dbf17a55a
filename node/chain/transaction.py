"""Ethereum transactions: legacy with EIP-155, EIP-2930 (type 1) and EIP-1559 (type 2), decoded and encoded strictly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.errors import InvalidSignature, InvalidTransaction
from node.chain.gas import AccessList, intrinsic_gas_of
from node.chain.signing import SigningKey, recover

TRANSACTION_BYTES_MAX = 1 << 20
_FIELDS_MAX = 12
_PARITIES = (b"\0", b"\1")
_ACCESS_BYTES_MIN = 7  # for each RLP item of an access list: the least is 23 bytes for an address without slots, three


@dataclass(slots=True, eq=False)
class Transaction:
    """One signed transaction. Treat it as immutable: `raw` and `hash` are those of the signed bytes.

    `max_fee_per_gas` and `max_priority_fee_per_gas` both hold the gas price of types 0 and 1 (wei per gas).
    `to` is 20 bytes, or empty for a contract creation (which this chain refuses later, by name).
    `signature` is r ‖ s ‖ y parity. `chain_id` is never None: transactions without EIP-155 are refused.
    """

    type: int
    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: bytes
    value: int
    data: bytes
    access_list: AccessList
    signature: bytes
    signing_hash: bytes = field(repr=False)
    raw: bytes = field(repr=False)
    hash: bytes
    _sender: bytes | None = field(default=None, repr=False)
    _intrinsic_gas: int = field(default=0, repr=False)

    @property
    def sender(self) -> bytes:
        """The signer's address, recovered at the first use and kept. Raises InvalidTransaction("invalid sender")."""
        if self._sender is None:
            try:
                self._sender = recover(self.signing_hash, self.signature)
            except InvalidSignature as error:
                raise InvalidTransaction("invalid sender", str(error)) from None
        return self._sender

    def remember_sender(self, address: bytes) -> None:
        """Take `address` (20 bytes) as recovered already: by the one who signed, or before this was stored as final."""
        self._sender = address

    @property
    def is_sender_known(self) -> bool:
        """Whether `sender` costs nothing any more."""
        return self._sender is not None

    @property
    def intrinsic_gas(self) -> int:
        """Gas that it costs before it does anything, counted at the first use and kept."""
        if not self._intrinsic_gas:
            self._intrinsic_gas = intrinsic_gas_of(self.data, self.access_list)
        return self._intrinsic_gas

    def effective_tip(self, base_fee: int) -> int:
        """Wei per gas that go to the proposer at this base fee (EIP-1559)."""
        return min(self.max_priority_fee_per_gas, self.max_fee_per_gas - base_fee)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transaction) and other.hash == self.hash

    def __hash__(self) -> int:
        return hash(self.hash)


def decode_transaction(raw: bytes) -> Transaction:
    """Decode the bytes that `eth_sendRawTransaction` takes. The signature is not checked before `sender` is read.

    Raises InvalidTransaction when the bytes are not the one canonical encoding of a supported transaction.
    """
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise InvalidTransaction("oversized data", f"transaction of {len(raw)} bytes, at most {TRANSACTION_BYTES_MAX}")
    if not raw:
        raise InvalidTransaction("typed transaction too short", "the transaction is empty")
    try:
        if raw[0] >= 0xC0:
            return _decode_legacy(raw)
        if raw[0] in (1, 2):
            return _decode_typed(raw)
    except rlp.RlpError as error:
        raise InvalidTransaction("rlp", str(error)) from None
    raise InvalidTransaction("transaction type not supported", f"type {raw[0]}; types 0, 1 and 2 are")


def _items(raw: bytes, count: int) -> list[rlp.Decoded]:
    items = rlp.decode(raw, items_max=_FIELDS_MAX + len(raw) // _ACCESS_BYTES_MIN)
    if not isinstance(items, list) or len(items) != count:
        raise rlp.RlpError(f"expected a list of {count} fields")
    return items


def _bytes(item: rlp.Decoded, name: str, lengths: tuple[int, ...] = ()) -> bytes:
    if not isinstance(item, bytes) or (lengths and len(item) not in lengths):
        raise rlp.RlpError(f"field '{name}' has the wrong length or is a list")
    return item


def _integer(item: rlp.Decoded, bytes_max: int = 8) -> int:
    """`rlp.decode_int` of at most so many bytes, with the short way that almost every item takes."""
    if len(item) <= bytes_max and isinstance(item, bytes) and item[:1] != b"\0":
        return int.from_bytes(item, "big")
    return rlp.decode_int(item, bits_max=bytes_max * 8)


def _signature(parity: int, r: rlp.Decoded, s: rlp.Decoded) -> bytes:
    if isinstance(r, bytes) and isinstance(s, bytes) and len(r) == 32 == len(s) and r[0] and s[0]:
        return r + s + _PARITIES[parity]
    return rlp.decode_int(r).to_bytes(32, "big") + rlp.decode_int(s).to_bytes(32, "big") + _PARITIES[parity]


def _unsigned(raw: bytes, start: int, signature_items: list[rlp.Decoded]) -> bytes:
    """The encoded fields ahead of the signature: what is canonical need not be encoded again. `raw` is a list there."""
    first = raw[start]
    begin = start + 1 if first < 0xF8 else start + first - 0xF6
    end = len(raw)
    for item in signature_items:  # integers, of up to 55 bytes
        end -= 1 if len(item) == 1 and item < b"\x80" else 1 + len(item)  # type: ignore[operator]
    return raw[begin:end]


def _decode_legacy(raw: bytes) -> Transaction:
    items = _items(raw, 9)
    v = rlp.decode_int(items[6], bits_max=64)
    if v in (27, 28):
        raise InvalidTransaction(
            "only replay-protected (EIP-155) transactions allowed over RPC", "sign with the chain id"
        )
    if v < 35:
        raise InvalidTransaction("invalid sender", f"v is {v}, and EIP-155 has 35 + 2 × chain id + parity")
    chain_id, parity = divmod(v - 35, 2)
    price = rlp.decode_int(items[1])
    signature = _signature(parity, items[7], items[8])
    # What was signed is the first six fields, then chain id, 0, 0 (EIP-155).
    unsigned = (_unsigned(raw, 0, items[6:]), rlp.encode(rlp.encode_int(chain_id)), b"\x80\x80")
    return Transaction(
        type=0,
        chain_id=chain_id,
        nonce=_integer(items[0]),
        max_priority_fee_per_gas=price,
        max_fee_per_gas=price,
        gas_limit=_integer(items[2]),
        to=_bytes(items[3], "to", (0, 20)),
        value=rlp.decode_int(items[4]),
        data=_bytes(items[5], "data"),
        access_list=(),
        signature=signature,
        signing_hash=keccak256(rlp.encode_list(unsigned)),
        raw=raw,
        hash=keccak256(raw),
    )


def _decode_typed(raw: bytes) -> Transaction:
    kind = raw[0]
    items = _items(raw[1:], 11 if kind == 1 else 12)
    chain_id, nonce, priority_fee = items[:3]
    fee_cap, gas, to, value, data, access_list, parity, r, s = items[kind + 1 :]  # in type 1 one price is both
    if parity == b"\1" or parity == b"":
        y_parity = len(parity)
    elif (y_parity := _integer(parity)) > 1:
        raise InvalidTransaction("invalid sender", f"y parity is 0 or 1, not {y_parity}")
    signature = _signature(y_parity, r, s)
    # By position, in the order of the fields: by their names it takes twice as long.
    return Transaction(
        kind,
        _integer(chain_id),
        _integer(nonce),
        0 if priority_fee == b"" else _integer(priority_fee, 32),
        0 if fee_cap == b"" else _integer(fee_cap, 32),
        _integer(gas),
        _bytes(to, "to", (0, 20)),
        0 if value == b"" else _integer(value, 32),
        _bytes(data, "data"),
        () if access_list == [] else _access_list(access_list),
        signature,
        keccak256(raw[:1] + rlp.encode_list((_unsigned(raw, 1, items[-3:]),))),
        raw,
        keccak256(raw),
    )


def _access_list(item: rlp.Decoded) -> AccessList:
    if not isinstance(item, list):
        raise rlp.RlpError("field 'accessList' is not a list")
    entries = []
    for entry in item:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], list):
            raise rlp.RlpError("an entry of 'accessList' is not [address, [slots]]")
        slots = tuple(_bytes(slot, "storageKeys", (32,)) for slot in entry[1])
        entries.append((_bytes(entry[0], "address", (20,)), slots))
    return tuple(entries)


def sign_transaction(
    key: SigningKey,
    *,
    chain_id: int,
    nonce: int,
    to: bytes,
    gas_limit: int,
    data: bytes = b"",
    value: int = 0,
    max_fee_per_gas: int = 0,
    max_priority_fee_per_gas: int = 0,
    access_list: Sequence[tuple[bytes, Sequence[bytes]]] = (),
) -> Transaction:
    """Make and sign an EIP-1559 transaction. Amounts are in wei; `to` has 20 bytes. Raises InvalidTransaction."""
    accesses: list[rlp.Item] = [[address, list(slots)] for address, slots in access_list]
    before, after = _around_nonce(chain_id, max_priority_fee_per_gas, max_fee_per_gas, gas_limit, to, value)
    parts = (before, rlp.encode(rlp.encode_int(nonce)), after, rlp.encode(data), rlp.encode(accesses))
    unsigned = b"".join(parts)
    signing_hash = keccak256(b"\x02" + rlp.encode_list((unsigned,)))
    signature = key.sign(signing_hash)
    items = (signature[64:].lstrip(b"\0"), signature[:32].lstrip(b"\0"), signature[32:64].lstrip(b"\0"))
    raw = b"\x02" + rlp.encode_list((unsigned, *map(rlp.encode, items)))
    largest = max(chain_id, nonce, max_priority_fee_per_gas, max_fee_per_gas, gas_limit)
    if largest >> 64 or value >> 256 or len(to) not in (0, 20) or access_list or len(raw) > TRANSACTION_BYTES_MAX:
        transaction = decode_transaction(raw)  # which refuses what nobody would take
        transaction.remember_sender(key.address)
        return transaction
    return Transaction(  # by position, as above
        2,
        chain_id,
        nonce,
        max_priority_fee_per_gas,
        max_fee_per_gas,
        gas_limit,
        to,
        value,
        data,
        (),
        signature,
        signing_hash,
        raw,
        keccak256(raw),
        key.address,
    )


@lru_cache(256)
def _around_nonce(chain_id: int, tip: int, fee: int, gas_limit: int, to: bytes, value: int) -> tuple[bytes, bytes]:
    """The encoded fields before and behind the nonce, up to the data: who sends many has few of them."""
    numbers = (chain_id, tip, fee, gas_limit)
    before, *fees = (rlp.encode(rlp.encode_int(number)) for number in numbers)
    return before, b"".join((*fees, rlp.encode(to), rlp.encode(rlp.encode_int(value))))
