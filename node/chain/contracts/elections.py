"""The Elections contract: what an election is, who may create, close and cancel it, and its state at a moment.

Ballots are in `ballots`. Storage, in Solidity's layout:

    slot 0  uint256[] ids                           in the order of creation
    slot 1  mapping(uint256 => Election) elections

    struct Election {
        uint256 logSize;                            // +0
        bytes32 logRoot;                            // +1, written once a block
        uint64 opensAt; uint64 closesAt;            // +2, from the lowest byte on; seconds
        uint32 deliveryGrace;                       //     seconds
        uint8 kinds; bool cancelled;
        address creator; uint32 number;             // +3; number is its place in `ids`, from 1: that of its log
        bytes32 keyCheck;                           // +4
        string title;                               // +5
        string[] options;                           // +6
        address[] registrars;                       // +7
        mapping(address => uint256) registrar;      // +8, 1-based position
        uint256[] counts;                           // +9, one for each option
        uint256 sealedCount;                        // +10
    }
"""

from dataclasses import dataclass
from enum import IntEnum

from merkle.log import EMPTY_ROOT
from node.chain.contracts import validators
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.context import Call
from node.chain.contracts.contract import load_abi
from node.chain.contracts.layout import (
    Slots,
    data_slot,
    mapping_slot,
    read_addresses,
    read_string,
    write_addresses,
    write_string,
)
from node.chain.state import State

IDS_SLOT = 0
ELECTIONS_SLOT = 1
LOG_SIZE, LOG_ROOT, _SCHEDULE, _ORIGIN, _KEY_CHECK, _TITLE, _OPTIONS = range(7)
_REGISTRARS, _REGISTRAR, COUNTS, SEALED = range(7, 11)

KIND_OPEN = 0
KIND_SEALED = 1
KINDS_ALL = 3
OPTIONS_RANGE = (2, 64)
TITLE_BYTES_MAX = 1024
OPTION_BYTES_MAX = 256
REGISTRARS_MAX = 64
ELECTIONS_MAX = (1 << 32) - 2
CREATE_GAS = 200_000
CREATE_WORD_GAS = 2_000
CHANGE_GAS = 30_000
_OPTIONS_ARGUMENT, _REGISTRARS_ARGUMENT = 2, 7  # of `create`
_OPTIONS_FAULT = "options are {} to {}, not {{}}".format(*OPTIONS_RANGE)
_OPTION_FAULT = f"an option has 1 to {OPTION_BYTES_MAX} bytes"
_REGISTRARS_FAULT = f"registrars are at most {REGISTRARS_MAX} different addresses"

ABI = load_abi("Elections")


class ElectionState(IntEnum):
    """What an election is doing at a moment; `state` of the ABI's view."""

    UNKNOWN = 0
    SCHEDULED = 1
    OPEN = 2
    DELIVERING = 3  # closed, and registrars still deliver what they received before
    CLOSED = 4  # the tally is final
    CANCELLED = 5


@dataclass(frozen=True, slots=True)
class Election:
    """What casting needs to know of an election. Times in seconds, 0 for none; `base` is the slot of its struct."""

    id: int
    base: int
    opens_at: int
    closes_at: int
    delivery_grace: int
    kinds: int
    cancelled: bool
    creator: bytes
    number: int

    def state_at(self, timestamp: int) -> ElectionState:
        """Its state in a block of this timestamp."""
        if self.cancelled:
            return ElectionState.CANCELLED
        if self.closes_at and timestamp >= self.closes_at:
            late = timestamp >= self.closes_at + self.delivery_grace
            return ElectionState.CLOSED if late else ElectionState.DELIVERING
        return ElectionState.SCHEDULED if timestamp < self.opens_at else ElectionState.OPEN


@dataclass(frozen=True, slots=True)
class Definition:
    """What was said when an election was created; `election` holds what closing and cancelling change."""

    election: Election
    title: str
    options: tuple[str, ...]
    registrars: tuple[bytes, ...]
    key_check: bytes


def read_election(state: Slots, id_: int) -> Election | None:
    """The election with this id; None when nobody created it."""
    base = mapping_slot(id_, ELECTIONS_SLOT)
    origin = state.storage(ELECTIONS, base + _ORIGIN)
    if origin == 0:
        return None
    schedule = state.storage(ELECTIONS, base + _SCHEDULE)
    return Election(
        id=id_,
        base=base,
        opens_at=schedule & 0xFFFFFFFFFFFFFFFF,
        closes_at=schedule >> 64 & 0xFFFFFFFFFFFFFFFF,
        delivery_grace=schedule >> 128 & 0xFFFFFFFF,
        kinds=schedule >> 160 & 0xFF,
        cancelled=bool(schedule >> 168 & 1),
        creator=(origin & (1 << 160) - 1).to_bytes(20, "big"),
        number=origin >> 160,
    )


