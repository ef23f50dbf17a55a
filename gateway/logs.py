"""Logs, proofs and receipts as the gateway gives them out: asked of the validators, and checked before they leave."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.calls import accepted_index, ballots_of, read_cast
from gateway.chain import Chain, Standing, price_of
from gateway.follower import Follower
from gateway.journal_format import Place
from gateway.jsonrpc import RpcError, RpcFailure, hex_bytes, hex_int
from gateway.receipt import SETS_MAX, LogHead, Receipt, SlotProof, StorageProof, ValidatorSet
from gateway.receipt_check import leaf_data, log_contract, log_in_state, verify_head, verify_receipt
from gateway.records import Ballot
from gateway.validators import NoValidator, Pool, Validator
from gateway.verify import FinalBlock, NotProven, check_validators, receipt_at
from merkle.keccak import keccak256
from merkle.log import (
    EMPTY_ROOT,
    InvalidProof,
    leaf_hash,
    root_from_inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from node.chain.block import Header, decode_header
from node.chain.contracts.ballots import Outcome
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.transaction import decode_transaction
from node.consensus.certificate import Certificate

LEAVES_MAX = 1_000
_NO_LOG = bytes(32)

T = TypeVar("T")


class UnknownLog(LookupError):
    """There is no such election, proven at the gateway's verified head."""


class OutOfRange(ValueError):
    """An index or a size beyond the log's; the message says which."""


