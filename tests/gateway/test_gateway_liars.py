"""One validator that lies about itself or the chain: it may cost a moment, and never changes what is told."""

import asyncio
import uuid
from typing import Any

import pytest
from eth_abi.abi import encode

from gateway import elections, jsonrpc
from gateway.records import Ballot
from gateway.validators import NoValidator, Pool
from tests.gateway.gateway_network import Network, until
from tests.rpc.rpc_harness import ABIS, ADDRESSES, GATEWAY_KEY

DEFINITION = ["string", "string[]", "uint8", "uint64", "uint64", "uint32", "uint8", "address", "address[]", "bytes32"]
BALLOT = "(uint256,bytes32,bytes32,uint8,bytes,uint64)"


def boaster(ahead: int) -> Any:
    """Says that it is ahead, and serves nothing."""

    def tamper(method: str, result: Any) -> Any:
        if method == "poa_status":
            result["height"] = hex(int(result["height"], 16) + ahead)
        return [] if method == "poa_getBlocks" else result

    return tamper


@pytest.mark.parametrize("ahead", [1, 500, 1_000_000])
async def test_who_boasts_of_blocks_and_serves_none_does_not_stop_the_others(network: Network, ahead: int) -> None:
    network.fronts[0].tamper = boaster(ahead)
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(5):
            assert (await api.vote(f"v{number}", wait=20)).status_code == 200
        assert loop.time() - begin < 10
        assert gateway.pool.validators[0].faults > 0
        assert [one.faults for one in gateway.pool.validators[1:]] == [0, 0]
        await until(lambda: gateway.follower.caught_up, "what it boasts of is not waited for")


