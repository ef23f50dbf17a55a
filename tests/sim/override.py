"""A quorum that is lost for good: its machines never return, and the operators of the others name who goes on."""

from random import Random
from typing import Protocol

from node.chain.block import Block
from node.consensus.messages import Kind, SignedStatement
from node.consensus.override import Override
from node.consensus.quorum import proposed_by_round, quorum, tolerance
from node.ledger import Ledger
from tests.sim.budget import Budget
from tests.sim.faults import Fault
from tests.sim.foundation import RUN_KEYS, Foundation
from tests.sim.governor import Governor
from tests.sim.network import SimNetwork
from tests.sim.node import Machine
from tests.sim.referee import Referee
from tests.sim.scheduler import Scheduler

PATIENCE_US = 4_000_000  # how long to wait for the worst moment
DRAWS = 30  # of survivors, from which to choose those to whom the most harm can be done
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
    proposed: dict[bytes, Block]
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
        self._scene.scheduler.after(PATIENCE_US, lambda: self._strike(at_last=True))

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

    def _strike(self, *, at_last: bool = False) -> None:
        scene, fault = self._scene, self._fault
        if fault is None or scene.is_calm:
            return
        members = [each for each in scene.machines if each.key.address in scene.referee.validators]
        survivors = self._survivors(members)
        if not survivors or not (at_last or tolerance(len(survivors)) == 0 or self._could_bind(survivors)):
            return
        self._fault, self.happened = None, True
        liar = None
        if tolerance(len(survivors)) > 0 and scene.random.random() < 0.8:
            liar = scene.random.choice(survivors)
        scene.governor.retire()
        for machine in scene.machines:
            machine.is_gone = not machine.honest or (machine in members and machine not in survivors)
            machine.down_us = scene.random.randint(50_000, 50_000 + fault.for_ms * 1000)
            if machine is liar:
                machine.down_us = 1  # it is there before anyone else
            machine.kill(silently=True)
        scene.network.reset()
        self._resume(survivors)
        if liar is not None:
            liar.honest = False
            scene.referee.faulty.add(liar.key.address)
            scene.lies[liar.index] = CLINGS

    def _survivors(self, members: list[Machine]) -> list[Machine]:
        """Some that are no quorum, in good health, of whom one has all that is final; else nobody."""
        scene = self._scene
        sick = scene.budget.sick()
        healthy = [machine for machine in members if machine.honest and machine.index not in sick]
        most = min(len(healthy), quorum(len({each.key.address for each in members})) - 1)
        if most < 1:
            return []
        size = most if scene.random.random() < 0.6 else scene.random.randint(1, most)
        highest = max(machine.platter.database.head_height for machine in healthy)
        draws = [scene.random.sample(healthy, size) for _ in range(DRAWS)]
        draws = [draw for draw in draws if any(each.platter.database.head_height == highest for each in draw)]
        if not draws or highest < scene.referee.height:
            return []
        return next((draw for draw in draws if self._could_bind(draw)), draws[0])

    def _could_bind(self, machines: list[Machine]) -> bool:
        """Whether the votes of these, and a lie of one, would prove as prepared what the lost were preparing."""
        validators = sorted(machine.key.address for machine in machines)
        for block_hash, votes in self.prepares.items():
            block, round_ = self._scene.proposed.get(block_hash), min(vote.statement.round for vote in votes.values())
            signers = [each for each in validators if each in votes and votes[each].statement.round == round_]
            enough = tolerance(len(validators)) > 0 and len(signers) + 1 >= quorum(len(validators))
            if block is not None and enough and block.number == self._scene.referee.height + 1:
                return proposed_by_round(validators, block.header.miner, block.number, round_)
        return False

    def _resume(self, survivors: list[Machine]) -> None:
        scene = self._scene
        heads = {machine.index: self._look_at(machine) for machine in survivors}  # one may hold what it showed nobody
        head = max(heads.values(), key=lambda ledger: ledger.head.number).head
        others = [machine for machine in scene.machines if not machine.is_gone and machine not in survivors]
        others = [machine for machine in others if machine.index not in scene.budget.sick()]
        if self._could_bind(survivors):
            others = []
        chosen = [*survivors, *others[: scene.random.randint(0, len(others))]]
        addresses = tuple(sorted(machine.key.address for machine in chosen))
        override = Override(scene.foundation.domain, head.number, head.hash, addresses)
        for machine in chosen:
            override = override.signed(machine.key)
        for machine in scene.machines:
            machine.overrides = (override,)
        scene.referee.override(addresses)

    def _look_at(self, machine: Machine) -> Ledger:
        scene, database = self._scene, machine.platter.database
        ledger = Ledger(database, scene.foundation.genesis, run_keys=RUN_KEYS)
        scene.referee.booted(machine.name, ledger, database.head_height)
        return ledger
