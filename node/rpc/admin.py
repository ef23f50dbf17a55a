"""`admin_` methods: who this node is and whom it is connected to, in geth's shapes."""

from node.rpc.hexes import data
from node.rpc.methods import Kind, rpc
from node.rpc.params import ADDRESS, HASH
from node.rpc.ports import NodePort
from node.rpc.results import STRING, list_of, record
from node.rpc.views import View

_NUMBER = Kind({"type": "integer", "minimum": 0})
_CHAIN = record("chain", network=_NUMBER, genesis=HASH, head=HASH, height=_NUMBER)
_NODE = record("node", id=ADDRESS, name=STRING, moniker=STRING, protocols=record("protocols", psephos=_CHAIN))
_PEER = record("peer", id=ADDRESS, name=STRING, network=record("connection", remoteAddress=STRING))


class AdminMethods:
    """What an operator asks of a running node; nothing here changes it."""

    def __init__(self, node: NodePort) -> None:
        self._node = node

    @rpc("admin_nodeInfo", result=_NODE)
    def node_info(self) -> View:
        """This node: its address, its software, its name, and the chain that it is on."""
        chain = self._node.chain
        network = {
            "network": chain.domain.chain_id,
            "genesis": data(chain.domain.genesis_hash),
            "head": data(chain.head.hash),
            "height": chain.head.number,
        }
        return {
            "id": data(self._node.address),
            "name": self._node.client_version,
            "moniker": self._node.name,
            "protocols": {"psephos": network},
        }

    @rpc("admin_peers", result=list_of(_PEER))
    def peers(self) -> list[View]:
        """The peers that are connected now: address, name and where they are."""
        return [
            {"id": data(peer.address), "name": peer.name, "network": {"remoteAddress": peer.endpoint}}
            for peer in self._node.peers()
        ]
