"""Puts the methods of one node together."""

from node.rpc.blocks import Blocks
from node.rpc.eth_blocks import BlockMethods
from node.rpc.eth_state import StateMethods
from node.rpc.filters import LogMethods
from node.rpc.limits import Limits
from node.rpc.methods import Method, registry
from node.rpc.misc import NodeMethods
from node.rpc.poa import PoaMethods
from node.rpc.poa_logs import ProofMethods
from node.rpc.ports import NodePort
from node.rpc.transactions import TransactionMethods
from node.rpc.txpool import MempoolMethods


def public_methods(node: NodePort, limits: Limits) -> dict[str, Method]:
    """The methods that anybody who reaches the node may call, by name."""
    blocks = Blocks(node.chain, limits)
    groups = (
        NodeMethods(node),
        BlockMethods(node, blocks),
        StateMethods(node, blocks, limits),
        TransactionMethods(node),
        LogMethods(node, blocks, limits),
        PoaMethods(node, blocks, limits),
        ProofMethods(node, blocks),
        MempoolMethods(node),
    )
    return registry(groups)
