"""Trees of products over HTTP, and products' receipts: a path to the batch's root and the anchor that holds it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.product import (
    ProductReceipt,
    TreeProof,
    check_any,
    parse_any,
    product_document,
    proof_document,
)
from gateway.receipt import InvalidReceipt, encode
from gateway.records import Anchor
from merkle import trees
from merkle.leaves import leaf_of
from tests.gateway.gateway_network import Network, until
from tests.gateway.receipt_world import World

BATCH = "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11"
PRODUCTS = [f"product {number}" for number in range(5)]
SAFE = trees.algorithm(trees.RFC6962)
HASHES = [SAFE.leaf_hash(leaf_of(one)) for one in PRODUCTS]
ROOT = trees.root(SAFE, HASHES)


def proof_of(index: int) -> TreeProof:
    parts = tuple(step.hash for step in trees.prove(SAFE, HASHES, index))
    return TreeProof(SAFE.name, PRODUCTS[index], HASHES[index], index, len(HASHES), parts, ROOT)


def anchored(anchor: Anchor) -> tuple[World, ProductReceipt]:
    world = World()
    world.anchor(anchor)
    return world, ProductReceipt(proof_of(2), world.receipt(anchor, 0))


GOOD = Anchor(bytes(16) + bytes(16), ROOT, 5, SAFE.name)


def test_a_products_receipt() -> None:
    world, product = anchored(GOOD)
    text = encode(product_document(product))
    assert parse_any(text) == product
    words = [step.words for step in check_any(product, world.domain)]
    assert words[0] == "The product is leaf 2 of a batch of 5."
    assert words[-1] == "That anchor holds the root of the product's batch."
    alone = parse_any(encode(proof_document(product.proof)))
    assert len(list(check_any(alone, None))) == 1
    with pytest.raises(InvalidReceipt, match="the network"):
        list(check_any(product, None))


@pytest.mark.parametrize(
    ("anchor", "words"),
    [
        (replace(GOOD, merkle_root=bytes(32)), "the anchored root is"),
        (replace(GOOD, leaf_count=6), "of 6 leaves, not of 5"),
        (replace(GOOD, algorithm=trees.HEX_PIPE), "algorithm is sha256-hex-pipe"),
    ],
)
def test_another_anchor_is_refused(anchor: Anchor, words: str) -> None:
    world, product = anchored(anchor)
    with pytest.raises(InvalidReceipt, match=words):
        list(check_any(product, world.domain))


def test_an_anchor_may_leave_the_algorithm_open() -> None:
    world, product = anchored(replace(GOOD, algorithm="unspecified"))
    assert list(check_any(product, world.domain))


@pytest.mark.parametrize("name", [trees.SORTED_PAIRS, trees.HEX_PIPE])
def test_unsafe_trees_are_named_as_such(name: str) -> None:
    how = trees.algorithm(name)
    hashes = [how.leaf_hash(leaf_of(one)) for one in PRODUCTS]
    parts = tuple(step.hash for step in trees.prove(how, hashes, 4))
    proof = TreeProof(name, PRODUCTS[4], hashes[4], 4, 5, parts, trees.root(how, hashes))
    (step,) = check_any(parse_any(encode(proof_document(proof))), None)
    assert "unsafe" in step.words
    with pytest.raises(InvalidReceipt):
        list(check_any(replace(proof, index=0), None))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bit_of_a_products_receipt_can_change(data: st.DataObject) -> None:
    world, product = anchored(GOOD)
    text = bytearray(encode(product_document(product)))
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidReceipt):
        list(check_any(parse_any(bytes(text)), world.domain))


@pytest.mark.parametrize(
    "document",
    [
        {"format": "psephos-product-receipt", "version": 1, "proof": {}},
        {"format": "psephos-product-receipt", "version": 2, "proof": {}, "anchor": None},
        {"format": "psephos-tree-proof", "version": 1},
        {"format": ["psephos-tree-proof"]},
        [],
        7,
    ],
)
def test_reading_refuses_without_a_crash(document: Any) -> None:
    with pytest.raises(InvalidReceipt):
        parse_any(document)


async def test_a_batch_from_leaves_to_a_products_receipt(network: Network) -> None:
    async with network.gateway() as (running, api):
        built = (await api.post("/v1/merkle/build", {"leaves": PRODUCTS})).json()
        assert (built["merkle_root"], built["product_count"], built["safe"]) == (ROOT.hex(), 5, True)
        anchor = {"batch_id": BATCH, "merkle_root": ROOT.hex(), "product_count": 5, "algorithm": SAFE.name}
        assert (await api.post("/v1/anchor", anchor)).status_code == 202
        before = network.node.chain.head.number
        await until(lambda: running.follower.head.header.number > before, "the anchor is final")
        receipt = (await api.get(f"/v1/anchor/{BATCH}/receipt")).json()
        for number, product in enumerate(PRODUCTS):
            body = {"product_id": product, "proof": built["proofs"][number], "root": ROOT.hex(), "batch_id": BATCH}
            answer = (await api.post("/v1/verify/proof", body | {"anchor_receipt": receipt})).json()
            assert (answer["valid"], answer["reason"]) == (True, None)
            assert len(answer["checked"]) == 3
        document = proof_document(proof_of(1))
        assert (await api.post("/v1/verify/proof", document | {"batch_id": BATCH})).json()["valid"]
        lies: list[tuple[dict[str, Any], str]] = [
            ({"leaf": "another"}, "does not have the leaf hash"),
            ({"index": 2}, "leads to the root"),
            ({"tree_size": 6}, "leads to the root|has 3 hashes|another form|leaves, not of 6"),
            ({"root": "00" * 32}, "leads to the root"),
            ({"batch_id": "00000000-0000-0000-0000-000000000001"}, "there is no anchor"),
            ({"proof": document["proof"][:-1]}, "has more than 2 hashes"),
            ({"algorithm": trees.HEX_PIPE}, "leaf hash"),
            ({"anchor_receipt": receipt | {"version": 2}}, "reads version 1"),
            ({"anchor_receipt": receipt | {"chainId": 5}}, "the network"),
        ]
        for lie, words in lies:
            answer = (await api.post("/v1/verify/proof", document | {"batch_id": BATCH} | lie)).json()
            assert answer["valid"] is False, lie
            assert any(word in answer["reason"] for word in words.split("|")), answer


async def test_old_roots_of_unsafe_trees_can_be_checked_and_not_made(network: Network) -> None:
    how = trees.algorithm(trees.HEX_PIPE)
    hashes = [how.leaf_hash(leaf_of(one)) for one in PRODUCTS]
    root = trees.root(how, hashes).hex()
    async with network.gateway() as (_, api):
        refused = await api.post("/v1/merkle/build", {"leaves": PRODUCTS, "algorithm": how.name})
        assert refused.status_code == 422
        assert "unsafe" in refused.text
        body = {"leaf_hashes": [one.hex() for one in hashes], "algorithm": how.name}
        checked = (await api.post("/v1/merkle/build", body | {"expected_root": root})).json()
        assert (checked["matches"], checked["safe"], checked["proofs"]) == (True, False, None)
        assert "CVE-2012-2459" in checked["warning"]
        assert not (await api.post("/v1/merkle/build", body | {"expected_root": "00" * 32})).json()["matches"]
        steps = [{"hash": step.hash.hex(), "position": step.position} for step in trees.prove(how, hashes, 0)]
        proof = {"leaf": PRODUCTS[0], "proof": steps, "root": root, "algorithm": how.name}
        answer = (await api.post("/v1/verify/proof", proof)).json()
        assert (answer["valid"], answer["safe"]) == (True, False)
        swapped = [step | {"position": "left"} for step in steps]
        assert not (await api.post("/v1/verify/proof", proof | {"proof": swapped})).json()["valid"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/merkle/build", {}),
        ("/v1/merkle/build", {"leaves": []}),
        ("/v1/merkle/build", {"leaves": ["a"], "leaf_hashes": ["00" * 32]}),
        ("/v1/merkle/build", {"leaf_hashes": ["00"]}),
        ("/v1/merkle/build", {"leaves": ["a"], "algorithm": "md5"}),
        ("/v1/verify/proof", {"leaf": "a", "root": "00" * 32}),
        ("/v1/verify/proof", {"leaf": "a", "proof": []}),
        ("/v1/verify/proof", {"leaf": "a", "proof": [], "root": "00" * 32}),
        ("/v1/verify/proof", {"proof": [], "root": "00" * 32, "index": 0, "tree_size": 1}),
        ("/v1/verify/proof", {"leaf": "a", "proof": ["00" * 32], "root": "00" * 32}),
        ("/v1/verify/proof", {"leaf": "a", "proof": [], "index": 0, "tree_size": 1, "batch_id": "x"}),
    ],
)
async def test_bodies_that_are_wrong_are_named(network: Network, path: str, body: dict[str, Any]) -> None:
    async with network.gateway() as (_, api):
        answer = await api.post(path, body)
        assert answer.status_code == 422, answer.text
