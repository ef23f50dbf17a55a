"""A simulated network: sessions between processes that come and go, and messages that are late, lost, doubled or held.

It is worse than TCP: within a session, messages may be lost, repeated and reordered, too.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from node.p2p.events import Connected, Disconnected, PeerEvent, PeerInfo, Received
from node.p2p.kinds import URGENT_KINDS, Kind
from tests.sim.scheduler import Scheduler

DEAD_PEER_US = 5_000_000  # how long a silent session lasts
REDIAL_US = (5_000, 1_000_000)  # how long it takes to find each other (again)
HELD_MAX = 2_000
Link = tuple[int, int]  # (index of the sending machine, of the receiving one)


@dataclass
class Weather:
    """How bad the network is. Probabilities are for each message; times in microseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_us: int = 1_000  # the mean, above a fixed minimum
    spike: float = 0.0  # how many messages are delayed by a hundred times the mean
    prepare_loss: float = 0.0  # more of these are lost, so that blocks are prepared here and there and not decided
    commit_loss: float = 0.0
    in_order: bool = True  # messages of one lane of one session do not overtake each other


class Endpoint(Protocol):
    """What the network needs of a process."""

    machine_index: int
    address: bytes
    is_running: bool
    is_paused: bool

    def hear(self, event: PeerEvent) -> None: ...


@dataclass(eq=False)
class _Side:
    process: Endpoint
    is_open: bool = False  # its process was told Connected, and not yet Disconnected
    last_us: dict[bool, int] = field(default_factory=dict)  # when the last message to it arrives, by urgency
    held: list[tuple[Kind, bytes]] = field(default_factory=list)  # for it, while the link is cut


class Session:
    """One connection of a pair of processes; each side learns of its beginning and its end at its own time."""

    def __init__(self, first: Endpoint, second: Endpoint) -> None:
        self.sides = (_Side(first), _Side(second))
        self.is_over = False

    def side_of(self, process: Endpoint) -> _Side:
        return self.sides[0] if self.sides[0].process is process else self.sides[1]

    def other(self, process: Endpoint) -> _Side:
        return self.sides[1] if self.sides[0].process is process else self.sides[0]


