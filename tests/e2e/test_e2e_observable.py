"""A real network as its operator sees it: metrics, logs that tell the story and no secret, and what disks hold."""

import hashlib
import json
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bootnode.server import METRICS as BOOTNODE
from gateway.metrics import METRICS as GATEWAY
from node.metrics import METRICS as NODE
from tests.cluster.test_cluster_observability import metrics_in_use
from tests.e2e.harness import ENVIRONMENT, Cluster, until

pytestmark = pytest.mark.e2e

NODES = ("validator-1", "validator-2", "validator-3")
DECLARED = {"bootnode": BOOTNODE, "gateway": GATEWAY, **dict.fromkeys(NODES, NODE)}
SETTINGS = {f"PSEPHOS_{kind}_LOG__{name}" for kind in ("NODE", "GATEWAY", "BOOTNODE") for name in ("LEVEL", "FORMAT")}


@dataclass
class Watched:
    """A network whose logs are JSON at DEBUG, and what must stand in none of them."""

    cluster: Cluster
    api_key: str = "psk_" + secrets.token_urlsafe(32)
    voters: list[str] = field(default_factory=list)

    def metrics(self, name: str) -> str:
        url = (self.cluster.data_dir / name / "metrics.url").read_text().strip()
        return self.cluster.http.get(url).text

    def value(self, name: str, metric: str, **labels: str) -> float | None:
        """A sample's value; None where it is not there."""
        for family in text_string_to_metric_families(self.metrics(name)):
            for sample in family.samples:
                if sample.name == metric and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def vote(self, voter: str, choice: Any = 0, **headers: str) -> httpx.Response:
        self.voters.append(voter)
        body = {"voter_id": voter, "election_id": 1, "choice": choice}
        headers = {"X-API-Key": self.api_key, "Prefer": "wait=10"} | headers
        return self.cluster.http.post(f"{self.cluster.gateway_url}/api/votes/submit", json=body, headers=headers)

    def log(self, name: str) -> list[dict[str, Any]]:
        """The records of a process's log, each of which must be a JSON object."""
        lines = (self.cluster.data_dir / "logs" / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if not line.startswith("--- psephos starts")]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A network with some history: ballots taken and refused, a stranger turned away, a validator gone."""
    one = Watched(Cluster(tmp_path_factory.mktemp("watched") / "data"))
    cluster = one.cluster
    ENVIRONMENT.update({name: "DEBUG" if name.endswith("LEVEL") else "json" for name in SETTINGS})
    try:
        cluster.up()
        cluster.verb("kill", "gateway")
        config = cluster.data_dir / "gateway" / "gateway.toml"
        digest = hashlib.sha256(one.api_key.encode()).hexdigest()
        key = f'\n[[api_keys]]\nname = "backend"\nsha256 = "{digest}"\nscopes = ["vote", "anchor", "read"]\n'
        config.write_text(config.read_text() + key)
        cluster.verb("start", "gateway")
        for number in range(6):
            assert one.vote(f"voter-{secrets.token_hex(8)}", number % 3).json()["status"] == "confirmed"
        assert one.vote(one.voters[0], 1).status_code == 409
        assert one.vote(f"voter-{secrets.token_hex(8)}", 63).status_code == 422
        assert one.vote(f"voter-{secrets.token_hex(8)}" * 40).status_code == 422
        assert one.vote(f"voter-{secrets.token_hex(8)}", **{"X-API-Key": one.api_key[:-4] + "AAAA"}).status_code == 401
        url = f"{cluster.gateway_url}/api/elections/1"
        headers = {"X-API-Key": one.api_key, "X-Request-Id": "trace-e2e-1"}
        assert cluster.http.get(url, headers=headers).status_code == 200
        assert cluster.http.get(url + "/" + one.voters[0], headers=headers).status_code == 404
        anchor = {"batch_id": str(uuid.uuid4()), "merkle_root": secrets.token_hex(32), "product_count": 3}
        answer = cluster.http.post(f"{cluster.gateway_url}/v1/anchor", json=anchor, headers=headers)
        assert answer.status_code in (200, 201, 202), answer.text
        cluster.call(1, "eth_chainId")
        yield one
    finally:
        for name in SETTINGS:
            ENVIRONMENT.pop(name, None)
        cluster.destroy()


def test_every_process_tells_all_its_metrics(watched: Watched) -> None:
    for name, declared in DECLARED.items():
        families = {family.name: family for family in text_string_to_metric_families(watched.metrics(name))}
        expected = {metric.name.removesuffix("_total") for metric in declared}
        assert {family for family in families if family.startswith("psephos_")} == expected, name


def test_what_alerts_and_dashboard_name_has_values(watched: Watched) -> None:
    def missing() -> set[str]:
        seen: set[str] = set()
        for name in DECLARED:
            for family in text_string_to_metric_families(watched.metrics(name)):
                if family.samples:
                    seen |= {family.name, family.name + "_total"}
        return metrics_in_use() - seen

    until(lambda: not missing(), 30, f"metrics without a sample: {missing()}")  # the first ping takes some seconds


def test_numbers_are_those_of_what_happened(watched: Watched) -> None:
    accepted = watched.value("gateway", "psephos_gateway_records_total", kind="ballot", outcome="accepted") or 0
    assert accepted >= 6
    assert watched.value("gateway", "psephos_gateway_finality_seconds_count")
    until(lambda: (watched.value("validator-1", "psephos_stored_ballots") or 0) >= accepted, 10, "all are counted")
    assert watched.value("validator-1", "psephos_ballots_total", outcome="accepted") == watched.value(
        "validator-1", "psephos_stored_ballots"
    )
    until(lambda: watched.value("validator-1", "psephos_anchors_total") == 1, 10, "the anchor is counted")
    assert watched.value("validator-1", "psephos_validators") == 3
    assert watched.value("validator-1", "psephos_rpc_seconds_count", method="poa_status")
    watched.cluster.http.post(
        watched.cluster.rpc_url(1), json={"jsonrpc": "2.0", "id": 1, "method": "made_up_by_a_stranger", "params": []}
    )
    assert watched.value("validator-1", "psephos_rpc_failed_total", method="unknown") == 1
    assert "made_up_by_a_stranger" not in watched.metrics("validator-1")


def test_a_request_is_found_in_the_logs_of_gateway_and_validators(watched: Watched) -> None:
    asked = [entry for name in NODES for entry in watched.log(name) if entry.get("request_id") == "trace-e2e-1"]
    assert asked, "no validator has logged the caller's request id"
    assert any(entry.get("request_id") == "trace-e2e-1" for entry in watched.log("gateway"))


def test_a_death_shows_in_metrics_and_logs(watched: Watched) -> None:
    watched.cluster.verb("kill", "validator-3")
    until(lambda: watched.value("validator-1", "psephos_validators_within_reach") == 2, 20, "validator-1 sees a death")
    until(lambda: watched.value("gateway", "psephos_gateway_level") == 2, 20, "the gateway sees a death")
    watched.vote(f"voter-{secrets.token_hex(8)}")

    def told() -> set[object]:
        entries = [entry for name in ("validator-1", "validator-2", "gateway") for entry in watched.log(name)]
        return {entry.get("event") for entry in entries}

    until(lambda: {"block", "round", "level", "quorum"} <= told(), 30, "a round fails for want of its proposer")
    blocks = [entry for entry in watched.log("validator-1") if entry.get("event") == "block" and entry["ballots"]]
    assert blocks
    assert all(set(entry) >= {"height", "round", "transactions", "final_ms", "missing_seals"} for entry in blocks)
    watched.cluster.verb("start", "validator-3")


def test_nothing_secret_is_logged_or_counted(watched: Watched) -> None:
    """Not even at DEBUG: keys, the master secret, the operators' secret, API keys, voter ids."""
    data_dir = watched.cluster.data_dir
    files = [path for pattern in ("*.key", "*.secret", "jwt.hex") for path in data_dir.rglob(pattern)]
    assert {path.name for path in files} >= {"node.key", "gateway.key", "master.secret", "jwt.hex"}
    texts = {path.read_text().strip().removeprefix("0x").lower() for path in files if path.stat().st_size < 200}
    assert all(len(text) == 64 for text in texts)
    hidden = {
        watched.api_key,
        watched.api_key[:-4],
        *watched.voters,
        *texts,
        *(str(bytes.fromhex(text))[2:-1] for text in texts),
    }
    shown = {path.name: path.read_text().lower() for path in (data_dir / "logs").iterdir()}
    assert sum(text.count("\n") for text in shown.values()) > 100, "the logs are at DEBUG"
    shown |= {f"metrics of {name}": watched.metrics(name).lower() for name in ("bootnode", "gateway", "validator-1")}
    for where, text in shown.items():
        for secret in hidden:
            assert secret.lower() not in text, f"{where} holds {secret}"


