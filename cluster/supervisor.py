"""`psephos up`: starts or adopts all processes of a network, watches them from the foreground, stops them at Ctrl-C."""

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console
from rich.live import Live

from cluster import view
from cluster.network import ClusterError, Kind, Network, Process
from cluster.probe import Health, Prober
from cluster.processes import STOP_GRACE_S, ProcessTable, State, identify

NAME = "supervisor"
DEMO_ELECTION = 1
TICK_S = 1.0
PLAIN_STATUS_S = 30.0
GATEWAY_LEVEL_QUORUM = 2  # from level 3 on, a gateway sees no quorum and only journals
STOP_ORDER: tuple[Kind, ...] = ("gateway", "observer", "validator", "bootnode")


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as something to wait for; the second one asks to hurry."""

    def __init__(self) -> None:
        self.count = 0
        self._event = threading.Event()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._event.set()

    @contextlib.contextmanager
    def installed(self) -> Iterator["Interrupts"]:
        """Handle the signals here while the block runs."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def stop(self) -> bool:
        """Whether somebody asked us to stop."""
        return self.count > 0

    @property
    def hurry(self) -> bool:
        """Whether somebody asked twice."""
        return self.count > 1

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until a signal comes; tells whether one has come."""
        return self._event.wait(seconds)


@contextlib.contextmanager
def sole_supervisor(table: ProcessTable) -> Iterator[None]:
    """Hold the data directory's lock: two supervisors would each stop what the other one starts."""
    folder = table.data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = table.alive(NAME)
            raise ClusterError(
                f"another `psephos up`{f' (pid {owner.pid})' if owner else ''} looks after {table.data_dir} already: "
                f"stop it with Ctrl-C or `psephos down --data-dir {table.data_dir}`, or use another --data-dir"
            ) from None
        identity = identify(os.getpid())
        if identity:
            table.record(NAME, identity)
        try:
            yield
        finally:
            table.forget(NAME)


def stop_all(table: ProcessTable, network: Network, interrupts: Interrupts | None = None) -> list[str]:
    """Stop the gateway, then the validators, then the bootnode; the names of those that ran."""
    stopped: list[str] = []
    for kind in STOP_ORDER:
        names = [process.name for process in network.of_kind(kind)]
        stopped += table.stop(names, grace_s=STOP_GRACE_S, hurry=lambda: bool(interrupts and interrupts.hurry))
    return stopped


