"""Puts the methods of one node together."""

from dataclasses import replace
from typing import Any

from node.rpc.admin import AdminMethods
from node.rpc.blocks import Blocks
from node.rpc.dev_accounts import DevAccounts
from node.rpc.discovery import Discovery, group_of
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

OPERATORS_GROUPS = ("admin", "debug", "txpool")  # what stands before the underscore of a method's name
SIGNERS_GROUP = "personal"


class Api:
    """The methods of one node: those of the public listener, and those of the operators', which are all.

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
            AdminMethods(node),
        )
        found = registry(groups)
        for name, method in methods_of(self.subscriptions()).items():
            found[name] = replace(method, handler=_refuse_subscription)
        if not list(accounts):
            found = {name: method for name, method in found.items() if group_of(name) != SIGNERS_GROUP}
        public = {name: method for name, method in found.items() if group_of(name) not in OPERATORS_GROUPS}
        self.methods: dict[str, Method] = public | methods_of(Discovery(public, node.client_version))
        self.operators: dict[str, Method] = found | methods_of(Discovery(found, node.client_version))

    def subscriptions(self) -> Subscriptions:
        """The subscriptions of one more connection."""
        return Subscriptions(self._node, self._blocks, self._limits)

    def close(self) -> None:
        """Wait for the reads that still run."""
        self._blocks.close()


def _refuse_subscription(*_arguments: Any) -> None:
    raise RpcError(METHOD_NOT_FOUND, "notifications not supported: connect by WebSocket to subscribe")