def test_no_line_is_written_for_a_ballot(watched: Watched) -> None:
    ballots = 40
    before = {name: len(watched.log(name)) for name in ("gateway", "validator-1")}
    votes = [{"voter_id": f"bulk-{number}", "election_id": 1, "choice": 0} for number in range(ballots)]
    url = f"{watched.cluster.gateway_url}/api/votes/batch"
    answer = watched.cluster.http.post(url, json={"votes": votes}, headers={"X-API-Key": watched.api_key})
    assert answer.status_code < 300, answer.text
    until(lambda: (watched.value("validator-1", "psephos_stored_ballots") or 0) >= 6 + ballots, 20, "all are final")
    ones = [entry for name, count in before.items() for entry in watched.log(name)[count:] if "bulk-" in str(entry)]
    assert not ones
    assert sum(entry.get("event") == "block" for entry in watched.log("validator-1")[before["validator-1"] :]) < ballots


def test_a_stopped_node_is_inspected_and_exported(watched: Watched, tmp_path: Path) -> None:
    cluster = watched.cluster
    running = cluster.psephos("inspect", "validator-1", "--data-dir", str(cluster.data_dir), check=False)
    assert running.returncode == 1
    assert "another process uses the database" in running.stderr
    cluster.verb("kill", "validator-2")
    found = json.loads(cluster.verb("inspect", "validator-2", "--verify", "--json"))
    assert found["integrity"]["holds"], found["integrity"]
    assert found["head"]["height"] > 3
    out = tmp_path / "lines.jsonl"
    cluster.verb("export", "validator-2", "--out", str(out))
    cluster.verb("start", "validator-2")
    with out.open() as file:
        lines = [json.loads(line) for line in file]
    accepted = [line for line in lines if line["type"] == "ballot" and line["outcome"] == "accepted"]
    assert len(accepted) == found["elections"][0]["ballots"] >= 6
    heights = [line["height"] for line in lines if line["type"] == "block"]
    assert heights == list(range(found["head"]["height"] + 1))
    assert [line["index"] for line in lines if line["type"] == "anchor"] == [0]
