"""Starts, finds, signals and stops the processes of a network, from any terminal and across crashes of the starter.

Every started process leaves run/<name>.json with its pid and the moment it began, so that a recycled pid is never
mistaken for it, and is the leader of a session of its own, so that a terminal's Ctrl-C reaches nobody but its reader.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess  # nosec B404 # starting processes is its work
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.files import write_atomically
from cluster.network import COMMANDS, CONFIG_FILES, ClusterError, Process

ROOT = Path(__file__).resolve().parent.parent
LOG_BYTES_MAX = 64 << 20
STOP_GRACE_S = 10.0
POLL_S = 0.05

State = Literal["running", "paused", "stopped"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A process id and the moment at which that process began: together they never come twice."""

    pid: int
    started: str


def _stat(pid: int) -> tuple[str, str] | None:
    """State letter and start moment of a process, None when there is none (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _stat_by_ps(pid)
    fields = text.rpartition(")")[2].split()  # the command's name, in parentheses, may hold anything
    # A killed process looks like a zombie as soon as its first thread is one; until the others have ended, too, it
    # still holds its files, and with them the locks that its successor needs.
    state = "D" if fields[0] == "Z" and int(fields[17]) > 1 else fields[0]
    return state, f"{boot}:{fields[19]}"


def _stat_by_ps(pid: int) -> tuple[str, str] | None:
    """The same where there is no /proc (macOS)."""
    words = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)  # nosec B603 # no shell, nobody's input
    state, _, started = found.stdout.strip().partition(" ")
    return (state[0], started.strip()) if state else None


def identify(pid: int) -> Identity | None:
    """The identity of a live process; None for one that is gone or only waits to be reaped."""
    found = _stat(pid)
    return Identity(pid, found[1]) if found and found[0] != "Z" else None


def state_of(identity: Identity) -> State:
    """Whether exactly this process still runs, is suspended (SIGSTOP), or is gone."""
    found = _stat(identity.pid)
    if found is None or found[0] == "Z" or found[1] != identity.started:
        return "stopped"
    return "paused" if found[0] in "Tt" else "running"


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal the process and whatever it started; nothing happens when it is gone already."""
    if state_of(identity) == "stopped":
        return
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, number)
        else:
            os.kill(identity.pid, number)


