"""When the sender says that it has stalled: many may wait for long, as long as their turn comes nearer."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.follower import Follower
from gateway.sender import Parcel, Sender
from gateway.validators import Pool
from node.chain.domain import Domain
from node.chain.signing import SigningKey
from tests.gateway.gateway_network import until


async def test_a_sender_has_stalled_only_while_nothing_of_its_own_becomes_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.sender.STALLED_S", 0.2)
    pool: Any = SimpleNamespace(validators=[])
    follower: Any = None
    sender = make_sender(pool, follower)
    assert not sender.stalled, "nothing waits"
    sender._apply_nonce(0)
    for _ in range(2):
        sender.submit(Parcel(bytes(20), b"", 21_000))
    first = next(iter(sender._by_raw))
    assert not sender.stalled, "they have just been signed"
    await until(lambda: sender.stalled, "nothing became final for long")
    block: Any = SimpleNamespace(transactions=[first])
    sender.on_block(block)
    assert sender.oldest_age_s() > 0.2, "the other one still waits"
    assert not sender.stalled, "its turn has come nearer"
    await until(lambda: sender.stalled, "nothing became final again")


def make_sender(pool: Pool, follower: Follower) -> Sender:
    return Sender(
        SigningKey(b"\1" * 32),
        Domain(1337, bytes(32)),
        pool,
        follower,
        resend_s=1.0,
        in_flight_max=8,
        in_flight_bytes_max=1 << 20,
        on_included=lambda _: None,
        on_refused=lambda _, __: None,
    )