def require_election(state: State, id_: int) -> Election:
    """The election with this id. Reverts with UnknownElection."""
    election = read_election(state, id_)
    if election is None:
        raise ABI.revert("UnknownElection", id_)
    return election


def options_count(state: State, election: Election) -> int:
    """How many options an open ballot may choose from."""
    return state.storage(ELECTIONS, election.base + COUNTS)


def may_cast(state: State, election: Election, sender: bytes) -> bool:
    """Whether `sender` is one of the election's registrars, or a gateway where it lists none."""
    if state.storage(ELECTIONS, election.base + _REGISTRARS) == 0:
        return validators.is_gateway(state, sender)
    slot = mapping_slot(int.from_bytes(sender, "big"), election.base + _REGISTRAR)
    return state.storage(ELECTIONS, slot) != 0


def log_slots(id_: int) -> tuple[int, int]:
    """The slots of an election's log size and log root, for `eth_getProof`."""
    base = mapping_slot(id_, ELECTIONS_SLOT)
    return base + LOG_SIZE, base + LOG_ROOT


def tally_slots(id_: int, options: int) -> tuple[list[int], int]:
    """The slots of each option's count, and that of the count of sealed ballots."""
    base = mapping_slot(id_, ELECTIONS_SLOT)
    first = data_slot(base + COUNTS)
    return [first + option for option in range(options)], base + SEALED


def check_lists(data: bytes) -> None:
    """Refuse lists and options of a new election that are too long, by hand, before a library decodes them.

    Offsets in calldata may point to one long text many times over: decoding that costs far more than its gas.
    """

    def word(at: int) -> int:
        return int.from_bytes(data[at : at + 32], "big")

    registrars, options = 4 + word(4 + 32 * _REGISTRARS_ARGUMENT), 4 + word(4 + 32 * _OPTIONS_ARGUMENT)
    if word(registrars) > REGISTRARS_MAX:
        raise ABI.revert("InvalidElection", _REGISTRARS_FAULT)
    count = word(options)
    if count > OPTIONS_RANGE[1]:
        raise ABI.revert("InvalidElection", _OPTIONS_FAULT.format(count))
    first = options + 32
    if any(word(first + word(first + 32 * position)) > OPTION_BYTES_MAX for position in range(count)):
        raise ABI.revert("InvalidElection", _OPTION_FAULT)


