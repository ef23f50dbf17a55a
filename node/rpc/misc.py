"""`web3_` and `net_` methods, and what the rest of `eth_` says about the node itself."""

from typing import Any

from merkle.keccak import keccak256
from node.rpc.hexes import data, quantity
from node.rpc.methods import Kind, Param, rpc
from node.rpc.params import BOOLEAN, DATA, HASH, QUANTITY
from node.rpc.ports import NodePort
from node.rpc.results import PROGRESS, STRING


class NodeMethods:
    """Who this node is, what it speaks, and how far it has come."""

    def __init__(self, node: NodePort) -> None:
        self._node = node

    @rpc("web3_clientVersion", result=STRING)
    def client_version(self) -> str:
        """Name and version of the node's software."""
        return self._node.client_version

    @rpc("web3_sha3", Param("data", DATA, "What to hash."), result=HASH)
    def sha3(self, value: bytes) -> str:
        """The Keccak-256 hash of the data."""
        return data(keccak256(value))

    @rpc("net_version", result=STRING)
    def network_id(self) -> str:
        """The network id, in decimal; the same number as the chain id."""
        return str(self._node.chain.domain.chain_id)

    @rpc("net_listening", result=BOOLEAN)
    def listening(self) -> bool:
        """Whether the node takes connections of peers: always."""
        return True

    @rpc("net_peerCount", result=QUANTITY)
    def peer_count(self) -> str:
        """How many peers are connected."""
        return quantity(len(self._node.peers()))

    @rpc("eth_chainId", result=QUANTITY)
    def chain_id(self) -> str:
        """The chain id that transactions are signed for (EIP-155)."""
        return quantity(self._node.chain.domain.chain_id)

    @rpc("eth_syncing", result=Kind({"oneOf": [{"const": False}, PROGRESS.schema]}))
    def syncing(self) -> Any:
        """False when this node is at the highest height that it knows of, else how far it has come."""
        progress = self._node.syncing()
        if progress is None:
            return False
        return {
            "startingBlock": quantity(progress.starting),
            "currentBlock": quantity(progress.current),
            "highestBlock": quantity(progress.highest),
        }
