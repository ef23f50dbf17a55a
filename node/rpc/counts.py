"""How many ballots and anchors are final: read from the contracts' storage once, then followed block by block."""

from node.chain.contracts import anchors, elections
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.layout import data_slot
from node.chain.receipt import EMPTY_BLOOM
from node.chain.state import State
from node.rpc.pacing import Pace
from node.rpc.ports import Chain

_BALLOTS_CAST = elections.ABI.events["BallotsCast"].id
_COUNT = slice(32, 64)  # of the event's data: first index, count, outcomes


class RecordCounts:
    """The sum of all elections' log sizes. No contract keeps it, and it is asked for every second."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._height = -1
        self._ballots = 0

    async def ballots(self) -> int:
        """Ballots in all elections, at the head or a few blocks before it."""
        pace = Pace()
        if self._height < 0:
            header = self._chain.head
            total = await self._stored(State(self._chain, header.state_root), pace)
            if self._height < 0:  # nobody else has finished counting meanwhile
                self._height, self._ballots = header.number, total
        while self._height < self._chain.head.number:
            # Counted and noted without a pause between, so that two callers at once count nothing twice.
            self._ballots += self._cast_in(self._height + 1)
            self._height += 1
            await pace.breathe()
        return self._ballots

    def anchors(self) -> int:
        """Anchors at the head."""
        return State(self._chain, self._chain.head.state_root).storage(ANCHORS, anchors.SIZE_SLOT)

    async def _stored(self, state: State, pace: Pace) -> int:
        total = 0
        first = data_slot(elections.IDS_SLOT)
        for position in range(state.storage(ELECTIONS, elections.IDS_SLOT)):
            size_slot, _ = elections.log_slots(state.storage(ELECTIONS, first + position))
            total += state.storage(ELECTIONS, size_slot)
            await pace.breathe()
        return total

    def _cast_in(self, height: int) -> int:
        header = self._chain.header(height)
        if header is None or header.logs_bloom == EMPTY_BLOOM:
            return 0
        return sum(
            int.from_bytes(log.data[_COUNT], "big")
            for receipt in self._chain.receipts(height) or ()
            for log in receipt.event_logs
            if log.address == ELECTIONS and log.topics[0] == _BALLOTS_CAST
        )
