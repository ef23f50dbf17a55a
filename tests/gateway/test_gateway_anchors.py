"""Anchors where it gets hard: two gateways with two roots, prices that others paid, callbacks of what never was."""

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import anchorage
from gateway.calls import anchor_call
from gateway.config import CallbacksConfig
from gateway.records import Anchor
from tests.gateway.gateway_network import Network, until
from tests.rpc.rpc_harness import ADDRESSES, GATEWAY_KEY

BATCH = uuid.UUID("2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11")


def body(root: str) -> dict[str, object]:
    return {"batch_id": str(BATCH), "merkle_root": root, "product_count": 3}


@given(st.uuids())
def test_ids_are_those_of_the_library(batch: uuid.UUID) -> None:
    assert anchorage.anchor_id(batch) == str(uuid.uuid5(batch, "psephos:anchor"))
    assert anchorage.job_id(batch) == str(uuid.uuid5(batch, "psephos:job"))


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
