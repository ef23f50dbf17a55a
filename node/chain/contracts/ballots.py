"""Ballots of the Elections contract: casting one or a packed batch, the tally, and the views of what was cast.

A packed record is nullifier (32) ‖ record id (32) ‖ kind (1) ‖ length of the content (u32 big-endian) ‖ content. The
same bytes end the ballot's leaf in the election's log. Entries of the log (see `flatlog`) have the nullifier for an id;
body: record id (32) ‖ block number (6) ‖ position of the transaction in the block (u24) ‖ where the packed record
begins in its calldata (u24), 0 for `cast`. So the content is stored once, in the block.

Nothing here uses an ABI library for a ballot: this is the hottest path of the ledger.
"""

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from node.chain.contracts import flatlog
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.context import Appended, BlockContext, Call
from node.chain.contracts.contract import NativeContract
from node.chain.contracts.elections import (
    ABI,
    CHANGE_GAS,
    COUNTS,
    CREATE_GAS,
    IDS_SLOT,
    KIND_OPEN,
    KIND_SEALED,
    LOG_ROOT,
    LOG_SIZE,
    SEALED,
    Election,
    ElectionState,
    cancel,
    check_lists,
    close,
    create,
    election_view,
    may_cast,
    options_count,
    require_election,
)
from node.chain.contracts.flatlog import INDEX_BYTES
from node.chain.contracts.layout import data_slot
from node.chain.domain import Domain
from node.chain.receipt import EventLog
from node.chain.state import State

RECORD_HEAD_BYTES = 69
RECORDS_MAX = 2048
CONTENT_BYTES_MAX = 65_536
PAGE_MAX = 1024
PAGE_BYTES_MAX = 4 * 1024 * 1024
PAGE_READ_BYTES_MAX = 8 * 1024 * 1024  # of the blocks that a page is read from, which others' transactions may fill
CAST_GAS = 30_000
RECORD_GAS = 2_000
_VIEW_GAS = 5_000
_ITEM_GAS = 2_000
_BATCH_ARGUMENTS = 2
_CAST_ARGUMENTS = 5
_TOPIC = ABI.events["BallotsCast"].id

Ballot = tuple[int, bytes, bytes, int, bytes, int]  # as the ABI's struct
NO_BALLOT: Ballot = (0, bytes(32), bytes(32), 0, b"", 0)


class Outcome(IntEnum):
    """What became of one record of a batch; a byte each in the event's `outcomes`."""

    ACCEPTED = 0
    REPEATED = 1  # the nullifier is there with the same kind and content: that record stands
    NULLIFIER_USED = 2  # the nullifier is there with another ballot
    RECORD_ID_TAKEN = 3  # by another nullifier
    CHOICE_OUTSIDE = 4
    NOT_ALLOWED = 5  # this kind is not allowed, or the content is too large or empty


class Tally(NamedTuple):
    """Open ballots by option, and how many sealed ones."""

    counts: list[int]
    sealed_count: int

    @property
    def total(self) -> int:
        return sum(self.counts) + self.sealed_count


def pack_record(nullifier: bytes, record_id: bytes, kind: int, content: bytes) -> bytes:
    """One record of `castBatch`."""
    return nullifier + record_id + bytes((kind,)) + len(content).to_bytes(4, "big") + content


def leaf_prefix(domain: Domain, election: int) -> bytes:
    """What stands before a packed record in its leaf: version, network, kind of log, election."""
    return b"\x01" + domain.chain_id.to_bytes(8, "big") + domain.genesis_hash + b"\x01" + election.to_bytes(32, "big")


def leaf(domain: Domain, election: int, record: bytes) -> bytes:
    """The data of a ballot's leaf in its election's log; its hash is `merkle.log.leaf_hash` of it."""
    return leaf_prefix(domain, election) + record


def unpack_records(packed: bytes) -> list[tuple[int, int]]:
    """Where each packed record begins and ends. Reverts with MalformedBallots where the bytes are no records."""
    places: list[tuple[int, int]] = []
    total = len(packed)
    begin = 0
    while begin < total:
        content = begin + RECORD_HEAD_BYTES
        end = content + int.from_bytes(packed[content - 4 : content], "big")
        if end > total or len(places) == RECORDS_MAX:
            raise ABI.revert("MalformedBallots", begin)
        places.append((begin, end))
        begin = end
    if not places:
        raise ABI.revert("MalformedBallots", 0)
    return places


def read_tally(state: State, election: Election) -> Tally:
    """The tally at this state's height."""
    first = data_slot(election.base + COUNTS)
    counts = [state.storage(ELECTIONS, first + option) for option in range(options_count(state, election))]
    return Tally(counts, state.storage(ELECTIONS, election.base + SEALED))


