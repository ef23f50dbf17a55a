"""The Validators contract: who decides the next height, who may cast and anchor, and how validators vote to change it.

More than half of the validators decide a proposal. Its validators decide from the next height on, which the header
commits to; its gateways may act from the next transaction on. Storage: see `members` and `proposals`.
"""

from node.chain.contracts import addresses, members, proposals
from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.context import Call
from node.chain.contracts.contract import NativeContract, load_abi
from node.chain.contracts.members import (
    Role,
    anyone_creates_elections,
    begin_block,
    current_validators,
    gateways,
    initialise,
    is_gateway,
    is_validator,
    next_validators,
    override_validators,
)
from node.chain.contracts.proposals import NOBODY, Kind, Proposal, Status
from node.chain.state import State

__all__ = [
    "ABI",
    "CONTRACT",
    "anyone_creates_elections",
    "begin_block",
    "current_validators",
    "gateways",
    "initialise",
    "is_gateway",
    "is_validator",
    "next_validators",
    "override_validators",
]

PAGE_MAX = 100  # proposals in one answer
_VIEW_GAS = 5_000
_PROPOSE_GAS = 200_000
_VOTE_GAS = 100_000
_CONTRACT_ADDRESSES = frozenset((addresses.ELECTIONS, addresses.ANCHORS, addresses.VALIDATORS))

ABI = load_abi("Validators")


# --- what validators do ------------------------------------------------------------------------------------------


def _propose(call: Call, number: int, account: bytes, replacement: bytes) -> tuple[object, ...]:
    """Open a proposal with the sender's vote, or vote for the open one that says the same."""
    state = call.block.state
    _require_validator(call)
    if number not in Kind.__members__.values():
        raise ABI.revert("UnknownKind", number)
    kind = Kind(number)
    proposal = proposals.latest(state, kind, account, replacement)
    if proposal is None or proposal.status(state, call.block.timestamp) is not Status.OPEN:
        _check_new(state, kind, account, replacement)
        proposal = proposals.open_proposal(
            state, kind, account, replacement, proposer=call.sender, timestamp=call.block.timestamp
        )
        _emit(call, "Proposed", proposal.index, call.sender, int(kind), account, replacement)
    _cast(call, proposal)
    return (proposal.index,)


def _vote(call: Call, index: int) -> tuple[object, ...]:
    state = call.block.state
    _require_validator(call)
    proposal = proposals.read(state, index)
    if proposal is None:
        raise ABI.revert("UnknownProposal", index)
    status = proposal.status(state, call.block.timestamp)
    if status is not Status.OPEN:
        raise ABI.revert("ProposalClosed", index, int(status))
    _cast(call, proposal)
    return ()


def _cast(call: Call, proposal: Proposal) -> None:
    """Count the sender's vote and decide if it is enough.

    Votes that are there already can become enough when the set shrinks; then a vote said again decides.
    """
    state = call.block.state
    voters = proposals.counted_voters(state, proposal.index)
    needed = proposals.needed(state)
    if call.sender not in voters:
        proposals.add_vote(state, proposal.index, call.sender)
        voters.append(call.sender)
        _emit(call, "Voted", proposal.index, call.sender, len(voters), needed)
    elif len(voters) < needed:
        raise ABI.revert("AlreadyVoted", proposal.index, call.sender)
    if len(voters) >= needed:
        _decide(call, proposal)


def _decide(call: Call, proposal: Proposal) -> None:
    state, height = call.block.state, call.block.number
    role = proposal.kind.role
    _check_size(state, role, len(proposal.added) - len(proposal.removed))
    proposals.mark_decided(state, proposal, height)
    members.change_members(state, role, proposal.removed, proposal.added)
    effective = height + 1 if role is Role.VALIDATOR else height
    _emit(call, "Decided", proposal.index, int(proposal.kind), proposal.account, proposal.replacement, effective)


def _require_validator(call: Call) -> None:
    if not members.is_validator(call.block.state, call.sender):
        raise ABI.revert("NotValidator", call.sender)