def create(
    call: Call,
    id_: int,
    title: str,
    options: tuple[str, ...],
    kinds: int,
    opens_at: int,
    closes_at: int,
    delivery_grace: int,
    registrars: tuple[bytes, ...],
    key_check: bytes,
) -> tuple[object, ...]:
    """Create an election under an id of the caller's choice."""
    state, sender, now = call.block.state, call.sender, call.block.timestamp
    call.charge(CREATE_WORD_GAS * (len(call.data) // 32))
    if not _may_create(state, sender):
        raise ABI.revert("NotAllowedToCreate", sender)
    if read_election(state, id_) is not None:
        raise ABI.revert("ElectionExists", id_)
    fault = _fault(title, options, kinds, registrars) or _schedule_fault(now, opens_at, closes_at)
    number = state.storage(ELECTIONS, IDS_SLOT) + 1
    if number > ELECTIONS_MAX:
        fault = f"the chain holds at most {ELECTIONS_MAX} elections"
    if fault:
        raise ABI.revert("InvalidElection", fault)
    base = mapping_slot(id_, ELECTIONS_SLOT)
    state.set_storage(ELECTIONS, IDS_SLOT, number)
    state.set_storage(ELECTIONS, data_slot(IDS_SLOT) + number - 1, id_)
    state.set_storage(ELECTIONS, base + LOG_ROOT, int.from_bytes(EMPTY_ROOT, "big"))
    schedule = opens_at | closes_at << 64 | delivery_grace << 128 | kinds << 160
    state.set_storage(ELECTIONS, base + _SCHEDULE, schedule)
    state.set_storage(ELECTIONS, base + _ORIGIN, int.from_bytes(sender, "big") | number << 160)
    state.set_storage(ELECTIONS, base + _KEY_CHECK, int.from_bytes(key_check, "big"))
    write_string(state, ELECTIONS, base + _TITLE, title)
    state.set_storage(ELECTIONS, base + _OPTIONS, len(options))
    state.set_storage(ELECTIONS, base + COUNTS, len(options))
    for position, option in enumerate(options):
        write_string(state, ELECTIONS, data_slot(base + _OPTIONS) + position, option)
    write_addresses(state, ELECTIONS, base + _REGISTRARS, registrars)
    for position, registrar in enumerate(registrars, 1):
        state.set_storage(ELECTIONS, mapping_slot(int.from_bytes(registrar, "big"), base + _REGISTRAR), position)
    call.event_logs.append(ABI.encode_event(ELECTIONS, "ElectionCreated", id_, sender, title))
    return ()


def close(call: Call, id_: int) -> tuple[object, ...]:
    """Close an election now; the delivery grace begins."""
    election = _changeable(call, id_, (ElectionState.SCHEDULED, ElectionState.OPEN))
    slot = election.base + _SCHEDULE
    schedule = call.block.state.storage(ELECTIONS, slot) & ~(0xFFFFFFFFFFFFFFFF << 64)
    # A timestamp of 0 would read as "never closes": block 0 holds no transactions, and only its clock may stand there.
    call.block.state.set_storage(ELECTIONS, slot, schedule | max(call.block.timestamp, 1) << 64)
    call.event_logs.append(ABI.encode_event(ELECTIONS, "ElectionClosed", id_))
    return ()


def cancel(call: Call, id_: int) -> tuple[object, ...]:
    """Cancel an election whose tally is not final. Its ballots stay in the log; nothing can be cast any more."""
    states = (ElectionState.SCHEDULED, ElectionState.OPEN, ElectionState.DELIVERING)
    election = _changeable(call, id_, states)
    slot = election.base + _SCHEDULE
    call.block.state.set_storage(ELECTIONS, slot, call.block.state.storage(ELECTIONS, slot) | 1 << 168)
    call.event_logs.append(ABI.encode_event(ELECTIONS, "ElectionCancelled", id_))
    return ()


def election_view(call: Call, id_: int) -> tuple[object, ...]:
    """What the view `election` returns; zeros and the state UNKNOWN where there is none."""
    found = definition(call.block.state, id_)
    if found is None:
        return "", (), 0, 0, 0, 0, int(ElectionState.UNKNOWN), bytes(20), (), bytes(32)
    election = found.election
    return (
        found.title,
        found.options,
        election.kinds,
        election.opens_at,
        election.closes_at,
        election.delivery_grace,
        int(election.state_at(call.block.timestamp)),
        election.creator,
        found.registrars,
        found.key_check,
    )


def definition(state: Slots, id_: int) -> Definition | None:
    """All that the contract keeps of an election but its ballots; None when nobody created it."""
    election = read_election(state, id_)
    if election is None:
        return None
    base = election.base
    first = data_slot(base + _OPTIONS)
    count = state.storage(ELECTIONS, base + _OPTIONS)
    return Definition(
        election,
        read_string(state, ELECTIONS, base + _TITLE),
        tuple(read_string(state, ELECTIONS, first + position) for position in range(count)),
        read_addresses(state, ELECTIONS, base + _REGISTRARS),
        state.storage(ELECTIONS, base + _KEY_CHECK).to_bytes(32, "big"),
    )


def definition_slots(id_: int) -> list[int]:
    """The slots that `definition` reads of every election; the first two are all that `read_election` reads."""
    base = mapping_slot(id_, ELECTIONS_SLOT)
    return [base + offset for offset in (_SCHEDULE, _ORIGIN, _KEY_CHECK, _TITLE, _OPTIONS, _REGISTRARS)]


def _changeable(call: Call, id_: int, states: tuple[ElectionState, ...]) -> Election:
    """The election, if the caller may change it and its state is one of `states`; reverts otherwise."""
    state = call.block.state
    election = require_election(state, id_)
    if call.sender != election.creator and not may_cast(state, election, call.sender):
        raise ABI.revert("NotCreator", call.sender)
    now = election.state_at(call.block.timestamp)
    if now not in states:
        raise ABI.revert("ElectionNotOpen", id_, int(now))
    return election


def _may_create(state: State, sender: bytes) -> bool:
    return (
        validators.is_gateway(state, sender)
        or validators.anyone_creates_elections(state)
        or validators.is_validator(state, sender)
    )


def _fault(title: str, options: tuple[str, ...], kinds: int, registrars: tuple[bytes, ...]) -> str:
    """What is wrong with the words and the lists of a new election; empty when nothing is."""
    low, high = OPTIONS_RANGE
    if not 1 <= len(title.encode()) <= TITLE_BYTES_MAX:
        return f"title has 1 to {TITLE_BYTES_MAX} bytes"
    if not low <= len(options) <= high:
        return _OPTIONS_FAULT.format(len(options))
    if not all(1 <= len(option.encode()) <= OPTION_BYTES_MAX for option in options):
        return _OPTION_FAULT
    if len(set(options)) != len(options):
        return "options differ from each other"
    if not 1 <= kinds <= KINDS_ALL:
        return f"kinds is 1 (open), 2 (sealed) or 3 (both), not {kinds}"
    if len(registrars) > REGISTRARS_MAX or len(set(registrars)) != len(registrars):
        return _REGISTRARS_FAULT
    return ""


def _schedule_fault(now: int, opens_at: int, closes_at: int) -> str:
    if closes_at and closes_at <= now:
        return f"closesAt {closes_at} is not after this block's time {now}"
    if closes_at and closes_at <= opens_at:
        return f"closesAt {closes_at} is not after opensAt {opens_at}"
    return ""
