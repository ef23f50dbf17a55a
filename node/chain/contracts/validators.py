"""The Validators contract: who decides the next height, who may cast and anchor, and what genesis agreed on.

Storage, in Solidity's layout:

    slot 0  address[] validators      the set that decided this height
    slot 1  address[] nextValidators  the set that decides the next height
    slot 2  address[] gateways
    slot 3  mapping(address => uint256) gatewayPosition   1-based; 0 for everybody else
    slot 4  uint256 chainId
    slot 5  uint256 blockBytesMax
    slot 6  bool anyoneCreatesElections
"""

from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.context import Call
from node.chain.contracts.contract import NativeContract, load_abi
from node.chain.contracts.layout import Slots, mapping_slot, read_addresses, write_addresses

_CURRENT, _NEXT, _GATEWAYS, _GATEWAY_POSITION, _CHAIN_ID, _BLOCK_BYTES_MAX, _ANYONE_CREATES = range(7)
_VIEW_GAS = 5_000

ABI = load_abi("Validators")


def initialise(
    state: Slots,
    *,
    validators: tuple[bytes, ...],
    gateways: tuple[bytes, ...],
    chain_id: int,
    block_bytes_max: int,
    anyone_creates_elections: bool,
) -> None:
    """Write the storage of block 0, so that its state root commits to all of this."""
    write_addresses(state, VALIDATORS, _CURRENT, validators)
    write_addresses(state, VALIDATORS, _NEXT, validators)
    write_addresses(state, VALIDATORS, _GATEWAYS, gateways)
    for position, gateway in enumerate(gateways, 1):
        state.set_storage(VALIDATORS, mapping_slot(int.from_bytes(gateway, "big"), _GATEWAY_POSITION), position)
    state.set_storage(VALIDATORS, _CHAIN_ID, chain_id)
    state.set_storage(VALIDATORS, _BLOCK_BYTES_MAX, block_bytes_max)
    state.set_storage(VALIDATORS, _ANYONE_CREATES, int(anyone_creates_elections))


def current_validators(state: Slots) -> tuple[bytes, ...]:
    """The set that decided this height, ascending."""
    return read_addresses(state, VALIDATORS, _CURRENT)


def next_validators(state: Slots) -> tuple[bytes, ...]:
    """The set that decides the next height, ascending."""
    return read_addresses(state, VALIDATORS, _NEXT)


def gateways(state: Slots) -> tuple[bytes, ...]:
    """The gateways, ascending."""
    return read_addresses(state, VALIDATORS, _GATEWAYS)


def is_gateway(state: Slots, address: bytes) -> bool:
    """Whether `address` may anchor, and cast where an election lists no registrars."""
    return state.storage(VALIDATORS, mapping_slot(int.from_bytes(address, "big"), _GATEWAY_POSITION)) != 0


def anyone_creates_elections(state: Slots) -> bool:
    """Whether genesis lets every account create elections."""
    return state.storage(VALIDATORS, _ANYONE_CREATES) != 0


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
    return (call.block.state.storage(VALIDATORS, _CHAIN_ID),)


CONTRACT = NativeContract(
    ABI,
    VALIDATORS,
    {
        "validators": ABI.bind("validators", _VIEW_GAS, _validators),
        "nextValidators": ABI.bind("nextValidators", _VIEW_GAS, _next_validators),
        "gateways": ABI.bind("gateways", _VIEW_GAS, _gateways),
        "isValidator": ABI.bind("isValidator", _VIEW_GAS, _is_validator),
        "isGateway": ABI.bind("isGateway", _VIEW_GAS, _is_gateway),
        "chainId": ABI.bind("chainId", _VIEW_GAS, _chain_id),
    },
)
