"""Puts the methods of one node together."""

from dataclasses import replace
from typing import Any

from node.rpc.blocks import Blocks
from node.rpc.dev_accounts import DevAccounts
from node.rpc.discovery import Discovery
from node.rpc.eth_blocks import BlockMethods
from node.rpc.eth_state import StateMethods
from node.rpc.filters import LogMethods
from node.rpc.jsonrpc import METHOD_NOT_FOUND, RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Method, methods_of, registry
from node.rpc.misc import NodeMethods
from node.rpc.poa import PoaMethods
from node.rpc.poa_history import HistoryMethods
from node.rpc.poa_logs import ProofMethods
from node.rpc.ports import NodePort
from node.rpc.raw import RawMethods
from node.rpc.signing import SigningMethods
from node.rpc.subscriptions import Subscriptions
from node.rpc.transactions import TransactionMethods
from node.rpc.txpool import MempoolMethods


class Api:
    """The methods that anybody who reaches the node may call.

    Args:
        accounts: what the node signs with for its callers; empty outside of development networks.
    """

    def __init__(self, node: NodePort, limits: Limits, accounts: DevAccounts) -> None:
        self._node = node
        self._limits = limits
        self._blocks = Blocks(node.chain, limits)
        blocks = self._blocks
        state = StateMethods(node, blocks, limits)
        groups = (
            NodeMethods(node),
            BlockMethods(node, blocks),
            RawMethods(node, blocks),
            state,
            TransactionMethods(node),
            SigningMethods(node, accounts, state),
            LogMethods(node, blocks, limits),
            PoaMethods(node, blocks, limits),
            HistoryMethods(node, blocks, limits),
            ProofMethods(node, blocks),
            MempoolMethods(node),
        )
        self.methods: dict[str, Method] = registry(groups)
        for name, method in methods_of(self.subscriptions()).items():
            self.methods[name] = replace(method, handler=_refuse_subscription)
        self.methods |= methods_of(Discovery(self.methods, node.client_version))

    def subscriptions(self) -> Subscriptions:
        """The subscriptions of one more connection."""
        return Subscriptions(self._node, self._blocks, self._limits)

    def close(self) -> None:
        """Wait for the reads that still run."""
        self._blocks.close()


def _refuse_subscription(*_arguments: Any) -> None:
    raise RpcError(METHOD_NOT_FOUND, "notifications not supported: connect by WebSocket to subscribe")
