"""Proposals to change the validators or the gateways, and the votes on them, in the Validators contract's storage.

    slot 10  Proposal[] proposals
    slot 11  mapping(bytes32 => uint256) latest   keccak256(kind ‖ account ‖ replacement) => index + 1 of the newest

    struct Proposal {
        uint8 kind; address account; uint64 changes;        // `changes`: of either set, when it was opened
        address replacement; uint64 openedAt;               // seconds
        address proposer; uint64 decidedAt;                 // the height, 0 while it is not decided
        Vote[] votes;
    }
    struct Vote { address voter; uint64 changes; }

A vote counts while its voter is a validator and has been one ever since: `Vote.changes` is not below the voter's
`Membership.changed`. Likewise a proposal is stale once a later change has touched an address that it names.
"""

from dataclasses import dataclass
from enum import IntEnum

from merkle.keccak import keccak256
from node.chain.contracts import members
from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.layout import Slots, data_slot, mapping_slot
from node.chain.contracts.members import Role

_PROPOSALS, _LATEST = 10, 11
_SLOTS_EACH = 4
_UINT64 = (1 << 64) - 1
_ADDRESS = (1 << 160) - 1

LIFETIME_S = 7 * 86_400  # a forgotten proposal that lacks one vote must not wait for years
NOBODY = bytes(20)


class Kind(IntEnum):
    """What a proposal would do."""

    ADD_VALIDATOR = 1
    REMOVE_VALIDATOR = 2
    REPLACE_VALIDATOR = 3
    ADD_GATEWAY = 4
    REMOVE_GATEWAY = 5
    REPLACE_GATEWAY = 6

    @property
    def role(self) -> Role:
        """The set that it would change."""
        return Role.VALIDATOR if self <= Kind.REPLACE_VALIDATOR else Role.GATEWAY

    @property
    def adds(self) -> bool:
        """Whether `account` would come in, rather than go."""
        return self in (Kind.ADD_VALIDATOR, Kind.ADD_GATEWAY)

    @property
    def replaces(self) -> bool:
        """Whether `replacement` would come in for `account`."""
        return self in (Kind.REPLACE_VALIDATOR, Kind.REPLACE_GATEWAY)


class Status(IntEnum):
    """What can still become of a proposal."""

    UNKNOWN = 0
    OPEN = 1
    DECIDED = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's vote, given after `changes` changes of either set."""

    voter: bytes
    changes: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal as it was opened, and the height at which it was decided, or 0. `opened_at` is in seconds."""

    index: int
    kind: Kind
    account: bytes
    changes: int
    replacement: bytes
    opened_at: int
    proposer: bytes
    decided_at: int = 0

    @property
    def removed(self) -> tuple[bytes, ...]:
        """Who would go."""
        return () if self.kind.adds else (self.account,)

    @property
    def added(self) -> tuple[bytes, ...]:
        """Who would come."""
        if self.kind.adds:
            return (self.account,)
        return (self.replacement,) if self.kind.replaces else ()

    def status(self, state: Slots, timestamp: int) -> Status:
        """What can become of it at `timestamp`, in seconds."""
        if self.decided_at:
            return Status.DECIDED
        changed = max(
            members.membership(state, self.kind.role, address).changed for address in (*self.removed, *self.added)
        )
        late = timestamp > self.opened_at + LIFETIME_S
        return Status.STALE if late or changed > self.changes else Status.OPEN


def count(state: Slots) -> int:
    """How many proposals there have been."""
    return state.storage(VALIDATORS, _PROPOSALS)


def needed(state: Slots) -> int:
    """The votes that decide: more than half of the validators."""
    return len(members.next_validators(state)) // 2 + 1


def read(state: Slots, index: int) -> Proposal | None:
    """The proposal with this index."""
    if index >= count(state):
        return None
    slot = _slot(index)
    first, second, third = (state.storage(VALIDATORS, slot + i) for i in range(3))
    return Proposal(
        index=index,
        kind=Kind(first & 0xFF),
        account=_address(first >> 8),
        changes=first >> 168,
        replacement=_address(second),
        opened_at=second >> 160,
        proposer=_address(third),
        decided_at=third >> 160,
    )


def latest(state: Slots, kind: Kind, account: bytes, replacement: bytes) -> Proposal | None:
    """The newest proposal of exactly this."""
    found = state.storage(VALIDATORS, _latest_slot(kind, account, replacement))
    return read(state, found - 1) if found else None


def open_proposal(
    state: Slots, kind: Kind, account: bytes, replacement: bytes, *, proposer: bytes, timestamp: int
) -> Proposal:
    """Store a new proposal without votes."""
    index = count(state)
    proposal = Proposal(index, kind, account, members.changes(state), replacement, timestamp, proposer)
    state.set_storage(VALIDATORS, _PROPOSALS, index + 1)
    state.set_storage(VALIDATORS, _latest_slot(kind, account, replacement), index + 1)
    slot = _slot(index)
    first = int(kind) | int.from_bytes(account, "big") << 8 | proposal.changes << 168
    state.set_storage(VALIDATORS, slot, first)
    state.set_storage(VALIDATORS, slot + 1, int.from_bytes(replacement, "big") | (timestamp & _UINT64) << 160)
    state.set_storage(VALIDATORS, slot + 2, int.from_bytes(proposer, "big"))
    return proposal


def votes(state: Slots, index: int) -> list[Vote]:
    """Every vote given on a proposal, in order."""
    length_slot = _slot(index) + 3
    first = data_slot(length_slot)
    values = (state.storage(VALIDATORS, first + i) for i in range(state.storage(VALIDATORS, length_slot)))
    return [Vote(_address(value), value >> 160) for value in values]


def counts(state: Slots, vote: Vote) -> bool:
    """Whether its voter has been a validator from the vote until now."""
    voter = members.membership(state, Role.VALIDATOR, vote.voter)
    return voter.member and vote.changes >= voter.changed


def counted_voters(state: Slots, index: int) -> list[bytes]:
    """Whose votes on a proposal count now."""
    return [vote.voter for vote in votes(state, index) if counts(state, vote)]


def add_vote(state: Slots, index: int, voter: bytes) -> None:
    """Store a vote; the caller has made sure that the voter has none that counts."""
    length_slot = _slot(index) + 3
    length = state.storage(VALIDATORS, length_slot)
    state.set_storage(VALIDATORS, length_slot, length + 1)
    value = int.from_bytes(voter, "big") | members.changes(state) << 160
    state.set_storage(VALIDATORS, data_slot(length_slot) + length, value)


def mark_decided(state: Slots, proposal: Proposal, height: int) -> None:
    """Note that it was decided at `height`."""
    value = int.from_bytes(proposal.proposer, "big") | height << 160
    state.set_storage(VALIDATORS, _slot(proposal.index) + 2, value)


def _slot(index: int) -> int:
    return data_slot(_PROPOSALS) + _SLOTS_EACH * index


def _latest_slot(kind: Kind, account: bytes, replacement: bytes) -> int:
    key = keccak256(bytes((kind,)) + account + replacement)
    return mapping_slot(int.from_bytes(key, "big"), _LATEST)


def _address(value: int) -> bytes:
    return (value & _ADDRESS).to_bytes(20, "big")
