"""Logs and receipts over HTTP: all of it verifies, and a validator that lies in any part of an answer changes none."""

import asyncio
import copy
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jsonschema_rs
import pytest

import gateway
from gateway.api.logs import LOGS
from gateway.logs import Logs
from gateway.receipt import LogHead, Receipt, parse
from gateway.receipt_check import verify_head, verify_receipt
from gateway.records import Anchor, Ballot
from gateway.server import make_app
from gateway.validators import NoValidator
from merkle import log
from tests.gateway.gateway_network import Caller, Network, until
from tests.rpc.rpc_harness import GATEWAY_KEY

BATCH = "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11"
SCHEMA = json.loads((Path(gateway.__path__[0]) / "schemas" / "receipt-v1.schema.json").read_text())


async def vote(api: Caller, count: int, first: int = 0) -> list[dict[str, Any]]:
    answers = await asyncio.gather(
        *(api.vote(f"voter {n}", n % 2, transaction_id=f"tx-{n}", wait=25) for n in range(first, first + count))
    )
    assert {one.status_code for one in answers} == {200}, [one.text for one in answers]
    return [one.json() for one in answers]


async def open_election(api: Caller) -> None:
    made = await api.post("/api/elections", {"election_id": 1, "title": "Lunch", "options": ["soup", "bread"]})
    assert made.status_code == 201, made.text


def verified(network: Network, answer: httpx.Response, checkpoint: bytes | None = None) -> Receipt | LogHead:
    assert answer.status_code == 200, answer.text
    jsonschema_rs.validate(SCHEMA, answer.json())
    found = parse(answer.content)
    check = verify_receipt if isinstance(found, Receipt) else verify_head
    check(found, network.node.chain.domain, checkpoint=checkpoint)  # type: ignore[arg-type]
    return found


async def test_receipts_of_ballots(network: Network) -> None:
    async with network.gateway() as (_, api):
        await open_election(api)
        records = await vote(api, 7)
        mine = {"transaction_id": "tx-3", "election_id": 1}
        hidden = verified(network, await api.get("/api/votes/receipt", **mine))
        assert isinstance(hidden, Receipt)
        assert hidden.record is None
        assert hidden.index == records[3]["ballot_index"]
        for choice in ("1", "bread"):
            shown = verified(network, await api.get("/api/votes/receipt", choice=choice, **mine))
            assert isinstance(shown, Receipt)
            assert isinstance(shown.record, Ballot)
            assert shown.record.content == b"\x01"
            assert (shown.leaf_hash, shown.head.header) == (hidden.leaf_hash, hidden.head.header)
        for choice in ("0", "soup", "2", "300", "bread ", "9999999999999999"):
            other = await api.get("/api/votes/receipt", choice=choice, **mine)
            assert (other.status_code, other.json()["code"]) == (409, "not-that-ballot")
        place = {"transaction_hash": records[3]["transaction_hash"], "ballot_index": records[3]["ballot_index"]}
        assert verified(network, await api.get("/api/votes/receipt", election_id=1, **place)) == hidden
        nosy = await api.get("/api/votes/receipt", election_id=1, choice="bread", **place)
        assert (nosy.status_code, nosy.json()["code"]) == (409, "not-that-ballot")  # the chain's hash is no secret
        assert (await api.get("/api/votes/receipt", election_id=1, **place | {"ballot_index": 7})).status_code == 404
        assert (await api.get("/api/votes/receipt", election_id=2, **place)).status_code == 404
        sealed = await api.vote("zoe", None, encrypted_vote="§ sealed", transaction_id="tx-z")
        assert sealed.status_code == 200
        found = verified(network, await api.get("/api/votes/receipt", transaction_id="tx-z", election_id=1))
        assert isinstance(found, Receipt)
        assert isinstance(found.record, Ballot)
        assert found.record.content == "§ sealed".encode()


