"""The two backends that point at a gateway, played by small programs: nothing but httpx and the documented calls."""

import asyncio
import hashlib
import uuid

import httpx

from tests.gateway.gateway_network import Network, until

PAUSE_S = 0.01  # between questions; real backends have more patience


# -- a voting service. docs/INTEGRATION.md shows it


async def voting_service(gateway: httpx.AsyncClient, voters: int) -> dict[str, int]:
    """Open an election, cast a vote for each voter, wait until all are final, close, and read the tally."""
    election = {"election_id": 42, "title": "Board", "options": ["Ada", "Grace"], "kinds": "open"}
    answer = await gateway.post("/api/elections", json=election)
    answer.raise_for_status()

    async def cast(voter: int) -> str:
        vote = {
            "voter_id": f"voter-{voter}",
            "election_id": 42,
            "choice": ["Ada", "Grace"][voter % 3 == 0],
            "transaction_id": f"vote-{voter}",
        }
        while True:
            answer = await gateway.post("/api/votes/submit", json=vote)
            if answer.status_code in (429, 503):  # nothing is kept: the same request again
                await asyncio.sleep(PAUSE_S)
                continue
            answer.raise_for_status()
            return str(answer.json()["transaction_id"])

    for transaction_id in await asyncio.gather(*(cast(voter) for voter in range(voters))):
        query = {"transaction_id": transaction_id, "election_id": "42"}
        status = await gateway.get("/api/votes/transaction-status", params=query)
        while status.json()["status"] != "confirmed":
            await asyncio.sleep(PAUSE_S)
            status = await gateway.get("/api/votes/transaction-status", params=query)
    (await gateway.post("/api/elections/42/close")).raise_for_status()
    check = await gateway.post("/api/votes/verify-blockchain", json={"election_id": 42})
    while check.json()["status"] == "running":
        await asyncio.sleep(PAUSE_S)
        check = await gateway.get(check.json()["progress_url"])
    assert check.json()["valid"]
    results = (await gateway.get("/api/votes/results", params={"election_id": 42})).json()
    assert results["verified"]
    return {option["name"]: option["count"] for option in results["results"]}


async def test_a_voting_service(network: Network) -> None:
    async with (
        network.gateway() as (_, api),
        httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=60) as gateway,
    ):
        work = asyncio.create_task(voting_service(gateway, 60))
        await until(lambda: len(network.node.mempool) > 0, "votes are on their way", 20)
        network.fronts[0].alive = False  # a validator dies meanwhile
        assert await work == {"Ada": 40, "Grace": 20}


# -- a factory service


def merkle_root(products: list[str]) -> str:
    """RFC 6962: leaves are hashed behind a 0, nodes behind a 1."""
    hashes = [hashlib.sha256(b"\x00" + product.encode()).digest() for product in products]

    def root(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return part[0]
        half = 1 << (len(part) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + root(part[:half]) + root(part[half:])).digest()

    return root(hashes).hex()


async def factory_service(gateway: httpx.AsyncClient, batches: int) -> int:
    """Anchor the root of each batch, wait until all are completed, and check a product of each."""
    made = {str(uuid.uuid4()): [f"product-{number}-{n}" for n in range(5)] for number in range(batches)}
    for batch_id, products in made.items():
        anchor = {
            "batch_id": batch_id,
            "merkle_root": merkle_root(products),
            "product_count": len(products),
            "algorithm": "rfc6962-sha256",
        }
        answer = await gateway.post("/v1/anchor", json=anchor)
        assert answer.status_code in (200, 202), answer.text
    good = 0
    for batch_id, products in made.items():
        while (shown := (await gateway.get(f"/v1/anchor/{batch_id}")).json())["status"] != "completed":
            assert shown["status"] != "failed", shown["error"]
            await asyncio.sleep(PAUSE_S)
        assert (await gateway.get(f"/v1/verify/{batch_id}")).json()["valid"]
        built = (await gateway.post("/v1/merkle/build", json={"leaves": products})).json()
        assert built["merkle_root"] == shown["merkle_root"]
        proof = {
            "product_id": products[3],
            "index": 3,
            "tree_size": 5,
            "proof": built["proofs"][3],
            "batch_id": batch_id,
        }
        good += (await gateway.post("/v1/verify/proof", json=proof)).json()["valid"]
        forged = proof | {"product_id": "product-of-somebody-else"}
        assert not (await gateway.post("/v1/verify/proof", json=forged)).json()["valid"]
    return good


async def test_a_factory_service(network: Network) -> None:
    async with (
        network.gateway() as (running, api),
        httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=60) as gateway,
    ):
        work = asyncio.create_task(factory_service(gateway, 8))
        await until(lambda: not work.done() and len(network.node.mempool) > 0, "anchors are on their way", 20)
        network.kill_all()  # an outage in the middle
        await until(lambda: running.level() == 3, "level 3", 20)
        network.revive_all()
        assert await work == 8
        stats = (await gateway.get("/v1/anchors/stats")).json()
        assert (stats["completed"], stats["failed"]) == (8, 0)
