"""What goes wrong in one run: a plan drawn from the seed, in which every fault can be left out on its own."""

from dataclasses import dataclass, field, replace
from random import Random

from node.consensus.quorum import quorum, tolerance
from tests.sim.network import Weather

NODES_WEIGHTS = {1: 1, 2: 1, 3: 4, 4: 5, 5: 2, 6: 2, 7: 2}
LIES = ("twin", "forgetful twin", "equivocate", "bad justification", "replay", "foreign", "bad blocks")
NODES_MAX = 7
CHANGES = ("set change", "quorum lost")
HEAVY = ("wipe", "lose guard", "stale guard")  # at most n - quorum nodes at a time, until they are back


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at `at_ms` and, where it lasts, for `for_ms`. `nodes` are indexes of machines."""

    kind: str
    at_ms: int
    nodes: tuple[int, ...] = ()
    for_ms: int = 0
    amount: int = 0

    def __str__(self) -> str:
        parts = [f"{self.at_ms} ms {self.kind}"]
        if self.nodes:
            parts.append("of " + ",".join(map(str, self.nodes)))
        if self.for_ms:
            parts.append(f"for {self.for_ms} ms")
        if self.amount:
            parts.append(f"({self.amount})")
        return " ".join(parts)


@dataclass
class Plan:
    """A whole run: how many nodes, who lies, what the weather is like, which faults come when."""

    seed: int
    nodes: int
    faulty_ms: int
    weather: Weather = field(default_factory=Weather)
    liars: dict[int, str] = field(default_factory=dict)  # machine index → lie
    faults: list[Fault] = field(default_factory=list)
    skews_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sync_us: list[int] = field(default_factory=list)
    ballots_max: int = 12
    candidates: int = 0  # machines beyond `nodes` that follow as observers, and may be made validators
    empty_candidates: bool = False  # they begin with an empty disk

    @property
    def machines(self) -> int:
        """How many machines there are, without twins."""
        return self.nodes + self.candidates


def draw_plan(seed: int, *, nodes: int | None = None, twins: bool = False) -> Plan:
    """The plan of a seed. `nodes` and `twins` overrule what the seed would choose."""
    random, changes = Random(f"plan {seed}"), Random(f"changes {seed}")
    drawn = random.choices(list(NODES_WEIGHTS), list(NODES_WEIGHTS.values()))[0]
    loses_quorum = changes.random() < 0.15
    if loses_quorum and changes.random() < 0.5:
        drawn = NODES_MAX  # the only size of which survivors that are no quorum can bear a liar
    count = nodes or (max(4, drawn) if twins else drawn)
    plan = Plan(seed, count, faulty_ms=random.choice((4_000, 8_000, 12_000, 20_000)))
    plan.weather = _weather(random, Random(f"steps {seed}"))
    plan.skews_s = [random.choice((0.0, random.uniform(-3, 3), random.uniform(-40, 40))) for _ in range(count)]
    plan.rates = [random.choice((1.0, random.uniform(0.9, 1.1))) for _ in range(count)]
    plan.sync_us = [random.choice((500, 2_000, 20_000)) for _ in range(count)]
    plan.ballots_max = random.choice((6, 12, 20))
    if tolerance(count) and (twins or random.random() < 0.5):
        for liar in random.sample(range(count), random.randint(1, tolerance(count))):
            plan.liars[liar] = random.choice(LIES[:2]) if twins else random.choice(LIES)
    kinds = random.sample(sorted(_DRAW), random.randint(1, len(_DRAW)))  # a seed has some kinds and not others
    for _ in range(random.choice((0, 2, 4, 8, 16))):
        kind = random.choice(kinds)
        if count == quorum(count) and kind in HEAVY:
            continue
        plan.faults.append(_fault(random, kind, plan))
    _draw_changes(changes, plan, loses_quorum=loses_quorum)
    plan.faults.sort(key=lambda fault: fault.at_ms)
    return plan


def _draw_changes(random: Random, plan: Plan, *, loses_quorum: bool) -> None:
    """Votes on the set of validators in half of the runs, and in some a quorum that is lost for good."""
    if random.random() < 0.5:
        plan.candidates = random.randint(0, min(2, NODES_MAX - plan.nodes))
        plan.empty_candidates = random.random() < 0.5
        for _ in range(random.choice((1, 2, 4, 8))):
            at_ms = random.randint(0, plan.faulty_ms)
            plan.faults.append(Fault("set change", at_ms, (0,), amount=random.randint(1, 12)))
        for _ in range(random.choice((0, 0, 1, 2)) if plan.candidates else 0):
            kind = random.choice(("kill", "isolate", "pause", "crash at disk operation", "slow", "lose guard"))
            fault = _fault(random, kind, plan)
            plan.faults.append(replace(fault, nodes=(plan.nodes + random.randrange(plan.candidates),)))
    if loses_quorum and plan.nodes >= 2:
        at_ms = random.randint(0, plan.faulty_ms * 3 // 4)
        plan.faults.append(Fault("quorum lost", at_ms, (0,), 50 + random.randint(0, 3_000), random.randint(1, 12)))
    count = plan.candidates
    plan.skews_s += [random.choice((0.0, random.uniform(-3, 3))) for _ in range(count)]
    plan.rates += [random.choice((1.0, random.uniform(0.9, 1.1))) for _ in range(count)]
    plan.sync_us += [random.choice((500, 2_000, 20_000)) for _ in range(count)]


def _weather(random: Random, by_step: Random) -> Weather:
    return Weather(
        loss=random.choice((0.0, 0.0, 0.01, 0.1, 0.3)),
        duplication=random.choice((0.0, 0.05, 0.3)),
        delay_us=random.choice((300, 1_000, 5_000, 40_000)),
        spike=random.choice((0.0, 0.0, 0.01)),
        in_order=random.random() < 0.5,
        prepare_loss=by_step.choice((0.0, 0.0, 0.0, 0.0, 0.3)),
        commit_loss=by_step.choice((0.0, 0.0, 0.0, 0.0, 0.5, 0.9)),
    )


def _fault(random: Random, kind: str, plan: Plan) -> Fault:
    at_ms = random.randint(0, plan.faulty_ms)
    low_ms, high_ms, how_many = _DRAW[kind]
    for_ms = int(low_ms * (high_ms / low_ms) ** random.random()) if low_ms else 0
    everyone = list(range(plan.nodes))
    random.shuffle(everyone)
    count = {"one": 1, "two": min(2, plan.nodes), "some": random.randint(1, plan.nodes), "all": plan.nodes}[how_many]
    return Fault(kind, at_ms, tuple(everyone[:count]), for_ms, random.randint(1, 12))


# kind → (least and longest duration in ms, how many nodes)
_DRAW: dict[str, tuple[int, int, str]] = {
    "kill": (1, 3_000, "one"),
    "power loss": (50, 8_000, "one"),
    "all lose power": (50, 3_000, "all"),
    "crash at disk operation": (1, 2_000, "one"),  # `amount`: the how-manieth
    "restart storm": (20, 500, "some"),
    "partition": (100, 12_000, "some"),  # `nodes` on one side
    "shatter": (100, 8_000, "all"),  # everyone alone
    "one-way cut": (100, 8_000, "two"),
    "isolate": (3_000, 30_000, "one"),
    "pause": (50, 9_000, "one"),
    "slow": (200, 6_000, "one"),
    "clock jump": (0, 0, "one"),  # `amount`: seconds, forth or back
    "disk full": (100, 4_000, "one"),
    "failing sync": (0, 0, "one"),
    "wipe": (10, 1_000, "one"),
    "lose guard": (10, 1_000, "one"),
    "stale guard": (10, 1_000, "one"),
    "client crash": (0, 0, "one"),
}