async def test_receipts_of_anchors_and_checkpoints(network: Network) -> None:
    async with network.gateway() as (running, api):
        body = {"batch_id": BATCH, "merkle_root": "ab" * 32, "product_count": 12}
        network.mining = False
        assert (await api.post("/v1/anchor", body)).status_code == 202
        assert (await api.get(f"/v1/anchor/{BATCH}/receipt")).status_code == 202
        network.mining = True
        await until(
            lambda: network.node.chain.state().storage(bytes.fromhex("70736570686f73") + bytes(12) + b"\2", 0) == 1,
            "the anchor is final",
        )
        head = network.node.chain.head.number
        await until(lambda: running.follower.head.header.number >= head, "the gateway has seen it")
        first = verified(network, await api.get(f"/v1/anchor/{BATCH}/receipt"))
        assert isinstance(first, Receipt)
        assert isinstance(first.record, Anchor)
        assert (first.record.merkle_root.hex(), first.record.leaf_count) == ("ab" * 32, 12)
        before = network.node.chain.header(first.head.header.number - 1) or network.node.chain.head
        for _ in range(3):
            later = network.node.mine().block
        await until(lambda: running.follower.head.header.number >= later.number, "the gateway has seen it")
        for checkpoint in (later.hash, first.head.header.hash):
            path = f"/v1/anchor/{BATCH}/receipt"
            answer = await api.get(path, checkpoint=checkpoint.hex())
            found = verified(network, answer, checkpoint)
            assert isinstance(found, Receipt)
            assert found.head.header.hash == checkpoint
        if before.number > 0:
            verified(network, await api.get(path, checkpoint="0x" + before.hash.hex()), before.hash)
        unknown = await api.get(path, checkpoint="00" * 32)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-block")


async def test_a_checkpoint_before_the_record(network: Network) -> None:
    """Then the receipt leads over that block to its own."""
    async with network.gateway() as (running, api):
        await open_election(api)
        checkpoint = network.node.mine().block
        await until(lambda: running.follower.head.header.number >= checkpoint.number, "the gateway has seen it")
        await vote(api, 1)
        answer = await api.get(
            "/api/votes/receipt", transaction_id="tx-0", election_id=1, checkpoint=checkpoint.hash.hex()
        )
        found = verified(network, answer, checkpoint.hash)
        assert isinstance(found, Receipt)
        assert [one.header.number for one in found.head.sets] == [0, checkpoint.number]


