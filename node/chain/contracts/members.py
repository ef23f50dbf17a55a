"""Who the members are: the validators of this height and of the next, the gateways, and when each address changed.

Storage of the Validators contract, in Solidity's layout (the rest is in `proposals`):

    slot 0  address[] validators      the set that decided this height
    slot 1  address[] nextValidators  the set that decides the next height
    slot 2  address[] gateways
    slot 3  mapping(address => Membership) gatewayMembership
    slot 4  uint256 chainId
    slot 5  uint256 blockBytesMax
    slot 6  bool anyoneCreatesElections
    slot 7  mapping(address => Membership) validatorMembership   of nextValidators
    slot 8  uint64 changes            how many changes there have been, of either set
    slot 9  bool changing             nextValidators is not validators
    slot 12 bool closed               only members, and these accounts, may send transactions:
    slot 13 mapping(address => bool) accounts

    struct Membership { bool member; uint64 changed; }           `changed`: the number of the last change, 0 at genesis
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.layout import Slots, StorageReader, mapping_slot, read_addresses, write_addresses

_CURRENT, _NEXT, _GATEWAYS, _GATEWAY_MEMBERSHIP, _CHAIN_ID, _BLOCK_BYTES_MAX, _ANYONE_CREATES = range(7)
_VALIDATOR_MEMBERSHIP, _CHANGES, _CHANGING = range(7, 10)
_CLOSED, _ACCOUNTS = 12, 13  # 10 and 11 are of `proposals`

VALIDATORS_MAX = 100
GATEWAYS_MAX = 64


class Role(IntEnum):
    """The two sets whose members the validators' votes change."""

    VALIDATOR = 0
    GATEWAY = 1


_SET = {Role.VALIDATOR: _NEXT, Role.GATEWAY: _GATEWAYS}
_MEMBERSHIP = {Role.VALIDATOR: _VALIDATOR_MEMBERSHIP, Role.GATEWAY: _GATEWAY_MEMBERSHIP}
MEMBERS_MIN = {Role.VALIDATOR: 1, Role.GATEWAY: 0}
MEMBERS_MAX = {Role.VALIDATOR: VALIDATORS_MAX, Role.GATEWAY: GATEWAYS_MAX}


class Membership(NamedTuple):
    """Whether an address belongs to a set, and the number of the change that last made or ended that."""

    member: bool
    changed: int


def initialise(
    state: Slots,
    *,
    validators: tuple[bytes, ...],
    gateways: tuple[bytes, ...],
    chain_id: int,
    block_bytes_max: int,
    anyone_creates_elections: bool,
    accounts: tuple[bytes, ...] | None = None,
) -> None:
    """Write the storage of block 0, so that its state root commits to all of this. `accounts` None: an open network."""
    write_addresses(state, VALIDATORS, _CURRENT, validators)
    write_addresses(state, VALIDATORS, _NEXT, validators)
    write_addresses(state, VALIDATORS, _GATEWAYS, gateways)
    for validator in validators:
        _set_membership(state, Role.VALIDATOR, validator, Membership(True, 0))
    for gateway in gateways:
        _set_membership(state, Role.GATEWAY, gateway, Membership(True, 0))
    state.set_storage(VALIDATORS, _CHAIN_ID, chain_id)
    state.set_storage(VALIDATORS, _BLOCK_BYTES_MAX, block_bytes_max)
    state.set_storage(VALIDATORS, _ANYONE_CREATES, int(anyone_creates_elections))
    if accounts is not None:
        state.set_storage(VALIDATORS, _CLOSED, 1)
        for account in accounts:
            state.set_storage(VALIDATORS, mapping_slot(int.from_bytes(account, "big"), _ACCOUNTS), 1)


def current_validators(state: Slots) -> tuple[bytes, ...]:
    """The set that decided this height, ascending."""
    return read_addresses(state, VALIDATORS, _CURRENT)


def next_validators(state: Slots) -> tuple[bytes, ...]:
    """The set that decides the next height, ascending."""
    return members(state, Role.VALIDATOR)


def gateways(state: Slots) -> tuple[bytes, ...]:
    """The gateways, ascending."""
    return members(state, Role.GATEWAY)


