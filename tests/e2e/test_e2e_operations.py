"""OPERATIONS.md as it is written: several hosts (a folder each), an upgrade, a new key, a backup that is restored."""

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import ENVIRONMENT, ROOT, command, free_ports, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

TEXT = (ROOT / "docs" / "OPERATIONS.md").read_text()
ELECTION = 12
BACKGROUND = {"node", "bootnode", "gateway"}


def commands(title: str) -> list[tuple[str, str]]:
    """(host, command) of each line with a prompt in the section `title`, continued lines joined, comments cut."""
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    fences = "\n".join(re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"^(host-\d|anywhere)\$ +(.*)$", fences, re.MULTILINE)
    return [(host, re.sub(r"\s{2,}#.*", "", line).strip()) for host, line in found]


class Hosts:
    """Folders that stand for hosts, each with an address of its own on loopback, and the processes on them.

    Ports are moved, as a whole, to where nobody listens: 8001 on host-2 becomes `first_port` + 1 on 127.0.0.2.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_port = free_ports(20)
        self.addresses: list[str] = []
        self.key = ""
        self.processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(timeout=20, trust_env=False)
        self._voters = 0

    def on(self, host: str) -> Path:
        """A host's folder."""
        (self.folder / host).mkdir(exist_ok=True)
        return self.folder / host

    def port(self, usual: int) -> int:
        """Where a usual port is here."""
        return self.first_port + {8000: 0, 8001: 1, 30303: 2, 30300: 3}[usual]

    def moved(self, text: str, host: str) -> str:
        """A command, with the ports of this machine, and the host itself where it says 127.0.0.1."""
        return self.ported(text).replace("127.0.0.1:", f"{_address(host)}:")

    def ported(self, text: str) -> str:
        """Text with the ports of this machine."""
        for usual in (8000, 8001, 30303, 30300):
            text = text.replace(f":{usual}", f":{self.port(usual)}")
        return text

    def run(self, host: str, line: str) -> str:
        """One command of the document; its output."""
        for address in self.addresses if "0x…" in line else ():
            line = line.replace("0x…", address, 1)
        words = shlex.split(line.removesuffix("&"))
        if words[0] == "scp":
            return self._copy(words[-2], words[-1])
        if words[0] == "psephos" and words[1] in BACKGROUND:
            return self.start(host, words[1], words[-1])
        if words[0] == "systemctl":
            return self.stop(host, "node")
        if words[0] == "git":
            return "there is nothing newer"
        if words[0] == "curl":
            self._until_it_succeeds(self.moved(words[-1], host))
            return ""
        assert words[0] in ("psephos", "mkdir", "cp", "mv"), f"a command that no test knows: {line}"
        line = self.moved(line, host)
        # Names of hosts stand in the genesis command: there each host is told by address and port.
        line = re.sub(r"@host-(\d)", rf"@127.0.0.\1:{self.port(30303)}", line)
        line = line.replace(f"@127.0.0.4:{self.port(30303)}", f"@127.0.0.4:{self.port(8000)}")
        line = line.replace("--bootnode host-1", f"--bootnode 127.0.0.1:{self.port(30300)}")
        done = subprocess.run(
            ["sh", "-c", line.replace("psephos", shlex.join(command()), 1)],
            cwd=self.on(host),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{host}$ {line}: {done.stdout}{done.stderr}"
        if line.startswith("psephos keys new"):
            self.addresses.append(done.stdout.strip())
        if line.startswith("psephos api-key"):
            self.key = done.stdout.split()[0]
        return done.stdout

    def _copy(self, source: str, target: str) -> str:
        host, folder = target.split(":")
        shutil.copytree(self.on("anywhere") / source, self.on(host) / folder, dirs_exist_ok=True)
        for path in (self.on(host) / folder).glob("*.toml"):
            text = path.read_text()
            text = re.sub(r"127\.0\.0\.1:97\d\d", "127.0.0.1:0", text)  # metrics
            path.write_text(self.ported(text).replace("0.0.0.0", _address(host)))
        return ""

    def start(self, host: str, verb: str, config: str) -> str:
        """A process in the background."""
        log = (self.on(host) / f"{verb}.log").open("ab")
        self.processes[host, verb] = subprocess.Popen(
            command(verb, "--config", config),
            cwd=self.on(host),
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        return ""

    def stop(self, host: str, verb: str, number: signal.Signals = signal.SIGTERM) -> str:
        """End one, and wait for it."""
        process = self.processes.pop((host, verb))
        process.send_signal(number)
        process.wait(30)
        return ""

    def stop_all(self) -> None:
        """End what is left."""
        for host, verb in list(self.processes):
            self.stop(host, verb, signal.SIGKILL)
        self.http.close()

    def log(self, host: str, verb: str = "node") -> str:
        """What a process has written."""
        return (self.on(host) / f"{verb}.log").read_text()

    def _until_it_succeeds(self, url: str) -> None:
        def succeeds() -> bool:
            try:
                return self.http.get(url).is_success
            except httpx.HTTPError:
                return False

        until(succeeds, 60, f"{url} succeeds")

    def call(self, host: str, method: str, *parameters: object) -> Any:
        """The result of one JSON-RPC call."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        return self.http.post(f"http://{_address(host)}:{self.port(8001)}", json=body).json()["result"]

    def post(self, path: str, document: dict[str, object]) -> httpx.Response:
        """Ask the gateway, with the key that was made for the backend."""
        headers = {"authorization": f"Bearer {self.key}", "prefer": "wait=20"}
        url = f"http://127.0.0.4:{self.port(8000)}{path}"
        return self.http.post(url, json=document, headers=headers, timeout=30)

    def vote(self) -> None:
        """One more voter's ballot becomes final."""
        self._voters += 1
        ballot = {"election_id": ELECTION, "voter_id": f"voter-{self._voters}", "choice": self._voters % 2}
        answer = self.post("/api/votes/submit", ballot)
        assert (answer.status_code, answer.json().get("status")) == (200, "confirmed"), answer.text


def _address(host: str) -> str:
    return f"127.0.0.{host[-1]}" if host[-1].isdigit() else "127.0.0.1"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    one = Hosts(tmp_path)
    yield one
    one.stop_all()


def follow(hosts: Hosts, title: str) -> None:
    """Every command of a section, in order."""
    lines = commands(title)
    assert len(lines) >= 3, title
    for host, line in lines:
        hosts.run(host, line)


def signs(hosts: Hosts, address: str) -> None:
    """Wait until the validator has proposed a block that is final on host-1."""

    def proposes() -> bool:
        hosts.vote()
        return bool(hosts.call("host-1", "eth_getBlockByNumber", "latest", False)["miner"] == address)

    until(proposes, 60, f"{address} proposes")


def test_the_life_of_a_network_on_several_hosts(hosts: Hosts) -> None:
    follow(hosts, "Several hosts")
    election = {"election_id": ELECTION, "title": "Operations", "options": ["a", "b"], "kinds": "open"}
    created = hosts.post("/api/elections", election)
    assert created.is_success, created.text
    hosts.vote()

    follow(hosts, "Upgrading without losing the quorum")
    hosts.vote()
    signs(hosts, hosts.addresses[0])

    old = hosts.addresses[1]
    new_key, copied, *votes, stop, move, start = commands("Rotating a key")
    for host, line in (new_key, copied):
        hosts.run(host, line)
    new = hosts.addresses[-1]
    for host, line in (*votes, stop, move, start):
        hosts.run(host, line.replace("0xOLD", old).replace("0xNEW", new))
    hosts.vote()
    assert new in hosts.call("host-1", "poa_getValidators")["next"]
    assert old not in hosts.call("host-1", "poa_getValidators")["next"]
    signs(hosts, new)

    hosts.stop("host-3", "node", signal.SIGKILL)
    hosts.vote()
    (hosts.on("host-3") / "node.log").unlink()
    *restore, look = commands("Backup and restore")
    for host, line in restore:
        hosts.run(host, line)
    signs(hosts, hosts.addresses[2])
    assert "is lost or out of date" in hosts.log("host-3")
    assert "signs above height" in hosts.log("host-3")
    hosts.stop("host-3", "node")
    assert "LOST" not in hosts.run(*look)
    roll_back(hosts)
    assert hosts.call("host-1", "poa_getEvidence", "0x0", "latest") == []


def roll_back(hosts: Hosts) -> None:
    """The whole folder of host-3's validator, which is stopped, comes back as it was a while ago, guard and all."""
    folder = hosts.on("host-3") / "restored"
    shutil.copytree(folder, hosts.on("host-3") / "backup")
    hosts.run("host-3", "psephos node --config restored/node.toml &")
    signs(hosts, hosts.addresses[2])
    hosts.stop("host-3", "node", signal.SIGKILL)
    folder.rename(hosts.on("host-3") / "gone")
    (hosts.on("host-3") / "backup").rename(folder)
    (hosts.on("host-3") / "node.log").unlink()
    hosts.run("host-3", "psephos node --config restored/node.toml &")
    signs(hosts, hosts.addresses[2])
    assert "is lost or out of date" in hosts.log("host-3"), hosts.log("host-3")


def test_every_command_is_one_that_a_test_runs() -> None:
    """Sections with prompts are all followed above."""
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    prompted = {title for title in titles[:-1] if title != "Compose" and commands(title)}
    assert prompted == {
        "Several hosts", "Backup and restore", "Rotating a key", "Upgrading without losing the quorum"
    }  # fmt: skip
