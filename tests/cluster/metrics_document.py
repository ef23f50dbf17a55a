"""The table of metrics in docs/OPERATIONS.md, from their definitions.

`python -m tests.cluster.metrics_document` writes it; a test compares it.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bootnode.server import METRICS as BOOTNODE
from gateway.metrics import METRICS as GATEWAY
from node.metrics import METRICS as NODE
from serving.metrics import COMMON, Metric

PATH = Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md"
BEGIN, END = "<!-- metrics: written by tests/cluster/metrics_document.py -->\n", "<!-- end of metrics -->\n"
GROUPS: tuple[tuple[str, Sequence[Metric]], ...] = (
    ("every process", COMMON),
    ("a node", [metric for metric in NODE if metric not in COMMON]),
    ("a gateway", [metric for metric in GATEWAY if metric not in COMMON]),
    ("a bootnode", [metric for metric in BOOTNODE if metric not in COMMON]),
)
EVERY = {metric.name: metric for _, metrics in GROUPS for metric in metrics}


def render() -> str:
    """The table, a line for each metric."""
    lines = ["| of | metric | kind | labels | is |", "|---|---|---|---|---|"]
    lines += [
        f"| {group} | `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"
        for group, metrics in GROUPS
        for metric in metrics
    ]
    return "\n".join(lines) + "\n"


def between(text: str) -> str:
    """What stands in the document where the table belongs."""
    found = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, re.DOTALL)
    assert found is not None, f"{PATH} has no place for the table"
    return found[1]


if __name__ == "__main__":
    document = PATH.read_text()
    PATH.write_text(document.replace(BEGIN + between(document) + END, BEGIN + render() + END))
    sys.stdout.write(f"{PATH} written\n")
