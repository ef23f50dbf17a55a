"""What the gateway checks itself before it says that anything is final, pure: nothing here trusts a validator.

The honest limit: a quorum of the set that a check starts from can forge what comes after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from merkle import patricia, rlp
from merkle.keccak import keccak256
from merkle.patricia import ordered_root
from node.chain.block import Header, decode_header
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.genesis import validators_hash
from node.chain.receipt import Receipt, decode_receipt
from node.consensus.certificate import Certificate, verify_certificate


class NotProven(PeerError):
    """A validator's answer that does not prove what it should."""


@dataclass(frozen=True, slots=True)
class FinalBlock:
    """A block as a validator serves it: raw transactions and encoded receipts, with the certificate beside it."""

    header: Header
    transactions: tuple[bytes, ...]
    receipts: tuple[bytes, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Head:
    """A verified block's header, and the sorted addresses of the validators that decide the next height."""

    header: Header
    validators: tuple[bytes, ...]


def check_final(block: FinalBlock, validators: Sequence[bytes], domain: Domain) -> None:
    """Raise PeerError unless the block's certificate is one of `validators` and its roots are those of its contents."""
    verify_certificate(block.certificate, block.header, validators, domain)
    _check_contents(block)


def _check_contents(block: FinalBlock) -> None:
    if ordered_root(block.transactions) != block.header.transactions_root:
        raise NotProven(f"transactions of block {block.header.number} do not have the root of its header")
    if ordered_root(block.receipts) != block.header.receipts_root:
        raise NotProven(f"receipts of block {block.header.number} do not have the root of its header")
    if len(block.receipts) != len(block.transactions):
        raise NotProven(f"block {block.header.number} has more receipts than transactions, or fewer")


def check_next(head: Head, block: FinalBlock, domain: Domain, *, contents: bool = True) -> None:
    """Raise PeerError unless the block is final and follows `head` directly; without its contents where nobody reads
    them: its header is what the certificate covers."""
    if block.header.number != head.header.number + 1 or block.header.parent_hash != head.header.hash:
        raise NotProven(f"block {block.header.number} does not follow block {head.header.number}")
    verify_certificate(block.certificate, block.header, head.validators, domain)
    if contents:
        _check_contents(block)


def check_validators(header: Header, validators: Sequence[bytes]) -> None:
    """Raise NotProven unless `validators` are those that `header` names for the next height."""
    if validators_hash(tuple(validators)) != header.extra_data:
        raise NotProven(f"the validators given for height {header.number + 1} are not those that its parent names")


def decode_final_block(
    header: bytes, transactions: Sequence[bytes], receipts: Sequence[bytes], certificate: Certificate
) -> FinalBlock:
    """The parts of a served block. Raises PeerError when the header is malformed; nothing else is checked."""
    return FinalBlock(decode_header(header), tuple(transactions), tuple(receipts), certificate)


def receipt_at(block: FinalBlock, index: int) -> tuple[Receipt, int]:
    """The receipt of a checked block's transaction, and the gas that this transaction alone used."""
    receipt = decode_receipt(block.receipts[index])
    before = decode_receipt(block.receipts[index - 1]).cumulative_gas_used if index else 0
    return receipt, receipt.cumulative_gas_used - before


@dataclass(frozen=True, slots=True)
class Account:
    """What the state trie holds of an account; an account that is not there has nonce and balance 0."""

    nonce: int
    balance: int
    storage_root: bytes


def account_from_proof(state_root: bytes, address: bytes, proof: Sequence[bytes]) -> Account:
    """The account that an `eth_getProof` account proof shows under `state_root`. Raises PeerError."""
    try:
        encoded = patricia.verify(state_root, keccak256(address), proof)
        if encoded is None:
            return Account(0, 0, patricia.EMPTY_ROOT)
        fields = rlp.decode(encoded)
        if not isinstance(fields, list) or len(fields) != 4 or not isinstance(fields[2], bytes):
            raise NotProven("an account is [nonce, balance, storage root, code hash]")
        return Account(rlp.decode_int(fields[0]), rlp.decode_int(fields[1]), fields[2])
    except (patricia.InvalidProof, rlp.RlpError) as error:
        raise NotProven(f"account proof of 0x{address.hex()}: {error}") from None


def slot_from_proof(storage_root: bytes, slot: int, proof: Sequence[bytes]) -> int:
    """The value that an `eth_getProof` storage proof shows a slot to have; 0 where it is absent. Raises PeerError."""
    try:
        encoded = patricia.verify(storage_root, keccak256(slot.to_bytes(32, "big")), proof)
        return 0 if encoded is None else rlp.decode_int(rlp.decode(encoded))
    except (patricia.InvalidProof, rlp.RlpError) as error:
        raise NotProven(f"storage proof of slot {slot:#x}: {error}") from None
