"""Networks of real processes, each in a network namespace of its own, between which iptables cuts what a test says."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import pytest

from cluster.creation import create
from cluster.network import Network, Process
from cluster.processes import ProcessTable
from cluster.supervisor import stop_all

TOOLS = ("ip", "iptables")
SUBNET = f"10.213.{os.getpid() % 250}"
TAG = f"ps{os.getpid() % 100_000}"  # a device's name has at most 15 letters
HUB = f"{TAG}h"


def tool(*arguments: str) -> None:
    """Run ip or iptables; its own words when it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")


def missing() -> str:
    """What this machine lacks for these tests; empty when it lacks nothing."""
    lacking = [name for name in TOOLS if shutil.which(name) is None]
    if lacking:
        return f"{' and '.join(lacking)} not installed (Debian: apt install iproute2 iptables)"
    if os.geteuid() != 0:
        return "not root"
    try:
        tool("ip", "netns", "add", f"{TAG}probe")
    except RuntimeError as error:
        return str(error)
    try:
        tool("ip", "netns", "exec", f"{TAG}probe", "iptables", "-A", "INPUT", "-s", f"{SUBNET}.1", "-j", "DROP")
    except RuntimeError as error:
        return str(error)
    finally:
        tool("ip", "netns", "del", f"{TAG}probe")
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What cannot run says so, and why."""
    if any(item.get_closest_marker("netns") for item in items) and (why := missing()):
        for item in items:
            if item.get_closest_marker("netns"):
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: {why}"))


class SpacedTable(ProcessTable):
    """Processes that are started in the namespace of their name."""

    def command(self, process: Process, config: Path) -> list[str]:
        """As usual, but over there."""
        return ["ip", "netns", "exec", space(process.name), *super().command(process, config)]


def space(name: str) -> str:
    """The namespace of a process."""
    return f"{TAG}-{name}"


def cable(number: int) -> str:
    """The outer end of the number-th process's cable."""
    return f"{TAG}v{number}"


class Spaces:
    """A bridge, and one namespace per process with a cable to it; `addresses` by the process's name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 1)}
        self._made: list[str] = []

    def build(self) -> None:
        """Make everything. Raises RuntimeError."""
        tool("ip", "link", "add", HUB, "type", "bridge")
        tool("ip", "addr", "add", f"{SUBNET}.254/24", "dev", HUB)
        tool("ip", "link", "set", HUB, "up")
        for number, (name, address) in enumerate(self.addresses.items(), 1):
            inner, outer = "eth0", cable(number)
            tool("ip", "netns", "add", space(name))
            self._made.append(name)
            tool("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space(name))
            tool("ip", "link", "set", outer, "master", HUB, "up")
            tool("ip", "-n", space(name), "addr", "add", f"{address}/24", "dev", inner)
            tool("ip", "-n", space(name), "link", "set", inner, "up")
            tool("ip", "-n", space(name), "link", "set", "lo", "up")

    def destroy(self) -> None:
        """Take everything away, as far as it was made."""
        cables = [["link", "del", cable(number)] for number in range(1, len(self.addresses) + 1)]
        rooms = [["netns", "del", space(name)] for name in self._made]
        for what in (*cables, *rooms, ["link", "del", HUB]):  # a namespace takes its cable along, but some time later
            subprocess.run(["ip", *what], capture_output=True, timeout=30, check=False)

    def cut(self, sender: str, receiver: str, *, share: float = 1.0) -> None:
        """Nothing that `sender` sends reaches `receiver` any more, or only 1 - `share` of the packets."""
        some = () if share >= 1 else ("-m", "statistic", "--mode", "random", "--probability", str(share))
        at = ("ip", "netns", "exec", space(receiver), "iptables", "-A", "INPUT")
        tool(*at, "-s", self.addresses[sender], *some, "-j", "DROP")

    def split(self, *groups: Sequence[str]) -> None:
        """Processes of different groups hear nothing of each other."""
        for one, other in permutations(groups, 2):
            for sender in one:
                for receiver in other:
                    self.cut(sender, receiver)

    def heal(self) -> None:
        """Everybody hears everybody."""
        for name in self.addresses:
            tool("ip", "netns", "exec", space(name), "iptables", "-F", "INPUT")


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    """Namespaces for three validators, a gateway and a bootnode."""
    made = Spaces(["bootnode", "validator-1", "validator-2", "validator-3", "gateway"])
    try:
        made.build()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def table(spaces: Spaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessTable]:
    """A running network in those namespaces."""
    monkeypatch.setenv("PSEPHOS_GATEWAY_ALLOW_ANONYMOUS", "true")  # only this machine reaches them
    processes = tuple(
        Process(
            name=name,
            kind="validator" if name.startswith("validator") else "gateway" if name == "gateway" else "bootnode",
            bind="0.0.0.0",
            host=address,
            port=22_080,
            p2p_port=22_303 if name.startswith("validator") else 0,
        )
        for name, address in spaces.addresses.items()
    )
    network = create(tmp_path / "data", Network(7770, True, 100, processes))
    one = SpacedTable(tmp_path / "data")
    try:
        for process in network:
            one.start(process)
        yield one
    finally:
        stop_all(one, network)