def members(state: Slots, role: Role) -> tuple[bytes, ...]:
    """The members of a set after all that was decided, ascending."""
    return read_addresses(state, VALIDATORS, _SET[role])


def membership(state: Slots, role: Role, address: bytes) -> Membership:
    """Whether `address` is a member after all that was decided, and since when."""
    value = state.storage(VALIDATORS, _membership_slot(role, address))
    return Membership(value & 1 == 1, value >> 8)


def is_gateway(state: Slots, address: bytes) -> bool:
    """Whether `address` may anchor, and cast where an election lists no registrars."""
    return _is_set(state, _GATEWAY_MEMBERSHIP, address)


def is_validator(state: Slots, address: bytes) -> bool:
    """Whether `address` decides the next height, as far as this one has come."""
    return _is_set(state, _VALIDATOR_MEMBERSHIP, address)


def anyone_creates_elections(state: Slots) -> bool:
    """Whether genesis lets every account create elections."""
    return state.storage(VALIDATORS, _ANYONE_CREATES) != 0


def is_closed(state: StorageReader) -> bool:
    """Whether genesis lists who may send transactions; nothing changes that later."""
    return state.storage(VALIDATORS, _CLOSED) != 0


def may_send(state: StorageReader, address: bytes) -> bool:
    """Whether `address` may send transactions: everybody on an open network; on a closed one those that genesis lists,
    and whoever is a validator or a gateway now."""
    if not is_closed(state):
        return True
    return any(_is_set(state, mapping, address) for mapping in (_ACCOUNTS, *_MEMBERSHIP.values()))


def chain_id(state: Slots) -> int:
    """The chain id that genesis chose."""
    return state.storage(VALIDATORS, _CHAIN_ID)


def changes(state: Slots) -> int:
    """How many changes there have been, of either set."""
    return state.storage(VALIDATORS, _CHANGES)


def begin_block(state: Slots) -> None:
    """The set chosen for this height decides it now."""
    if state.storage(VALIDATORS, _CHANGING):
        write_addresses(state, VALIDATORS, _CURRENT, next_validators(state))
        state.set_storage(VALIDATORS, _CHANGING, 0)


def override_validators(state: Slots, validators: Sequence[bytes]) -> None:
    """As `begin_block`, with a set that no vote has chosen: the operators' override names it."""
    chosen = tuple(sorted(validators))
    standing = next_validators(state)
    _replace(state, Role.VALIDATOR, set(standing) - set(chosen), set(chosen) - set(standing), chosen)
    begin_block(state)


def change_members(state: Slots, role: Role, removed: Sequence[bytes], added: Sequence[bytes]) -> None:
    """Take `removed` out of a set and `added` in, as one change. The caller has checked that this can be."""
    gone = set(removed)
    chosen = tuple(sorted([each for each in members(state, role) if each not in gone] + list(added)))
    _replace(state, role, gone, set(added), chosen)


def _replace(state: Slots, role: Role, removed: set[bytes], added: set[bytes], chosen: tuple[bytes, ...]) -> None:
    number = changes(state) + 1
    state.set_storage(VALIDATORS, _CHANGES, number)
    for address in sorted(removed):
        _set_membership(state, role, address, Membership(False, number))
    for address in sorted(added):
        _set_membership(state, role, address, Membership(True, number))
    write_addresses(state, VALIDATORS, _SET[role], chosen)
    if role is Role.VALIDATOR:
        state.set_storage(VALIDATORS, _CHANGING, 1)


def _is_set(state: StorageReader, mapping: int, address: bytes) -> bool:
    """The lowest bit of what an address is mapped to: alone in `accounts`, and `member` of a Membership."""
    return state.storage(VALIDATORS, mapping_slot(int.from_bytes(address, "big"), mapping)) & 1 == 1


def _membership_slot(role: Role, address: bytes) -> int:
    return mapping_slot(int.from_bytes(address, "big"), _MEMBERSHIP[role])


def _set_membership(state: Slots, role: Role, address: bytes, value: Membership) -> None:
    state.set_storage(VALIDATORS, _membership_slot(role, address), int(value.member) | value.changed << 8)
