"""Which processes of a network are disturbed, when and for how long: a plan, the same for the same seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cluster.network import ClusterError, Network

Action = Literal["kill", "stop", "pause"]  # SIGKILL; SIGTERM and its end; SIGSTOP. Each is undone when the fault ends


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of fault: what is done to whom, and for how many seconds."""

    action: Action
    of: Literal["validator", "gateway", "bootnode"]
    everyone: bool
    lasts_s: tuple[float, float]
    weight: float
    meaning: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "kill": Kind("kill", "validator", False, (0.0, 8.0), 4, "SIGKILL of a validator"),
        "pause": Kind("pause", "validator", False, (0.3, 9.0), 3, "SIGSTOP of a validator, longer than peers wait"),
        "restart": Kind("stop", "validator", False, (0.0, 2.0), 1, "SIGTERM of a validator"),
        "blackout": Kind("kill", "validator", True, (0.0, 3.0), 1, "SIGKILL of all validators at once"),
        "gateway": Kind("kill", "gateway", False, (0.0, 3.0), 2, "SIGKILL of the gateway"),
        "gateway-pause": Kind("pause", "gateway", False, (0.3, 4.0), 1, "SIGSTOP of the gateway"),
        "bootnode": Kind("kill", "bootnode", False, (0.0, 15.0), 1, "SIGKILL of the bootnode"),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """From `at_s` on, `action` is done to `targets`; after `lasts_s` seconds it is undone."""

    kind: str
    action: Action
    targets: tuple[str, ...]
    at_s: float
    lasts_s: float

    @property
    def ends_s(self) -> float:
        """When it is undone."""
        return self.at_s + self.lasts_s


def parse_kinds(text: str) -> tuple[str, ...]:
    """The kinds of a list such as `kill,pause`. Raises ClusterError that names what there is."""
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ClusterError(f"--faults {text}: expected some of {', '.join(KINDS)}, with commas between them")
    return kinds


def draw_plan(seed: int, duration_s: float, kinds: Sequence[str], network: Network, *, every_s: float) -> list[Fault]:
    """Faults over `duration_s` seconds, about one each `every_s`, none on a process that another one holds.

    Several validators may be down together: below a quorum the network must wait, and lose nothing.
    """
    dice = random.Random(f"faults {seed}")  # nosec B311 # no secret: the same seed, the same faults
    weights = [KINDS[kind].weight for kind in kinds]
    free_at: dict[str, float] = {process.name: 0.0 for process in network}
    plan: list[Fault] = []
    at_s = 0.0

    def add(name: str, targets: Sequence[str], begins_s: float, lasts_s: float) -> bool:
        fits = bool(targets) and begins_s + lasts_s <= duration_s
        if not fits or any(free_at[target] > begins_s for target in targets):
            return False
        plan.append(Fault(name, KINDS[name].action, tuple(targets), round(begins_s, 3), round(lasts_s, 3)))
        for target in targets:
            free_at[target] = begins_s + lasts_s + 0.5  # a process that has just come back may begin something
        return True

    while (at_s := at_s + dice.expovariate(1 / every_s)) <= duration_s:
        (name,) = dice.choices(kinds, weights)
        candidates = [process.name for process in network.of_kind(KINDS[name].of)]
        targets = candidates if KINDS[name].everyone or not candidates else [dice.choice(candidates)]
        added = add(name, targets, at_s, dice.uniform(*KINDS[name].lasts_s))
        if added and name == "blackout" and "gateway" in kinds:
            # The hardest moment of all: what a gateway acknowledges now is nowhere but in its journal.
            gateways = [process.name for process in network.of_kind("gateway")]
            add("gateway", gateways, at_s + dice.uniform(0.5, 2.0), dice.uniform(*KINDS["gateway"].lasts_s))
    return sorted(plan, key=lambda fault: fault.at_s)
