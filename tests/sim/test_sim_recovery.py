"""After the longest outage, the next block comes within three base timeouts of everyone's reaching everyone again."""

import pytest

from tests.sim.faults import Fault, Plan
from tests.sim.world import World

OUTAGE_MS = 200_000
BASE_TIMEOUTS_US = 3 * 1_000_000


def _plan(nodes: int, kind: str) -> Plan:
    side = tuple(range((nodes + 1) // 2)) if kind == "partition" else tuple(range(nodes))
    return Plan(
        seed=nodes,
        nodes=nodes,
        faulty_ms=OUTAGE_MS,
        faults=[Fault(kind, 1_500, side, 2 * OUTAGE_MS)],  # it ends when the run calms down
        skews_s=[0.0] * nodes,
        rates=[1.0] * nodes,
        sync_us=[1_000] * nodes,
        ballots_max=40,
    )


@pytest.mark.parametrize("nodes", range(2, 8))
@pytest.mark.parametrize("kind", ["shatter", "all lose power", "partition"])
def test_the_next_block_comes_soon_after_a_long_outage(nodes: int, kind: str) -> None:
    world = World(_plan(nodes, kind))
    world.run()
    assert world.whole_us is not None
    assert world.next_block_us is not None
    assert world.next_block_us - world.whole_us <= BASE_TIMEOUTS_US