async def test_a_monitor_can_follow_a_log(network: Network) -> None:
    async with network.gateway() as (_, api):
        await open_election(api)
        sizes = [0, 3, 8, 9]
        heads = []
        for begin, end in pairwise(sizes):
            await vote(api, end - begin, begin)
            head = verified(network, await api.get("/log/1/head"))
            assert isinstance(head, LogHead)
            assert head.size == end
            heads.append(head)
        leaves = (await api.get("/log/1/leaves", **{"from": 0, "count": 5})).json()
        assert (leaves["size"], [leaf["index"] for leaf in leaves["leaves"]]) == (9, [0, 1, 2, 3, 4])
        rest = (await api.get("/log/1/leaves", **{"from": 5})).json()["leaves"]
        hashes = [log.leaf_hash(bytes.fromhex(leaf["leaf"][2:])) for leaf in leaves["leaves"] + rest]
        for head in heads:
            assert log.root(hashes[: head.size]) == head.root
            for index in {0, head.size // 2, head.size - 1}:
                answer = (await api.get("/log/1/proof/inclusion", index=index, size=head.size)).json()
                assert (answer["root"], answer["leaf_hash"]) == ("0x" + head.root.hex(), "0x" + hashes[index].hex())
                proof = [bytes.fromhex(part[2:]) for part in answer["proof"]]
                log.verify_inclusion(index=index, size=head.size, leaf_hash=hashes[index], proof=proof, root=head.root)
        for old in (0, 3, 4, 7):
            for new in (size for size in (old, 5, 8, 9) if size >= old):
                answer = (await api.get("/log/1/proof/consistency", **{"from": old, "to": new})).json()
                old_root, new_root = log.root(hashes[:old]), log.root(hashes[:new])
                assert (answer["from_root"], answer["to_root"]) == ("0x" + old_root.hex(), "0x" + new_root.hex())
                proof = [bytes.fromhex(part[2:]) for part in answer["proof"]]
                log.verify_consistency(old_size=old, new_size=new, proof=proof, old_root=old_root, new_root=new_root)
        empty = verified(network, await api.get("/log/anchors/head"))
        assert isinstance(empty, LogHead)
        assert (empty.size, empty.root) == (0, log.EMPTY_ROOT)
        assert (await api.get("/log/anchors/leaves", **{"from": 0})).json()["leaves"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/log/7/head", 404, "unknown-log"),
        ("/log/7/proof/inclusion?index=0", 404, "unknown-log"),
        ("/log/x/head", 422, "not-valid"),
        ("/log/1/proof/inclusion", 400, "missing-parameter"),
        ("/log/1/proof/inclusion?index=0", 422, "out-of-range"),
        ("/log/1/proof/inclusion?index=0&size=1", 422, "out-of-range"),
        ("/log/1/proof/inclusion?index=-1", 422, "not-valid"),
        ("/log/1/proof/consistency?from=1", 422, "out-of-range"),
        ("/log/1/proof/consistency?from=0&to=1", 422, "out-of-range"),
        ("/log/1/leaves?from=zero", 422, "not-valid"),
        ("/api/votes/receipt?election_id=1", 400, "missing-parameter"),
        ("/api/votes/receipt?transaction_id=x", 400, "missing-parameter"),
        ("/api/votes/receipt?election_id=1&transaction_id=x", 404, "unknown-ballot"),
        ("/api/votes/receipt?election_id=1&transaction_id=", 422, "not-valid"),
        ("/api/votes/receipt?election_id=1&transaction_hash=0x00", 422, "not-valid"),
        ("/api/votes/receipt?election_id=1&transaction_hash=" + "00" * 32, 400, "missing-parameter"),
        ("/api/votes/receipt?election_id=1&ballot_index=0&transaction_hash=" + "00" * 32, 404, "unknown-ballot"),
        ("/api/votes/receipt?election_id=1&transaction_id=x&transaction_hash=", 422, "not-valid"),
        ("/api/votes/receipt?election_id=1&transaction_id=x&ballot_index=y", 422, "not-valid"),
        ("/api/votes/receipt?election_id=1&transaction_id=x&checkpoint=1", 422, "not-valid"),
        ("/v1/anchor/x/receipt", 422, "not-valid"),
        (f"/v1/anchor/{BATCH}/receipt", 404, "unknown-anchor"),
    ],
)
async def test_requests_that_are_wrong_are_named(network: Network, path: str, status: int, code: str) -> None:
    async with network.gateway() as (_, api):
        await open_election(api)
        path, _, query = path.partition("?")
        answer = await api.get(path, **dict(parse_qsl(query, keep_blank_values=True)))
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*at, key))


def altered(value: Any, chance: random.Random) -> Any:
    """Another value in place of one that a validator serves."""
    if isinstance(value, str) and len(value) > 2 and chance.random() < 0.8:
        at = chance.randrange(2, len(value))
        return value[:at] + chance.choice([c for c in "0123456789abcdef" if c != value[at]]) + value[at + 1 :]
    if isinstance(value, list) and value and chance.random() < 0.5:
        return value[:-1] if chance.random() < 0.5 else [*value, value[-1]]
    return chance.choice([None, 0, "", "0x", [], {}, "0x00", "-0x1", "0x" + "ff" * 40])


LIES = (
    *("eth_getProof", "poa_getLogProof", "poa_getLogConsistency", "poa_getValidatorChanges", "poa_getValidators"),
    *("poa_getBlocks", "eth_getBlockByHash", "eth_getTransactionReceipt", "eth_call"),
)


