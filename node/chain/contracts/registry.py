"""The native contracts by address, and what they do when a block ends."""

from collections.abc import Sequence

from node.chain.contracts import anchors, ballots, validators
from node.chain.contracts.context import BlockContext
from node.chain.contracts.contract import NativeContract

CONTRACTS: dict[bytes, NativeContract] = {
    contract.address: contract for contract in (ballots.CONTRACT, anchors.CONTRACT, validators.CONTRACT)
}


def begin_block(block: BlockContext, override: Sequence[bytes] | None) -> None:
    """Let the set chosen for this height decide it; where operators' override applies, the set that it names."""
    if override is None:
        validators.begin_block(block.state)
    else:
        validators.override_validators(block.state, override)


def end_block(block: BlockContext) -> None:
    """Write, once for the whole block, the nodes and the root of each log that it appended to."""
    if block.appended:
        anchors.end_block(block)
        ballots.end_block(block)
