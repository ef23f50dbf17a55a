"""Checks a receipt step by step, pure and offline: the trusted hash of block 0 goes in, the steps that hold come out.

The honest limit: a quorum of any past set of validators can forge what comes after it. A checkpoint, the hash of a
later block that is known from elsewhere, cures that: then nothing counts but what that block itself commits to, or
what the validators that it names have sealed after it.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.receipt import InvalidReceipt, LogHead, Receipt, StorageProof
from gateway.records import Anchor, Ballot
from gateway.sets import deciders
from gateway.verify import check_validators, slot_from_proof
from merkle import log, patricia, rlp
from merkle.keccak import keccak256
from node.chain.block import Header
from node.chain.contracts import anchors, ballots
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.elections import KIND_OPEN, log_slots
from node.chain.domain import Domain
from node.consensus.certificate import Certificate, verify_certificate
from node.consensus.override import Override
from node.consensus.quorum import quorum


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the check that holds: what it means, in a voter's words, and the hashes that it compared."""

    words: str
    details: tuple[tuple[str, str], ...] = ()


def leaf_data(domain: Domain, record: Ballot | Anchor) -> bytes:
    """The data of a record's leaf in its log."""
    if isinstance(record, Anchor):
        algorithm = record.algorithm.encode()
        return anchors.leaf(domain, record.batch_id, record.merkle_root, record.leaf_count, algorithm)
    return ballots.leaf(domain, record.election, record.packed())


def log_contract(election: int | None) -> tuple[bytes, tuple[int, int]]:
    """The contract that keeps a log's size and root, and the two slots of its storage."""
    if election is None:
        return ANCHORS, (anchors.SIZE_SLOT, anchors.ROOT_SLOT)
    return ELECTIONS, log_slots(election)


def check_receipt(
    receipt: Receipt, trusted: Domain, *, checkpoint: bytes | None = None, overrides: Sequence[Override] = ()
) -> Iterator[Step]:
    """Yield each step of the check as it holds. Raises InvalidReceipt at the first that does not.

    Args:
        receipt: what to check; nothing in it is believed.
        trusted: chain id and hash of block 0 of the network that the reader means.
        checkpoint: the hash of a block that the reader knows to be on the chain, from elsewhere.
        overrides: those that the reader believes, their signatures checked (`gateway.sets.check_overrides`).
    """
    yield from check_head(receipt.head, trusted, checkpoint=checkpoint, overrides=overrides)
    head = receipt.head
    what = "anchor" if head.election is None else "ballot"
    with _step("the place in the log"):
        log.verify_inclusion(
            index=receipt.index,
            size=head.size,
            leaf_hash=receipt.leaf_hash,
            proof=receipt.inclusion_proof,
            root=head.root,
        )
    yield Step(
        f"Entry {receipt.index} of that list is the {what} with the fingerprint below.",
        (("leaf hash", _hex(receipt.leaf_hash)), *_numbered("inclusion proof", receipt.inclusion_proof)),
    )
    if receipt.record is None:
        return
    leaf = leaf_data(trusted, receipt.record)
    if log.leaf_hash(leaf) != receipt.leaf_hash:
        raise InvalidReceipt("the record", f"its fingerprint is not that of the log's entry {receipt.index}")
    yield Step(_record_words(receipt.record), (("leaf", _hex(leaf)),))


def check_head(
    head: LogHead, trusted: Domain, *, checkpoint: bytes | None = None, overrides: Sequence[Override] = ()
) -> Iterator[Step]:
    """The part of `check_receipt` that does not depend on a record: the log's size and root are final."""
    if (head.chain_id, head.genesis_hash) != (trusted.chain_id, trusted.genesis_hash):
        raise InvalidReceipt(
            "the network",
            f"it belongs to chain {head.chain_id} with genesis {_hex(head.genesis_hash)}, "
            f"not to chain {trusted.chain_id} with genesis {_hex(trusted.genesis_hash)}",
        )
    yield Step(
        f"It belongs to the network that you named, chain {head.chain_id}.", (("genesis", _hex(head.genesis_hash)),)
    )
    validators = yield from _walk(head, trusted, overrides)
    yield from _check_seals(head.header, head.certificate, validators, trusted, "the block", overrides)
    if checkpoint is not None:
        yield _check_checkpoint(head, checkpoint)
    if log_in_state(head.header, head.election, head.storage) != (head.size, head.root):
        raise InvalidReceipt("the state of the block", "size and root are not those in its slots")
    of = "anchors" if head.election is None else f"ballots of election {head.election}"
    yield Step(
        f"That block says that the list of {of} has {head.size} {'entry' if head.size == 1 else 'entries'}.",
        (
            ("state root", _hex(head.header.state_root)),
            ("contract", _hex(head.storage.address)),
            ("storage root", _hex(head.storage.storage_hash)),
            ("log root", _hex(head.root)),
        ),
    )


def verify_receipt(
    receipt: Receipt, trusted: Domain, *, checkpoint: bytes | None = None, overrides: Sequence[Override] = ()
) -> list[Step]:
    """All steps of the check. Raises InvalidReceipt."""
    return list(check_receipt(receipt, trusted, checkpoint=checkpoint, overrides=overrides))


def verify_head(
    head: LogHead, trusted: Domain, *, checkpoint: bytes | None = None, overrides: Sequence[Override] = ()
) -> list[Step]:
    """All steps of the check of a log head. Raises InvalidReceipt."""
    return list(check_head(head, trusted, checkpoint=checkpoint, overrides=overrides))


