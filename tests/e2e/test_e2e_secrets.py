"""What must stay secret is in its own file and nowhere else: no log, no answer, no other file."""

from pathlib import Path

import pytest

from tests.e2e.harness import Cluster

pytestmark = pytest.mark.e2e

VOTER = "voter-that-nobody-may-find-6021023"
TRANSACTION = "transaction-that-stays-at-the-gateway-6626"


def secrets_of(folder: Path) -> dict[Path, str]:
    """The hex of each key and secret, by its file."""
    files = [*folder.rglob("*.key"), *folder.rglob("*.secret")]
    return {path: path.read_text().strip().removeprefix("0x") for path in files}


def test_no_secret_leaves_its_file(running: Cluster) -> None:
    secrets = secrets_of(running.data_dir)
    assert len(secrets) == 6
    ballot = {"voter_id": VOTER, "election_id": 6021, "choice": 1, "transaction_id": TRANSACTION}
    answer = running.http.post(f"{running.gateway_url}/api/votes/submit", json=ballot)
    assert answer.status_code in (200, 202)
    refused = running.http.post(f"{running.gateway_url}/api/votes/submit", json=ballot | {"choice": "x" * 99})
    assert refused.status_code == 422
    status = running.verb("status") + running.verb("status", "--json")
    listing = running.psephos("keys", "list", str(running.data_dir)).stdout
    assert str(running.data_dir / "gateway" / "gateway.key") in listing
    wanted = [*secrets.values(), VOTER, TRANSACTION]
    for found in wanted:
        assert found not in status + listing + answer.text.replace(TRANSACTION, "")
    for path in (path for path in running.data_dir.rglob("*") if path.is_file() and path not in secrets):
        content = path.read_bytes()
        for found in wanted:
            raw = bytes.fromhex(found) if len(found) == 64 else found.encode()
            assert found.encode() not in content, f"{path} holds a secret"
            assert raw not in content, f"{path} holds a secret"