def port_is_free(bind: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((bind, port))
        except OSError:
            return False
    return True


class ProcessTable:
    """The processes of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def folder(self, process: Process) -> Path:
        """The folder that holds everything the process owns."""
        return self.data_dir / process.name

    def log_file(self, name: str) -> Path:
        """Where the process's standard output and error go."""
        return self.data_dir / "logs" / f"{name}.log"

    def _run_file(self, name: str) -> Path:
        return self.data_dir / "run" / f"{name}.json"

    def recorded(self, name: str) -> Identity | None:
        """Who was last started under this name, dead or alive."""
        try:
            document = json.loads(self._run_file(name).read_text())
            return Identity(int(document["pid"]), str(document["started"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def alive(self, name: str) -> Identity | None:
        """Who runs under this name now, paused or not."""
        identity = self.recorded(name)
        return identity if self._look(identity) != "stopped" else None

    def state(self, name: str) -> State:
        """Whether the process of this name runs, is paused or stopped."""
        return self._look(self.recorded(name))

    def record(self, name: str, identity: Identity) -> None:
        """Note who runs under this name."""
        path = self._run_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"pid": identity.pid, "started": identity.started}) + "\n")

    def forget(self, name: str) -> None:
        """Drop the note of a process that was stopped on purpose, so that nobody reports its death."""
        self._run_file(name).unlink(missing_ok=True)

    def check_ports(self, process: Process) -> None:
        """Raise ClusterError when somebody else listens on a port that the process needs."""
        options = {"bootnode": "--bootnode-port", "gateway": "--gateway-port"}
        for port in process.ports:
            if not port_is_free(process.bind, port):
                option = "--p2p-port" if port == process.p2p_port else options.get(process.kind, "--rpc-port")
                raise ClusterError(
                    f"port {port}, which {process.name} needs, is used by another program: stop that one (another "
                    f"cluster: `psephos down --data-dir …`), or move this one with `psephos up {option} …`"
                )

    def command(self, process: Process, config: Path) -> list[str]:
        """What runs a process in the foreground."""
        return [sys.executable, "-P", "-m", "cluster", COMMANDS[process.kind], "--config", str(config)]

    def start(self, process: Process) -> Identity:
        """Start a process that does not run. Raises ClusterError when its port is taken or its files are missing."""
        config = self.folder(process) / CONFIG_FILES[process.kind]
        if not config.is_file():
            raise ClusterError(f"{config} is missing: restore it, or make another network with another --data-dir")
        self.check_ports(process)
        log = self.log_file(process.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with log.open("ab") as output:
            output.write(f"--- psephos starts {process.name} at {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
            output.flush()
            child = subprocess.Popen(  # nosec B603 # our own program, no shell
                self.command(process, config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder(process),
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        self._children[child.pid] = child
        found = _stat(child.pid)  # a child that died at once is a zombie until it is reaped: it still has a start
        if found is None:
            raise ClusterError(f"{process.name} ended at once: see {log}")
        identity = Identity(child.pid, found[1])
        self.record(process.name, identity)
        return identity

    def exit_reason(self, name: str) -> str:
        """How a process of this name ended, as far as can be known, and the last line of its log."""
        identity = self.recorded(name)
        child = self._children.get(identity.pid) if identity else None
        code = child.poll() if child else None
        if code is None:
            how = "ended"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        last = self.last_log_line(name)
        return f"{how}; its log ends: {last}" if last and code != -signal.SIGKILL else how

    def last_log_line(self, name: str) -> str:
        """The last line that is not empty, at most 300 characters of it."""
        try:
            with self.log_file(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except FileNotFoundError:
            return ""
        return lines[-1][:300] if lines and not lines[-1].startswith("--- psephos") else ""

    def signal(self, name: str, number: signal.Signals) -> Identity:
        """Signal the process of this name. Raises ClusterError when it does not run."""
        identity = self.alive(name)
        if identity is None:
            raise ClusterError(f"{name} does not run: `psephos start {name} --data-dir {self.data_dir}` starts it")
        send(identity, number)
        return identity

    def stop(
        self, names: Iterable[str], *, grace_s: float = STOP_GRACE_S, hurry: Callable[[], bool] = lambda: False
    ) -> list[str]:
        """SIGTERM to all of `names`, SIGKILL to those that still run after `grace_s` or once `hurry()` is true.

        Returns the names that ran. A paused process is woken, or it could not stop.
        """
        going = {name: identity for name in names if (identity := self.alive(name)) is not None}
        for identity in going.values():
            send(identity, signal.SIGTERM)
            send(identity, signal.SIGCONT)
        deadline = time.monotonic() + grace_s
        left = set(going)
        while left and time.monotonic() < deadline and not hurry():
            time.sleep(POLL_S)
            left = {name for name in left if self.alive(name)}
        for name in left:
            send(going[name], signal.SIGKILL)
        self.wait_gone(going[name] for name in left)
        for name in going:
            self.forget(name)
        return list(going)

    def wait_gone(self, identities: Iterable[Identity], timeout_s: float = 10.0) -> None:
        """Wait until all of these are gone; ClusterError when one cannot be killed (a hung disk)."""
        deadline = time.monotonic() + timeout_s
        for identity in identities:
            while self._look(identity) != "stopped":
                if time.monotonic() > deadline:
                    raise ClusterError(f"process {identity.pid} does not end although it was killed: is its disk hung?")
                time.sleep(POLL_S)

    def _look(self, identity: Identity | None) -> State:
        """The state, after which every child that had ended by then is reaped: nobody may ask about it again."""
        found = state_of(identity) if identity else "stopped"
        for child in self._children.values():
            child.poll()
        return found
