"""Processes are told apart by pid and start moment, stopped gently, then not; nobody else's process is touched."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.network import ClusterError
from cluster.processes import (
    Identity,
    ProcessTable,
    State,
    _stat,
    _stat_by_ps,
    identify,
    port_is_free,
    send,
    state_of,
)

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
GENTLE = "import signal; print(flush=True); signal.pause()"

# Its first thread ends alone (SYS_exit, not exit_group), as may happen for a while when a process is killed: it is a
# zombie then, while another thread still has the lock.
HEADLESS = """
import ctypes, fcntl, platform, threading, time
lock = open({path!r}, "a")
fcntl.flock(lock, fcntl.LOCK_EX)
threading.Thread(target=time.sleep, args=(100,)).start()
print(flush=True)
ctypes.CDLL(None).syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)
"""

Spawn = Callable[[str], Identity]


def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children = []

    def start(program: str) -> Identity:
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout is not None
        child.stdout.readline()  # its signal handlers stand
        children.append(child)
        identity = identify(child.pid)
        assert identity is not None
        return identity

    yield start
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_states(spawn: Spawn) -> None:
    identity = spawn(GENTLE)
    assert state_of(identity) == "running"
    send(identity, signal.SIGSTOP)
    until(lambda: state_of(identity) == "paused")
    send(identity, signal.SIGCONT)
    until(lambda: state_of(identity) == "running")
    send(identity, signal.SIGKILL)
    until(lambda: state_of(identity) == "stopped")  # a zombie: this test reaps it only at its end
    assert identify(identity.pid) is None


def test_a_process_is_stopped_only_once_its_locks_are_free(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    identity = spawn(HEADLESS.format(path=str(path)))
    until(lambda: "State:\tZ" in Path(f"/proc/{identity.pid}/status").read_text())
    with path.open("a") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert state_of(identity) != "stopped"
        send(identity, signal.SIGKILL)
        until(lambda: state_of(identity) == "stopped")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_recycled_pid_is_another_process(spawn: Spawn) -> None:
    identity = spawn(GENTLE)
    former = Identity(identity.pid, identity.started + "0")
    assert state_of(former) == "stopped"
    send(former, signal.SIGKILL)
    assert state_of(identity) == "running"


def test_ps_tells_processes_apart_too(spawn: Spawn) -> None:
    identity = spawn(GENTLE)
    try:
        first = _stat_by_ps(identity.pid)
    except FileNotFoundError:
        pytest.skip("this machine has no ps")
    assert first is not None
    assert first == _stat_by_ps(identity.pid)
    assert _stat_by_ps(2**22 + 1) is None
    own = _stat(os.getpid())
    assert own is not None
    assert own[0] in "RS"


def test_records_survive_their_writer(tmp_path: Path, spawn: Spawn) -> None:
    identity = spawn(GENTLE)
    ProcessTable(tmp_path).record("validator-1", identity)
    table = ProcessTable(tmp_path)  # as another terminal would
    assert table.alive("validator-1") == identity
    assert table.state("validator-2") == "stopped"
    assert table.signal("validator-1", signal.SIGKILL) == identity
    table.wait_gone([identity])
    assert table.alive("validator-1") is None
    assert table.recorded("validator-1") == identity
    with pytest.raises(ClusterError, match="psephos start validator-1"):
        table.signal("validator-1", signal.SIGSTOP)


def test_a_damaged_record_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for text in ("", "{}", "[]", '{"pid": "x", "started": 1}'):
        (tmp_path / "run" / "gateway.json").write_text(text)
        assert ProcessTable(tmp_path).alive("gateway") is None


def test_stop_asks_first_and_then_kills(tmp_path: Path, spawn: Spawn) -> None:
    table = ProcessTable(tmp_path)
    gentle, stubborn, paused = spawn(GENTLE), spawn(STUBBORN), spawn(GENTLE)
    for name, identity in (("gentle", gentle), ("stubborn", stubborn), ("paused", paused)):
        table.record(name, identity)
    table.signal("paused", signal.SIGSTOP)
    began = time.monotonic()
    assert table.stop(["gentle", "paused", "absent"], grace_s=10) == ["gentle", "paused"]
    assert time.monotonic() - began < 5
    assert state_of(stubborn) == "running"
    assert table.stop(["stubborn"], grace_s=0.2) == ["stubborn"]
    assert {state_of(identity) for identity in (gentle, stubborn, paused)} == {"stopped"}
    assert table.recorded("gentle") is None


def test_hurry_cuts_the_grace_short(tmp_path: Path, spawn: Spawn) -> None:
    table = ProcessTable(tmp_path)
    table.record("stubborn", spawn(STUBBORN))
    began = time.monotonic()
    table.stop(["stubborn"], grace_s=60, hurry=lambda: True)
    assert time.monotonic() - began < 5


def test_whoever_is_told_of_as_gone_has_been_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks about it again: a child that ends while it is looked at would stay a zombie."""
    table = ProcessTable(tmp_path)
    with subprocess.Popen([sys.executable, "-c", GENTLE]) as child:
        identity = identify(child.pid)
        assert identity is not None
        table._children[child.pid] = child
        table.record("gateway", identity)

        def ends_meanwhile(asked: Identity) -> State:
            child.kill()
            until(lambda: state_of(asked) == "stopped")
            return state_of(asked)

        monkeypatch.setattr("cluster.processes.state_of", ends_meanwhile)
        assert table.alive("gateway") is None
        assert child.returncode == -signal.SIGKILL


def test_a_used_port_is_seen(unused_port: int) -> None:
    import socket

    assert port_is_free("127.0.0.1", unused_port)
    with socket.create_server(("127.0.0.1", unused_port)):
        assert not port_is_free("127.0.0.1", unused_port)
    assert port_is_free("127.0.0.1", unused_port)


def test_the_end_of_a_log(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path)
    assert table.last_log_line("gateway") == ""
    log = table.log_file("gateway")
    log.parent.mkdir()
    log.write_text("--- psephos starts gateway\n")
    assert table.last_log_line("gateway") == ""
    log.write_text("x\n" * 9000 + "the disk is full\n\n")
    assert table.last_log_line("gateway") == "the disk is full"
