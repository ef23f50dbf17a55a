"""`eth_sendRawTransaction`: the way in for signed transactions, many of one batch at once."""

from collections.abc import Sequence

from node.chain.errors import InvalidTransaction
from node.rpc.hexes import data
from node.rpc.methods import Param, rpc
from node.rpc.params import DATA, HASH
from node.rpc.ports import NodePort


class TransactionMethods:
    """Sending transactions that their senders have signed."""

    def __init__(self, node: NodePort) -> None:
        self._node = node

    @rpc("eth_sendRawTransaction", Param("transaction", DATA, "The signed bytes."), result=HASH, bulk="send_many")
    async def send(self, raw: bytes) -> object:
        """Take a signed transaction into the mempool; the answer is its hash."""
        return (await self.send_many([[raw]]))[0]

    async def send_many(self, calls: Sequence[Sequence[bytes]]) -> list[str | InvalidTransaction]:
        """All of one batch, handed on as one list: their signatures are then recovered together."""
        outcomes = await self._node.submit([raw for (raw,) in calls])
        return [data(outcome) if isinstance(outcome, bytes) else outcome for outcome in outcomes]
