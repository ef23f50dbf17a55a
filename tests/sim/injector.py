"""Makes the plan's faults happen, and undoes what is left of them when the run calms down."""

from collections.abc import Callable
from random import Random
from typing import Protocol

from tests.sim.budget import Budget
from tests.sim.client import Client
from tests.sim.disk import SimDatabase
from tests.sim.faults import Fault, Plan
from tests.sim.governor import Governor
from tests.sim.network import Link, SimNetwork
from tests.sim.node import Machine
from tests.sim.override import QuorumLoss
from tests.sim.referee import Referee
from tests.sim.scheduler import Scheduler

SNAPSHOT_US = 700_000
SNAPSHOTS_MAX = 8
SLOW_COST_US = 8_000
SLOW_SYNC_US = 120_000


class Scene(Protocol):
    """What faults happen to."""

    plan: Plan
    random: Random
    scheduler: Scheduler
    network: SimNetwork
    referee: Referee
    machines: list[Machine]
    clients: list[Client]
    budget: Budget
    governor: Governor
    quorum_loss: QuorumLoss


class Injector:
    """One run's faults. Those of HEAVY are left out while too many nodes are not back from one."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._undo: list[Callable[[], None]] = []
        self._old_guards: dict[int, list[bytes]] = {}
        self._stopped = False
        self._deeds: dict[str, Callable[[Fault, Machine], None]] = {
            "kill": self._kill,
            "power loss": self._kill,
            "all lose power": self._all_lose_power,
            "crash at disk operation": self._crash_at_operation,
            "restart storm": self._storm,
            "partition": self._partition,
            "isolate": self._partition,
            "shatter": self._shatter,
            "one-way cut": self._one_way,
            "pause": self._pause,
            "slow": self._slow,
            "clock jump": self._jump,
            "disk full": self._disk_full,
            "failing sync": self._failing_sync,
            "wipe": self._wipe,
            "lose guard": self._lose_guard,
            "stale guard": self._stale_guard,
            "client crash": self._client_crash,
            "set change": self._change_set,
            "quorum lost": self._lose_quorum,
        }

    def start(self) -> None:
        """Have every fault of the plan happen in its time."""
        for fault in self._scene.plan.faults:
            self._scene.scheduler.after(fault.at_ms * 1000, lambda fault=fault: self._happen(fault))  # type: ignore[misc]
        self._scene.scheduler.after(SNAPSHOT_US, self._snapshot)

    def stop(self) -> None:
        """Nothing more happens, and what lasts ends now."""
        self._stopped = True
        for undo in list(self._undo):
            undo()

    def _happen(self, fault: Fault) -> None:
        if not self._stopped:
            self._deeds[fault.kind](fault, self._scene.machines[fault.nodes[0]])

    def _until(self, fault: Fault, undo: Callable[[], None]) -> None:
        """Call `undo` when the fault is over, or when everything is."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                undo()

        self._undo.append(once)
        self._scene.scheduler.after(fault.for_ms * 1000, once)

    # -- processes -----------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault, machine: Machine) -> None:
        machine.down_us = fault.for_ms * 1000
        machine.kill(silently=fault.kind == "power loss")

    def _all_lose_power(self, fault: Fault, _machine: Machine) -> None:
        for machine in self._scene.machines:
            machine.down_us = int(fault.for_ms * 1000 * self._scene.random.uniform(0.5, 1.5))
            machine.kill(silently=True)

    def _crash_at_operation(self, fault: Fault, machine: Machine) -> None:
        machine.down_us = fault.for_ms * 1000
        machine.crash_in = fault.amount

    def _storm(self, fault: Fault, _machine: Machine) -> None:
        for index in fault.nodes:
            for time in range(fault.amount):
                delay_us = int(fault.for_ms * 1000 * (time + self._scene.random.random()))
                self._scene.scheduler.after(delay_us, lambda index=index: self._storm_one(index))  # type: ignore[misc]

    def _storm_one(self, index: int) -> None:
        if not self._stopped:
            machine = self._scene.machines[index]
            machine.down_us = self._scene.random.randint(1_000, 200_000)
            machine.kill()

    def _pause(self, fault: Fault, machine: Machine) -> None:
        process = machine.process
        if process is not None and not process.is_paused:
            process.pause()
            self._until(fault, process.resume)

    def _slow(self, fault: Fault, machine: Machine) -> None:
        before = machine.cost_us, machine.sync_us
        machine.cost_us, machine.sync_us = SLOW_COST_US, SLOW_SYNC_US

        def undo() -> None:
            machine.cost_us, machine.sync_us = before

        self._until(fault, undo)

    def _jump(self, fault: Fault, machine: Machine) -> None:
        machine.clock.skew_s += self._scene.random.choice((-1, 1)) * fault.amount * self._scene.random.choice((1, 10))

    def _client_crash(self, fault: Fault, _machine: Machine) -> None:
        self._scene.clients[fault.amount % len(self._scene.clients)].crash()

    def _change_set(self, _fault: Fault, _machine: Machine) -> None:
        self._scene.governor.ask()

    def _lose_quorum(self, fault: Fault, _machine: Machine) -> None:
        self._scene.quorum_loss.await_moment(fault)

    # -- links ---------------------------------------------------------------------------------------------------

    def _partition(self, fault: Fault, _machine: Machine) -> None:
        indexes = [machine.index for machine in self._scene.machines]
        inside = [index for index in indexes if index in fault.nodes]
        outside = [index for index in indexes if index not in fault.nodes]
        self._cut(fault, [pair for a in inside for b in outside for pair in ((a, b), (b, a))])

    def _shatter(self, fault: Fault, _machine: Machine) -> None:
        indexes = [machine.index for machine in self._scene.machines]
        self._cut(fault, [(a, b) for a in indexes for b in indexes if a != b])

    def _one_way(self, fault: Fault, _machine: Machine) -> None:
        self._cut(fault, [(fault.nodes[0], fault.nodes[-1])])

    def _cut(self, fault: Fault, links: list[Link]) -> None:
        self._scene.network.cut(links)
        self._until(fault, lambda: self._scene.network.heal(links))

    # -- disks ---------------------------------------------------------------------------------------------------

    def _disk_full(self, fault: Fault, machine: Machine) -> None:
        machine.platter.is_full = True
        machine.down_us = self._scene.random.randint(50_000, 500_000)

        def undo() -> None:
            machine.platter.is_full = False

        self._until(fault, undo)

    def _failing_sync(self, _fault: Fault, machine: Machine) -> None:
        machine.platter.fails_next = True
        machine.down_us = self._scene.random.randint(50_000, 2_000_000)

    def _wipe(self, fault: Fault, machine: Machine) -> None:
        if self._scene.budget.may_lose(machine):
            self._kill(fault, machine)
            machine.platter.database = SimDatabase()

    def _lose_guard(self, fault: Fault, machine: Machine) -> None:
        if self._scene.budget.may_lose(machine):
            self._kill(fault, machine)
            machine.platter.replace_guard(None)
            if fault.amount % 3 == 0:
                machine.platter.database = SimDatabase()

    def _stale_guard(self, fault: Fault, machine: Machine) -> None:
        """An old copy of the guard is put back. Until it is noticed the node may do anything, so f bounds these."""
        scene, old = self._scene, self._old_guards.get(machine.index)
        if old and scene.budget.may_be_stale(machine):
            scene.budget.stale.add(machine.index)
            scene.referee.faulty.add(machine.key.address)
            self._kill(fault, machine)
            machine.platter.replace_guard(scene.random.choice(old))

    def _snapshot(self) -> None:
        for machine in self._scene.machines:
            old = self._old_guards.setdefault(machine.index, [])
            if machine.platter.guard is not None:
                old.append(machine.platter.guard)
                del old[:-SNAPSHOTS_MAX]
        if not self._stopped:
            self._scene.scheduler.after(SNAPSHOT_US, self._snapshot)
