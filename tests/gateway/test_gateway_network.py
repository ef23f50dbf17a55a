"""The gateway over real HTTP and a real chain: what it promises holds whatever its validators do."""

import asyncio
import shutil
from typing import Any

import pytest

from gateway.disk import Disk
from gateway.journal import replay_folder
from node.chain.contracts import ballots, elections
from tests.gateway.gateway_network import Network, until
from tests.rpc.rpc_harness import ABIS, ADDRESSES, GATEWAY_KEY

BATCH = "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11"


def tally(network: Network) -> ballots.Tally:
    """What the ledger itself says of election 1."""
    state = network.node.chain.state()
    election = elections.read_election(state, 1)
    assert election is not None
    return ballots.read_tally(state, election)


async def test_a_vote_from_http_to_a_proven_tally(network: Network) -> None:
    async with network.gateway() as (_, api):
        made = await api.post("/api/elections", {"election_id": 1, "title": "Lunch", "options": ["soup", "bread"]})
        assert (made.status_code, made.json()["state"]) == (201, "open")
        first = await api.vote("ann", "bread", transaction_id="tx-1")
        assert first.status_code == 200, first.text
        record = first.json()
        assert record["status"] == "confirmed"
        block = network.node.chain.block(record["block_number"])
        assert block is not None
        assert record["block_hash"] == "0x" + block.hash.hex()
        assert record["transaction_hash"] in ["0x" + one.hash.hex() for one in block.transactions]
        again = await api.vote("ann", 1, transaction_id="tx-1")
        assert again.json() == record
        other = await api.vote("ann", 0, transaction_id="tx-2")
        assert other.status_code == 409
        assert other.headers["content-type"] == "application/problem+json"
        assert other.json()["standing"]["transaction_hash"] == record["transaction_hash"]
        assert "choice" not in other.text.replace("ballot", "")
        stolen = await api.vote("bob", 1, transaction_id="tx-1")
        assert (stolen.status_code, stolen.json()["code"]) == (409, "record-id-taken")
        sealed = await api.vote("bob", None, encrypted_vote="§ sealed")
        assert sealed.json()["ballot_index"] == 1
        status = await api.get("/api/votes/transaction-status", transaction_id="tx-1", election_id=1)
        assert (status.json()["status"], status.json()["source"]) == ("confirmed", "poa")
        unknown = await api.get("/api/votes/transaction-status", transaction_id="nobody", election_id=1)
        assert unknown.json()["status"] == "unknown"
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert [option["count"] for option in result["results"]] == [0, 1]
        assert (result["total"], result["sealed_count"], result["verified"], result["stale"]) == (2, 1, True, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"voter_id": "v", "election_id": 1}, 422),
        ({"voter_id": "v", "election_id": 1, "choice": 2}, 422),
        ({"voter_id": "v", "election_id": 1, "choice": True}, 422),
        ({"voter_id": "v", "election_id": 1, "choice": 0, "encrypted_vote": "x"}, 422),
        ({"voter_id": "", "election_id": 1, "choice": 0}, 422),
        ({"voter_id": True, "election_id": 1, "choice": 0}, 422),
        ({"voter_id": "v", "election_id": -1, "choice": 0}, 422),
        ({"voter_id": "v", "election_id": 1, "encrypted_vote": "x" * 65_537}, 422),
        ([1], 422),
    ],
)
async def test_requests_that_are_wrong_are_named_and_leave_nothing(network: Network, body: object, status: int) -> None:
    async with network.gateway() as (gateway, api):
        await api.post("/api/elections", {"election_id": 1, "title": "t", "options": ["a", "b"]})
        answer = await api.post("/api/votes/submit", body)
        assert answer.status_code == status, answer.text
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert gateway.book.pending_count == 0
        assert tally(network).total == 0


