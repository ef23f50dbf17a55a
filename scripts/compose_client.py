"""A backend of the composed network, casting ballots and an anchor: `compose_client.py URL ELECTION BALLOTS`."""

import sys
import time
import uuid

import httpx

DEADLINE_S = 120


def await_quorum(client: httpx.Client) -> None:
    """Return once the gateway reaches a quorum. Raises TimeoutError."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if client.get("/ready", params={"max_level": 2}).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"the gateway was not ready within {DEADLINE_S} s")


def main(url: str, election: int, ballots: int) -> int:
    """Exit code 0 when everything was confirmed. The election is unknown: development networks make it on demand."""
    with httpx.Client(base_url=url, timeout=15, headers={"prefer": "wait=10"}, trust_env=False) as client:
        await_quorum(client)
        for number in range(ballots):
            ballot = {"voter_id": f"{election}-{number}", "election_id": election, "choice": number % 2}
            answer = client.post("/api/votes/submit", json=ballot)
            assert answer.status_code == 200, answer.text
            assert answer.json()["status"] == "confirmed", answer.text
        second = {"voter_id": f"{election}-0", "election_id": election, "choice": 1}
        answer = client.post("/api/votes/submit", json=second)
        assert answer.status_code == 409, f"a second vote of one voter: {answer.text}"
        results = client.get("/api/votes/results", params={"election_id": election}).json()
        assert (results["total"], results["verified"]) == (ballots, True), results
        anchor = {"batch_id": str(uuid.uuid4()), "merkle_root": "ab" * 32, "product_count": 7, "algorithm": "sha256"}
        answer = client.post("/v1/anchor", json=anchor)
        assert answer.is_success, answer.text
        found = client.get(f"/v1/anchor/{anchor['batch_id']}")
        assert found.is_success, found.text
    print(f"{url}: {ballots} ballots and an anchor confirmed, a second vote refused")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