class Supervisor:
    """One run of `psephos up` on a network that exists on disk."""

    def __init__(self, network: Network, table: ProcessTable, console: Console, *, ready_timeout_s: float) -> None:
        self.network = network
        self.table = table
        self.console = console
        self.ready_timeout_s = ready_timeout_s
        self.prober = Prober()
        self._states: dict[str, State] = {}

    def run(self, *, detach: bool) -> int:
        """Start, report, watch and stop. Returns the exit code; with `detach`, returns once all is up."""
        interrupts = Interrupts()
        with interrupts.installed(), sole_supervisor(self.table), contextlib.closing(self.prober):
            keep = False
            try:
                self._start(interrupts)
                code = self._await_ready(interrupts)
                if code == 0 and not interrupts.stop:
                    self._create_demo(interrupts)
                    self._introduce(detach)
                    keep = detach
                    if not detach:
                        self._watch(interrupts)
            finally:
                if not keep:
                    self.console.print("stopping …" if not interrupts.hurry else "killing …")
                    stopped = stop_all(self.table, self.network, interrupts)
                    self.console.print(f"stopped {', '.join(stopped) or 'nothing: nothing ran'}")
        return code

    def _start(self, interrupts: Interrupts) -> None:
        missing = []
        for process in self.network:
            identity = self.table.alive(process.name)
            if identity is None:
                missing.append(process)
            else:
                self.console.print(f"{process.name} runs already (pid {identity.pid}): adopted")
        for process in missing:  # before the first is started: half a network helps nobody
            self.table.check_ports(process)
        for process in missing:
            if interrupts.stop:
                return
            self.table.start(process)

    def _await_ready(self, interrupts: Interrupts) -> int:
        """Wait until everybody alive answers. Returns 0, or 1 when no validator or no process could be started."""
        began = time.monotonic()
        answered: set[str] = set()
        with self.console.status("starting …") as status:
            while not interrupts.stop:
                health = self.prober.ask(self.network)
                states = self._observe()
                for process in self.network:
                    if health[process.name].healthy and process.name not in answered:
                        answered.add(process.name)
                        took_s = time.monotonic() - began
                        self.console.print(f"[green]✓[/green] {process.name} answers ({took_s:.1f} s)")
                waiting = [p.name for p in self.network if states[p.name] == "running" and not self._done(p, health)]
                if not waiting:
                    break
                if time.monotonic() - began > self.ready_timeout_s:
                    for name in waiting:
                        why = health[name].detail or "not ready"
                        self.console.print(
                            f"[yellow]![/yellow] {name}: {why} after {self.ready_timeout_s:.0f} s; "
                            f"see {self.table.log_file(name)}",
                            soft_wrap=True,
                        )
                    break
                status.update(f"waiting for {', '.join(waiting)} …")
                interrupts.wait(0.2)
        if interrupts.stop or any(self._states[p.name] != "stopped" for p in self.network.of_kind("validator")):
            return 0
        self.console.print("[red]no validator could be started[/red]")
        return 1

    def _done(self, process: Process, health: dict[str, Health]) -> bool:
        """Whether a process is as ready as it can become: without a quorum of live validators, it is by answering."""
        answer = health[process.name]
        if not answer.healthy or not self._quorum_lives():
            return answer.healthy
        return answer.ready and (answer.level is None or answer.level <= GATEWAY_LEVEL_QUORUM)

    def _quorum_lives(self) -> bool:
        validators = self.network.of_kind("validator")
        alive = sum(self._states.get(process.name) == "running" for process in validators)
        return alive >= -(-2 * len(validators) // 3)

    def _create_demo(self, interrupts: Interrupts) -> None:
        """Create election 1 on development networks, unless it is there."""
        gateway = self.network.gateway
        if not self.network.dev or gateway is None or self._states.get(gateway.name) != "running" or interrupts.stop:
            return
        url = f"{gateway.url}/api/elections"
        election = {"election_id": DEMO_ELECTION, "title": "Demo", "options": ["yes", "no", "abstain"], "kinds": "both"}
        try:
            with httpx.Client(timeout=15, trust_env=False) as client:
                if client.get(f"{url}/{DEMO_ELECTION}").is_success:
                    return
                answer = client.post(url, json=election, headers={"prefer": "wait=10"})
        except httpx.HTTPError as error:
            self.console.print(f"[yellow]![/yellow] election {DEMO_ELECTION} was not created: {error}")
            return
        if answer.is_success or answer.status_code == httpx.codes.CONFLICT:
            self.console.print(f'[green]✓[/green] election {DEMO_ELECTION}, "Demo", takes open and sealed ballots')
        else:
            self.console.print(
                f"[yellow]![/yellow] election {DEMO_ELECTION} was not created: "
                f"{gateway.name} answered {answer.status_code} {answer.text[:300]}",
                soft_wrap=True,
            )

    def _introduce(self, detach: bool) -> None:
        pids = {p.name: identity.pid for p in self.network if (identity := self.table.alive(p.name))}
        self.console.print()
        self.console.print(view.endpoints_table(self.network, pids))
        gateway = self.network.gateway
        if gateway is not None and gateway.name in pids:
            view.copyable(self.console, "cast a ballot, again and again", view.vote_line(gateway, DEMO_ELECTION))
            view.copyable(self.console, "and count them", view.results_line(gateway, DEMO_ELECTION))
        data_dir = self.table.data_dir
        self.console.print(f"\nlogs: {data_dir / 'logs'}", soft_wrap=True, highlight=False)
        if detach:
            self.console.print(f"stop: psephos down --data-dir {data_dir}", soft_wrap=True, highlight=False)
        else:
            self.console.print("Ctrl-C stops everything; the next `up` goes on where this one ended.\n")

    def _observe(self) -> dict[str, State]:
        """Where every process stands now; what changed since the last time is told."""
        states = {process.name: self.table.state(process.name) for process in self.network}
        for name, state in states.items():
            before = self._states.get(name, "running")
            if state == before:
                continue
            if state == "stopped":
                self.console.print(
                    f"[red]✗ {name} {self.table.exit_reason(name)}[/red]; it stays so until "
                    f"`psephos start {name}{self._option()}`",
                    soft_wrap=True,
                    highlight=False,
                )
            elif state == "paused":
                self.console.print(
                    f"[yellow]‖ {name} is paused[/yellow]; `psephos resume {name}{self._option()}` wakes it"
                )
            else:
                self.console.print(f"[green]✓[/green] {name} runs again")
        self._states = states
        return states

    def _option(self) -> str:
        default = Path("data").resolve()
        return "" if self.table.data_dir == default else f" --data-dir {self.table.data_dir}"

    def _watch(self, interrupts: Interrupts) -> None:
        """One status line, once a second, until a signal comes; a plain line now and then where no terminal is."""
        last_plain = 0.0
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while not interrupts.stop:
                health = self.prober.ask(self.network)
                line = view.status_line(self.network, health, self._observe())
                if self.console.is_terminal:
                    live.update(line, refresh=True)
                elif time.monotonic() - last_plain > PLAIN_STATUS_S:
                    last_plain = time.monotonic()
                    self.console.print(line, soft_wrap=True)
                interrupts.wait(TICK_S)
