"""Nullifiers: one voter is one nullifier, however spelt, and nothing else ever meets it."""

import hashlib
import hmac
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nullifier import ElectionKey, InvalidId, election_key
from node.chain.domain import Domain
from tests.gateway.conftest import DOMAIN

SECRET = bytes(range(32))
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def key(election: int = 1, secret: bytes = SECRET, domain: Domain = DOMAIN) -> ElectionKey:
    return ElectionKey(election_key(secret, domain, election), election)


def test_the_documented_construction() -> None:
    """Put together a second time, from the words of the protocol's description alone."""

    def framed(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    number = (7).to_bytes(32, "big")
    derived = hmac.new(
        SECRET,
        framed(b"psephos:election-key:1", (7770).to_bytes(8, "big"), DOMAIN.genesis_hash, number),
        hashlib.sha256,
    ).digest()
    expected = hmac.new(derived, framed(b"psephos:nullifier:1", number, "josé".encode()), hashlib.sha256).digest()
    assert key(7).nullifier("josé") == expected
    expected = hmac.new(derived, framed(b"psephos:record-id:1", number, b"tx-1"), hashlib.sha256).digest()
    assert key(7).record_id("tx-1") == expected
    assert key(7).check == hmac.new(derived, framed(b"psephos:key-check:1", number), hashlib.sha256).digest()


@given(ids)
def test_spellings_of_one_name_are_one_voter(voter: str) -> None:
    composed, split = unicodedata.normalize("NFC", voter), unicodedata.normalize("NFD", voter)
    assert key().nullifier(composed) == key().nullifier(voter)
    if len(split.encode()) <= 256:
        assert key().nullifier(split) == key().nullifier(voter)


@given(ids, ids)
def test_different_voters_elections_networks_and_uses_never_meet(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (key().nullifier(one) == key().nullifier(other)) is same
    elsewhere = key(domain=Domain(DOMAIN.chain_id, bytes(32)))
    seen = {key().nullifier(one), key(2).nullifier(one), key().record_id(one), elsewhere.nullifier(one), key().check}
    assert len(seen | {key(secret=bytes(32)).nullifier(one)}) == 6


@pytest.mark.parametrize("bad", ["", "x" * 257, "é" * 129, "\ud800"])
def test_ids_out_of_bounds_are_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(InvalidId) as caught:
        key().nullifier(bad)
    assert "voter_id" in str(caught.value)
    assert "xx" not in str(caught.value)
    with pytest.raises(InvalidId, match="transaction_id"):
        key().record_id(bad)


def test_a_made_transaction_id_is_the_same_for_a_retry_and_another_for_another_voter() -> None:
    one, two = (key().made_transaction_id(key().nullifier(voter)) for voter in ("a", "b"))
    assert one == key().made_transaction_id(key().nullifier("a"))
    assert one != two


def test_the_key_is_not_shown() -> None:
    assert repr(key(3)) == "ElectionKey(election=3)"