class UnknownBlock(LookupError):
    """A checkpoint that is the hash of no final block."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A checked inclusion proof; `root` is that of the log's first `size` entries."""

    index: int
    size: int
    leaf_hash: bytes
    proof: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class Consistency:
    """A checked consistency proof between the log's first `old_size` and first `new_size` entries."""

    old_size: int
    new_size: int
    proof: tuple[bytes, ...]
    old_root: bytes
    new_root: bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf as one validator serves it. Whoever follows a log checks leaves by the root that they must give."""

    index: int
    block_number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _State:
    """A log at the verified head: what all else is checked against."""

    header: Header
    size: int
    root: bytes


class Logs:
    """Each method raises NoValidator when nobody can be asked or nobody's answer checks, and UnknownLog."""

    def __init__(self, pool: Pool, follower: Follower, chain: Chain, domain: Domain) -> None:
        self._pool = pool
        self._follower = follower
        self._chain = chain
        self._domain = domain
        self._first: ValidatorSet | None = None

    async def head(self, election: int | None, height: int | None = None) -> LogHead:
        """A log's head with all that shows it, after the verified head or an earlier block."""
        block = await self._chain.block(self._follower.head.header.number if height is None else height)
        head = await self._first_that_checks(lambda one: self._head(one, election, block, None))
        if head.root == _NO_LOG:
            raise UnknownLog
        return head

    async def receipt(self, standing: Standing, *, checkpoint: bytes | None = None) -> Receipt:
        """The receipt of a record on the chain, made at its own block, or so that `checkpoint` vouches for it.

        Raises UnknownBlock.
        """
        named = None if checkpoint is None else await self._block_by_hash(checkpoint)
        at = standing.place.block_number
        # In the state of a later block the record is there, too: nothing else than that block is then needed.
        if named is not None and named.header.number >= at:
            block, named = named, None
        else:
            block = await self._chain.block(at)
        record = standing.record

        async def ask(validator: Validator) -> Receipt:
            election = record.election if isinstance(record, Ballot) else None
            head = await self._head(validator, election, block, named)
            parameters = (_log(election), hex(standing.index), hex(head.size), hex(block.header.number))
            answer = await self._pool.call(validator, "poa_getLogProof", parameters)
            proof = tuple(hex_bytes(part) for part in answer["proof"])
            fingerprint = leaf_hash(leaf_data(self._domain, record))
            receipt = Receipt(head, standing.index, fingerprint, proof, record)
            verify_receipt(receipt, self._domain, checkpoint=checkpoint, overrides=self._follower.sets.overrides)
            return receipt

        return await self._first_that_checks(ask)

    async def inclusion(self, election: int | None, index: int, size: int | None = None) -> Inclusion:
        """The proof of one entry in the log's first `size` entries, or in all. Raises OutOfRange."""
        state = await self._state(election)
        wanted = _within("size", state.size if size is None else size, state.size)
        if index >= wanted:
            raise OutOfRange(f"a log of {wanted} entries has no entry {index}")

        async def ask(validator: Validator) -> Inclusion:
            found = await self._inclusion(validator, election, index, wanted, state)
            await self._check_root(validator, election, wanted, found.root, state)
            return found

        return await self._first_that_checks(ask)

    async def consistency(self, election: int | None, old_size: int, new_size: int | None = None) -> Consistency:
        """The proof that the log's first `new_size` entries begin with its first `old_size`. Raises OutOfRange."""
        state = await self._state(election)
        wanted = _within("to", state.size if new_size is None else new_size, state.size)
        _within("from", old_size, wanted)

        async def ask(validator: Validator) -> Consistency:
            old_root, new_root = [await self._root_at(validator, election, size, state) for size in (old_size, wanted)]
            proof = await self._consistency(validator, election, old_size, wanted, state)
            verify_consistency(old_size=old_size, new_size=wanted, proof=proof, old_root=old_root, new_root=new_root)
            return Consistency(old_size, wanted, proof, old_root, new_root)

        return await self._first_that_checks(ask)

    async def leaves(self, election: int | None, first: int, count: int) -> tuple[int, list[Leaf]]:
        """The log's size at the verified head, and leaves from `first` on; maybe fewer than there are."""
        state = await self._state(election)
        if first >= state.size or count == 0:
            return state.size, []

        async def ask(validator: Validator) -> list[Leaf]:
            wanted = min(count, LEAVES_MAX, state.size - first)
            parameters = (_log(election), hex(first), hex(wanted), hex(state.header.number))
            answer = await self._pool.call(validator, "poa_getLogLeaves", parameters)
            leaves = [
                Leaf(hex_int(one["index"]), hex_int(one["blockNumber"]), hex_bytes(one["leaf"])) for one in answer
            ]
            if not 0 < len(leaves) <= wanted or [leaf.index for leaf in leaves] != list(
                range(first, first + len(leaves))
            ):
                raise NotProven("serves other leaves than it was asked for")
            return leaves

        return state.size, await self._first_that_checks(ask)

    async def ballot_at(self, election: int, transaction_hash: bytes, index: int) -> Standing | None:
        """The ballot with this index in its election's log, cast by a final transaction; None when that cast none."""
        for number in await self._heights("eth_getTransactionReceipt", ("0x" + transaction_hash.hex(),), "blockNumber"):
            found = ballot_in(await self._chain.block(number), election, transaction_hash, index)
            if found is not None:
                return found
        return None

    # -- of one validator, which may lie ---------------------------------------------------------------------------

    async def _head(
        self, validator: Validator, election: int | None, block: FinalBlock, named: FinalBlock | None
    ) -> LogHead:
        header = block.header
        storage = await self._storage(validator, election, header.number)
        size, root = log_in_state(header, election, storage)
        sets = await self._sets(validator, header.number - 1, named)
        head = LogHead(
            self._domain.chain_id,
            self._domain.genesis_hash,
            election,
            size,
            root,
            sets,
            header,
            block.certificate,
            storage,
        )
        verify_head(head, self._domain, overrides=self._follower.sets.overrides)
        return head

    async def _storage(self, validator: Validator, election: int | None, height: int) -> StorageProof:
        contract, slots = log_contract(election)
        keys = ["0x" + slot.to_bytes(32, "big").hex() for slot in slots]
        answer = await self._pool.call(validator, "eth_getProof", ("0x" + contract.hex(), keys, hex(height)))
        return StorageProof(
            contract,
            hex_int(answer["balance"]),
            hex_int(answer["nonce"]),
            hex_bytes(answer["codeHash"]),
            hex_bytes(answer["storageHash"]),
            tuple(hex_bytes(node) for node in answer["accountProof"]),
            tuple(
                SlotProof(slot, hex_int(one["value"]), tuple(hex_bytes(node) for node in one["proof"]))
                for slot, one in zip(slots, answer["storageProof"], strict=True)
            ),
        )

    async def _sets(self, validator: Validator, last: int, named: FinalBlock | None) -> tuple[ValidatorSet, ...]:
        """The sets up to a height; with `named`, a block among them that changed nothing, too."""
        sets = [await self._first_set(validator)]
        while len(sets) < SETS_MAX:
            first = sets[-1].header.number + 1
            answer = await self._pool.call(validator, "poa_getValidatorChanges", (hex(first), hex(max(last, 0))))
            if not isinstance(answer, list):
                raise NotProven("answered poa_getValidatorChanges with something else than a list")
            if not answer:
                break
            sets += [_set(item) for item in answer]
        if named is not None and all(one.header.hash != named.header.hash for one in sets):
            before = [one for one in sets if one.header.number < named.header.number]
            after = sets[len(before) :]
            sets = [*before, ValidatorSet(named.header, named.certificate, before[-1].validators), *after]
        return tuple(sets)

    async def _first_set(self, validator: Validator) -> ValidatorSet:
        """Block 0, known by its hash, and the validators that it names."""
        if self._first is None:
            (block,) = await self._pool.call(validator, "poa_getBlocks", ("0x0", "0x1"))
            answer = await self._pool.call(validator, "poa_getValidators", ("0x0",))
            header = decode_header(hex_bytes(block["header"]))
            validators = tuple(hex_bytes(address) for address in answer["next"])
            if header.hash != self._domain.genesis_hash:
                raise NotProven("serves the block 0 of another network")
            check_validators(header, validators)
            self._first = ValidatorSet(header, None, validators)
        return self._first

    async def _inclusion(
        self, validator: Validator, election: int | None, index: int, size: int, state: _State
    ) -> Inclusion:
        parameters = (_log(election), hex(index), hex(size), hex(state.header.number))
        answer = await self._pool.call(validator, "poa_getLogProof", parameters)
        leaf, proof = hex_bytes(answer["leafHash"]), tuple(hex_bytes(part) for part in answer["proof"])
        root = root_from_inclusion_proof(index=index, size=size, leaf_hash=leaf, proof=proof)
        if size == state.size:
            verify_inclusion(index=index, size=size, leaf_hash=leaf, proof=proof, root=state.root)
        return Inclusion(index, size, leaf, proof, root)

    async def _root_at(self, validator: Validator, election: int | None, size: int, state: _State) -> bytes:
        """The root of the log's first `size` entries, shown by a path to its last entry and by what became of it."""
        if size == 0:
            return EMPTY_ROOT
        if size == state.size:
            return state.root
        root = (await self._inclusion(validator, election, size - 1, size, state)).root
        await self._check_root(validator, election, size, root, state)
        return root

    async def _check_root(
        self, validator: Validator, election: int | None, size: int, root: bytes, state: _State
    ) -> None:
        proof = await self._consistency(validator, election, size, state.size, state)
        verify_consistency(old_size=size, new_size=state.size, proof=proof, old_root=root, new_root=state.root)

    async def _consistency(
        self, validator: Validator, election: int | None, old_size: int, new_size: int, state: _State
    ) -> tuple[bytes, ...]:
        parameters = (_log(election), hex(old_size), hex(new_size), hex(state.header.number))
        answer = await self._pool.call(validator, "poa_getLogConsistency", parameters)
        return tuple(hex_bytes(part) for part in answer["proof"])

    # -- of any ----------------------------------------------------------------------------------------------------

    async def _state(self, election: int | None) -> _State:
        header = self._follower.head.header

        async def ask(validator: Validator) -> _State:
            storage = await self._storage(validator, election, header.number)
            return _State(header, *log_in_state(header, election, storage))

        state = await self._first_that_checks(ask)
        if state.root == _NO_LOG:
            raise UnknownLog
        return state

    async def _block_by_hash(self, block_hash: bytes) -> FinalBlock:
        for number in await self._heights("eth_getBlockByHash", ("0x" + block_hash.hex(), False), "number"):
            block = await self._chain.block(number)
            if block.header.hash == block_hash:
                return block
        raise UnknownBlock

    async def _heights(self, method: str, parameters: tuple[object, ...], name: str) -> list[int]:
        """The heights at or below the verified head that a quorum of validators names, each to be looked at."""
        answers = await self._pool.ask_quorum(method, parameters)
        head = self._follower.head.header.number
        heights = set()
        for answer in answers:
            with contextlib.suppress(RpcFailure, KeyError):
                if isinstance(answer, dict):
                    heights.add(hex_int(answer[name]))
        return sorted(height for height in heights if 0 < height <= head)

    async def _first_that_checks(self, ask: Callable[[Validator], Awaitable[T]]) -> T:
        """The answer of the first validator whose answer proves itself."""
        faults = []
        for validator in self._pool.ordered():
            if not validator.reachable and validator.probed and self._pool.reachable_count():
                continue
            try:
                return await ask(validator)
            except (RpcFailure, RpcError, PeerError, InvalidProof, KeyError, TypeError, ValueError) as error:
                faults.append(f"{validator.node.node_id}: {error}")
        raise NoValidator("no validator proves it: " + "; ".join(faults))


