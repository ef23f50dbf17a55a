"""What the composed network must bear, on a Docker engine: `compose_check.py COMPOSE…`, the words that call compose.

It is up and healthy already. Everything is asked over the published ports, as a backend on this machine would.
"""

import json
import subprocess  # nosec B404 # it drives docker
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
VALIDATORS = ("validator-1", "validator-2", "validator-3")
SERVICES = ("bootnode", *VALIDATORS, "gateway")
USER = "10001:10001"
WITHIN_S = 90.0
ELECTION = 5151


def say(text: str) -> None:
    """One line of progress."""
    print(f"compose: {text}", flush=True)  # noqa: T201


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Raises AssertionError with `what` when it does not come true."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            if condition():
                return
        except (httpx.HTTPError, KeyError, ValueError):
            pass
        assert time.monotonic() < deadline, f"within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.25)


class Composed:
    """The running project."""

    def __init__(self, compose: list[str]) -> None:
        self.compose = compose
        self.http = httpx.Client(timeout=20, trust_env=False)
        self._voters = 0
        self.acknowledged = 0

    def run(self, *words: str, check: bool = True) -> str:
        """Standard output of a compose command."""
        return self._call([*self.compose, *words], check=check)

    def docker(self, *words: str, check: bool = True) -> str:
        """Standard output of a docker command."""
        return self._call(["docker", *words], check=check)

    @staticmethod
    def _call(words: list[str], *, check: bool) -> str:
        done = subprocess.run(  # nosec B603 # no shell
            words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return self.run("ps", "--all", "--quiet", service)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of it."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", self.container(service)))
        return found[0]

    def pause(self, service: str) -> None:
        """Suspend a service. On a busy machine an engine may fail to freeze all of a container's threads at once."""
        container = self.container(service)

        def is_paused() -> bool:
            self.docker("pause", container, check=False)
            return bool(self.inspect(service)["State"]["Paused"])

        until(is_paused, f"{service} is paused")

    def url(self, service: str, port: int) -> str:
        """Where it is published."""
        return f"http://{self.run('port', service, str(port))}"

    def rpc_url(self, service: str) -> str:
        """A node's JSON-RPC."""
        return self.url(service, 8004 if service == "observer" else 8000 + int(service[-1]))

    def call(self, service: str, method: str, *parameters: object) -> Any:
        """The result of one JSON-RPC call."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        return self.http.post(self.rpc_url(service), json=body).json()["result"]

    def height(self, service: str) -> int:
        """A node's final height."""
        return int(self.call(service, "eth_blockNumber"), 16)

    def vote(self, *, wait_s: int = 10) -> httpx.Response:
        """One vote of a new voter; it counts as acknowledged when it is."""
        self._voters += 1
        ballot = {"voter_id": f"voter-{self._voters}", "election_id": ELECTION, "choice": self._voters % 3}
        url = f"{self.url('gateway', 8003)}/api/votes/submit"
        answer = self.http.post(url, json=ballot, headers={"prefer": f"wait={wait_s}"})
        self.acknowledged += answer.status_code in (200, 202)
        return answer

    def votes_go_on(self, while_: str) -> None:
        """Three votes are confirmed."""
        for _ in range(3):
            answer = self.vote()
            assert answer.status_code == 200, f"{while_}: {answer.status_code} {answer.text}"
            assert answer.json()["status"] == "confirmed", f"{while_}: {answer.text}"
        say(f"{while_}: votes are confirmed")

    def all_is_well(self) -> None:
        """Wait until the gateway reaches all validators, these hold one chain, and no vote is missing."""
        gateway = self.url("gateway", 8003)
        until(lambda: self.http.get(f"{gateway}/ready", params={"max_level": 1}).is_success, "level 1")
        least = max(self.height(name) for name in VALIDATORS)
        until(lambda: min(self.height(name) for name in VALIDATORS) >= least, f"all validators at height {least}")
        blocks = {self.call(name, "eth_getBlockByNumber", hex(least), False)["hash"] for name in VALIDATORS}
        assert len(blocks) == 1, f"validators disagree on block {least}: {blocks}"
        until(lambda: self._total() == self.acknowledged, f"a total of {self.acknowledged}, not {self._total()}")

    def _total(self) -> int:
        url = f"{self.url('gateway', 8003)}/api/votes/results"
        results = self.http.get(url, params={"election_id": ELECTION}).json()
        return int(results["total"]) if results["verified"] and not results["stale"] else -1


