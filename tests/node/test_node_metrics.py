"""What a node notes of its blocks and steps, with a clock in hand."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.chain import keyspace
from node.chain.contracts import elections
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.ballots import pack_record
from node.chain.genesis import Genesis
from node.chain.transaction import sign_transaction
from node.consensus.certificate import Certificate
from node.ledger import Ledger
from node.leveldb import LevelDB
from node.metrics import METRICS, NodeMetrics, count_ballots
from node.p2p.events import PeerInfo
from serving.metrics import Page
from tests.node.conftest import CHAIN_ID, GATEWAY_KEY, VALIDATOR_KEYS
from tests.node.runtime_network import MemoryDatabase, RuntimeNetwork
from tests.rpc.rpc_harness import VALIDATOR_KEYS as RPC_KEYS
from tests.rpc.rpc_harness import LoneNode


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def samples(metrics: NodeMetrics, name: str) -> dict[str, float]:
    """What a histogram of the metrics says: count and sum by label."""
    found = {"steps": metrics._steps, "syncs": metrics.syncs}[name]
    return {label: one.sum for label, one in found}


def test_steps_and_finality_are_timed_from_what_consensus_says() -> None:
    clock = Clock()
    metrics = NodeMetrics(clock)
    for seconds, height, step in (
        (0.0, 7, "waiting"),
        (2.0, 7, "proposed"),
        (0.5, 7, "prepared"),
        (0.25, 7, "decided"),
        (0.125, 8, "waiting"),
    ):
        clock.now_s += seconds
        metrics.progressed(height, step)
        if step == "decided":
            assert metrics.since_proposed_s(7) == 0.75
    assert samples(metrics, "steps") == {"waiting": 2.0, "proposed": 0.5, "prepared": 0.25, "decided": 0.125}
    assert metrics._finality.sum == 0.875
    assert metrics.since_proposed_s(8) is None


def test_a_failed_round_counts_from_the_first_proposal() -> None:
    clock = Clock()
    metrics = NodeMetrics(clock)
    metrics.progressed(7, "waiting")
    metrics.progressed(7, "proposed")
    clock.now_s += 1.0
    metrics.progressed(7, "waiting")  # the next round
    clock.now_s += 1.0
    metrics.progressed(7, "prepared")
    clock.now_s += 1.0
    metrics.progressed(8, "waiting")
    assert metrics._finality.sum == 3.0


def test_heights_that_were_fetched_have_no_finality() -> None:
    clock = Clock()
    metrics = NodeMetrics(clock)
    metrics.progressed(7, "proposed")
    clock.now_s += 1.0
    metrics.progressed(40, "waiting")
    assert metrics._finality.count == 0


def test_ballots_are_counted_by_outcome(genesis: Genesis) -> None:
    ledger = Ledger(MemoryDatabase(), genesis)
    cast = [(1, 0), (2, 1), (1, 0), (1, 1), (3, 9)]  # voter, choice
    packed = [
        pack_record(bytes([voter]) * 32, bytes([at]) * 32, 0, bytes([choice]))
        for at, (voter, choice) in enumerate(cast)
    ]
    calls = (
        elections.ABI.encode_call("create", 1, "E", ["a", "b"], 1, 0, 0, 0, [], bytes(32)),
        elections.ABI.encode_call("castBatch", 1, b"".join(packed)),
        elections.ABI.encode_call("castBatch", 2, packed[0]),  # an election that there is not: reverts
    )
    transactions = [
        sign_transaction(GATEWAY_KEY, chain_id=CHAIN_ID, nonce=nonce, to=ELECTIONS, gas_limit=2_000_000, data=call)
        for nonce, call in enumerate(calls)
    ]
    miner = VALIDATOR_KEYS[1].address
    executed = ledger.build(transactions, miner=miner, timestamp=genesis.timestamp + 1).executed
    assert count_ballots(executed.receipts) == (
        Counter(accepted=2, repeated=1, nullifier_used=1, choice_outside=1),
        0,
    )
    metrics = NodeMetrics()
    certificate = Certificate(1, 2, executed.block.hash, ())
    assert metrics.finalised(executed, certificate, [VALIDATOR_KEYS[2].address]) == (5, 0)
    assert metrics._transactions == {"succeeded": 2, "failed": 1}
    assert metrics._proposals == {"0x" + miner.hex(): 1}
    assert metrics._missing == {"0x" + VALIDATOR_KEYS[2].address.hex(): 1}
    assert metrics._rounds.sum == 3


async def test_a_page_has_all_there_is_to_say(tmp_path: Path) -> None:
    """Every metric has samples, and every outcome stays: counters that vanish look like restarts."""
    node = LoneNode()
    head = node.chain.head
    database = LevelDB(tmp_path / "chain")
    database.write({keyspace.BLOCK + bytes(8): bytes(1000)})
    peer = PeerInfo(RPC_KEYS[1].address, "x", "127.0.0.1:1", "out", 0, 0, 1, 10, 20, 3)
    metrics = NodeMetrics()
    metrics._ballots += Counter(accepted=3)
    metrics.progressed(1, "waiting")
    metrics.progressed(1, "proposed")
    metrics.syncs.observe("block", 0.01)
    metrics.calls.note("eth_call", 0.01)
    page = Page(METRICS)
    await metrics.fill(page, node, [peer], database)
    database.close()
    found = {family.name: family for family in text_string_to_metric_families(page.text().decode())}
    empty = [name for name, family in found.items() if not family.samples]
    assert empty == ["psephos_event_loop_lag_seconds"]  # the listener's own

    def value(name: str, **labels: str) -> float:
        (sample,) = (one for one in found[name].samples if labels.items() <= one.labels.items())
        return float(sample.value)

    assert value("psephos_height") == head.number
    assert value("psephos_validators_within_reach") == 2
    assert value("psephos_quorum") == 2
    assert value("psephos_ballots", outcome="accepted") == 3
    assert value("psephos_ballots", outcome="repeated") == 0
    assert value("psephos_peers", direction="out") == 1
    assert value("psephos_peer_round_trip_seconds") == 0.003
    assert value("psephos_validator_silent_seconds") == pytest.approx(0.25, abs=0.2)
    assert value("psephos_info", kind="node", address="0x" + node.address.hex()) == 1


@pytest.fixture
def positions(genesis: Genesis, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """Where one runtime of a network says that it is, from the beginning."""
    from node import runtime

    told: list[tuple[int, int, str]] = []
    real = runtime.Runtime.__init__

    def listening(self: runtime.Runtime, **ports: object) -> None:
        if ports["key"] is VALIDATOR_KEYS[0]:
            ports["on_progress"] = lambda *position: told.append(position)
        real(self, **ports)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime.Runtime, "__init__", listening)
    return told


async def test_a_runtime_tells_each_step_once_and_in_order(
    genesis: Genesis, positions: list[tuple[int, int, str]]
) -> None:
    network = RuntimeNetwork(genesis, VALIDATOR_KEYS)
    network.start()
    assert await network.run(lambda: all(node.height >= 3 for node in network.nodes.values()))
    assert [height for height, _, step in positions if step == "decided"][:3] == [1, 2, 3]
    assert positions == sorted(positions, key=lambda one: one[:2])
    assert all(one != other for one, other in pairwise(positions))
