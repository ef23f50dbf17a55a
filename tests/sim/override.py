"""A quorum that is lost for good: its machines never return, and the operators of the others name who goes on."""

from random import Random
from typing import Protocol

from node.consensus.messages import Kind, SignedStatement
from node.consensus.override import Override
from node.consensus.quorum import quorum, tolerance
from node.ledger import Ledger
from tests.sim.budget import Budget
from tests.sim.faults import Fault
from tests.sim.foundation import Foundation
from tests.sim.governor import Governor
from tests.sim.network import SimNetwork
from tests.sim.node import Machine
from tests.sim.referee import Referee
from tests.sim.scheduler import Scheduler

PATIENCE_US = 4_000_000  # how long to wait for the worst moment
CLINGS = "clings to what the lost prepared"


class Scene(Protocol):
    """Whose quorum is lost."""

    random: Random
    scheduler: Scheduler
    network: SimNetwork
    referee: Referee
    foundation: Foundation
    machines: list[Machine]
    budget: Budget
    governor: Governor
    lies: dict[int, str]
    is_calm: bool


class QuorumLoss:
    """Waits until a block is being prepared, strikes, and resumes the chain by an override.

    With four validators or more to go on, one of them turns liar, and clings to the block that was being prepared.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._fault: Fault | None = None
        self.prepares: dict[bytes, dict[bytes, SignedStatement]] = {}  # of the next height: by block hash, by signer
        self.happened = False

    def await_moment(self, fault: Fault) -> None:
        """Strike soon: best while votes for a block are under way."""
        self._fault = fault
        self._scene.scheduler.after(PATIENCE_US, self._strike)

    def overhear(self, signer: bytes, signed: SignedStatement) -> None:
        """See a statement leave some node."""
        statement = signed.statement
        if self._fault is None or statement.kind is not Kind.PREPARE or statement.block_hash is None:
            return
        if statement.height != self._scene.referee.height + 1:
            return
        signers = self.prepares.setdefault(statement.block_hash, {})
        signers[signer] = signed
        if len(signers) >= 2 and len(signers) > len(self._scene.referee.validators) // 2:
            self._scene.scheduler.after(self._scene.random.randint(0, 3_000), self._strike)

    def _strike(self) -> None:
        scene, fault = self._scene, self._fault
        if fault is None or scene.is_calm:
            return
        members = [each for each in scene.machines if each.key.address in scene.referee.validators]
        survivors = self._survivors(members)
        if not survivors:
            return
        self._fault, self.happened = None, True
        scene.governor.retire()
        for machine in scene.machines:
            machine.is_gone = not machine.honest or (machine in members and machine not in survivors)
            machine.down_us = scene.random.randint(50_000, 50_000 + fault.for_ms * 1000)
            machine.kill(silently=True)
        scene.network.reset()
        self._resume(survivors)

    def _survivors(self, members: list[Machine]) -> list[Machine]:
        """Some that are no quorum, in good health, of whom one has all that is final; else nobody."""
        scene = self._scene
        sick = scene.budget.sick()
        healthy = [machine for machine in members if machine.honest and machine.index not in sick]
        most = min(len(healthy), quorum(len({each.key.address for each in members})) - 1)
        if most < 1:
            return []
        chosen = scene.random.sample(healthy, most if scene.random.random() < 0.6 else scene.random.randint(1, most))
        highest = max(machine.platter.database.head_height for machine in chosen)
        return chosen if highest >= scene.referee.height else []

    def _resume(self, survivors: list[Machine]) -> None:
        scene = self._scene
        heads = {machine.index: self._look_at(machine) for machine in survivors}  # one may hold what it showed nobody
        head = max(heads.values(), key=lambda ledger: ledger.head.number).head
        others = [machine for machine in scene.machines if not machine.is_gone and machine not in survivors]
        others = [machine for machine in others if machine.index not in scene.budget.sick()]
        chosen = [*survivors, *others[: scene.random.randint(0, len(others))]]
        addresses = tuple(sorted(machine.key.address for machine in chosen))
        override = Override(scene.foundation.domain, head.number, head.hash, addresses)
        for machine in chosen:
            override = override.signed(machine.key)
        for machine in scene.machines:
            machine.overrides = (override,)
        scene.referee.override(addresses)
        faulty = [machine for machine in chosen if machine.key.address in scene.referee.faulty]
        if tolerance(len(chosen)) > len(faulty) and scene.random.random() < 0.7:
            liar = scene.random.choice(survivors)
            liar.honest = False
            scene.referee.faulty.add(liar.key.address)
            scene.lies[liar.index] = CLINGS

    def _look_at(self, machine: Machine) -> Ledger:
        scene, database = self._scene, machine.platter.database
        ledger = Ledger(database, scene.foundation.genesis)
        scene.referee.booted(machine.name, ledger, database.head_height)
        return ledger
