"""Networks of engines under faults drawn from a seed: one hash per height always, and progress once the faults end."""

import itertools

import pytest

from node.consensus.events import PeerConnected, PeerGone, Tick, WorkChanged
from node.consensus.quorum import crash_tolerance, quorum

from .conftest import Network, Node


def chaos(network: Network, duration_ms: int) -> None:
    """Loss, duplication, delay, cuts of every shape, crashes at each durable point, drawn from the seed."""
    draw = network.random
    network.loss = draw.choice([0.0, 0.02, 0.2])
    network.duplication = draw.choice([0.0, 0.1])
    network.crash_rate = draw.choice([0.0, 0.002, 0.02])
    network.delay_ms = draw.choice([2, 20, 120])
    end_ms = network.now_ms + duration_ms
    while network.now_ms < end_ms:
        event = draw.random()
        if event < 0.3:
            pairs = list(itertools.permutations(range(len(network.nodes)), 2))
            network.cuts = {pair for pair in pairs if draw.random() < 0.3}
        elif event < 0.5:
            side = {i for i in range(len(network.nodes)) if draw.random() < 0.5}
            pairs = list(itertools.permutations(range(len(network.nodes)), 2))
            network.cuts = {(a, b) for a, b in pairs if (a in side) != (b in side)}
        elif event < 0.7:
            network.cuts = set()
        elif event < 0.8:
            for node in network.nodes:
                if node.engine is not None and draw.random() < 0.5:
                    network.crash(node)
        network.run(draw.randint(1, 400))


@pytest.mark.parametrize("block_of_seeds", range(8))
def test_no_fork_under_faults_and_progress_after_them(block_of_seeds: int) -> None:
    for seed in range(block_of_seeds * 16, block_of_seeds * 16 + 16):
        network = Network(1 + seed % 7, seed)
        network.start()
        chaos(network, 4_000)
        network.heal()
        target = max(network.heights()) + 3
        assert network.run(8_000, network.all_reach(target)), f"seed {seed}: {network.heights()}, not {target}"
        assert not any(node.evidence for node in network.nodes), f"seed {seed}: correct nodes accused"


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
def test_goes_on_with_as_many_crashed_as_it_tolerates_and_cheaply(count: int) -> None:
    network = Network(count, seed=count)
    network.start()
    assert network.run(2_000, network.all_reach(3))
    for node in network.nodes[: crash_tolerance(count)]:
        network.crash(node, down_ms=10**9)
    alive = network.nodes[crash_tolerance(count) :]
    began_ms, height = network.now_ms, alive[0].head.number
    assert network.run(30_000, lambda: min(node.head.number for node in alive) >= height + 2 * count)
    # Each dead proposer's turn costs its short timer and a round change, never a whole round timeout.
    turns = 2 * crash_tolerance(count)
    assert network.now_ms - began_ms < 2 * count * 150 + turns * 2 * 120 + network.policy.round_timeout_ms


def test_waits_below_a_quorum_and_goes_on_at_once_when_it_is_back() -> None:
    for count in range(2, 8):
        network = Network(count, seed=count)
        network.start()
        assert network.run(2_000, network.all_reach(2))
        down = network.nodes[quorum(count) - 1 :]
        for node in down:
            network.crash(node, down_ms=10**9)
        network.run(1_000)
        heights = network.heights()
        network.run(120_000)
        assert network.heights() == heights, "decided without a quorum"
        back = down[0]
        network.restart(back)
        alive = [node for node in network.nodes if node.engine is not None]
        target = max(heights) + 1
        waited_ms = 3 * network.policy.round_timeout_ms
        assert network.run(waited_ms, lambda: min(n.head.number for n in alive) >= target), f"n = {count}"  # noqa: B023


def test_a_split_without_quorum_on_either_side_heals_within_three_timeouts() -> None:
    network = Network(4, seed=1)
    network.start()
    assert network.run(2_000, network.all_reach(2))
    network.cuts = {(a, b) for a in range(4) for b in range(4) if (a < 2) != (b < 2)}
    for a, b in network.cuts:
        network.nodes[a].step(PeerGone(network.nodes[b].key.address))
    network.run(600_000)
    height = max(network.heights())
    assert max(rounds(network)) <= 3, "rounds ran away though no quorum was there to see them"
    network.heal()
    assert network.run(3 * network.policy.round_timeout_ms, network.all_reach(height + 1))


