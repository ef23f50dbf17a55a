"""A network changes hands under load: a fourth validator joins, one leaves, and a lost quorum is overridden."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import ENVIRONMENT, Cluster, command, until
from tests.e2e.recount import ballots_in_log

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ELECTION = 5
CANDIDATE = 4  # its number, as of the validators: RPC is at first_port + 4


class Voters(threading.Thread):
    """One voter after the other until told to stop; `acknowledged` are the numbers of those who had an answer."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._url = f"{cluster.gateway_url}/api/votes/submit"
        self._stop_asked = threading.Event()
        self.acknowledged: list[int] = []
        self.refused: list[str] = []

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=30, trust_env=False, headers={"prefer": "wait=0"}) as client:
            while not self._stop_asked.is_set():
                ballot = {"election_id": ELECTION, "voter_id": f"voter-{number}", "choice": number % 2}
                try:
                    answer = client.post(self._url, json=ballot | {"transaction_id": f"t-{number}"})
                except httpx.TransportError as error:
                    self.refused.append(repr(error))
                    return
                if answer.status_code in (200, 202):
                    self.acknowledged.append(number)
                else:
                    self.refused.append(answer.text)
                number += 1
                time.sleep(0.02)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(30)


def create_election(cluster: Cluster) -> None:
    document = {"election_id": ELECTION, "title": "Change", "options": ["a", "b"], "kinds": "open"}
    answer = httpx.post(f"{cluster.gateway_url}/api/elections", json=document, timeout=30, trust_env=False)
    assert answer.is_success, answer.text
    url = f"{cluster.gateway_url}/api/elections/{ELECTION}"
    until(lambda: httpx.get(url, trust_env=False).is_success, 20, "the election is there")


@pytest.fixture
def node_process(cluster: Cluster) -> Iterator[Any]:
    """Runs `psephos node` on a folder until the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def run(folder: Path) -> subprocess.Popen[bytes]:
        with (cluster.data_dir / "logs" / f"{folder.name}.log").open("ab") as output:
            process = subprocess.Popen(
                command("node", "--config", str(folder / "node.toml")), env=ENVIRONMENT, stdout=output, stderr=output
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def make_candidate(cluster: Cluster) -> tuple[Path, str]:
    """A folder for a fourth node, with a key and a guard of its own."""
    folder = cluster.data_dir / "candidate"
    made = cluster.psephos(
        "keys", "new", "--folder", str(folder), "--genesis", str(cluster.data_dir / "genesis.json")
    )  # fmt: skip
    text = (cluster.data_dir / "validator-1" / "node.toml").read_text()
    text = text.replace('"validator-1"', '"candidate"')
    text = text.replace(f":{cluster.first_port + 1}", f":{cluster.first_port + CANDIDATE}")
    text = text.replace(f":{cluster.first_port + 8}", f":{cluster.first_port + 12}")
    (folder / "node.toml").write_text(text)
    return folder, made.stdout.strip()


def set_key(folder: Path, after: str, line: str) -> None:
    """Put a line into a node's configuration, after the line that begins with `after`."""
    file = folder / "node.toml"
    text = file.read_text()
    assert re.search(rf"^{re.escape(after)}", text, re.MULTILINE)
    file.write_text(re.sub(rf"^({re.escape(after)}.*)$", rf"\1\n{line}", text, count=1, flags=re.MULTILINE))


def restart(cluster: Cluster, number: int) -> None:
    cluster.verb("kill", f"validator-{number}")
    cluster.verb("start", f"validator-{number}")
    until(lambda: httpx.get(f"{cluster.rpc_url(number)}/ready", trust_env=False).is_success, 30, f"{number} is ready")


def sealers(cluster: Cluster, number: int, height: int) -> set[str]:
    certificate = cluster.call(number, "poa_getCertificate", hex(height))
    return {seal["validator"] for seal in certificate["seals"]}


def seals_since(cluster: Cluster, number: int, height: int) -> set[str]:
    head = cluster.height(number)
    return set().union(*(sealers(cluster, number, each) for each in range(height, head + 1)))


def peers(cluster: Cluster, number: int) -> set[str]:
    return {peer["address"] for peer in cluster.call(number, "poa_status")["peers"]}


def log_of(cluster: Cluster, name: str) -> str:
    return (cluster.data_dir / "logs" / f"{name}.log").read_text()


def advances(cluster: Cluster, number: int, blocks: int = 3, within_s: float = 30) -> None:
    start = cluster.height(number)
    until(lambda: cluster.height(number) >= start + blocks, within_s, f"the chain goes on behind {start}")


def start_with_candidate(cluster: Cluster) -> tuple[Path, str]:
    """Start a network whose validators list a candidate as an observer; the candidate does not run yet."""
    cluster.psephos("init", *cluster.up_arguments[1:], "--dev")
    folder, address = make_candidate(cluster)
    for number in (1, 2, 3):
        set_key(cluster.data_dir / f"validator-{number}", "[p2p]", f'observers = ["{address}"]')
    cluster.up()
    return folder, address


