"""What the gateway asks the chain, each answer checked against its own verified head before it is believed."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.calls import ANCHORS_ABI, ELECTIONS_ABI, accepted_index, ballots_of, read_anchored, read_cast
from gateway.follower import Follower
from gateway.journal_format import Place
from gateway.jsonrpc import RpcError, RpcFailure, hex_bytes, hex_int
from gateway.records import Anchor, Ballot
from gateway.validators import REVERTED, NoValidator, Pool
from gateway.verify import FinalBlock, account_from_proof, receipt_at, slot_from_proof
from merkle.keccak import keccak256
from node.chain.block import Header
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.anchors import SIZE_SLOT
from node.chain.contracts.elections import log_slots, tally_slots
from node.chain.errors import PeerError
from node.chain.transaction import decode_transaction

BLOCKS_KEPT = 16
BLOCKS_AT_ONCE = 4
PROOF_SLOTS_MAX = 64
SETTLE_S = 3.0  # how long our head may take to reach a block that a validator already has


class Reverted(RuntimeError):
    """A view that the contract refused; `data` is the ABI-encoded error."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the contract refused the call")
        self.data = data


@dataclass(frozen=True, slots=True)
class Standing:
    """A record on the chain: in a final block that this gateway has checked, at an index of its log."""

    record: Ballot | Anchor
    index: int
    place: Place
    timestamp: int
    gas_used: int