async def test_without_validators_votes_wait_in_the_journal_and_arrive_once_in_order(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        assert (await api.vote("first")).status_code == 200
        network.kill_all()
        await until(lambda: gateway.level() == 3, "level 3")
        bodies = [{"voter_id": f"v{n}", "election_id": 1, "choice": 0, "transaction_id": f"t{n}"} for n in range(20)]
        answers = await asyncio.gather(*(api.post("/api/votes/submit", body) for body in bodies))
        assert {answer.status_code for answer in answers} == {202}
        assert {answer.json()["status"] for answer in answers} == {"pending"}
        assert all("journal" in answer.json()["warning"] for answer in answers)
        assert (await api.get("/ready")).status_code == 200
        assert (await api.get("/ready", max_level=2)).status_code == 503
        status = await api.get("/api/votes/transaction-status", transaction_id="t3", election_id=1)
        assert (status.json()["status"], status.json()["source"]) == ("pending", "journal")
        stale = (await api.get("/api/votes/transaction-status", transaction_id="other", election_id=1)).status_code
        assert stale == 503, "nobody can know"
        order = [item.record.nullifier for item in gateway.book.pending()]  # type: ignore[union-attr]
    # A second life of the process, still without validators, and then with them.
    async with network.gateway() as (gateway, api):
        assert [item.record.nullifier for item in gateway.book.pending()] == order  # type: ignore[union-attr]
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "everything delivered", 20)
        assert tally(network).total == 21
        log = [await gateway.chain.ballot(1, nullifier=nullifier) for nullifier in order]
        assert [standing.index for standing in log if standing is not None] == list(range(1, 21))


async def test_a_lost_journal_neither_counts_twice_nor_forgets_what_is_final(network: Network) -> None:
    async with network.gateway() as (_, api):
        record = (await api.vote("ann", 1, transaction_id="tx")).json()
        anchored = await api.post("/v1/anchor", {"batch_id": BATCH, "merkle_root": "ab" * 32, "product_count": 3})
        assert anchored.status_code == 202
        await until(lambda: ADDRESSES["Anchors"] in _recipients(network), "the anchor's block")
    shutil.rmtree(network.folder / "gateway")
    async with network.gateway() as (_, api):
        again = await api.vote("ann", 1, transaction_id="tx")
        assert again.status_code == 200
        places = ("block_number", "block_hash", "transaction_hash", "ballot_index")
        assert [again.json()[name] for name in places] == [record[name] for name in places]
    shutil.rmtree(network.folder / "gateway")
    async with network.gateway() as (_, api):
        other = await api.vote("ann", 0, transaction_id="another")
        assert other.status_code == 409
        assert other.json()["standing"]["block_hash"] == record["block_hash"]
        status = await api.get("/api/votes/transaction-status", transaction_id="tx", election_id=1)
        assert status.json()["status"] == "confirmed"
        shown = (await api.get(f"/v1/anchor/{BATCH}")).json()
        assert (shown["status"], shown["merkle_root"], shown["algorithm"]) == ("completed", "ab" * 32, "unspecified")
        clash = await api.post("/v1/anchor", {"batch_id": BATCH, "merkle_root": "cd" * 32, "product_count": 3})
        assert clash.status_code == 409
        same = await api.post("/v1/anchor", {"batch_id": BATCH, "merkle_root": "ab" * 32, "product_count": 3})
        assert (same.status_code, same.json()["status"]) == (200, "completed")
    assert tally(network).total == 1


def _recipients(network: Network) -> set[bytes]:
    heights = range(1, network.node.chain.head.number + 1)
    blocks = [network.node.chain.block(height) for height in heights]
    return {transaction.to for block in blocks if block is not None for transaction in block.transactions}


async def test_transactions_that_validators_lose_are_sent_again(network: Network) -> None:
    async with network.gateway() as (_, api):
        await api.vote("zero")
        for front in network.fronts:
            front.swallows = True
        pending = await api.vote("one", wait=0.3)
        assert pending.status_code == 202
        for front in network.fronts:
            front.swallows = False
        assert (await api.vote("one")).json()["status"] == "confirmed"
    assert tally(network).total == 2


async def test_a_nonce_that_somebody_else_used_is_replaced(network: Network) -> None:
    async with network.gateway() as (_, api):
        await api.vote("zero")
        network.mining = False
        assert (await api.vote("one", wait=0.2)).status_code == 202
        # The same key elsewhere: its transaction takes the nonce that ours in the mempool has.
        network.node.include(network.node.sign(GATEWAY_KEY, GATEWAY_KEY.address))
        network.mining = True
        for number in range(3):
            assert (await api.vote(f"later{number}")).status_code == 200
        assert (await api.vote("one")).json()["status"] == "confirmed"
    assert tally(network).total == 5


def _flip(text: str, position: int) -> str:
    return text[:position] + ("1" if text[position] != "1" else "2") + text[position + 1 :]


