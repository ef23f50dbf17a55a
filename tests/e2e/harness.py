"""Real networks: five processes started by the command line, as a person would, on ports that nobody uses."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def command(*arguments: str) -> list[str]:
    """The command line `psephos`, of this checkout."""
    return [sys.executable, "-P", "-m", "cluster", *arguments]


def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for a condition; fail with `what` when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"within {within_s} s: {what}"
        time.sleep(0.05)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports, below those that the system hands out by itself."""
    dice = random.Random(os.urandom(8))  # pytest-randomly seeds the global one: parallel runs would choose alike
    while True:
        first = dice.randrange(10_000, 30_000)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


@dataclass
class Cluster:
    """One network in a folder, driven by `psephos`."""

    data_dir: Path
    validators: int = 3
    first_port: int = field(default_factory=lambda: free_ports(20))
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    @property
    def up_arguments(self) -> list[str]:
        """What `psephos up` is given, without --detach."""
        first = self.first_port
        ports = {"gateway": first, "rpc": first + 1, "p2p": first + 8, "bootnode": first + 15}
        options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
        return ["up", "--data-dir", str(self.data_dir), "--validators", str(self.validators), *options]

    def psephos(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one verb to its end."""
        done = subprocess.run(
            command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{self.logs()}"
        return done

    def verb(self, verb: str, *arguments: str) -> str:
        """Run a verb on this network; its standard output."""
        return self.psephos(verb, *arguments, "--data-dir", str(self.data_dir)).stdout

    def up(self) -> None:
        """Start, or resume, in the background."""
        self.psephos(*self.up_arguments, "--detach")

    def logs(self) -> str:
        """The end of every process's log, for a failed assertion's message."""
        return "".join(
            f"\n--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted((self.data_dir / "logs").glob("*.log"))
        )

    def status(self) -> dict[str, dict[str, Any]]:
        """`psephos status --json`: what each process says, by name."""
        rows = json.loads(self.verb("status", "--json"))["processes"]
        return {row["name"]: row for row in rows}

    @property
    def gateway_url(self) -> str:
        """Where votes go."""
        return f"http://127.0.0.1:{self.first_port}"

    def rpc_url(self, number: int) -> str:
        """JSON-RPC of validator `number`, counted from 1."""
        return f"http://127.0.0.1:{self.first_port + number}"

    @property
    def rpc_urls(self) -> list[str]:
        """JSON-RPC of all validators."""
        return [self.rpc_url(number) for number in range(1, self.validators + 1)]

    def call(self, number: int, method: str, *parameters: Any) -> Any:
        """The result of one JSON-RPC call."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = self.http.post(self.rpc_url(number), json=body).json()
        assert "error" not in answer, f"{method}{parameters}: {answer}"
        return answer["result"]

    def height(self, number: int) -> int:
        """The final height of one validator; -1 when it does not answer."""
        try:
            return int(self.call(number, "eth_blockNumber"), 16)
        except (httpx.HTTPError, ValueError):
            return -1

    def pids(self) -> list[int]:
        """Everything of this network that was noted as started."""
        return [json.loads(path.read_text())["pid"] for path in (self.data_dir / "run").glob("*.json")]

    def destroy(self) -> None:
        """Stop everything, however badly the test went."""
        self.http.close()
        if (self.data_dir / "cluster.json").exists():
            self.psephos("down", "--data-dir", str(self.data_dir), check=False)
