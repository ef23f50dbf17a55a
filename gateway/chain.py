"""What the gateway asks the chain, each answer checked against its own verified head before it is believed."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.calls import ANCHORS_ABI, ELECTIONS_ABI, accepted_index, ballots_of, read_anchored, read_cast
from gateway.definitions import Election, read_election, refresh_election
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
from node.chain.contracts.elections import IDS_SLOT, ElectionState, log_slots, tally_slots
from node.chain.contracts.layout import data_slot
from node.chain.transaction import Transaction, decode_transaction
from node.consensus.quorum import quorum

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
    gas_price: int  # wei of a unit


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

    async def election(self, id_: int, known: Election | None = None) -> Election | None:
        """An election at the verified head, proven, and so is it where there is none (None).

        `known` is what was proven of it before: then only its schedule is read. Raises NoValidator, also where a
        validator says that the election is there and it is in no block that was seen here.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + SETTLE_S
        while True:
            header = self._follower.head.header

            async def prove(slots: Sequence[int], header: Header = header) -> list[int]:
                return await self._slots(header, ELECTIONS, slots)

            if known is not None:
                return await refresh_election(known, header.timestamp, prove)
            found = await read_election(id_, header.timestamp, prove)
            if found is not None or not await self._election_is_told(id_):
                return found
            # Another gateway may have made it in a block that we are about to see.
            if not await self._follower.wait_for(header.number + 1, end_s - loop.time()):
                raise NoValidator(f"election {id_} is in no block that has been seen here yet")

    async def _election_is_told(self, id_: int) -> bool:
        """Whether one validator says that there is an election now. Not proven."""
        try:
            result = await self._view(ELECTIONS, ELECTIONS_ABI.encode_call("election", id_))
        except Reverted:
            return False
        return int(_decoded("election", result)[6]) != ElectionState.UNKNOWN

    async def ballot(
        self, election: int, *, nullifier: bytes = b"", record_id: bytes = b"", sure: bool = False
    ) -> Standing | None:
        """The ballot under a nullifier or a record id, checked; None where no validator that answers knows one.

        With `sure`, None means that a quorum of validators said so; raises NoValidator where too few can be asked.
        """
        name, key = ("ballotByNullifier", nullifier) if nullifier else ("ballotByRecordId", record_id)

        def find(block: FinalBlock, stored: Any) -> Standing:
            # Whose ballot it is, is not for the witness to say where we know it.
            return self._find_ballot(block, election, nullifier or bytes(stored[1]), record_id)

        return await self._stored(ELECTIONS, name, ELECTIONS_ABI.encode_call(name, election, key), find, sure)

    async def anchor(self, batch_id: bytes, *, sure: bool = False) -> Standing | None:
        """The anchor of a batch, checked; None and `sure` as in `ballot`."""

        def find(block: FinalBlock, stored: Any) -> Standing:
            return self._find_anchor(block, batch_id)

        return await self._stored(ANCHORS, "anchorOf", ANCHORS_ABI.encode_call("anchorOf", batch_id), find, sure)

    async def anchor_count(self) -> int:
        """How many anchors there are at the verified head, proven."""
        return (await self._slots(self._follower.head.header, ANCHORS, [SIZE_SLOT]))[0]

    async def anchors(self, first: int, count: int) -> list[Standing]:
        """The anchors at these indices of their log, which are there, each checked in its block."""
        call = ANCHORS_ABI.encode_call("anchors", first, count)
        parameters = ({"to": "0x" + ANCHORS.hex(), "data": "0x" + call.hex()}, "latest")
        faults = []
        for validator in self._pool.ordered():
            try:
                answer = await self._pool.call(validator, "eth_call", parameters)
                return await self._listed(first, count, hex_bytes(answer))
            except (RpcFailure, RpcError, NoValidator) as fault:
                faults.append(f"{validator.node.node_id}: {fault}")
        raise NoValidator("no validator lists these anchors: " + "; ".join(faults))

    async def _listed(self, first: int, count: int, result: bytes) -> list[Standing]:
        """What one validator lists, checked. Raises NoValidator where it leaves any out, too."""
        (stored,) = _decoded("anchors", result)
        if [int(one[0]) for one in stored] != list(range(first, first + count)):
            raise NoValidator("it lists other anchors than it was asked for")
        at_once = asyncio.Semaphore(BLOCKS_AT_ONCE)

        async def check(one: Any) -> Standing:
            async with at_once:
                block = await self._block(int(one[5]))
            standing = self._find_anchor(block, bytes(one[1]))
            if standing.index != int(one[0]):
                raise NoValidator("a validator lists an anchor under another index than it has")
            return standing

        return list(await asyncio.gather(*(check(one) for one in stored)))

    async def election_page(self, first: int, count: int, known: Mapping[int, Election]) -> tuple[int, list[Election]]:
        """How many elections there are, and those at these places in the order of creation, all of it proven."""
        header = self._follower.head.header
        (total,) = await self._slots(header, ELECTIONS, [IDS_SLOT])
        slots = [data_slot(IDS_SLOT) + place for place in range(first, min(first + count, total))]
        ids = await self._slots(header, ELECTIONS, slots)
        found = await asyncio.gather(*(self.election(id_, known.get(id_)) for id_ in ids))
        return total, [election for election in found if election is not None]

    async def located(self, transaction_hash: bytes) -> tuple[FinalBlock, int] | None:
        """The checked block that includes a transaction, and its place there; None where a quorum knows none.

        Raises NoValidator where too few can be asked.
        """
        denials, faults = 0, []
        for found in await self._pool.ask_all("eth_getTransactionReceipt", ("0x" + transaction_hash.hex(),)):
            if found is None:
                denials += 1
                continue
            try:
                if isinstance(found, RpcError):
                    raise NoValidator(f"a validator refuses to look for a transaction: {found}")
                block = await self._block(hex_int(found["blockNumber"]))
                for position, raw in enumerate(block.transactions):
                    if keccak256(raw) == transaction_hash:
                        return block, position
                faults.append(f"block {block.header.number} does not hold what a validator says it does")
            except (NoValidator, RpcFailure, KeyError, TypeError) as fault:
                faults.append(str(fault))
        needed = quorum(self._pool.set_size)
        if denials < needed:
            raise NoValidator(f"{denials} validators know no such transaction, {needed} have to: " + "; ".join(faults))
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
            return await self._pool.ask("eth_call", (call, block), read=hex_bytes)
        except RpcError as error:
            if error.code != REVERTED:
                raise NoValidator(f"a validator refuses the call: {error}") from None
            refused = error.data
        try:
            data = hex_bytes(refused)
        except RpcFailure as failure:
            raise NoValidator(f"a validator says that the contract refuses the call, and {failure}") from None
        raise Reverted(data)

    async def _stored(
        self, to: bytes, name: str, data: bytes, find: Callable[[FinalBlock, Any], Standing], sure: bool
    ) -> Standing | None:
        """The record behind a view that returns (found, struct), wherever a validator names a block that holds it."""
        parameters = ({"to": "0x" + to.hex(), "data": "0x" + data.hex()}, "latest")

        async def witnessed(answer: Any) -> Standing | None:
            if isinstance(answer, RpcError):
                if answer.code == REVERTED:  # no such election
                    return None
                raise NoValidator(f"a validator refuses the call: {answer}")
            found, stored = _decoded(name, hex_bytes(answer))
            return find(await self._block(int(stored[5])), stored) if found else None

        with contextlib.suppress(NoValidator, RpcError, RpcFailure):  # one that can show it is enough
            if (standing := await witnessed(await self._pool.ask("eth_call", parameters))) is not None:
                return standing
        denials, faults = 0, []
        for answer in await self._pool.ask_all("eth_call", parameters):
            try:
                if (standing := await witnessed(answer)) is not None:
                    return standing
                denials += 1
            except (RpcFailure, NoValidator) as fault:
                faults.append(str(fault))
        # Whoever names a block that does not hold the record is no witness; the others may be enough without it.
        needed = quorum(self._pool.set_size) if sure else 1
        if denials < needed:
            raise NoValidator(f"{denials} validators know no such record, {needed} are needed: " + "; ".join(faults))
        return None

    async def _slots(self, header: Header, contract: bytes, slots: Sequence[int]) -> list[int]:
        """Values of a contract's slots in the state of a verified header, from whoever proves them."""
        values: list[int] = []
        for begin in range(0, len(slots), PROOF_SLOTS_MAX):
            part = slots[begin : begin + PROOF_SLOTS_MAX]
            keys = ["0x" + slot.to_bytes(32, "big").hex() for slot in part]
            parameters = ("0x" + contract.hex(), keys, hex(header.number))

            def check(answer: Any, part: Sequence[int] = part) -> list[int]:
                proof = [hex_bytes(node) for node in answer["accountProof"]]
                storage_root = account_from_proof(header.state_root, contract, proof).storage_root
                proofs = [[hex_bytes(node) for node in entry["proof"]] for entry in answer["storageProof"]]
                return [slot_from_proof(storage_root, *one) for one in zip(part, proofs, strict=True)]

            values += await self._pool.ask_checked("eth_getProof", parameters, check)
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
                    price = price_of(block, transaction)
                    return Standing(ballot, index, where, block.header.timestamp, gas_used, price)
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
                record, price = Anchor(batch_id, root, count, algorithm), price_of(block, transaction)
                return Standing(record, anchored[1], where, block.header.timestamp, gas_used, price)
        raise NoValidator(f"block {block.header.number} does not hold the anchor that a validator says it does")


def price_of(block: FinalBlock, transaction: Transaction) -> int:
    """What a unit of gas cost the sender, in wei (EIP-1559)."""
    base_fee = block.header.base_fee_per_gas
    return base_fee + transaction.effective_tip(base_fee)


def _anchored_fields(data: bytes, anchored: tuple[bytes, int]) -> tuple[bytes, int, bytes, int, str]:
    length = int.from_bytes(data[96:128], "big")
    return *anchored, data[:32], int.from_bytes(data[32:64], "big"), data[128 : 128 + length].decode()


def _decoded(name: str, result: bytes) -> tuple[Any, ...]:
    abi = ANCHORS_ABI if name in ("anchorOf", "anchors") else ELECTIONS_ABI
    try:
        return abi.decode_result(name, result)
    except ValueError as error:
        raise NoValidator(f"a validator's answer to {name} cannot be read: {error}") from None
