"""Anchors where it gets hard: two gateways with two roots, prices that others paid, callbacks of what never was."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import anchorage
from gateway.api.anchors import anchor_of, read_plain_anchor
from gateway.calls import anchor_call
from gateway.config import CallbacksConfig
from gateway.models import AnchorBody, parse_batch_id, show_batch_id
from gateway.records import Anchor
from tests.gateway.gateway_network import Network, until
from tests.rpc.rpc_harness import ADDRESSES, GATEWAY_KEY

BATCH = uuid.UUID("2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11")


def body(root: str) -> dict[str, object]:
    return {"batch_id": str(BATCH), "merkle_root": root, "product_count": 3}


@given(st.uuids())
def test_ids_are_those_of_the_library(batch: uuid.UUID) -> None:
    batch_id = batch.bytes + bytes(16)
    assert anchorage.anchor_id(batch_id) == str(uuid.uuid5(batch, "psephos:anchor"))
    assert anchorage.job_id(batch_id) == str(uuid.uuid5(batch, "psephos:job"))


@given(st.uuids(), st.sampled_from([str, lambda one: str(one).upper(), "{{{}}}".format, "urn:uuid:{}".format]))
def test_a_batch_id_is_read_in_each_form_that_the_library_reads(
    batch: uuid.UUID, written: Callable[[uuid.UUID], str]
) -> None:
    text = written(batch)
    assert parse_batch_id(text) == batch.bytes + bytes(16)
    assert show_batch_id(parse_batch_id(text)) == str(batch)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 30 + " 0", " " + "0" * 32, "0" * 30 + "_0"),
        # What the library takes for a number of fewer digits.
        *("  " + "1" * 30, "1" * 30 + "  ", "0x" + "1" * 30, "{0x" + "1" * 30 + "}", "urn:uuid:" + "1" * 31 + "\n"),
        *("{" + "1" * 30 + "_1}", "urn:uuid:" + "\uff11" * 32, "\uff11" * 32),
    ],
)
def test_what_is_no_batch_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a UUID"):
        parse_batch_id(text)


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
BATCHES = VALUES | st.uuids().map(str)
ROOTS = VALUES | st.sampled_from(
    ["ab" * 32, "AB" * 32, "0x" + "ab" * 32, "ab" * 31 + " a", "ab" * 31 + "é1", "0x" * 32]
)
COUNTS = VALUES | st.sampled_from([0, 1, (1 << 64) - 1, 1 << 64])
ALGORITHMS = VALUES | st.sampled_from(["sha256", "x" * 64, "x" * 65, "é", "\n"])
BODIES = st.fixed_dictionaries(
    {"batch_id": BATCHES, "merkle_root": ROOTS, "product_count": COUNTS},
    optional={"algorithm": ALGORITHMS, "callback_url": VALUES, "else": VALUES},
)
GOOD = {"batch_id": str(BATCH), "merkle_root": "ab" * 32, "product_count": 1}


@given(VALUES | BODIES)
@example(GOOD | {"algorithm": None})
@example(GOOD | {"product_count": True})
@example(GOOD | {"product_count": (1 << 64) - 1, "algorithm": "x" * 64})
@example(GOOD | {"product_count": 1 << 64})
@example(GOOD | {"algorithm": "x" * 65})
@example(GOOD | {"merkle_root": "ab" * 31 + "a "})
@example(GOOD | {"callback_url": "http://one/"})
def test_an_anchor_that_is_read_without_its_model_is_what_that_says(document: object) -> None:
    plain = read_plain_anchor(document)
    if plain is not None:
        body = AnchorBody.model_validate(document)
        assert (plain, body.callback_url) == (anchor_of(body), None)


@pytest.mark.parametrize("algorithm", [None, "", "x" * 64])
@pytest.mark.parametrize("count", [0, (1 << 64) - 1])
def test_an_anchor_of_the_usual_form_needs_no_model(count: int, algorithm: str | None) -> None:
    document = GOOD | {"product_count": count, "algorithm": algorithm}
    assert read_plain_anchor(document) == anchor_of(AnchorBody.model_validate(document))


async def test_the_second_root_of_a_race_fails_and_stays_a_conflict(network: Network) -> None:
    """Another gateway was quicker while this one could not know: the batch has one root, for ever."""
    async with network.gateway() as (gateway, api):
        network.kill_all()
        await until(lambda: gateway.level() == 3, "level 3")
        assert (await api.post("/v1/anchor", body("cd" * 32))).status_code == 202
        other = anchor_call(Anchor(BATCH.bytes + bytes(16), bytes.fromhex("ab" * 32), 3, ""))
        nonce = network.node.chain.state().nonce(GATEWAY_KEY.address)
        network.node.include(network.node.sign(GATEWAY_KEY, ADDRESSES["Anchors"], other, nonce=nonce))
        network.revive_all()
        await until(lambda: gateway.book.pending_count == 0, "its end is known", 20)
        shown = (await api.get(f"/v1/anchor/{BATCH}")).json()
        assert (shown["status"], "another root" in shown["error"]) == ("failed", True), shown
        checked = (await api.get(f"/v1/verify/{BATCH}")).json()
        assert (checked["valid"], checked["checks"]["merkle_root"]) == (False, False), "compared with the one that won"
        assert checked["merkle_root"] == "ab" * 32
        again = await api.post("/v1/anchor", body("cd" * 32))
        assert (again.status_code, again.json()["code"]) == (409, "anchor-exists")
        first = await api.post("/v1/anchor", body("ab" * 32))
        assert (first.status_code, first.json()["status"]) == (200, "completed")


async def test_the_price_that_was_paid_is_shown(network: Network) -> None:
    async with network.gateway() as (_, api):
        data = anchor_call(Anchor(BATCH.bytes + bytes(16), bytes(32), 1, ""))
        paid = network.node.sign(
            GATEWAY_KEY, ADDRESSES["Anchors"], data, max_fee_per_gas=9 * 10**9, max_priority_fee_per_gas=25 * 10**8
        )
        network.node.include(paid)
        shown = (await api.get(f"/v1/anchor/{BATCH}")).json()
        assert (shown["status"], shown["gas_price_gwei"]) == ("completed", 2.5)


async def test_who_waits_for_an_anchor_that_never_was_is_forgotten(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died between noting whom to tell and journaling the anchor, which was never acknowledged."""
    monkeypatch.setattr(anchorage, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(anchorage, "DENIALS_MAX", 3)
    secret = tmp_path / "callback.secret"
    secret.write_text("11" * 32)
    secret.chmod(0o600)
    callbacks = CallbacksConfig(hosts=("127.0.0.1:9",), secret=secret, folder=tmp_path / "callbacks")
    async with network.gateway(callbacks=callbacks) as (gateway, _):
        await gateway.callbacks.register(BATCH.bytes + bytes(16), "http://127.0.0.1:9/told")
    assert list(callbacks.folder.glob("*.json"))
    async with network.gateway(callbacks=callbacks) as (gateway, _):
        await until(lambda: not list(callbacks.folder.glob("*.json")), "it is forgotten", 20)
        assert gateway.callbacks.waiting() == []


async def test_an_anchor_is_found_by_its_own_id_after_a_restart_too(network: Network) -> None:
    async with network.gateway() as (gateway, api):
        network.kill_all()
        await until(lambda: gateway.level() == 3, "level 3")
        anchor_id = (await api.post("/v1/anchor", body("ab" * 32))).json()["anchor_id"]
    async with network.gateway() as (_, api):
        shown = (await api.get(f"/v1/anchor/{anchor_id}")).json()
        assert shown["batch_id"] == str(BATCH)
        assert shown["status"] in ("pending", "processing")