def ballot_by_nullifier(state: State, election: Election, nullifier: bytes) -> Ballot | None:
    """The ballot under a nullifier, at this state's height."""
    size = state.storage(ELECTIONS, election.base + LOG_SIZE)
    index = flatlog.index_of(state, election.number, nullifier, size)
    return None if index is None else ballot_at(state, election, index)


def ballot_at(state: State, election: Election, index: int) -> Ballot:
    """The ballot at an index below the log's size. Raises LedgerError when it is missing."""
    entry = flatlog.entry_at(state, election.number, index)
    number = int.from_bytes(entry[64:70], "big")
    record = _packed_record(state, number, int.from_bytes(entry[70:73], "big"), int.from_bytes(entry[73:76], "big"))
    return index, entry[:32], entry[32:64], record[64], record[RECORD_HEAD_BYTES:], number


def _packed_record(state: State, height: int, position: int, begin: int) -> bytes:
    """The packed record that a transaction of a final block cast, from its calldata at `begin`; 0 for `cast`."""
    data = state.calldata(height, position)
    if begin == 0:
        return _cast_record(data)
    content = begin + RECORD_HEAD_BYTES
    return data[begin : content + int.from_bytes(data[content - 4 : content], "big")]


def _cast_record(data: bytes) -> bytes:
    """The packed record that the calldata of `cast` amounts to. Reverts when it is malformed."""
    begin, end = ABI.tail_bytes(data, _CAST_ARGUMENTS)
    kind = int.from_bytes(data[100:132], "big")
    if kind > 255:
        raise ABI.revert("InvalidCalldata", "kind does not fit 8 bits")
    return pack_record(data[36:68], data[68:100], kind, data[begin:end])


def ballot_by_record_id(state: State, election: Election, record_id: bytes) -> Ballot | None:
    """The ballot under a record id, at this state's height."""
    stored = state.record(flatlog.record_id_prefix(election.number) + record_id)
    if stored is None:
        return None
    index = int.from_bytes(stored, "big")
    size = state.storage(ELECTIONS, election.base + LOG_SIZE)
    return ballot_at(state, election, index) if index < size else None


def end_block(block: BlockContext) -> None:
    """Write nodes and root of every election's log that this block appended to."""
    state = block.state
    for number in sorted(block.appended):
        if number == flatlog.ANCHORS_LOG:
            continue
        root = flatlog.append(state, number, block.appended[number])
        election = require_election(state, state.storage(ELECTIONS, data_slot(IDS_SLOT) + number - 1))
        state.set_storage(ELECTIONS, election.base + LOG_ROOT, int.from_bytes(root, "big"))