def rounds(network: Network) -> list[int]:
    return [node.engine.status().round for node in network.nodes if node.engine is not None]


def test_an_isolated_validator_catches_up_and_signs_again() -> None:
    network = Network(4, seed=5)
    network.start()
    network.cuts = {(3, i) for i in range(3)} | {(i, 3) for i in range(3)}
    assert network.run(20_000, lambda: network.heights()[0] >= 30)
    network.heal()
    assert network.run(5_000, lambda: network.heights()[3] >= network.heights()[0] - 1)
    network.crash(network.nodes[0], down_ms=10**9)  # now the others need it
    height = max(network.heights())
    assert network.run(5_000, lambda: min(network.heights()[1:]) >= height + 3)


def test_power_loss_of_all_nodes_at_once() -> None:
    for seed in range(20):
        network = Network(1 + seed % 5, seed)
        network.start()
        for _ in range(5):
            network.run(network.random.randint(50, 700))
            for node in network.nodes:
                if node.engine is not None:
                    network.crash(node, down_ms=network.random.randint(1, 500))
        network.run(1_000)
        network.heal()
        target = max(network.heights()) + 2
        assert network.run(4_000, network.all_reach(target)), f"seed {seed}"


def test_an_idle_network_makes_only_empty_blocks_and_work_makes_one_soon() -> None:
    network = Network(4, seed=3)
    network.has_work = False
    network.start()
    network.run(5_000)
    assert 8 <= max(network.heights()) <= 10  # one each half second
    assert rounds(network) == [0, 0, 0, 0]
    network.run(600, until=lambda: False)
    height, began_ms = max(network.heights()), network.now_ms
    network.has_work = True
    for node in network.nodes:
        node.step(WorkChanged(True))
    assert network.run(1_000, network.all_reach(height + 1))
    assert network.now_ms - began_ms <= 200


def test_a_silent_proposer_costs_a_timeout_once_and_a_short_one_from_then_on() -> None:
    network = Network(4, seed=4)
    network.start()
    network.cuts = {(0, i) for i in range(1, 4)} | {(i, 0) for i in range(1, 4)}  # paused: connected, and silent
    others = network.nodes[1:]
    passed: list[int] = []

    def reached(height: int) -> bool:
        return network.run(5_000, lambda: min(node.head.number for node in others) >= height)

    for height in range(1, 13):
        began_ms = network.now_ms
        assert reached(height)
        if height % 4 == 0:  # validator 0 proposes it in round 0
            passed.append(network.now_ms - began_ms)
    assert passed[0] >= network.policy.round_timeout_ms
    assert all(duration < 200 for duration in passed[1:]), passed


def test_the_same_seed_runs_the_same_way() -> None:
    def trace(seed: int) -> list[tuple[int, bytes]]:
        network = Network(4, seed)
        network.start()
        chaos(network, 2_000)
        return sorted(network.final.items())

    assert trace(11) == trace(11)


def test_stale_ticks_are_harmless() -> None:
    network = Network(4, seed=6)
    network.start()
    for _ in range(300):
        network.run(10)
        for node in network.nodes:
            node.step(Tick())
            node.step(PeerConnected(network.nodes[0].key.address) if node.index else Tick())
    assert min(network.heights()) > 15


def test_observers_follow_and_never_sign() -> None:
    network = Network(4, seed=7)
    observer = Observer(network)
    network.nodes.append(observer)
    network.start()
    assert network.run(5_000, lambda: observer.head.number >= 10)
    assert not any(address == observer.key.address for address, *_ in network.signed)


class Observer(Node):
    """A node without an address, which the validators send to as to each other."""

    def __init__(self, network: Network) -> None:
        from node.chain.signing import SigningKey

        network.council.keys.append(SigningKey(b"\x77" * 32))
        super().__init__(network, len(network.nodes))

    def start(self) -> None:
        from node.consensus.engine import Engine
        from node.consensus.events import Head

        network = self.network
        head = Head(self.head, network.council.validators)
        self.engine = Engine(
            domain=network.council.domain, address=None, policy=network.policy, guard=None, head=head, now_ms=0
        )
