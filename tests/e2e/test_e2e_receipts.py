"""Receipts of a running network, checked by the command line without it; a monitor that follows a log from outside."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BATCH = "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11"


def fetched(client: httpx.Client, path: str, within_s: float = 60, **query: Any) -> bytes:
    """The document, once the record is final."""
    deadline = time.monotonic() + within_s
    while True:
        answer = client.get(path, params=query)
        if answer.status_code == 200:
            return answer.content
        assert answer.status_code in (202, 404, 503), answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def test_receipts_outlive_the_network(cluster: Cluster, tmp_path: Path) -> None:
    cluster.up()
    genesis = ("--genesis", str(cluster.data_dir / "genesis.json"))
    products, tree = tmp_path / "products.txt", tmp_path / "products.txt.tree"
    products.write_text("".join(f"serial {number}\n" for number in range(100)))
    root = cluster.psephos("merkle", "build", str(products)).stdout.strip()
    log_url, memory = f"{cluster.gateway_url}/log/1", str(tmp_path / "memory.json")
    with httpx.Client(base_url=cluster.gateway_url, timeout=30, trust_env=False) as client:
        for number in range(3):
            vote = {"voter_id": f"v{number}", "election_id": 1, "choice": 0, "transaction_id": f"t{number}"}
            assert client.post("/api/votes/submit", json=vote, headers={"prefer": "wait=20"}).status_code in (200, 202)
        anchor = {"batch_id": BATCH, "merkle_root": root, "product_count": 100, "algorithm": "rfc6962-sha256"}
        assert client.post("/v1/anchor", json=anchor).status_code == 202
        (tmp_path / "ballot.json").write_bytes(
            fetched(client, "/api/votes/receipt", election_id=1, transaction_id="t1", choice=0)
        )
        (tmp_path / "anchor.json").write_bytes(fetched(client, f"/v1/anchor/{BATCH}/receipt"))
        assert "✓ first look" in cluster.psephos("monitor", log_url, *genesis, "--state", memory).stdout
        assert "✓ grew from" in cluster.psephos("monitor", log_url, "--state", memory).stdout
    cluster.verb("down")
    product = cluster.psephos(
        "merkle", "prove", str(tree), "--leaf", "serial 42", "--anchor", str(tmp_path / "anchor.json")
    )
    (tmp_path / "product.json").write_text(product.stdout)
    for name, words in (
        ("ballot", "an open ballot for option 0"),
        ("anchor", root),
        ("product", "The product is leaf 42 of a batch of 100."),
    ):
        said = cluster.psephos("verify", str(tmp_path / f"{name}.json"), *genesis).stdout
        assert words in said
        assert "It holds." in said