class _Box:
    """A ballot box for one call: judges records one by one, keeps what it accepts, and is emptied at the end."""

    def __init__(self, call: Call, election: Election) -> None:
        state = call.block.state
        self._state = state
        self._call = call
        self._election = election
        self._options = options_count(state, election)
        self._open_allowed = bool(election.kinds & 1)
        self._sealed_allowed = bool(election.kinds & 2)
        self._by_nullifier = flatlog.id_prefix(election.number)
        self._by_record_id = flatlog.record_id_prefix(election.number)
        self._leaf_prefix = b"\0" + leaf_prefix(call.block.domain, election.id)
        self._number = call.block.number.to_bytes(INDEX_BYTES, "big")
        self._first = state.storage(ELECTIONS, election.base + LOG_SIZE)
        self._entries: list[bytes] = []  # of the log
        self._leaf_hashes: list[bytes] = []
        self._choices: list[int] = []  # the option of each open ballot, -1 for a sealed one
        self.standing = 0  # index of the ballot because of which the last record was not accepted

    def put(self, data: bytes, places: Iterable[tuple[int, int]], offset: int | None) -> bytes:
        """Judge the packed records data[begin:end] and take in what is accepted. Returns each one's Outcome.

        `offset` is where `data` begins in the calldata; None where they are not packed there.

        One loop with everything at hand, since calls and attributes would cost as much as the work.
        """
        record, by_nullifier, by_record_id = self._state.record, self._by_nullifier, self._by_record_id
        new: dict[bytes, bytes] = {}  # where ids of this call's ballots stand in the log
        is_before, options, leaf_prefix = self._is_before, self._options, self._leaf_prefix
        entries, leaf_hashes, choices = self._entries, self._leaf_hashes, self._choices
        index = self._first + len(entries)
        place = self._number + self._call.block.position.to_bytes(3, "big")
        outcomes = bytearray()
        for begin, end in places:
            middle = begin + 32
            content = begin + RECORD_HEAD_BYTES
            kind = data[begin + 64]
            choice = -1
            if kind == KIND_OPEN:
                if end - content != 1 or not self._open_allowed:
                    outcomes.append(5)
                    continue
                choice = data[content]
                if choice >= options:
                    outcomes.append(4)
                    continue
            elif kind != KIND_SEALED or not self._sealed_allowed or not 0 < end - content <= CONTENT_BYTES_MAX:
                outcomes.append(5)
                continue
            key = by_nullifier + data[begin:middle]
            record_key = by_record_id + data[middle : begin + 64]
            stored = new.get(key) or record(key)
            if stored is not None and is_before(stored, index):
                # Equal in all but the record id: then a record with the standing one's has the leaf that stands.
                standing, leaf_hash = self._standing_entry()
                again = leaf_prefix + standing[:64] + data[begin + 64 : end]
                outcomes.append(1 if sha256(again).digest() == leaf_hash else 2)
                continue
            stored = new.get(record_key) or record(record_key)
            if stored is not None and is_before(stored, index):
                outcomes.append(3)
                continue
            packed_index = index.to_bytes(INDEX_BYTES, "big")
            new[key] = new[record_key] = packed_index
            where = b"\0\0\0" if offset is None else (offset + begin).to_bytes(3, "big")
            entries.append(data[begin : begin + 64] + place + where)
            leaf_hashes.append(sha256(leaf_prefix + data[begin:end]).digest())
            choices.append(choice)
            outcomes.append(0)
            index += 1
        self._state.add_records(new)
        return bytes(outcomes)

    def _is_before(self, stored: bytes, index: int) -> bool:
        """Whether a stored index belongs to a ballot of this log; in calls on past states it may be a later one's."""
        self.standing = int.from_bytes(stored, "big")
        return self.standing < index

    def _standing_entry(self) -> tuple[bytes, bytes]:
        """Entry and leaf hash of the ballot at `standing`: of this call, of an earlier one in this block, or stored."""
        index, log = self.standing, self._election.number
        if index >= self._first:
            return self._entries[index - self._first], self._leaf_hashes[index - self._first]
        appended = self._call.block.appended.get(log)
        if appended is not None and index >= appended.first_index:
            here = index - appended.first_index
            return appended.entries[here], appended.leaf_hashes[here]
        return (
            flatlog.entry_at(self._state, log, index),
            flatlog.node_reader(self._state, log)(0, index),
        )

    def empty(self, outcomes: bytes) -> None:
        """Count what was accepted, hand it to the block and emit the event. Nothing may fail after this."""
        state, base, count = self._state, self._election.base, len(self._entries)
        if count:
            state.set_storage(ELECTIONS, base + LOG_SIZE, self._first + count)
            first_count = data_slot(base + COUNTS)
            for choice, ballots in Counter(self._choices).items():
                slot = base + SEALED if choice < 0 else first_count + choice
                state.set_storage(ELECTIONS, slot, state.storage(ELECTIONS, slot) + ballots)
            number, appended = self._election.number, self._call.block.appended
            if number not in appended:
                appended[number] = Appended(self._first)
            appended[number].entries += self._entries
            appended[number].leaf_hashes += self._leaf_hashes
        words = b"".join(word.to_bytes(32, "big") for word in (self._first, count, 96, len(outcomes)))
        padded = outcomes.ljust((len(outcomes) + 31) // 32 * 32, b"\0")
        topics = (_TOPIC, self._election.id.to_bytes(32, "big"))
        self._call.event_logs.append(EventLog(ELECTIONS, topics, words + padded))


def _open_box(call: Call) -> _Box:
    """The box of the election that calldata names first, if the caller may cast in it now; reverts otherwise."""
    state, id_ = call.block.state, int.from_bytes(call.data[4:36], "big")
    election = require_election(state, id_)
    now = election.state_at(call.block.timestamp)
    if now not in (ElectionState.OPEN, ElectionState.DELIVERING):
        raise ABI.revert("ElectionNotOpen", id_, int(now))
    if not may_cast(state, election, call.sender):
        raise ABI.revert("NotRegistrar", call.sender)
    return _Box(call, election)


def _cast_batch(call: Call) -> bytes:
    call.charge(CAST_GAS)
    begin, end = ABI.tail_bytes(call.data, _BATCH_ARGUMENTS)
    packed = call.data[begin:end]
    records = unpack_records(packed)
    call.charge(RECORD_GAS * len(records))
    box = _open_box(call)
    box.empty(box.put(packed, records, begin))
    return b""


def _cast(call: Call) -> bytes:
    call.charge(CAST_GAS + RECORD_GAS)
    data = call.data
    ABI.tail_bytes(data, _CAST_ARGUMENTS)
    box = _open_box(call)
    record = _cast_record(data)
    nullifier, record_id, kind, content = record[:32], record[32:64], record[64], record[RECORD_HEAD_BYTES:]
    (outcome,) = box.put(record, ((0, len(record)),), None)
    if outcome in (Outcome.REPEATED, Outcome.NULLIFIER_USED):
        raise ABI.revert("AlreadyCast", nullifier, box.standing)
    if outcome == Outcome.RECORD_ID_TAKEN:
        raise ABI.revert("RecordIdTaken", record_id, box.standing)
    if outcome == Outcome.CHOICE_OUTSIDE:
        election = require_election(call.block.state, int.from_bytes(data[4:36], "big"))
        raise ABI.revert("InvalidChoice", content[0], options_count(call.block.state, election))
    if outcome == Outcome.NOT_ALLOWED:
        raise _not_allowed(call, kind)
    box.empty(b"\0")
    return b""


def _not_allowed(call: Call, kind: int) -> Exception:
    election = require_election(call.block.state, int.from_bytes(call.data[4:36], "big"))
    if kind not in (KIND_OPEN, KIND_SEALED) or not election.kinds >> kind & 1:
        return ABI.revert("KindNotAllowed", kind)
    if kind == KIND_OPEN:
        return ABI.revert("InvalidBallot", "an open ballot is one byte: the option's number")
    return ABI.revert("InvalidBallot", f"a sealed ballot has 1 to {CONTENT_BYTES_MAX} bytes")


def _tally(call: Call, id_: int) -> tuple[object, ...]:
    tally = read_tally(call.block.state, require_election(call.block.state, id_))
    return tally.counts, tally.sealed_count, tally.total


def _ballot_by_nullifier(call: Call, id_: int, nullifier: bytes) -> tuple[object, ...]:
    ballot = ballot_by_nullifier(call.block.state, require_election(call.block.state, id_), nullifier)
    return ballot is not None, ballot or NO_BALLOT


def _ballot_by_record_id(call: Call, id_: int, record_id: bytes) -> tuple[object, ...]:
    ballot = ballot_by_record_id(call.block.state, require_election(call.block.state, id_), record_id)
    return ballot is not None, ballot or NO_BALLOT


def _ballots(call: Call, id_: int, first: int, count: int) -> tuple[object, ...]:
    """As many as fit the PAGE_ limits, and at least one where there is one: ask again behind the last."""
    state = call.block.state
    election = require_election(state, id_)
    size = state.storage(ELECTIONS, election.base + LOG_SIZE)
    page: list[Ballot] = []
    bytes_count = 0
    for index in range(first, min(size, first + min(count, PAGE_MAX))):
        call.charge(_ITEM_GAS)
        ballot = ballot_at(state, election, index)
        bytes_count += len(ballot[4])
        if page and bytes_count > PAGE_BYTES_MAX:
            break
        page.append(ballot)
        if state.block_bytes_read > PAGE_READ_BYTES_MAX:
            break
    return (page,)


def _log(call: Call, id_: int) -> tuple[object, ...]:
    state = call.block.state
    base = require_election(state, id_).base
    return state.storage(ELECTIONS, base + LOG_SIZE), state.storage(ELECTIONS, base + LOG_ROOT).to_bytes(32, "big")


def _election_count(call: Call) -> tuple[object, ...]:
    return (call.block.state.storage(ELECTIONS, IDS_SLOT),)


def _election_ids(call: Call, first: int, count: int) -> tuple[object, ...]:
    state = call.block.state
    end = min(state.storage(ELECTIONS, IDS_SLOT), first + min(count, PAGE_MAX))
    slot = data_slot(IDS_SLOT)
    return ([state.storage(ELECTIONS, slot + position) for position in range(first, end)],)


CONTRACT = NativeContract(
    ABI,
    ELECTIONS,
    {
        "create": ABI.bind("create", CREATE_GAS, create, check_lists),
        "cast": _cast,
        "castBatch": _cast_batch,
        "close": ABI.bind("close", CHANGE_GAS, close),
        "cancel": ABI.bind("cancel", CHANGE_GAS, cancel),
        "election": ABI.bind("election", _VIEW_GAS, election_view),
        "tally": ABI.bind("tally", _VIEW_GAS, _tally),
        "ballotByNullifier": ABI.bind("ballotByNullifier", _VIEW_GAS, _ballot_by_nullifier),
        "ballotByRecordId": ABI.bind("ballotByRecordId", _VIEW_GAS, _ballot_by_record_id),
        "ballots": ABI.bind("ballots", _VIEW_GAS, _ballots),
        "log": ABI.bind("log", _VIEW_GAS, _log),
        "electionCount": ABI.bind("electionCount", _VIEW_GAS, _election_count),
        "electionIds": ABI.bind("electionIds", _VIEW_GAS, _election_ids),
    },
)