def ballot_in(block: FinalBlock, election: int, transaction_hash: bytes, index: int) -> Standing | None:
    """The ballot that a transaction of a checked block put at an index of its election's log."""
    for position, raw in enumerate(block.transactions):
        if keccak256(raw) != transaction_hash:
            continue
        transaction = decode_transaction(raw)
        receipt, gas_used = receipt_at(block, position)
        cast = read_cast(receipt)
        if cast is None or cast.election != election:
            return None
        for place, ballot in enumerate(ballots_of(transaction.to, transaction.data)):
            if cast.outcomes[place] == Outcome.ACCEPTED and accepted_index(cast, place) == index:
                where = Place(block.header.number, block.header.hash, transaction_hash)
                return Standing(ballot, index, where, block.header.timestamp, gas_used, price_of(block, transaction))
    return None


def _within(name: str, value: int, most: int) -> int:
    if value > most:
        raise OutOfRange(f"'{name}' is {value}, and at most {most} here")
    return value


def _log(election: int | None) -> str:
    return "anchors" if election is None else hex(election)


def _set(item: Any) -> ValidatorSet:
    seals = item["certificate"]
    certificate = Certificate(
        hex_int(seals["height"]),
        hex_int(seals["round"]),
        hex_bytes(seals["blockHash"]),
        tuple(hex_bytes(seal) for seal in seals["seals"]),
    )
    header = decode_header(hex_bytes(item["header"]))
    return ValidatorSet(header, certificate, tuple(hex_bytes(address) for address in item["validators"]))