def _check_new(state: State, kind: Kind, account: bytes, replacement: bytes) -> None:
    """Whether the proposal makes sense now. Later changes of its addresses make it stale; the size is checked again."""
    if not kind.replaces and replacement != NOBODY:
        raise ABI.revert("InvalidAccount", replacement, "only a replacement names two addresses")
    added = replacement if kind.replaces else account
    if kind.adds or kind.replaces:
        if added == NOBODY or added in _CONTRACT_ADDRESSES:
            raise ABI.revert("InvalidAccount", added, "nobody can sign as this address")
        if members.membership(state, kind.role, added).member:
            raise ABI.revert("AlreadyMember", added)
    if not kind.adds and not members.membership(state, kind.role, account).member:
        raise ABI.revert("NotMember", account)
    _check_size(state, kind.role, int(kind.adds) - int(not kind.adds and not kind.replaces))


def _check_size(state: State, role: Role, growth: int) -> None:
    size = len(members.members(state, role)) + growth
    if size < members.MEMBERS_MIN[role]:
        raise ABI.revert("LastValidator")
    if size > members.MEMBERS_MAX[role]:
        raise ABI.revert("TooManyMembers", members.MEMBERS_MAX[role])


def _emit(call: Call, name: str, *arguments: object) -> None:
    call.event_logs.append(ABI.encode_event(VALIDATORS, name, *arguments))


# --- views -------------------------------------------------------------------------------------------------------


def _validators(call: Call) -> tuple[object, ...]:
    return (current_validators(call.block.state),)


def _next_validators(call: Call) -> tuple[object, ...]:
    return (next_validators(call.block.state),)


def _gateways(call: Call) -> tuple[object, ...]:
    return (gateways(call.block.state),)


def _is_validator(call: Call, address: bytes) -> tuple[object, ...]:
    return (address in current_validators(call.block.state),)


def _is_gateway(call: Call, address: bytes) -> tuple[object, ...]:
    return (is_gateway(call.block.state, address),)


def _chain_id(call: Call) -> tuple[object, ...]:
    return (members.chain_id(call.block.state),)


def _proposal_count(call: Call) -> tuple[object, ...]:
    return (proposals.count(call.block.state),)


def _proposals(call: Call, first: int, count: int) -> tuple[object, ...]:
    state = call.block.state
    end = min(proposals.count(state), first + min(count, PAGE_MAX))
    return ([_shown(call, index) for index in range(first, end)],)


def _shown(call: Call, index: int) -> tuple[object, ...]:
    state = call.block.state
    proposal = proposals.read(state, index)
    assert proposal is not None, "the index was below the count"
    return (
        index,
        int(proposal.kind),
        proposal.account,
        proposal.replacement,
        proposal.proposer,
        proposal.opened_at,
        int(proposal.status(state, call.block.timestamp)),
        proposal.decided_at,
        len(proposals.counted_voters(state, index)),
        proposals.needed(state),
    )


def _votes(call: Call, index: int) -> tuple[object, ...]:
    state = call.block.state
    if index >= proposals.count(state):
        raise ABI.revert("UnknownProposal", index)
    return ([(vote.voter, proposals.counts(state, vote)) for vote in proposals.votes(state, index)],)


CONTRACT = NativeContract(
    ABI,
    VALIDATORS,
    {
        "propose": ABI.bind("propose", _PROPOSE_GAS, _propose),
        "vote": ABI.bind("vote", _VOTE_GAS, _vote),
        "validators": ABI.bind("validators", _VIEW_GAS, _validators),
        "nextValidators": ABI.bind("nextValidators", _VIEW_GAS, _next_validators),
        "gateways": ABI.bind("gateways", _VIEW_GAS, _gateways),
        "isValidator": ABI.bind("isValidator", _VIEW_GAS, _is_validator),
        "isGateway": ABI.bind("isGateway", _VIEW_GAS, _is_gateway),
        "chainId": ABI.bind("chainId", _VIEW_GAS, _chain_id),
        "proposalCount": ABI.bind("proposalCount", _VIEW_GAS, _proposal_count),
        "proposals": ABI.bind("proposals", _VIEW_GAS, _proposals),
        "votes": ABI.bind("votes", _VIEW_GAS, _votes),
    },
)
