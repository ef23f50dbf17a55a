"""Every command of the README, run as it stands there, on a network of the test's own ports."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from cluster.cli import build_parser
from tests.e2e.harness import ENVIRONMENT, ROOT, Cluster, command, until

pytestmark = pytest.mark.e2e

# `make up` is what test_e2e_up.py runs, tests/cluster/test_cluster_bench.py measures on networks of their own, and the
# composed network has a check of its own.
BENCH = ".venv/bin/psephos bench votes --clients 2048"
ELSEWHERE = {"make up", BENCH}


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the README's fenced blocks, drawings left out."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, body) for language, body in found if not re.search("[│▼]", body)]


def commands() -> list[str]:
    """The shell commands, one each, continued lines joined and comments cut."""
    lines = "".join(body for language, body in blocks() if language == "").replace("\\\n", " ")
    joined = re.sub(r"(\{[^}]*?)\n\s*([^}]*\})", r"\1 \2", lines)
    return [re.sub(r"\s+#.*", "", line).strip() for line in joined.splitlines() if line.strip()]


def on(cluster: Cluster, text: str) -> str:
    """The same text, speaking of the test network's ports instead of the default ones."""
    for default in range(8003, 7999, -1):
        text = text.replace(f"127.0.0.1:{default}", f"127.0.0.1:{cluster.first_port + default - 8000}")
    return text


def run(cluster: Cluster, line: str) -> str:
    words = shlex.split(line)
    if words[0] == ".venv/bin/psephos":
        return cluster.psephos(*words[1:], "--data-dir", str(cluster.data_dir)).stdout
    assert words[0] == "curl", f"the README has a command that no test knows: {line}"
    done = subprocess.run(["sh", "-c", on(cluster, line)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_every_command(cluster: Cluster) -> None:
    cluster.up()
    outputs = {line: run(cluster, line) for line in commands() if line not in ELSEWHERE}
    assert len(outputs) >= 6
    answers = {line: json.loads(output) for line, output in outputs.items() if line.startswith("curl")}
    vote = next(answer for line, answer in answers.items() if "votes/submit" in line)
    results = next(answer for line, answer in answers.items() if "votes/results" in line)
    anchor = next(answer for line, answer in answers.items() if "/v1/anchor" in line)
    assert vote["status"] == "confirmed"
    assert (results["total"], results["verified"]) == (1, True)
    assert anchor["status"] in ("pending", "processing", "completed")
    assert "validator-3" in next(output for line, output in outputs.items() if line.endswith("status"))
    cluster.verb("resume", "gateway")
    until(lambda: all(row["healthy"] for row in cluster.status().values()), 60, "all five are well again")


def test_every_python_example(running: Cluster) -> None:
    examples = [body for language, body in blocks() if language == "python"]
    assert examples
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", on(running, example)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "gasLimit" in done.stdout


def test_what_is_run_elsewhere_is_still_there() -> None:
    assert set(commands()) >= ELSEWHERE
    assert command("up")[-1] == "up"
    assert build_parser().parse_args(BENCH.split()[1:]).clients == 2048
