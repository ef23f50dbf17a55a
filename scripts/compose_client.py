"""A backend beside the composed network: waits for the gateway, casts ballots and an anchor, and reads them back."""

import sys
import time
import uuid

import httpx

BASE = "http://blockchain-service:8003"
DEADLINE_S = 120
ELECTION = 4242  # unknown: made by its first ballot, as development networks do


def main() -> int:
    """Exit code 0 when everything was confirmed."""
    deadline = time.monotonic() + DEADLINE_S
    with httpx.Client(base_url=BASE, timeout=15, headers={"prefer": "wait=10"}) as client:
        while True:
            try:
                if client.get("/ready", params={"max_level": 2}).is_success:
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                print(f"the gateway was not ready within {DEADLINE_S} s")  # noqa: T201
                return 1
            time.sleep(0.5)
        for number in range(20):
            ballot = {"voter_id": f"compose-{number}", "election_id": ELECTION, "choice": number % 2}
            answer = client.post("/api/votes/submit", json=ballot)
            assert answer.status_code == 200, answer.text
            assert answer.json()["status"] == "confirmed", answer.text
        results = client.get("/api/votes/results", params={"election_id": ELECTION}).json()
        anchor = {"batch_id": str(uuid.uuid4()), "merkle_root": "ab" * 32, "product_count": 7, "algorithm": "sha256"}
        answer = client.post("/v1/anchor", json=anchor)
        assert answer.is_success, answer.text
        found = client.get(f"/v1/anchor/{anchor['batch_id']}")
        assert found.is_success, found.text
    print(f"20 ballots and an anchor confirmed; results: {results}")  # noqa: T201
    return 0


sys.exit(main())