def hardening(composed: Composed, services: tuple[str, ...]) -> None:
    """What an attacker inside a container would find."""
    owners: dict[str, str] = {}
    for service in services:
        found = composed.inspect(service)
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], f"{service}: its root file system can be written"
        assert host["CapDrop"] == ["ALL"], f"{service}: capabilities {host['CapDrop']}"
        assert not host["CapAdd"], f"{service}: capabilities {host['CapAdd']}"
        assert not host["Privileged"], f"{service}: privileged"
        assert any("no-new-privileges" in each for each in host["SecurityOpt"] or []), f"{service}: new privileges"
        assert host["Memory"] > 0, f"{service}: no bound on memory"
        assert 0 < host["PidsLimit"] <= 256, f"{service}: {host['PidsLimit']} processes"
        assert host["LogConfig"]["Config"].get("max-size"), f"{service}: its log is not rotated"
        assert host["RestartPolicy"]["Name"] == "unless-stopped", f"{service}: {host['RestartPolicy']}"
        assert found["Config"]["User"] == USER, f"{service}: runs as {found['Config']['User']!r}"
        for port, published in (host["PortBindings"] or {}).items():
            assert {each["HostIp"] for each in published} == {"127.0.0.1"}, f"{service}: {port} is open to others"
        for mount in found["Mounts"]:
            if mount["Type"] != "tmpfs":
                assert mount["Type"] == "volume", f"{service}: {mount}"
                assert owners.setdefault(mount["Name"], service) == service, f"{mount['Name']} is in two containers"
                assert mount["RW"] != mount["Destination"].endswith("-secrets"), f"{service}: {mount}"
        status = composed.docker("exec", found["Id"], "cat", "/proc/self/status")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert {fields[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}, f"{service}: {status}"
        assert fields["NoNewPrivs"].strip() == "1", f"{service}: {status}"
        write = composed.docker("exec", found["Id"], "sh", "-c", "touch /app/x /etc/x 2>&1; pip 2>&1", check=False)
        assert write.count("Read-only file system") == 2, f"{service}: {write}"
        assert "not found" in write, f"{service}: pip is there"
    say(f"{len(services)} containers are hardened as promised")


def secrets_stay(composed: Composed) -> None:
    """The gateway's key and secret are outside its data, and no log shows a secret."""
    listing = composed.run("exec", "-T", "gateway", "find", "/network", "-name", "*.key", "-o", "-name", "*.secret")
    assert {Path(line).parent.name for line in listing.split()} == {"gateway-secrets"}, listing
    logs = composed.run("logs", "--no-color")
    for service, path in (*((name, f"/network/{name}/node.key") for name in VALIDATORS),
                          *(("gateway", line) for line in listing.split())):  # fmt: skip
        secret = composed.run("exec", "-T", service, "cat", path).strip().removeprefix("0x")
        assert len(secret) == 64, f"{service}: {path}"
        assert secret not in logs, f"the logs show {path} of {service}"
        assert composed.run("exec", "-T", service, "stat", "-c", "%a", path) == "600", path


def killed(composed: Composed) -> None:
    """A process that dies comes back by itself; a container that is killed comes back by `up`."""
    before = composed.inspect("validator-2")["RestartCount"]
    # Its container's first process only watches over it, and ends with it.
    composed.run("exec", "-T", "validator-2", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    composed.votes_go_on("a validator's process killed")
    until(lambda: composed.inspect("validator-2")["RestartCount"] > before, "validator-2 is restarted")
    composed.all_is_well()
    composed.docker("kill", composed.container("gateway"))
    composed.docker("kill", composed.container("validator-3"))
    composed.run("up", "--detach", "--wait")
    composed.all_is_well()
    composed.votes_go_on("gateway and a validator killed, and up again")


def paused(composed: Composed) -> None:
    """One paused validator is not missed. With two paused, votes are kept, also when the gateway dies meanwhile."""
    composed.pause("validator-3")
    composed.votes_go_on("a validator paused")
    composed.pause("validator-2")
    answers = [composed.vote(wait_s=1) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    composed.docker("kill", composed.container("gateway"))
    composed.docker("start", composed.container("gateway"))
    composed.run("unpause", "validator-2", "validator-3")
    composed.all_is_well()
    say("two validators paused, then the gateway killed: what was pending is confirmed")


def cut_off(composed: Composed) -> None:
    """A validator without a network is not missed, and catches up when it is back."""
    network = next(iter(composed.inspect("validator-1")["NetworkSettings"]["Networks"]))
    composed.docker("network", "disconnect", network, composed.container("validator-1"))
    composed.votes_go_on("a validator cut off")
    composed.docker("network", "connect", "--alias", "validator-1", network, composed.container("validator-1"))
    composed.all_is_well()
    say("the validator that was cut off has caught up")


def observed(composed: Composed) -> None:
    """The observer follows, has no vote, and needs no guard."""
    profile = Composed([*composed.compose, "--profile", "observer"])
    profile.run("up", "--detach", "--wait", "observer")
    hardening(profile, ("observer",))
    composed.votes_go_on("an observer beside them")
    height = composed.height("validator-1")
    until(lambda: profile.height("observer") >= height, "the observer follows")
    blocks = [each.call(name, "eth_getBlockByNumber", hex(height), False)["hash"]
              for each, name in ((composed, "validator-1"), (profile, "observer"))]  # fmt: skip
    assert blocks[0] == blocks[1], blocks
    status = profile.call("observer", "poa_status")
    assert status["address"] not in profile.call("observer", "poa_getValidators")["next"], status
    files = profile.run("exec", "-T", "observer", "ls", "/network/observer").split()
    assert "guard" not in files, files
    assert "chain" in files, files
    say("the observer follows and signs nothing")
    profile.run("rm", "--stop", "--force", "observer")


def down_and_up(composed: Composed) -> None:
    """`down` keeps the chain."""
    height = composed.height("validator-1")
    composed.run("down", "--timeout", "20")
    composed.run("up", "--detach", "--wait")
    composed.all_is_well()
    assert composed.height("validator-1") >= height, f"the chain began anew: {height}"
    composed.votes_go_on("down and up again")


def profiles(composed: Composed) -> None:
    """The profiles read well; their images cannot be had everywhere, so they are not started here."""
    text = composed.run("--profile", "observability", "--profile", "observer", "config", "--format", "json")
    services: dict[str, dict[str, Any]] = json.loads(text)["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        for source in _bound(service):
            assert source.exists(), f"{name} mounts {source}, which is not there"
    say(f"{len(services)} services in all profiles")


def _bound(service: dict[str, Any]) -> Iterator[Path]:
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            yield Path(volume["source"])


def main(compose: list[str]) -> int:
    """Exit code 0 when all of it held."""
    composed = Composed(compose)
    profiles(composed)
    composed.votes_go_on("as it came up")
    composed.all_is_well()
    hardening(composed, SERVICES)
    secrets_stay(composed)
    for trial in (killed, paused, cut_off, observed, down_and_up):
        trial(composed)
    say(f"passed: {composed.acknowledged} acknowledged votes, each counted once")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
