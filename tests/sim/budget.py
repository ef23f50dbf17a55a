"""How much may be wrong at once: which nodes do not count now, and whether a set of validators can bear that."""

from collections.abc import Iterable
from typing import Protocol

from node.consensus.quorum import quorum, tolerance
from tests.sim.node import Machine
from tests.sim.referee import Referee


class Patients(Protocol):
    """Whose state is looked at."""

    referee: Referee
    machines: list[Machine]


class Budget:
    """`away`: machines that have lost what they knew, and the height at which they count as back.

    Liars, and machines with an old guard, may do anything, and count against f for good.
    """

    def __init__(self, scene: Patients) -> None:
        self._scene = scene
        self.away: dict[int, int] = {}
        self.stale: set[int] = set()
        self.coming: tuple[bytes, ...] | None = None  # the set that is being voted on

    def sick(self) -> set[int]:
        """The indexes of all machines that do not count now."""
        machines = self._scene.machines
        for index, height in list(self.away.items()):
            if self._is_back(machines[index], height):
                del self.away[index]
        return {*self.away, *self._faulty()}

    def bears(self, validators: Iterable[bytes], *more: int) -> bool:
        """Whether a quorum of these is left while what is away is away, and `more` too; and no more than f lie."""
        members, machines = set(validators), self._scene.machines

        def inside(indexes: Iterable[int]) -> int:
            return len({machines[index].key.address for index in indexes} & members)

        count = len(members)
        can_go_on = inside(self.sick() | set(more)) <= count - quorum(count)
        return can_go_on and inside(self._faulty()) <= tolerance(count)

    def may_lose(self, machine: Machine) -> bool:
        """Whether one more node may lose what it knows; if so, it counts until it is back."""
        if not machine.honest or machine.is_gone or machine.index in self.away:
            return False
        if not all(self.bears(each, machine.index) for each in self._sets()):
            return False
        self.away[machine.index] = self._scene.referee.height
        return True

    def may_be_stale(self, machine: Machine) -> bool:
        """Whether one more node may do anything from now on."""
        address = machine.key.address
        for validators in self._sets():
            members = {each.key.address for each in self._machines(self._faulty())} & set(validators)
            if len(members | ({address} & set(validators))) > tolerance(len(validators)):
                return False
        return self.may_lose(machine)

    def _sets(self) -> list[tuple[bytes, ...]]:
        return [self._scene.referee.validators, *([self.coming] if self.coming else [])]

    def _machines(self, indexes: Iterable[int]) -> list[Machine]:
        return [self._scene.machines[index] for index in indexes]

    def _faulty(self) -> set[int]:
        return {machine.index for machine in self._scene.machines if not machine.honest} | self.stale

    def _is_back(self, machine: Machine, height: int) -> bool:
        process = machine.process
        if process is None or process.ledger.head.number < height:
            return False
        status = process.runtime.engine.status()
        is_member = machine.key.address in self._scene.referee.validators
        return status.signs or not (is_member or status.guard_lost)
