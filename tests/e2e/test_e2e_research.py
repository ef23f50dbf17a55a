"""Every block of docs/research.md, run as it stands and in its order, on a network of the test's own ports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import ENVIRONMENT, ROOT, Cluster

pytestmark = pytest.mark.e2e

WITHIN_S = 120


def on(cluster: Cluster, text: str) -> str:
    """The same text, speaking of the test network's ports instead of the default ones."""
    for default in range(8003, 7999, -1):
        text = text.replace(f"127.0.0.1:{default}", f"127.0.0.1:{cluster.first_port + default - 8000}")
    return text


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        arguments, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_of_the_tour(cluster: Cluster, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "research.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"sh", "python"}
    cluster.up()
    for language, body in blocks:
        if language == "sh":
            run(["bash", "-euo", "pipefail", "-c", on(cluster, body)], tmp_path)
    script = tmp_path / "tour.py"  # one script: each block goes on where the one before it ended
    script.write_text(on(cluster, "\n".join(body for language, body in blocks if language == "python")))
    shown = run([sys.executable, "-W", "error::DeprecationWarning", str(script)], tmp_path)
    assert "seals of 3 validators" in shown
    assert shown.count("proposals") == 3
