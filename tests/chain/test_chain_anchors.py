"""Anchors: once for each batch id, by gateways alone, in one log that proves every size of the past."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkle import log
from node.chain.contracts import anchors, flatlog
from tests.chain.conftest import ABIS, ANCHORS, GATEWAY, OTHER_GATEWAY, STRANGER, VALIDATORS, Chain, word


def leaf(chain: Chain, batch: int, root: int, count: int, algorithm: bytes) -> bytes:
    """The leaf's bytes as the protocol document has them, written down a second time."""
    prefix = b"\x01" + (7770).to_bytes(8, "big") + chain.blocks[0].hash + b"\x02"
    return prefix + word(batch) + word(root) + count.to_bytes(8, "big") + len(algorithm).to_bytes(4, "big") + algorithm


def test_an_anchor_is_recorded_and_found() -> None:
    chain = Chain()
    receipt = chain.send(GATEWAY, ANCHORS, "anchor", word(5), word(6), 2**64 - 1, "")
    (event,) = receipt.event_logs
    assert ABIS[ANCHORS].decode_event(event) == ("Anchored", (word(5), 0, word(6), 2**64 - 1, "unspecified"))
    assert event == ABIS[ANCHORS].encode_event(ANCHORS, "Anchored", word(5), 0, word(6), 2**64 - 1, "unspecified")
    anchor = (0, word(5), word(6), 2**64 - 1, "unspecified", 1)
    assert chain.view(ANCHORS, "anchorOf", word(5)) == (True, anchor)
    assert chain.view(ANCHORS, "anchorOf", word(6)) == (False, anchors.NO_ANCHOR)
    assert chain.view(ANCHORS, "anchorOf", word(5), height=0) == (False, anchors.NO_ANCHOR)
    assert chain.view(ANCHORS, "log", height=0) == (0, log.EMPTY_ROOT)
    digest = log.leaf_hash(leaf(chain, 5, 6, 2**64 - 1, b"unspecified"))
    assert chain.view(ANCHORS, "log") == (1, digest)
    assert log.leaf_hash(anchors.leaf(chain.domain, word(5), word(6), 2**64 - 1, b"unspecified")) == digest


def test_refusals_are_named() -> None:
    chain = Chain()
    assert chain.send(GATEWAY, ANCHORS, "anchor", word(5), word(6), 1, "sha256").succeeded
    for key, root in ((GATEWAY, 6), (OTHER_GATEWAY, 7)):
        refused = chain.refusal(key, ANCHORS, "anchor", word(5), word(root), 1, "sha256")
        assert refused == ("AnchorExists", (word(5), word(6)))
    refused = chain.refusal(STRANGER, ANCHORS, "anchor", word(8), word(6), 1, "")
    assert refused == ("NotGateway", (STRANGER.address,))
    for algorithm in ("x" * 65, "π"):
        name, (reason,) = chain.refusal(GATEWAY, ANCHORS, "anchor", word(8), word(6), 1, algorithm)
        assert name == "InvalidAnchor"
        assert "ASCII" in reason
    assert chain.send(GATEWAY, ANCHORS, "anchor", word(8), word(6), 1, "x" * 64).succeeded


def test_a_count_of_more_than_64_bits_is_refused() -> None:
    chain = Chain()
    data = bytearray(ABIS[ANCHORS].encode_call("anchor", word(5), word(6), 1, ""))
    data[68] = 1
    result = chain.call_raw(ANCHORS, bytes(data), sender=GATEWAY.address)
    error = ABIS[ANCHORS].decode_error(result.output)
    assert error == ("InvalidAnchor", ("leafCount does not fit 64 bits",))


@pytest.mark.parametrize("cut", [1, 31, 32, 33, 100])
def test_calldata_that_ends_early_is_refused(cut: int) -> None:
    chain = Chain()
    data = ABIS[ANCHORS].encode_call("anchor", word(5), word(6), 1, "x" * 32)
    error = ABIS[ANCHORS].decode_error(chain.call_raw(ANCHORS, data[:-cut], sender=GATEWAY.address).output)
    assert error is not None
    assert error[0] == "InvalidCalldata"


requests = st.tuples(
    st.integers(0, 30), st.integers(0, 3), st.integers(0, 2**64 - 1), st.sampled_from(["", "a", "x" * 64])
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(requests, max_size=12), min_size=1, max_size=6))
def test_anchors_agree_with_a_plain_model(blocks: list[list[Any]]) -> None:
    chain = Chain()
    standing: dict[int, tuple[Any, ...]] = {}
    sizes = []
    for block in blocks:
        calls = [
            ABIS[ANCHORS].encode_call("anchor", word(batch), word(root), count, algorithm)
            for batch, root, count, algorithm in block
        ]
        receipts = chain.take(chain.sign(GATEWAY, ANCHORS, data, ahead=n) for n, data in enumerate(calls))
        for (batch, root, count, algorithm), receipt in zip(block, receipts, strict=True):
            assert receipt.succeeded == (batch not in standing)
            if receipt.succeeded:
                anchor = (len(standing), word(batch), word(root), count, algorithm or "unspecified", chain.head.number)
                standing[batch] = anchor
        sizes.append(len(standing))
    shown = list(standing.values())
    leaves = [leaf(chain, batch, int.from_bytes(a[2], "big"), a[3], a[4].encode()) for batch, a in standing.items()]
    hashes = [log.leaf_hash(data) for data in leaves]
    get_node = flatlog.node_reader(chain.state(), flatlog.ANCHORS_LOG)
    for height, size in enumerate(sizes, 1):
        root = log.root(hashes[:size])
        assert chain.view(ANCHORS, "log", height=height) == (size, root)
        assert list(chain.view(ANCHORS, "anchors", 0, 2**256 - 1, height=height)) == shown[:size]
        assert list(chain.view(ANCHORS, "anchors", 3, 4, height=height)) == shown[:size][3:7]
        for batch, anchor in standing.items():
            found = chain.view(ANCHORS, "anchorOf", word(batch), height=height)
            assert found == ((True, anchor) if anchor[0] < size else (False, anchors.NO_ANCHOR))
        for index in range(size):
            proof = log.inclusion_proof(index, size, get_node)
            log.verify_inclusion(index=index, size=size, leaf_hash=hashes[index], proof=proof, root=root)


def test_a_call_on_a_past_state_does_not_see_what_came_later() -> None:
    chain = Chain()
    assert chain.send(GATEWAY, ANCHORS, "anchor", word(1), word(2), 3, "").succeeded
    again = ("anchor", word(1), word(2), 3, "")
    assert chain.run(ANCHORS, *again, height=0, sender=GATEWAY.address).succeeded
    assert not chain.run(ANCHORS, *again, height=1, sender=GATEWAY.address).succeeded
    assert not chain.run(ANCHORS, *again, height=0, sender=VALIDATORS[0]).succeeded