def admit(cluster: Cluster, address: str, run_candidate: Callable[[], object]) -> None:
    """Propose the candidate before it is there, let it sync as an observer, and vote it in."""
    key = str(cluster.data_dir / "validator-1" / "node.key")
    early = cluster.verb("validators", "propose", "add", address, "--key", key)
    assert "after: 4 validators, quorum 3: survive 1 crashed and 1 Byzantine" in early
    assert f"warning: {address} is not connected" in early
    assert "1 of 2 votes needed" in early
    run_candidate()
    until(lambda: cluster.height(CANDIDATE) >= cluster.height(1) - 1 > 0, 60, "the candidate has synced")
    assert cluster.call(CANDIDATE, "poa_status")["validator"] is False
    assert "an observer, which signs nothing" in log_of(cluster, "candidate")
    late = cluster.verb("validators", "propose", "add", address)
    assert "warning" not in late, late
    assert "has voted for this already" in late
    effective = int(re.findall(r"in force from height (\d+)", late)[0])
    until(lambda: address in seals_since(cluster, 1, max(effective, cluster.height(1) - 5)), 30, "the newcomer seals")
    assert all(address not in sealers(cluster, 1, height) for height in range(max(1, effective - 20), effective))
    assert cluster.call(CANDIDATE, "poa_status")["validator"] is True


def test_a_fourth_joins_and_one_leaves_under_load(cluster: Cluster, node_process: Any) -> None:
    folder, address = start_with_candidate(cluster)
    create_election(cluster)
    voters = Voters(cluster)
    voters.start()
    admit(cluster, address, lambda: node_process(folder))

    cluster.verb("kill", "validator-1")  # four survive one crash, and only with the newcomer's signature
    advances(cluster, 2)
    cluster.verb("start", "validator-1")
    advances(cluster, 1)

    third = cluster.call(3, "poa_status")["address"]
    told = cluster.verb("validators", "propose", "remove", third)
    assert "after: 3 validators, quorum 2: survive 1 crashed and 0 Byzantine" in told
    effective = int(re.findall(r"in force from height (\d+)", told)[0])
    until(lambda: cluster.height(1) > effective + 3, 30, "the chain goes on without the third")
    assert third not in seals_since(cluster, 1, effective)
    assert f"this node is no validator from height {effective} on" in log_of(cluster, "validator-3")
    listed = cluster.verb("validators", "list")
    assert third not in listed
    assert address in listed
    assert "decided at height" in cluster.verb("validators", "votes")
    until(lambda: third not in peers(cluster, 1), 30, "who is no observer either is let go")

    cluster.verb("kill", "validator-2")  # three survive one
    advances(cluster, 1)
    cluster.verb("start", "validator-2")
    check_gateways(cluster)
    voters.stop()
    assert not voters.refused
    check_ballots(cluster, voters)
    cluster.verb("kill", "validator-3")
    shown = cluster.psephos("guard", "show", str(cluster.data_dir / "validator-3")).stdout
    assert int(re.findall(r"height (\d+), round", shown)[0]) < effective


def check_ballots(cluster: Cluster, voters: Voters) -> None:
    """Every acknowledged ballot is in the log of old and new validators exactly once."""
    expected = len(voters.acknowledged)
    assert expected > 100
    for number in (1, 2, CANDIDATE):
        has_all = partial(holds, cluster, number, expected)
        until(has_all, 60, f"{number} has all ballots")
        found = ballots_in_log(cluster, number, ELECTION)
        assert len(found) == len({nullifier for nullifier, *_ in found}) == expected


def holds(cluster: Cluster, number: int, count: int) -> bool:
    return len(ballots_in_log(cluster, number, ELECTION)) >= count


def check_gateways(cluster: Cluster) -> None:
    """Gateways come and go by the same votes; the one that carries the load stays."""
    gateway = cluster.status()["gateway"]["address"]
    one, other = "0x" + "ab" * 20, "0x" + "cd" * 20
    assert "decided" in cluster.verb("gateways", "propose", "add", one)
    arguments = ("gateways", "propose", "add", one, "--data-dir", str(cluster.data_dir))
    refused = cluster.psephos(*arguments, check=False)
    assert refused.returncode == 1
    assert f"AlreadyMember({one})" in refused.stderr
    assert "decided" in cluster.verb("gateways", "propose", "replace", one, other)
    listed = set(re.findall(r"0x[0-9a-f]{40}", cluster.verb("gateways", "list")))
    assert {gateway, other} <= listed  # beside the account of the client library
    assert one not in listed
    assert "decided" in cluster.verb("gateways", "propose", "remove", other)


def test_a_quorum_lost_for_good_is_overridden(cluster: Cluster) -> None:
    cluster.up()
    create_election(cluster)
    first = cluster.call(1, "poa_status")["address"]
    for number in (3, 2):
        cluster.verb("kill", f"validator-{number}")
    until(lambda: int(cluster.call(1, "poa_consensus")["round"], 16) > 0, 20, "a round that decides nothing ends")
    height = cluster.height(1)
    cluster.verb("kill", "validator-1")
    folder, file = cluster.data_dir / "validator-1", cluster.data_dir / "validator-1" / "override.json"
    made = cluster.psephos("override", "make", str(folder), "--validator", first, "--out", str(file)).stdout
    assert "not complete" in made
    set_key(folder, "sign =", 'override = "override.json"')
    failed = cluster.psephos("start", "validator-1", "--data-dir", str(cluster.data_dir), check=False)
    assert failed.returncode == 1
    assert "lacks the signature" in log_of(cluster, "validator-1")
    signed = cluster.psephos("override", "sign", str(file), "--key", str(folder / "node.key")).stdout
    assert "complete. It holds for a node" in signed
    cluster.verb("start", "validator-1")
    until(lambda: cluster.height(1) > height + 1, 60, "one validator goes on alone")
    assert cluster.call(1, "poa_getValidators", hex(height + 1))["validators"] == [first]
    assert cluster.call(1, "eth_getBlockByNumber", hex(height + 1), False)["transactions"] == []
    restart(cluster, 1)
    advances(cluster, 1, 1)
    shown = cluster.verb("validators", "list")
    assert "1 validators, quorum 1" in shown
