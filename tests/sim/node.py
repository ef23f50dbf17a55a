"""A validator's machine, and the process on it: the real node behind simulated ports, wired as `service` does."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from node import payloads
from node.chain.contracts.members import is_gateway
from node.chain.errors import InvalidSignature, InvalidTransaction, PeerError
from node.chain.mempool import MempoolLimits
from node.chain.outcome import Executed
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction
from node.consensus import events as consensus
from node.consensus.certificate import Certificate
from node.consensus.codec import decode_message
from node.consensus.evidence import Evidence
from node.consensus.guard import GuardCorrupt, GuardState, create_records, replay
from node.consensus.messages import Kind as Step
from node.consensus.messages import Message, Recover, Statement, authenticate
from node.consensus.override import Override
from node.gossip import ANNOUNCE_AFTER_S, GOSSIP_AFTER_S, Gossip, Messages
from node.inbox import WOKEN, Inbox, InboxFull
from node.intake import GarbledTransaction
from node.ledger import Ledger
from node.p2p.events import PeerEvent, Received
from node.p2p.kinds import Kind
from node.runtime import Peers, Runtime
from tests.sim.clock import Clock
from tests.sim.disk import DiskFailed, Platter, SimDisk
from tests.sim.foundation import RUN_KEYS, Foundation
from tests.sim.network import SimNetwork, SimPeers
from tests.sim.referee import Referee, Violation
from tests.sim.scheduler import Scheduler, Timer
from tests.sim.tasks import Resume, Suspension, Task

CLOCK_DRIFT_MAX_S = 15
SPINS_MAX = 2_000  # wakes in one simulated second; more is a node that never sleeps
EARLY_FEW = 8  # so many statements of heights to come are kept of any sender
LIMITS = MempoolLimits(transactions_max=500)


def read_height(payload: bytes) -> int:
    """The height in an encoded consensus message: [[step, height, …], …] in msgpack, and no simulated one is large."""
    first = payload[3]
    return first if first < 0x80 else payload[4] if first == 0xCC else int.from_bytes(payload[4:6], "big")


class Surroundings(Protocol):
    """What machines share."""

    scheduler: Scheduler
    random: Random
    network: SimNetwork
    referee: Referee
    foundation: Foundation
    senders: dict[bytes, bytes]
    recover: Recover

    def wrap_peers(self, process: "Process", peers: Peers) -> Peers: ...

    def overhear(self, payload: bytes, signer: bytes, message: Message) -> None: ...

    def died(self, machine: "Machine") -> None: ...


class Machine:
    """What outlives a process: key, disk, clocks. `honest` False: nothing it says is held against the protocol."""

    def __init__(
        self, world: Surroundings, index: int, name: str, key: SigningKey, platter: Platter, clock: Clock
    ) -> None:
        self.world = world
        self.index = index
        self.name = name
        self.key = key
        self.platter = platter
        self.clock = clock
        self.honest = True
        self.policy = consensus.Policy()
        self.cost_us = 100  # of handling one event
        self.sync_us = 2_000  # of one sync, about
        self.overrides: tuple[Override, ...] = ()
        self.is_gone = False  # for good
        self.down_us = 500_000  # how long it takes until a process that has died is started again
        self.crash_in = 0  # at the how-manieth disk operation from now the process dies; 0: at none
        self.process: Process | None = None
        self.starts = 0

    def start(self) -> None:
        """Boot a process from what the disk holds, unless one runs."""
        if self.process is None and not self.is_gone:
            self.starts += 1
            self.process = Process(self)
            self.world.network.join(self.process)
            self.process.wake()

    def calm_down(self) -> None:
        """Nothing is wrong with this machine any more."""
        self.crash_in, self.cost_us, self.sync_us, self.down_us = 0, 100, 1_000, 1_000
        self.platter.is_full = self.platter.fails_next = False
        self.clock.skew_s = 0.0

    def kill(self, *, silently: bool = False) -> None:
        """End the process where it stands. `silently`: the machine loses power, so that no peer is told."""
        if self.process is not None:
            process, self.process = self.process, None
            self.world.network.leave(process, silently=silently)
            process.end()
            self.world.died(self)
        if silently:
            self.platter.lose_power(self.world.random)


class Process:
    """One run of the node, from boot to its end."""

    def __init__(self, machine: Machine) -> None:
        world = machine.world
        self.machine = machine
        self.machine_index = machine.index
        self.address = machine.key.address
        self.is_running = True
        self.is_paused = False
        self._world = world
        self._inbox = Inbox()
        self._tasks: list[Task] = []
        self._is_busy = False
        self._pump_due: Timer | None = None
        self._alarm: Timer | None = None
        self._spins = (0, 0)  # (simulated second, wakes in it)
        self._early: dict[int, list[tuple[bytes, Statement]]] = {}  # of heights to come: sender and statement
        database, genesis = machine.platter.database, world.foundation.genesis
        self.ledger = Ledger(database, genesis, machine.overrides, run_keys=RUN_KEYS)
        self._warming = self.ledger.warm()
        if machine.honest:
            world.referee.booted(machine.name, self.ledger, database.head_height)
        guard = self._open_guard()
        self._noted, self._noted_bytes = self._replay_durable()
        self._noted_file = machine.platter.guard_files
        self.disk = SimDisk(
            machine.platter,
            world.scheduler,
            world.random,
            sync_us=lambda: int(world.random.expovariate(1.0) * machine.sync_us) + 50,
            on_operation=self._on_operation,
            die=self._die,
            guard_state=lambda: guard,
        )
        self.runtime = Runtime(
            ledger=self.ledger,
            key=machine.key,
            guard=guard,
            policy=machine.policy,
            mempool_limits=LIMITS,
            disk=self.disk,
            peers=world.wrap_peers(self, SimPeers(world.network, self, self._watch, self._on_drop)),
            now_ms=machine.clock.now_ms,
            wall_clock_s=machine.clock.wall_s,
            clock_drift_max_s=CLOCK_DRIFT_MAX_S,
            recover_senders=self._recover_senders,
            on_final=self._on_final,
            on_added=self._on_added,
            on_evidence=self._on_evidence,
        )
        runtime = self.runtime
        self._gossip = Gossip(runtime.mempool, is_gateway=lambda address: is_gateway(runtime.intake.state(), address))
        self._inbox.wake()

    def _open_guard(self) -> GuardState:
        """As `GuardFile` does: a missing file is a lost guard, a torn tail is cut, and what was read is synced."""
        platter, domain = self.machine.platter, self._world.foundation.domain
        guard = platter.guard
        if guard is None:
            guard = create_records(domain, self.address, lost=True)
            platter.replace_guard(guard)
        try:
            state, whole_bytes = replay(guard, domain, self.address)
        except GuardCorrupt as error:
            raise Violation("the guard can be read", f"{self.machine.name}: {error}") from None
        platter.guard = guard[:whole_bytes]
        platter.sync()
        return state

    def _replay_durable(self) -> tuple[GuardState, int]:
        return replay(self.machine.platter.durable_guard, self._world.foundation.domain, self.address)

    # -- life ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The process is gone, with all that was not synced."""
        self.is_running = False
        self.disk.crash()
        for timer in (self._pump_due, self._alarm):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True
        self._world.network.paused(self)

    def resume(self) -> None:
        """SIGCONT."""
        self.is_paused = False
        self.wake()

    def hear(self, event: PeerEvent) -> None:
        """What the network tells."""
        if not self.is_running:
            return
        try:
            if isinstance(event, Received) and event.kind is Kind.TRANSACTIONS:
                self.submit(payloads.unpack_transactions(event.payload), lambda _outcomes: None, from_client=False)
            else:
                self._inbox.put(event)
                self.wake()
        except (InboxFull, PeerError):
            return

    def describe(self) -> str:
        """What the engine is doing, for a failure's text."""
        status = self.runtime.engine.status()
        return (
            f"height {status.height} round {status.round} {status.step}, prepared {status.prepared_round}, "
            f"signs {status.signs}, lost {status.guard_lost}, floor {status.guard_floor}, mempool "
            f"{len(self.runtime.mempool)}, peers {len(self._world.network.peers_of(self))}"
        )

    def submit(
        self,
        raws: Sequence[bytes],
        answer: Callable[[list[bytes | InvalidTransaction]], None],
        *,
        from_client: bool = True,
    ) -> None:
        """Hand in raw transactions; `answer` gets a hash or a refusal for each, unless the process dies before."""
        self._spawn(self.runtime.intake.submit(raws, from_client=from_client), answer)

    def wake(self) -> None:
        """Something waits: go on as soon as the present event is done."""
        if self.is_running and not self._is_busy and self._pump_due is None:
            self._pump_due = self._world.scheduler.after(self.machine.cost_us, self._pump)

    def _pump(self) -> None:
        self._pump_due = None
        if self.is_paused or not self.is_running:
            return
        deadline_ms = self.runtime.deadline_ms()
        is_late = deadline_ms is not None and self.machine.clock.now_ms() >= deadline_ms
        event = self._inbox.take(is_late=is_late)
        if event is None:
            if deadline_ms is not None:
                self._set_alarm(self.machine.clock.until_us(deadline_ms))
            return
        if event is WOKEN and is_late:
            self._count_spin()
        self._is_busy = True
        if isinstance(event, Received) and event.kind is Kind.CONSENSUS and self.machine.honest:
            self._note_early(event)
        height = self.runtime.engine.height
        self._spawn(self.runtime.handle(event), lambda _result: self._handled(height))

    def _handled(self, height: int) -> None:
        self._is_busy = False
        next(self._warming, None)
        if self.runtime.engine.height != height:
            self._check_early()
        self.wake()

    def _note_early(self, event: Received) -> None:
        """Remember what honest senders say of the next heights; a message of the present one costs nothing here."""
        ahead = read_height(event.payload) - self.runtime.engine.height
        if 0 < ahead <= self.machine.policy.future_heights_max and event.peer not in self._world.referee.faulty:
            message = decode_message(event.payload)
            if authenticate(self._world.foundation.domain, message, self._world.recover) == event.peer:
                self._early.setdefault(message.statement.height, []).append((event.peer, message.statement))

    def _check_early(self) -> None:
        """Once the height has come, its validators' statements are known; those of others bind nobody."""
        engine = self.runtime.engine
        for height in [height for height in self._early if height <= engine.height]:
            early = self._early.pop(height)
            validators = self.ledger.validators(height)
            for sender, statement in early if height == engine.height and not self.machine.overrides else ():
                few = sum(each == sender for each, _ in early) <= EARLY_FEW
                if few and sender in validators and not engine.knows(statement, sender):
                    raise Violation("what comes early is kept", f"{self.machine.name} has forgotten {statement}")

    def _set_alarm(self, delay_us: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._world.scheduler.after(delay_us, self.wake)

    def _count_spin(self) -> None:
        second = self._world.scheduler.now_us // 1_000_000
        self._spins = (second, self._spins[1] + 1 if self._spins[0] == second else 1)
        if self._spins[1] > SPINS_MAX:
            raise Violation("a node sleeps", f"{self.machine.name} woke {SPINS_MAX} times in second {second}")

    def _spawn(self, coroutine: Any, answer: Callable[[Any], None]) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            self._tasks.remove(task)
            if isinstance(error, DiskFailed):
                self._die()
            elif isinstance(error, GarbledTransaction):
                raise Violation("honest peers are kept", f"{self.machine.name} was sent no transaction: {error}")
            elif error is not None:
                raise error
            else:
                answer(result)

        task = Task(coroutine, done)
        self._tasks.append(task)
        task.start()

    def _die(self) -> None:
        if self.machine.process is self:
            self.machine.kill()

    def _on_operation(self) -> bool:
        machine = self.machine
        if machine.crash_in:
            machine.crash_in -= 1
            return machine.crash_in == 0
        return False

    # -- what the runtime tells ----------------------------------------------------------------------------------

    def _watch(self, kind: Kind, payload: bytes) -> None:
        """See what leaves this node before it does."""
        database = self.machine.platter.database
        if kind is Kind.STATUS and self.machine.honest:
            height, _ = payloads.unpack_status(payload)
            if height > database.head_height:
                raise Violation("durable before shown", f"{self.machine.name} tells of {height} before it is synced")
        elif kind is Kind.CONSENSUS:
            self._watch_message(decode_message(payload), payload)

    def _on_drop(self, peer: bytes, reason: str) -> None:
        """Nobody who is merely slow or unlucky deserves it; late answers are the exception."""
        if self.machine.honest and peer not in self._world.referee.faulty and "did not answer" not in reason:
            raise Violation("honest peers are kept", f"{self.machine.name} drops 0x{peer.hex()}: {reason}")

    def _watch_message(self, message: Message, payload: bytes) -> None:
        referee, statement = self._world.referee, message.statement
        try:
            signer = message.signed.signer(self._world.foundation.domain, self._world.recover)
        except InvalidSignature:
            return  # a liar's
        self._world.overhear(payload, signer, message)
        referee.said(signer, statement, message.attachments.block)
        if self.machine.honest and signer == self.address and signer not in referee.faulty:
            if statement.kind is Step.PROPOSAL:
                referee.proposes(self.machine.name, statement, message.attachments.round_changes)
            noted = self._noted_state()
            is_noted = noted.covers(statement) or noted.has_signed(statement)
            durable_height = self.machine.platter.database.head_height
            referee.signed(self.machine.name, signer, statement, durable_height, is_noted=is_noted)

    def _noted_state(self) -> GuardState:
        """The guard's state as a restart would find it now, even after power was lost."""
        platter = self.machine.platter
        if self._noted_file != platter.guard_files:
            self._noted_file = platter.guard_files
            self._noted, self._noted_bytes = self._replay_durable()
        elif platter.synced_bytes > self._noted_bytes:
            news = platter.durable_guard[self._noted_bytes :]
            domain = self._world.foundation.domain
            self._noted, _ = replay(self._noted.snapshot_records() + news, domain, self.address)
            self._noted_bytes = platter.synced_bytes
        return self._noted

    def _on_final(self, executed: Executed, certificate: Certificate) -> None:
        if self.machine.honest:
            durable_height = self.machine.platter.database.head_height
            self._world.referee.final(
                self.machine.name, self.ledger, durable_height, executed.block, executed.receipts, certificate
            )

    def _on_evidence(self, evidence: Evidence) -> None:
        if self.machine.honest:
            self._world.referee.accused(self.machine.name, evidence.validator)
        self.ledger.keep_evidence(evidence)

    def _on_added(self, transactions: list[Transaction], from_client: bool) -> None:
        if not self.runtime.has_work:
            self._inbox.wake()
            self.wake()
        if not from_client:
            return
        is_to_send, is_to_announce = self._gossip.put(transactions)
        if is_to_send:
            self._world.scheduler.after(int(GOSSIP_AFTER_S * 1e6), lambda: self._tell_peers(self._gossip.send()))
        if is_to_announce:
            self._world.scheduler.after(int(ANNOUNCE_AFTER_S * 1e6), lambda: self._tell_peers(self._gossip.announce()))

    def _tell_peers(self, messages: Messages) -> None:
        if self.is_running:
            for kind, payload in messages:
                self._world.network.transmit(self, None, kind, payload)

    async def _recover_senders(self, transactions: Sequence[Transaction]) -> None:
        """Senders verified anywhere are known everywhere; now and then it takes a while, as in a thread."""
        unknown = [transaction for transaction in transactions if not transaction.is_sender_known]
        if unknown and self._world.random.random() < 0.1:
            delay_us = self._world.random.randint(0, 5_000)
            await Suspension(lambda resume: self._later(delay_us, resume))
        senders = self._world.senders
        for transaction in unknown:
            sender = senders.get(transaction.hash)
            if sender is not None:
                transaction.remember_sender(sender)
                continue
            try:
                senders[transaction.hash] = transaction.sender
            except InvalidTransaction:
                continue

    def _later(self, delay_us: int, resume: Resume) -> None:
        self._world.scheduler.after(delay_us, lambda: resume(None))
