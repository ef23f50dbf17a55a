"""One run: a network of whole nodes, the plan's faults, and at the end the proof that it comes together again."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from random import Random
from unittest.mock import patch

from merkle import patricia, trienode
from merkle.trienode import Node
from node import runtime
from node.chain import signing
from node.chain.block import Block
from node.consensus.guard import create_records
from node.consensus.messages import Kind, Message, Recover, SignedStatement, Statement
from node.runtime import Peers
from tests.sim.budget import Budget
from tests.sim.byzantine import Liar
from tests.sim.client import Client
from tests.sim.clock import Clock
from tests.sim.disk import Platter, SimDatabase
from tests.sim.faults import Plan
from tests.sim.foundation import GATEWAY_KEYS, Foundation, foundation
from tests.sim.governor import Governor
from tests.sim.injector import Injector
from tests.sim.network import SimNetwork, Weather
from tests.sim.node import Machine, Process
from tests.sim.override import QuorumLoss
from tests.sim.referee import Referee, Violation
from tests.sim.scheduler import Scheduler

TOGETHER_US = 60_000_000  # within this, once the faults have stopped, all heads are equal and advancing
QUORUM_BACK_US = 8_000_000 + 3_500_000  # the longest timer that may run when all is whole again, and a round
LOOK_US = 50_000
WORK_WAITS_US = 2_500_000  # half an empty interval, and enough for rounds of proposers that are gone
OVERHEARD_MAX = 200
EVENTS_MAX = 600_000
CALM = Weather(delay_us=300)


@lru_cache(maxsize=200_000)
def _recover(digest: bytes, signature: bytes) -> bytes:
    return signing.recover(digest, signature)


def recover(digest: bytes, signature: bytes) -> bytes:
    """`node.chain.signing.recover`, remembered across nodes and runs."""
    return _recover(digest, signature)


@lru_cache(maxsize=50_000)
def _decode_node(data: bytes) -> Node:
    return trienode.decode(data)


def decode_node(data: bytes) -> Node:
    """`merkle.trienode.decode`, remembered likewise; a branch is the caller's own to change."""
    node = _decode_node(data)
    return list(node) if isinstance(node, list) else node


@contextmanager
def _remembering() -> Iterator[None]:
    """While this lasts, what is a function of its arguments alone is worked out once for all nodes."""
    with (
        patch.object(runtime, "recover", recover),
        patch.object(patricia, "decode", decode_node),
        patch.object(Statement, "digest", lru_cache(maxsize=10_000)(Statement.digest)),
    ):
        yield