def _lie_in(part: str) -> Any:
    def tamper(method: str, result: Any) -> Any:
        if method != "poa_getBlocks":
            return result
        for block in result:
            if part == "seals":
                block["certificate"]["seals"] = block["certificate"]["seals"][:1]
            elif part == "certificate":
                block["certificate"]["blockHash"] = _flip(block["certificate"]["blockHash"], 20)
            elif part == "header":
                block["header"] = _flip(block["header"], 300)
            else:
                block[part] = [_flip(entry, len(entry) - 3) for entry in block[part]]
        return result

    return tamper


@pytest.mark.parametrize("part", ["seals", "certificate", "header", "transactions", "receipts"])
async def test_a_liar_makes_nothing_confirmed_and_an_honest_validator_is_enough(network: Network, part: str) -> None:
    for front in network.fronts:
        front.tamper = _lie_in(part)
    async with network.gateway() as (gateway, api):
        answer = await api.vote("ann", wait=0.5)
        assert answer.status_code == 202, answer.text
        assert gateway.follower.head.header.number == 0
        network.fronts[1].tamper = None
        await until(lambda: gateway.book.pending_count == 0, "confirmed by the honest one", 15)
        assert (await api.vote("ann")).json()["status"] == "confirmed"


async def test_false_results_are_not_passed_on(network: Network) -> None:
    async with network.gateway() as (_, api):
        await api.vote("ann", 1)

        def tamper(method: str, result: Any) -> Any:
            if method == "eth_getProof":
                for slot in result["storageProof"]:
                    slot["proof"] = [_flip(node, len(node) - 2) for node in slot["proof"]]
            return result

        for front in network.fronts:
            front.tamper = tamper
        lied = await api.get("/api/votes/results", election_id=1)
        assert lied.status_code == 503 or lied.json()["stale"], "nothing is told, or what was proven before"
        network.fronts[0].tamper = network.fronts[1].tamper = network.fronts[2].tamper = None
        assert (await api.get("/api/votes/results", election_id=1)).json()["total"] == 1


async def test_two_gateways_race_for_the_same_voters(network: Network) -> None:
    """One key would be one process; two gateways here share it all the same, which is the harder case."""
    async with network.gateway("one") as (_, left), network.gateway("two") as (_, right):
        await left.vote("first")
        votes = [api.vote(f"v{n}", choice, wait=15) for n in range(12) for choice, api in enumerate((left, right))]
        answers = await asyncio.gather(*votes)
        for mine, theirs in zip(answers[::2], answers[1::2], strict=True):
            assert sorted((mine.status_code, theirs.status_code)) == [200, 409], (mine.text, theirs.text)
    counts = tally(network)
    assert counts.total == 13
    assert sum(answer.status_code == 200 for answer in answers[::2]) + 1 == counts.counts[0]


async def test_a_gateway_with_another_secret_refuses_to_cast(network: Network) -> None:
    async with network.gateway("one") as (_, api):
        await api.vote("ann")
    async with network.gateway("two", secret=bytes([6] * 32)) as (_, api):
        answer = await api.vote("ann")
        assert (answer.status_code, answer.json()["code"]) == (409, "key-mismatch")


async def test_what_the_chain_refuses_is_told_with_its_name_and_the_others_count(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        await api.post("/api/elections", {"election_id": 1, "title": "t", "options": ["a", "b"]})
        await api.vote("ann")
        close = ABIS["Elections"].encode_call("close", 1)
        network.mining = False
        answers = asyncio.gather(*(api.vote(f"late{n}", wait=10) for n in range(3)))
        await until(lambda: gateway.book.pending_count == 3, "accepted")
        nonce = network.node.chain.state().nonce(GATEWAY_KEY.address)
        closing = network.node.sign(GATEWAY_KEY, ADDRESSES["Elections"], close, nonce=nonce)
        network.node.include(closing)
        network.mining = True
        # Delivered within the grace: they were received before closing.
        assert {answer.status_code for answer in await answers} == {200}
        late = await api.vote("later")
        while late.status_code == 200:  # the definition at hand may be two seconds old
            late = await api.vote(f"later{network.node.chain.head.number}")
        assert (late.status_code, late.json()["code"]) == (409, "election-not-open")


async def test_voter_ids_are_nowhere_on_disk(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with network.gateway() as (gateway, api):
        await api.vote("a-very-recognisable-voter", transaction_id="a-recognisable-transaction")
        domain = gateway.domain
    assert replay_folder(network.folder / "gateway" / "journal", domain, Disk()).records
    for path in network.folder.rglob("*"):
        assert path.is_dir() or b"recognisable" not in path.read_bytes()
    assert "recognisable" not in caplog.text