class SimNetwork:
    """Every process that runs is in `processes`; links are between machines and may be cut one way."""

    def __init__(self, scheduler: Scheduler, random: Random, weather: Weather) -> None:
        self.weather = weather
        self._scheduler = scheduler
        self._random = random
        self._processes: list[Endpoint] = []
        self._sessions: list[Session] = []
        self._cuts: dict[Link, int] = {}  # how many faults cut this link now
        self.delivered_count = 0

    # -- processes -----------------------------------------------------------------------------------------------

    def join(self, process: Endpoint) -> None:
        """A process runs now: everyone dials it, and it everyone."""
        self._processes.append(process)
        for other in self._processes:
            self._dial_later(process, other)

    def leave(self, process: Endpoint, *, silently: bool) -> None:
        """A process is gone. Its peers are told at once, or (`silently`) when they miss it."""
        self._processes.remove(process)
        for session in self._sessions_of(process):
            session.side_of(process).is_open = False
            delay_us = DEAD_PEER_US if silently else self._random.randint(100, 50_000)
            self._end(session, delay_us)

    def peers_of(self, process: Endpoint) -> list[bytes]:
        """The addresses with which this process has a session, as it sees it."""
        return [
            session.other(process).process.address
            for session in self._sessions_of(process)
            if session.side_of(process).is_open
        ]

    def paused(self, process: Endpoint) -> None:
        """A process stands still: those who hear nothing from it drop it in time."""
        for session in self._sessions_of(process):
            self._scheduler.after(DEAD_PEER_US, lambda session=session: self._end_if_paused(session, process))  # type: ignore[misc]

    def part(self, first: Endpoint, second: Endpoint) -> None:
        """End the session of two processes, if there is one."""
        for session in self._sessions_of(first):
            if session.other(first).process is second:
                self._end(session, 0)

    # -- links ---------------------------------------------------------------------------------------------------

    def cut(self, links: Iterable[Link]) -> None:
        """Cut these links, until as many calls of `heal` have undone it."""
        for link in links:
            self._cuts[link] = self._cuts.get(link, 0) + 1
        for session in self._sessions:
            if self._is_cut(session):
                delay_us = DEAD_PEER_US + self._random.randint(0, 500_000)
                self._scheduler.after(delay_us, lambda session=session: self._end_if_cut(session))  # type: ignore[misc]

    def heal(self, links: Iterable[Link]) -> None:
        """Undo one `cut` of these links. What was held on them arrives."""
        for link in links:
            self._cuts[link] -= 1
        for session in self._sessions:
            for side in session.sides:
                sender = session.other(side.process).process
                if side.held and not self._cuts.get((sender.machine_index, side.process.machine_index)):
                    held, side.held = side.held, []
                    for kind, payload in held:
                        self._transmit(session, side, kind, payload)

    def reset(self) -> None:
        """End every session, as one that has lost messages would: what was lost in it is lost for good."""
        for session in list(self._sessions):
            self._end(session, 0)

    def is_whole(self) -> bool:
        """Whether every pair of running processes has a session, as both see it."""
        count = len(self._processes)
        return sum(len(self.peers_of(process)) for process in self._processes) == count * (count - 1)

    def _is_cut(self, session: Session) -> bool:
        first, second = (side.process.machine_index for side in session.sides)
        return bool(self._cuts.get((first, second)) or self._cuts.get((second, first)))

    # -- sessions ------------------------------------------------------------------------------------------------

    def _sessions_of(self, process: Endpoint) -> list[Session]:
        return [each for each in self._sessions if process in (each.sides[0].process, each.sides[1].process)]

    def _dial_later(self, first: Endpoint, second: Endpoint) -> None:
        if first.address != second.address:
            self._scheduler.after(self._random.randint(*REDIAL_US), lambda: self._dial(first, second))

    def _dial(self, first: Endpoint, second: Endpoint) -> None:
        if not (first.is_running and second.is_running):
            return
        if any(session.other(first).process is second and not session.is_over for session in self._sessions_of(first)):
            return
        first_index, second_index = first.machine_index, second.machine_index
        cut = self._cuts.get((first_index, second_index)) or self._cuts.get((second_index, first_index))
        busy = second.address in self._live_peers(first) or first.address in self._live_peers(second)
        if cut or busy or first.is_paused or second.is_paused:
            self._dial_later(first, second)
            return
        for process, peer in ((first, second), (second, first)):  # whoever still has an older session is told first
            self._forget_old(process, peer.address)
        session = Session(first, second)
        self._sessions.append(session)
        for side in session.sides:
            self._scheduler.after(self._random.randint(0, 5_000), lambda side=side: self._open(session, side))  # type: ignore[misc]

    def _live_peers(self, process: Endpoint) -> list[bytes]:
        sessions = [session for session in self._sessions_of(process) if not session.is_over]
        return [session.other(process).process.address for session in sessions]

    def _forget_old(self, process: Endpoint, peer: bytes) -> None:
        for session in self._sessions_of(process):
            if session.other(process).process.address == peer:
                self._close(session, session.side_of(process), "replaced by another connection of this pair")

    def _open(self, session: Session, side: _Side) -> None:
        if session.is_over or not side.process.is_running:
            return
        side.is_open = True
        peer = session.other(side.process).process.address
        info = PeerInfo(peer, "", "", "out", 0, 0, 1, 0, 0, None)
        side.process.hear(Connected(peer, info))

    def _end_if_cut(self, session: Session) -> None:
        if not session.is_over and self._is_cut(session):
            self._end(session, 0)

    def _end_if_paused(self, session: Session, process: Endpoint) -> None:
        if not session.is_over and process.is_paused:
            self._end(session, 0)

    def _end(self, session: Session, delay_us: int) -> None:
        """The session is dead; each side that has it open is told, at the latest after about `delay_us`."""
        if session.is_over:
            return
        session.is_over = True
        for side in session.sides:
            if side.is_open:
                after_us = delay_us + self._random.randint(0, 2_000)
                self._scheduler.after(after_us, lambda side=side: self._close(session, side, "gone"))  # type: ignore[misc]
        self._forget_if_closed(session)
        self._dial_later(session.sides[0].process, session.sides[1].process)

    def _close(self, session: Session, side: _Side, reason: str) -> None:
        if side.is_open:
            side.is_open = False
            side.process.hear(Disconnected(session.other(side.process).process.address, reason))
        if session.is_over:
            self._forget_if_closed(session)

    def _forget_if_closed(self, session: Session) -> None:
        if session in self._sessions and not any(side.is_open for side in session.sides):
            self._sessions.remove(session)

    # -- messages ------------------------------------------------------------------------------------------------

    def transmit(self, sender: Endpoint, to: bytes | None, kind: Kind, payload: bytes) -> bool:
        """Send a message to one peer, or to all where `to` is None. False where there is no session."""
        found = False
        for session in self._sessions_of(sender):
            side = session.other(sender)
            if session.side_of(sender).is_open and to in (None, side.process.address):
                found = True
                if self._cuts.get((sender.machine_index, side.process.machine_index)):
                    self._hold(side, kind, payload)
                else:
                    self._transmit(session, side, kind, payload)
        return found

    def drop(self, process: Endpoint, peer: bytes) -> None:
        """A process ends its session with a peer."""
        for session in self._sessions_of(process):
            if session.other(process).process.address == peer:
                self._end(session, 0)

    def _hold(self, side: _Side, kind: Kind, payload: bytes) -> None:
        if len(side.held) < HELD_MAX:
            side.held.append((kind, payload))

    def _transmit(self, session: Session, side: _Side, kind: Kind, payload: bytes) -> None:
        random, weather = self._random, self.weather
        loss = weather.loss
        if kind is Kind.CONSENSUS:  # [[step, …], …] in msgpack
            loss = max(loss, {2: weather.prepare_loss, 3: weather.commit_loss}.get(payload[2], 0.0))
        if session.is_over or (loss and random.random() < loss):
            return
        copies = 2 if weather.duplication and random.random() < weather.duplication else 1
        for _ in range(copies):
            delay_us = 200 + int(random.expovariate(1.0) * weather.delay_us)
            if weather.spike and random.random() < weather.spike:
                delay_us *= 100
            if weather.in_order:
                lane = kind in URGENT_KINDS
                arrival_us = max(self._scheduler.now_us + delay_us, side.last_us.get(lane, 0))
                side.last_us[lane] = arrival_us
                delay_us = arrival_us - self._scheduler.now_us
            self._scheduler.after(delay_us, lambda: self._deliver(session, side, kind, payload))

    def _deliver(self, session: Session, side: _Side, kind: Kind, payload: bytes) -> None:
        sender = session.other(side.process).process
        if session.is_over or not side.process.is_running:
            return
        if self._cuts.get((sender.machine_index, side.process.machine_index)):
            self._hold(side, kind, payload)
        elif not side.is_open:  # it has not yet seen the session begin
            self._scheduler.after(1_000, lambda: self._deliver(session, side, kind, payload))
        else:
            self.delivered_count += 1
            side.process.hear(Received(sender.address, kind, payload))


class SimPeers:
    """The runtime's `Peers` in one process. `watch` sees every payload before it leaves, `on_drop` who is dropped."""

    def __init__(
        self,
        network: SimNetwork,
        process: Endpoint,
        watch: Callable[[Kind, bytes], None],
        on_drop: Callable[[bytes, str], None],
    ) -> None:
        self._network = network
        self._process = process
        self._watch = watch
        self._on_drop = on_drop

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        self._watch(kind, payload)
        return self._network.transmit(self._process, peer, kind, payload)

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        self._watch(kind, payload)
        self._network.transmit(self._process, None, kind, payload)

    def drop(self, peer: bytes, reason: str) -> None:
        self._on_drop(peer, reason)
        self._network.drop(self._process, peer)