class World:
    """A network in one process and one thread; everything random in it comes from the plan's seed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(f"world {plan.seed}")
        self.scheduler = Scheduler()
        self.recover: Recover = recover
        self.senders: dict[bytes, bytes] = {}
        self.overheard: list[tuple[bytes, bytes]] = []  # (signer, payload), for those who play them back
        self.round_changes: dict[tuple[int, int], dict[bytes, SignedStatement]] = {}  # by (height, round), by signer
        self.foundation: Foundation = foundation(plan.nodes, plan.candidates)
        self.proposed: dict[bytes, Block] = {}
        self._has_replayer = "replay" in plan.liars.values()
        self.network = SimNetwork(self.scheduler, self.random, plan.weather)
        validators = self.foundation.genesis.validators
        self.referee = Referee(self.foundation.domain, validators, self.foundation.blocks, recover)
        self.lies = dict(plan.liars)
        self.machines = [self._machine(index, of=index) for index in range(plan.machines)]
        for index, lie in sorted(plan.liars.items()):
            self._make_liar(self.machines[index], lie)
        self.clients = [self._client(number) for number in range(len(GATEWAY_KEYS))]
        self.budget = Budget(self)
        self.governor = Governor(self, self.budget)
        self.quorum_loss = QuorumLoss(self)
        self.injector = Injector(self)
        self.is_calm = False
        self.together = False
        self._waits: tuple[int, int] | None = None  # since when every node has work, and the height then
        self._all_sign = False
        self._calm_us = 0
        self._calm_height = 0
        self.whole_us: int | None = None  # when everyone could reach everyone, after the faults
        self._whole_height = 0
        self.next_block_us: int | None = None  # when the first block after the faults was seen

    def _machine(self, index: int, *, of: int, name: str = "") -> Machine:
        key, plan = self.foundation.keys[of], self.plan
        clock = Clock(self.scheduler, rate=plan.rates[of], skew_s=plan.skews_s[of])
        is_empty = index >= plan.nodes and of == index and plan.empty_candidates
        image = {} if is_empty else self.foundation.image
        platter = Platter(SimDatabase(image), create_records(self.foundation.domain, key.address))
        machine = Machine(self, index, name or f"node {index}", key, platter, clock)
        machine.sync_us = plan.sync_us[of]
        return machine

    def _make_liar(self, machine: Machine, lie: str) -> None:
        machine.honest = False
        self.referee.faulty.add(machine.key.address)
        if "twin" in lie:
            twin = self._machine(len(self.machines), of=machine.index, name=f"twin of {machine.name}")
            twin.honest = False
            self.machines.append(twin)

    def _client(self, number: int) -> Client:
        return Client(
            GATEWAY_KEYS[number],
            self.scheduler,
            self.random,
            self.referee,
            self.honest_processes,
            ballots_max=self.plan.ballots_max,
            interval_us=self.random.choice((50_000, 200_000, 600_000)),
        )

    # -- what the others ask -------------------------------------------------------------------------------------

    def honest_processes(self) -> list[Process]:
        """Those that run now, of machines that do not lie."""
        return [machine.process for machine in self.machines if machine.honest and machine.process is not None]

    def wrap_peers(self, process: Process, peers: Peers) -> Peers:
        """The port through which a process speaks; a liar's has a mind of its own."""
        lie = self.lies.get(process.machine.index)
        return peers if lie is None or "twin" in lie else Liar(self, process, peers, lie)

    def overhear(self, payload: bytes, signer: bytes, message: Message) -> None:
        """Consensus messages are no secret. Of ROUND-CHANGEs, those that carry nothing serve a liar best."""
        signed, block = message.signed, message.attachments.block
        if block is not None:
            self.proposed[block.hash] = block
        statement = signed.statement
        self.quorum_loss.overhear(signer, signed)
        if statement.kind is Kind.ROUND_CHANGE and statement.block_hash is None:
            self.round_changes.setdefault((statement.height, statement.round), {})[signer] = signed
        if self._has_replayer and (len(self.overheard) < OVERHEARD_MAX or self.random.random() < 0.05):
            self.overheard.append((signer, payload))
            if len(self.overheard) > OVERHEARD_MAX:
                self.overheard.pop(self.random.randrange(len(self.overheard)))

    def died(self, machine: Machine) -> None:
        """A process has ended: somebody starts another, as compose and systemd do."""
        self.scheduler.after(machine.down_us, lambda: self._start_again(machine))

    def _start_again(self, machine: Machine) -> None:
        if machine.honest or not self.is_calm:
            machine.start()

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play the plan to its end. Raises Violation."""
        with _remembering():
            for machine in self.machines:
                self.scheduler.after(self.random.randint(0, 300_000), machine.start)
            for client in self.clients:
                client.start()
            self.injector.start()
            self.governor.start()
            self.scheduler.after(self.plan.faulty_ms * 1000, self._calm_down)
            for _ in range(EVENTS_MAX):
                if not self.scheduler.run_next() or self.together:
                    break
            else:
                raise Violation("liveness", f"no end after {EVENTS_MAX} events, {self._describe()}")
        for process in self.honest_processes():
            self.referee.audit(process.machine.name, process.ledger, process.machine.platter.database.image())

    def _calm_down(self) -> None:
        """From now on nothing goes wrong, and the liars are gone."""
        self.is_calm = True
        self._calm_us, self._calm_height = self.scheduler.now_us, self.referee.height
        self.network.weather = CALM
        self.injector.stop()
        self.network.reset()
        for machine in self.machines:
            machine.calm_down()
            if machine.honest:
                machine.start()
            else:
                machine.kill()
        self.scheduler.after(LOOK_US, self._look)

    def _look(self) -> None:
        """Judge how things come together; `together` once they have."""
        now_us, height = self.scheduler.now_us, self.referee.height
        if now_us - self._calm_us > TOGETHER_US:
            raise Violation("liveness", f"not together after {TOGETHER_US // 1_000_000} s: {self._describe()}")
        processes = self.honest_processes()
        everyone = sum(machine.honest and not machine.is_gone for machine in self.machines)
        if self.next_block_us is None and height > self._calm_height:
            self.next_block_us = now_us
        if self.whole_us is None and len(processes) == everyone and self.network.is_whole():
            self.whole_us, self._whole_height = now_us, height
            self._all_sign = self._do_all_sign(processes)
            self.clients[0].cast_another()
        self._check_work(processes, now_us, height)
        waited_us = 0 if self.whole_us is None or height > self._whole_height else now_us - self.whole_us
        if waited_us > QUORUM_BACK_US and self._all_sign:
            raise Violation(
                "recovery", f"no block {QUORUM_BACK_US // 1_000_000} s after all is whole: {self._describe()}"
            )
        if not self._is_together(processes, everyone):
            self.scheduler.after(LOOK_US, self._look)

    def _check_work(self, processes: list[Process], now_us: int, height: int) -> None:
        """Once all goes its way again, a transaction that every node holds does not wait for the next empty block."""
        settled = self.whole_us is not None and self._all_sign and height > self._whole_height
        waits = settled and all(_has_executable(process) for process in processes)
        if self._waits is None or not waits or self._waits[1] != height:
            self._waits = (now_us, height) if waits else None
        elif now_us - self._waits[0] > WORK_WAITS_US:
            raise Violation("work is done at once", f"it waited {WORK_WAITS_US // 1000} ms: {self._describe()}")

    def _is_together(self, processes: list[Process], everyone: int) -> bool:
        height = self.referee.height
        self.together = (
            self.whole_us is not None
            and len(processes) == everyone
            and height > self._calm_height + 1
            and all(client.is_done for client in self.clients)
            and all(process.ledger.head.number == height for process in processes)
            and self._do_all_sign(processes)
            and self.governor.is_done
        )
        return self.together

    def _do_all_sign(self, processes: list[Process]) -> bool:
        members = [process for process in processes if process.address in self.referee.validators]
        return all(process.runtime.engine.status().signs for process in members)

    def _describe(self) -> str:
        heads = [
            f"{process.machine.name}: head {process.ledger.head.number}, {process.describe()}"
            for process in self.honest_processes()
        ]
        owed = [f"{len(client.owed)} owed, {len(client.in_flight)} in flight" for client in self.clients]
        return "; ".join([*heads, *owed])


def _has_executable(process: Process) -> bool:
    mempool, state = process.runtime.mempool, process.runtime.intake.state()
    return bool(mempool.select(gas_max=10**9, bytes_max=10**6, next_nonce=state.nonce))