class Liar:
    """Alters one part of the answers to one method, another one with each seed."""

    def __init__(self, seed: int, method: str) -> None:
        self.seed, self.method = seed, method
        self.told = 0

    def __call__(self, method: str, result: Any) -> Any:
        if method != self.method:
            return result
        chance = random.Random(f"{self.seed} {json.dumps(result)}")
        document = {"": copy.deepcopy(result)}
        path = chance.choice(list(places(document))[1:])
        part: Any = document
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = altered(part[path[-1]], chance)
        self.told += document[""] != result
        return document[""]


async def honestly(logs: Logs, height: int) -> LogHead:
    """The head by way of the one honest validator, once it is reachable."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await logs.head(1, height)
            except NoValidator:
                await asyncio.sleep(0.1)


async def patiently(api: Caller, where: str, query: dict[str, Any]) -> Any:
    """The answer, on a machine that may be slow enough for validators to seem gone."""
    async with asyncio.timeout(60):
        while (answer := await api.get(where, **query)).status_code != 200:
            assert answer.status_code in (202, 404, 503), answer.text
            await asyncio.sleep(0.1)
    return answer.json()


@pytest.mark.parametrize("method", LIES)
async def test_no_lie_gets_into_a_receipt(network: Network, method: str) -> None:
    """All validators tell the same lie: the gateway then proves nothing, or what is so. One honest one is enough."""
    async with network.gateway() as (running, api):
        await open_election(api)
        checkpoint = network.node.mine().block.hash
        records = await vote(api, 5)
        path = "/api/votes/receipt"
        place = {"election_id": 1, "transaction_hash": records[2]["transaction_hash"], "ballot_index": 2}
        place["ballot_index"] = records[2]["ballot_index"]
        requests: list[tuple[str, dict[str, Any]]] = [
            (path, {"election_id": 1, "transaction_id": "tx-2", "choice": 0, "checkpoint": checkpoint.hex()}),
            (path, place),
            ("/log/1/head", {}),
            ("/log/1/proof/consistency", {"from": 2, "to": 4}),
            ("/log/1/proof/inclusion", {"index": 1, "size": 3}),
        ]
        head = running.follower.head.header.number
        honest = [await patiently(api, where, query) for where, query in requests]
        told = refused = 0
        for seed in range(5):
            liar = Liar(seed, method)
            for front in network.fronts:
                front.tamper = liar
            app = make_app(running)  # nothing remembered from honest times
            running.chain._blocks.clear()
            for (where, query), truth in zip(requests, honest, strict=True):
                answer = await api.get(where, **query)
                assert answer.status_code in (200, 404, 503), answer.text
                if answer.status_code == 200:
                    assert answer.json() == truth
                refused += answer.status_code == 503
            with_logs = app[LOGS]
            try:
                assert verify_head(await with_logs.head(1, head), network.node.chain.domain)
            except NoValidator:
                refused += 1
            told += liar.told
            network.fronts[2].tamper = None
            assert running.follower.head.header.number == head, "the head that was verified stays"
            if method not in ("eth_call", "eth_getBlockByHash", "eth_getTransactionReceipt"):
                assert verify_head(await honestly(with_logs, head), network.node.chain.domain)
        assert told >= 5
        if method in ("eth_getProof", "poa_getBlocks"):
            assert refused >= 5


async def test_proofs_of_the_past_hold_after_a_restart(network: Network) -> None:
    async with network.gateway() as (_, api):
        await open_election(api)
        await vote(api, 3)
        old = await api.get("/api/votes/receipt", transaction_id="tx-1", election_id=1)
    async with network.gateway("another") as (_, api):
        await vote(api, 3, 3)
        again = await api.get("/api/votes/receipt", transaction_id="tx-1", election_id=1)
        assert again.json() == old.json()
        verified(network, old)
    assert GATEWAY_KEY.address in network.node.chain.genesis.gateways