async def test_a_liar_is_followed_when_nobody_else_is_alive(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        gateway.pool.validators[0].faults = 3  # it was caught before, and has been mended
        network.fronts[1].alive = network.fronts[2].alive = False
        await until(lambda: gateway.pool.reachable_count() == 1, "two are gone")
        for _ in range(2):  # the first one may answer a question that is under way
            network.node.mine()
            await until(lambda: gateway.follower.head.header == network.node.chain.head, "the head moves on")


def forging(*methods: str) -> Any:
    """Answers these methods with the last byte of all data changed."""

    def forge(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("0x") and len(value) > 66:
            return value[:-1] + ("1" if value[-1] != "1" else "2")
        if isinstance(value, dict):
            return {name: forge(part) for name, part in value.items()}
        return [forge(part) for part in value] if isinstance(value, list) else value

    return lambda method, result: forge(result) if method in methods else result


async def test_one_who_forges_proofs_is_passed_over(network: Network) -> None:
    network.fronts[0].tamper = forging("eth_getProof")
    async with network.gateway() as (gateway, api):
        for one in gateway.pool.validators[1:]:
            one.latency_ms = 1e6  # it is asked first
        assert (await api.vote("ann", 1, wait=20)).status_code == 200
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert (result["total"], result["stale"], result["verified"]) == (1, False, True)


async def test_nobody_makes_up_what_an_election_is(network: Network) -> None:
    """Names, kinds, closing and the key's check value are proven: a liar could swap two candidates otherwise."""
    definition = ["Lunch", ("bread", "soup"), 3, 0, 1, 0, 4, bytes(20), (), bytes(32)]

    def lie(method: str, result: Any) -> Any:
        if method != "eth_call" or len(result) < 700:  # the only long answer here is a definition
            return result
        return "0x" + encode(DEFINITION, definition).hex()

    for front in network.fronts:
        front.tamper = lie
    async with network.gateway() as (_, api):
        made = {"election_id": 1, "title": "Lunch", "options": ["soup", "bread"]}
        assert (await api.post("/api/elections", made, Prefer="wait=20")).json()["state"] == "open"
        assert (await api.vote("ann", "bread", wait=20)).status_code == 200
        shown = (await api.get("/api/elections/1")).json()
        assert (shown["options"], shown["state"]) == (["soup", "bread"], "open")
        result = (await api.get("/api/votes/results", election_id=1)).json()
        assert [(one["name"], one["count"]) for one in result["results"]] == [("soup", 0), ("bread", 1)]
        unknown = await api.vote("ann", election_id=7, wait=0.1)
        assert unknown.status_code in (202, 200), "it is made, for nobody can deny one into being"


async def test_one_who_names_another_block_is_no_witness(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        record = (await api.vote("ann", transaction_id="ann's", wait=20)).json()
        assert record["status"] == "confirmed"
        stored = (0, bytes(32), bytes(32), 0, b"\x00", 1)

        def lie(method: str, result: Any) -> Any:
            if method == "eth_call":
                return "0x" + encode(["bool", BALLOT], [True, stored]).hex()
            return result | {"blockNumber": "0x1"} if method == "eth_getTransactionReceipt" and result else result

        network.fronts[0].tamper = lie
        query = {"election_id": 1, "transaction_id": "nobody's"}
        assert (await api.get("/api/votes/transaction-status", **query)).json()["status"] == "unknown"
        by_hash = await api.get(
            "/api/votes/transaction-status", election_id=1, transaction_id=record["transaction_hash"]
        )
        assert by_hash.json()["block_hash"] == record["block_hash"]
        network.fronts[1].tamper = lie
        query["transaction_id"] = "nobody's"
        assert (await api.get("/api/votes/transaction-status", **query)).status_code == 503, "one witness is no quorum"
        item = gateway.book.ballot_by_record_id(bytes.fromhex(record["record_id"][2:]))
        assert item is not None
        gateway.book.remove(item)
        found = await api.get("/api/votes/transaction-status", election_id=1, transaction_id="ann's")
        assert found.json()["status"] == "confirmed", "who can show it is enough"


async def test_an_old_definition_does_not_keep_an_election_open(network: Network) -> None:
    """Who takes a ballot attests that it came in time; another gateway may have closed the election since."""
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        close = network.node.sign(GATEWAY_KEY, ADDRESSES["Elections"], ABIS["Elections"].encode_call("close", 1))
        network.node.include(close)
        await until(lambda: gateway.follower.head.header == network.node.chain.head, "the closing is seen")
        gateway.elections._read_at[1] -= elections.STALE_S
        late = await api.vote("late", wait=20)
        assert (late.status_code, late.json()["code"]) == (409, "election-not-open")


JUNK = [
    b'{"error": {"code": "x", "message": []}}',
    b'{"error": {"code": null}}',
    b'{"error": 7}',
    b'{"id": 1, "result": {"height": [], "genesisHash": {}}}',
    b'{"id": 1, "result": [{"header": 1}]}',
    b'[{"id": [1], "result": "0x"}, {"id": {}, "error": {}}, 5]',
    b"[" * 100_000,
    b"null",
    b'"0x"',
    b"",
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_who_answers_with_junk_stops_nobody(network: Network, junk: bytes) -> None:
    async with network.gateway() as (gateway, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        network.fronts[0].junk = junk
        assert (await api.vote("bob", wait=20)).status_code == 200
        await until(lambda: not gateway.pool.validators[0].reachable, "its junk is seen")
        assert (await api.vote("eve", wait=20)).status_code == 200
        network.fronts[0].junk = None
        await until(lambda: gateway.pool.validators[0].reachable, "it is asked again")
        assert (await api.vote("dan", wait=20)).status_code == 200
        assert all(not task.done() for task in (gateway.follower._task, *gateway._sender._tasks) if task is not None)


async def test_no_answer_is_read_without_end(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network.gateway() as (gateway, _):
        monkeypatch.setattr(jsonrpc, "ANSWER_BYTES_MAX", 1 << 20)
        network.fronts[0].junk = b" " * (2 << 20)
        await until(lambda: not gateway.pool.validators[0].reachable, "it is given up")
        assert "more than 1048576 bytes" in (gateway.pool.validators[0].last_error or "")


async def test_one_who_shows_another_voters_ballot_is_no_witness(network: Network) -> None:
    """It is there, in a final block, and still not the ballot that was asked for."""
    async with network.gateway() as (gateway, api):
        for voter in ("ann", "bob"):
            assert (await api.vote(voter, wait=20)).status_code == 200
        ann, bob = (gateway.elections.key(1).nullifier(voter) for voter in ("ann", "bob"))
        data = ABIS["Elections"].encode_call("ballotByNullifier", 1, bob)
        asked = {"to": "0x" + ADDRESSES["Elections"].hex(), "data": "0x" + data.hex()}
        bobs: Any = await gateway.pool.ask("eth_call", (asked, "latest"))
        network.fronts[0].tamper = lambda method, result: bobs if method == "eth_call" else result
        gateway.pool.validators[0].latency_ms = 0.0
        found = await gateway.chain.ballot(1, nullifier=ann)
        assert isinstance(found.record if found else None, Ballot)
        assert found is not None
        assert getattr(found.record, "nullifier", b"") == ann
        for front in network.fronts:
            front.tamper = network.fronts[0].tamper
        with pytest.raises(NoValidator, match="does not hold the ballot"):
            await gateway.chain.ballot(1, nullifier=ann)


async def test_one_who_forges_the_nonces_proof_keeps_nobody_from_sending(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.fronts[0].tamper = forging("eth_getProof")
    monkeypatch.setattr(Pool, "ordered", lambda self: list(self.validators))  # the liar is always asked first
    async with network.gateway() as (_, api):
        assert (await api.vote("ann", wait=20)).status_code == 200


def saying(lie: dict[str, object]) -> Any:
    """Says this of itself."""
    return lambda method, result: result | lie if method == "poa_status" else result


async def test_no_height_or_address_is_believed_that_cannot_be(network: Network) -> None:
    lies: list[dict[str, object]] = [{"height": hex(1 << 70)}, {"height": "-0x1"}, {"address": "0x" + "00" * 21}]
    async with network.gateway() as (gateway, api):
        for lie in lies:
            network.fronts[0].tamper = saying(lie)
            await until(lambda: not gateway.pool.validators[0].reachable, "it is not believed")
            health = await api.get("/api/admin/validators/health")
            assert health.json()["validators"][0]["status"] == "unreachable"
            network.fronts[0].tamper = None
            await until(lambda: gateway.pool.validators[0].reachable, "it is asked again")


async def test_nobody_makes_up_which_elections_there_are(network: Network) -> None:
    async with network.gateway() as (_, api):
        assert (await api.vote("ann", wait=20)).status_code == 200
        ids = encode(["uint256[]"], [[5, 6, 7]])
        for front in network.fronts:
            front.tamper = lambda method, result: "0x" + ids.hex() if method == "eth_call" else result
        page = (await api.get("/api/elections")).json()
        assert ([one["election_id"] for one in page["elections"]], page["total"]) == ([1], 1)


async def test_nobody_leaves_anchors_out_of_the_list(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    async with network.gateway() as (gateway, api):
        batches = [str(uuid.uuid4()) for _ in range(3)]
        for batch in batches:
            made = {"batch_id": batch, "merkle_root": "ab" * 32, "product_count": 1}
            assert (await api.post("/v1/anchor", made)).status_code == 202
        await until(lambda: gateway.book.pending_count == 0, "all are final")
        monkeypatch.setattr(Pool, "ordered", lambda self: list(self.validators))  # the liar is always asked first
        nothing = "0x" + encode(["(uint256,bytes32,bytes32,uint64,string,uint64)[]"], [[]]).hex()
        network.fronts[0].tamper = lambda method, result: nothing if method == "eth_call" else result
        page = (await api.get("/v1/anchors")).json()
        assert sorted(one["batch_id"] for one in page["anchors"]) == sorted(batches)
        for front in network.fronts:
            front.tamper = network.fronts[0].tamper
        assert (await api.get("/v1/anchors")).status_code == 503