def _walk(head: LogHead, trusted: Domain, overrides: Sequence[Override]) -> Generator[Step, None, tuple[bytes, ...]]:
    """From block 0 over each change of the validators to those that decide the receipt's block, which it returns."""
    first, *changes = head.sets
    if first.header.hash != trusted.genesis_hash or first.certificate is not None:
        raise InvalidReceipt("the first validators", "the header beside them is not that of the network's block 0")
    with _step("the first validators"):
        check_validators(first.header, first.validators)
    validators, height = first.validators, first.header.number
    yield Step(
        f"The network began with {_count(validators)}.",
        (("block 0", _hex(first.header.hash)), *_numbered("validator", validators)),
    )
    for change in changes:
        number = change.header.number
        name = f"the validators after block {number}"
        if not height < number < head.header.number or change.certificate is None:
            raise InvalidReceipt(name, "they are out of order, or have no certificate")
        yield from _check_seals(change.header, change.certificate, validators, trusted, name, overrides)
        with _step(name):
            check_validators(change.header, change.validators)
        validators, height = change.validators, number
        yield Step(
            f"That block names {_count(validators)} for what follows.", tuple(_numbered("validator", validators))
        )
    if head.header.number <= height:
        raise InvalidReceipt("the block", f"block {head.header.number} does not come after block {height}")
    return validators


def _check_seals(
    header: Header,
    certificate: Certificate,
    validators: tuple[bytes, ...],
    trusted: Domain,
    name: str,
    overrides: Sequence[Override],
) -> Iterator[Step]:
    validators, override = deciders(header, validators, overrides)
    if override is not None:
        yield Step(
            f"The override that you gave names {_count(validators)} for block {header.number}, after a lost quorum.",
            (("override", _hex(override.digest)), *_numbered("validator", validators)),
        )
    with _step(f"the seals of {name}"):
        verify_certificate(certificate, header, validators, trusted)
    count = len(validators)
    yield Step(
        f"Block {header.number} is final: {len(certificate.seals)} of its {_count(validators)} sealed it, "
        f"and {quorum(count)} {'is' if quorum(count) == 1 else 'are'} enough.",
        (("block hash", _hex(header.hash)), ("extraData", _hex(header.extra_data))),
    )


def _check_checkpoint(head: LogHead, checkpoint: bytes) -> Step:
    if checkpoint == head.header.hash:
        return Step(
            f"Block {head.header.number} is the very block that you named.", (("checkpoint", _hex(checkpoint)),)
        )
    for one in head.sets:
        if checkpoint == one.header.hash:
            words = f"It was sealed by validators that follow from block {one.header.number}, which you named."
            return Step(words, (("checkpoint", _hex(checkpoint)),))
    raise InvalidReceipt(
        "the checkpoint",
        f"nothing here ties it to block {_hex(checkpoint)}: ask for a receipt made at that block",
    )


def log_in_state(header: Header, election: int | None, storage: StorageProof) -> tuple[int, bytes]:
    """Size and root of a log as the storage proof shows them in the state of `header`; a root of 0: no such log.

    Raises InvalidReceipt.
    """
    name = "the state of the block"
    contract, slots = log_contract(election)
    if storage.address != contract:
        raise InvalidReceipt(name, f"0x{storage.address.hex()} does not keep this log")
    nonce, balance = rlp.encode_int(storage.nonce), rlp.encode_int(storage.balance)
    account = rlp.encode((nonce, balance, storage.storage_hash, storage.code_hash))
    with _step(name):
        if patricia.verify(header.state_root, keccak256(contract), storage.account_proof) != account:
            raise InvalidReceipt(name, "the account is not what its proof shows")
        for slot, key in zip(storage.slots, slots, strict=True):
            if slot.key != key:
                raise InvalidReceipt(name, f"slot {slot.key:#x} instead of {key:#x}")
            if slot.value != slot_from_proof(storage.storage_hash, key, slot.proof):
                raise InvalidReceipt(name, f"slot {key:#x} is not what its proof shows")
    size, root = (slot.value for slot in storage.slots)
    return size, root.to_bytes(32, "big")


def _record_words(record: Ballot | Anchor) -> str:
    if isinstance(record, Anchor):
        return (
            f"It anchors the Merkle root {record.merkle_root.hex()} of batch {_batch(record.batch_id)}: "
            f"{record.leaf_count} leaves, algorithm {record.algorithm}."
        )
    if record.kind == KIND_OPEN:
        option = "?" if len(record.content) != 1 else record.content[0]
        return f"That fingerprint is of an open ballot for option {option} (the first is 0)."
    return f"That fingerprint is of the sealed ballot in this file, {len(record.content)} bytes of ciphertext."


def _batch(batch_id: bytes) -> str:
    text = batch_id.hex()
    if batch_id[16:] != bytes(16):
        return "0x" + text
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))


def _count(validators: tuple[bytes, ...]) -> str:
    return "1 validator" if len(validators) == 1 else f"{len(validators)} validators"


def _numbered(name: str, items: tuple[bytes, ...]) -> Iterator[tuple[str, str]]:
    return ((f"{name} {number}", _hex(item)) for number, item in enumerate(items))


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Whatever is wrong inside is said to be wrong with this part of the receipt."""
    try:
        yield
    except InvalidReceipt:
        raise
    except ValueError as error:  # PeerError, InvalidProof and RlpError are all of this kind
        raise InvalidReceipt(name, str(error)) from None