@dataclass(frozen=True, slots=True)
class Election:
    """An election's definition, as one validator told it at `block_number`. Times in seconds, 0 where there is none."""

    id: int
    title: str
    options: tuple[str, ...]
    kinds: int
    opens_at: int
    closes_at: int
    delivery_grace_s: int
    state: int
    creator: bytes
    registrars: tuple[bytes, ...]
    key_check: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of an election, proven from the state root of the block that they were read at."""

    counts: tuple[int, ...]
    sealed_count: int
    log_root: bytes  # of the log of its ballots
    block_number: int
    block_hash: bytes
    timestamp: int


class Chain:
    """Verified reads. Each raises NoValidator when nobody can be asked, or nobody's answer checks."""

    def __init__(self, pool: Pool, follower: Follower) -> None:
        self._pool = pool
        self._follower = follower
        self._blocks: OrderedDict[int, FinalBlock] = OrderedDict()

    async def election(self, id_: int) -> Election | None:
        """An election's definition; None where the validator asked knows none. Not proven: nothing hangs on it."""
        try:
            result = await self._view(ELECTIONS, ELECTIONS_ABI.encode_call("election", id_))
        except Reverted:
            return None
        title, options, kinds, opens, closes, grace, state, creator, registrars, check = _decoded("election", result)
        if state == 0:
            return None
        return Election(
            id_, title, tuple(options), kinds, opens, closes, grace, state, creator, tuple(registrars), check
        )

    async def ballot(
        self, election: int, *, nullifier: bytes = b"", record_id: bytes = b"", sure: bool = False
    ) -> Standing | None:
        """The ballot under a nullifier or a record id, checked; None where the validator asked knows none.

        With `sure`, None means that a quorum of validators said so; raises NoValidator where too few can be asked.
        """
        name, key = ("ballotByNullifier", nullifier) if nullifier else ("ballotByRecordId", record_id)
        stored = await self._stored(ELECTIONS, name, ELECTIONS_ABI.encode_call(name, election, key), sure)
        if stored is None:
            return None
        return self._find_ballot(await self._block(int(stored[5])), election, bytes(stored[1]), record_id)

    async def anchor(self, batch_id: bytes, *, sure: bool = False) -> Standing | None:
        """The anchor of a batch, checked; None and `sure` as in `ballot`."""
        stored = await self._stored(ANCHORS, "anchorOf", ANCHORS_ABI.encode_call("anchorOf", batch_id), sure)
        return None if stored is None else self._find_anchor(await self._block(int(stored[5])), batch_id)

    async def anchor_is_told(self, batch_id: bytes) -> bool:
        """Whether one validator says that there is an anchor of a batch. Not proven."""
        return await self._stored(ANCHORS, "anchorOf", ANCHORS_ABI.encode_call("anchorOf", batch_id), False) is not None

    async def anchor_count(self) -> int:
        """How many anchors there are at the verified head, proven."""
        return (await self._slots(self._follower.head.header, ANCHORS, [SIZE_SLOT]))[0]

    async def anchors(self, first: int, count: int) -> list[Standing]:
        """The anchors at these indices of their log, each checked in its block."""
        call = ANCHORS_ABI.encode_call("anchors", first, count)
        try:
            (stored,) = _decoded("anchors", await self._view(ANCHORS, call))
        except Reverted:
            raise NoValidator("a validator refuses to list anchors") from None
        if [int(one[0]) for one in stored] != list(range(first, first + len(stored))):
            raise NoValidator("a validator lists other anchors than it was asked for")
        at_once = asyncio.Semaphore(BLOCKS_AT_ONCE)

        async def check(one: Any) -> Standing:
            async with at_once:
                block = await self._block(int(one[5]))
            standing = self._find_anchor(block, bytes(one[1]))
            if standing.index != int(one[0]):
                raise NoValidator("a validator lists an anchor under another index than it has")
            return standing

        return list(await asyncio.gather(*(check(one) for one in stored)))

    async def election_page(self, first: int, count: int) -> tuple[int, list[Election]]:
        """How many elections there are, and those at these places in the order of creation; as one validator says."""
        (total,) = _decoded("electionCount", await self._view(ELECTIONS, ELECTIONS_ABI.encode_call("electionCount")))
        if first >= total:
            return int(total), []
        call = ELECTIONS_ABI.encode_call("electionIds", first, count)
        (ids,) = _decoded("electionIds", await self._view(ELECTIONS, call))
        found = await asyncio.gather(*(self.election(id_) for id_ in ids[:count]))
        return int(total), [election for election in found if election is not None]

    async def located(self, transaction_hash: bytes, *, sure: bool = False) -> tuple[FinalBlock, int] | None:
        """The checked block that includes a transaction, and its place there; None where nobody knows it.

        With `sure`, None means that a quorum of validators said so; raises NoValidator where too few can be asked.
        """
        parameters = ("0x" + transaction_hash.hex(),)
        try:
            if sure:
                answers = await self._pool.ask_quorum("eth_getTransactionReceipt", parameters)
            else:
                answers = [await self._pool.ask("eth_getTransactionReceipt", parameters)]
        except (RpcError, RpcFailure) as error:
            raise NoValidator(f"a validator refuses to look for a transaction: {error}") from None
        for found in answers:
            if isinstance(found, RpcError):
                raise NoValidator(f"a validator refuses to look for a transaction: {found}")
            if found is None:
                continue
            try:
                number = hex_int(found["blockNumber"])
            except (KeyError, TypeError, RpcFailure) as error:
                raise NoValidator(f"a validator's receipt cannot be read: {error!r}") from None
            block = await self._block(number)
            for position, raw in enumerate(block.transactions):
                if keccak256(raw) == transaction_hash:
                    return block, position
            raise NoValidator(f"block {number} does not hold the transaction that a validator says it does")
        return None

    async def tally(self, election: Election) -> Tally:
        """The counts at the verified head, from storage proofs."""
        header = self._follower.head.header
        slots, sealed = tally_slots(election.id, len(election.options))
        root_slot = log_slots(election.id)[1]
        *counts, sealed_count, root = await self._slots(header, ELECTIONS, [*slots, sealed, root_slot])
        return Tally(
            tuple(counts), sealed_count, root.to_bytes(32, "big"), header.number, header.hash, header.timestamp
        )

    async def refusal(self, sender: bytes, to: bytes, data: bytes, height: int) -> bytes | None:
        """Revert data of a call repeated on the state of a block; None when it passes there. Not proven."""
        try:
            await self._view(to, data, sender=sender, block=hex(height))
        except Reverted as reverted:
            return reverted.data
        return None

    async def block(self, height: int) -> FinalBlock:
        """A checked block."""
        return await self._block(height)

    async def _view(self, to: bytes, data: bytes, *, sender: bytes = b"", block: str = "latest") -> bytes:
        call = {"to": "0x" + to.hex(), "data": "0x" + data.hex()}
        if sender:
            call["from"] = "0x" + sender.hex()
        try:
            return hex_bytes(await self._pool.ask("eth_call", (call, block)))
        except RpcError as error:
            if error.code == REVERTED:
                raise Reverted(hex_bytes(error.data)) from None
            raise NoValidator(f"a validator refuses the call: {error}") from None
        except RpcFailure as failure:
            raise NoValidator(str(failure)) from None

    async def _stored(self, to: bytes, name: str, data: bytes, sure: bool) -> Any | None:
        """The struct behind a view that returns (found, struct): of one validator, or of any among a quorum."""
        if not sure:
            try:
                found, stored = _decoded(name, await self._view(to, data))
            except Reverted:  # no such election
                return None
            return stored if found else None
        call = {"to": "0x" + to.hex(), "data": "0x" + data.hex()}
        unreadable = None
        for answer in await self._pool.ask_quorum("eth_call", (call, "latest")):
            if isinstance(answer, RpcError):
                if answer.code != REVERTED:
                    raise NoValidator(f"a validator refuses the call: {answer}")
                continue
            try:
                found, stored = _decoded(name, hex_bytes(answer))
            except (RpcFailure, NoValidator) as failure:
                unreadable = failure  # the others may know the record; but then nobody is sure that there is none
                continue
            if found:
                return stored
        if unreadable is not None:
            raise NoValidator(f"a validator's answer to {name} cannot be read: {unreadable}")
        return None

    async def _slots(self, header: Header, contract: bytes, slots: Sequence[int]) -> list[int]:
        values: list[int] = []
        for begin in range(0, len(slots), PROOF_SLOTS_MAX):
            part = slots[begin : begin + PROOF_SLOTS_MAX]
            keys = ["0x" + slot.to_bytes(32, "big").hex() for slot in part]
            try:
                answer = await self._pool.ask("eth_getProof", ("0x" + contract.hex(), keys, hex(header.number)))
                account = account_from_proof(
                    header.state_root, contract, [hex_bytes(n) for n in answer["accountProof"]]
                )
                for slot, entry in zip(part, answer["storageProof"], strict=True):
                    proof = [hex_bytes(node) for node in entry["proof"]]
                    values.append(slot_from_proof(account.storage_root, slot, proof))
            except (RpcError, RpcFailure, PeerError, KeyError, TypeError, ValueError) as error:
                raise NoValidator(f"a storage proof does not check: {error}") from None
        return values

    async def _block(self, height: int) -> FinalBlock:
        """A checked block at or below the verified head."""
        cached = self._blocks.get(height)
        if cached is not None:
            self._blocks.move_to_end(height)
            return cached
        # A validator may be ahead of us by a block; what it has is final all the same, and we are about to see it.
        if not await self._follower.wait_for(height, SETTLE_S):
            raise NoValidator(f"block {height} has not been seen here yet")
        block = await self._follower.fetch(height)
        self._blocks[height] = block
        while len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return block

    def _find_ballot(self, block: FinalBlock, election: int, nullifier: bytes, record_id: bytes) -> Standing:
        """The accepted ballot in a checked block. Raises NoValidator where it is not there: then somebody lied."""
        for position, raw in enumerate(block.transactions):
            transaction = decode_transaction(raw)
            if transaction.to != ELECTIONS or nullifier not in transaction.data:
                continue
            receipt, gas_used = receipt_at(block, position)
            cast = read_cast(receipt)
            if cast is None or cast.election != election:
                continue
            for place, ballot in enumerate(ballots_of(transaction.to, transaction.data)):
                wanted = ballot.nullifier == nullifier and record_id in (b"", ballot.record_id)
                if wanted and cast.outcomes[place] == 0:
                    index = accepted_index(cast, place)
                    where = Place(block.header.number, block.header.hash, transaction.hash)
                    return Standing(ballot, index, where, block.header.timestamp, gas_used)
        raise NoValidator(f"block {block.header.number} does not hold the ballot that a validator says it does")

    def _find_anchor(self, block: FinalBlock, batch_id: bytes) -> Standing:
        for position, raw in enumerate(block.transactions):
            transaction = decode_transaction(raw)
            if transaction.to != ANCHORS or batch_id not in transaction.data:
                continue
            receipt, gas_used = receipt_at(block, position)
            anchored = read_anchored(receipt)
            if anchored is not None and anchored[0] == batch_id:
                _, _, root, count, algorithm = _anchored_fields(receipt.event_logs[0].data, anchored)
                where = Place(block.header.number, block.header.hash, transaction.hash)
                record = Anchor(batch_id, root, count, algorithm)
                return Standing(record, anchored[1], where, block.header.timestamp, gas_used)
        raise NoValidator(f"block {block.header.number} does not hold the anchor that a validator says it does")


def _anchored_fields(data: bytes, anchored: tuple[bytes, int]) -> tuple[bytes, int, bytes, int, str]:
    length = int.from_bytes(data[96:128], "big")
    return *anchored, data[:32], int.from_bytes(data[32:64], "big"), data[128 : 128 + length].decode()


def _decoded(name: str, result: bytes) -> tuple[Any, ...]:
    abi = ANCHORS_ABI if name in ("anchorOf", "anchors") else ELECTIONS_ABI
    try:
        return abi.decode_result(name, result)
    except ValueError as error:
        raise NoValidator(f"a validator's answer to {name} cannot be read: {error}") from None
