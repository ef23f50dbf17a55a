"""`psephos up` as a person meets it: start, kill, resume, Ctrl-C; and what it says when something is in the way."""

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import Cluster, until

pytestmark = pytest.mark.e2e

Foreground = Callable[..., subprocess.Popen[str]]


def told(cluster: Cluster) -> str:
    return (cluster.data_dir.parent / "up.txt").read_text()


def is_up(cluster: Cluster) -> bool:
    return "Ctrl-C stops everything" in told(cluster)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_up_kill_start_and_ctrl_c(cluster: Cluster, foreground: Foreground) -> None:
    up = foreground()
    until(lambda: is_up(cluster) or up.poll() is not None, 90, "psephos up introduces itself")
    assert up.poll() is None, told(cluster)

    # The printed line votes, and votes anew each time.
    line = next(text for text in told(cluster).splitlines() if text.startswith("curl") and "submit" in text)
    answers = [subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert all("transaction_id" in answer for answer in answers), answers
    results = f"{cluster.gateway_url}/api/votes/results?election_id=1"
    until(lambda: httpx.get(results, trust_env=False).json()["total"] == 2, 15, "two ballots are counted")

    status = cluster.status()
    assert {row["state"] for row in status.values()} == {"running"}
    assert all(row["healthy"] for row in status.values()), status
    pids = [row["pid"] for row in status.values()]

    # A process that dies is reported, stays dead, and comes back when asked.
    cluster.verb("kill", "validator-2")
    until(lambda: "validator-2 was ended by SIGKILL" in told(cluster), 15, "the death is reported")
    assert cluster.status()["validator-2"]["state"] == "stopped"
    subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    until(lambda: httpx.get(results, trust_env=False).json()["total"] == 3, 15, "two of three go on")
    cluster.verb("start", "validator-2")
    until(lambda: "validator-2 runs again" in told(cluster), 15, "the return is reported")
    until(lambda: cluster.height(2) >= cluster.height(1) >= 0, 30, "the returned validator catches up")

    cluster.verb("pause", "validator-3")
    assert cluster.status()["validator-3"]["state"] == "paused"
    cluster.verb("resume", "validator-3")
    assert cluster.status()["validator-3"]["state"] == "running"

    height = cluster.height(1)
    genesis = cluster.call(1, "eth_getBlockByNumber", "0x0", False)["hash"]
    up.send_signal(signal.SIGINT)
    assert up.wait(40) == 0, told(cluster)
    assert not any(alive(pid) for pid in pids)
    assert not cluster.pids()

    # Run again, it resumes; another port is an option, not another network.
    cluster.up()
    assert cluster.call(1, "eth_getBlockByNumber", "0x0", False)["hash"] == genesis
    assert cluster.height(1) >= height
    assert httpx.get(results, trust_env=False).json()["total"] == 3
    assert cluster.verb("down").startswith("stopped")
    assert cluster.verb("down") == "nothing runs\n"


def test_a_killed_supervisor_leaves_processes_that_the_next_one_adopts(
    cluster: Cluster, foreground: Foreground
) -> None:
    cluster.validators = 1
    first = foreground()
    until(lambda: is_up(cluster) or first.poll() is not None, 90, "psephos up introduces itself")
    before = {name: row["pid"] for name, row in cluster.status().items()}
    assert first.poll() is None, told(cluster)

    refused = cluster.psephos(*cluster.up_arguments, check=False)
    assert refused.returncode == 1
    assert f"another `psephos up` (pid {first.pid}) looks after" in refused.stderr

    first.kill()
    first.wait()
    assert all(alive(pid) for pid in before.values())

    second = foreground()
    until(lambda: is_up(cluster) or second.poll() is not None, 60, "the second one introduces itself")
    assert told(cluster).count("adopted") == 3
    assert {name: row["pid"] for name, row in cluster.status().items()} == before
    second.send_signal(signal.SIGTERM)
    assert second.wait(40) == 0
    until(lambda: not any(alive(pid) for pid in before.values()), 5, "all are gone")


def test_what_is_in_the_way_is_named_with_its_remedy(cluster: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", cluster.first_port + 2)):
        refused = cluster.psephos(*cluster.up_arguments, check=False)
        assert refused.returncode == 1
        assert f"port {cluster.first_port + 2}, which validator-2 needs" in refused.stderr
        assert "--rpc-port" in refused.stderr
    assert not cluster.pids()

    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("")
    refused = cluster.psephos("up", "--data-dir", str(tmp_path / "foreign"), check=False)
    assert refused.returncode == 1
    assert "thesis.tex" in refused.stderr
    assert os.listdir(tmp_path / "foreign") == ["thesis.tex"]


def test_every_verb_has_help(cluster: Cluster) -> None:
    overview = cluster.psephos("--help").stdout
    for verb in shlex.split("up down status init keys genesis kill start pause resume chaos node bootnode gateway"):
        assert verb in overview
        assert "--help" in cluster.psephos(verb, "--help").stdout
