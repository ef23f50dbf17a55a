"""What a leaf proves, and what it does not; no sockets."""

import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from merkle.keccak import keccak256
from node.chain.domain import Domain
from node.p2p.identity import (
    CLAIM_OID,
    InvalidIdentity,
    authority_certificate,
    authority_key,
    claim_digest,
    issue_leaf,
    process_id,
    read_leaf,
)
from node.p2p.tls import make_credentials
from tests.p2p.conftest import DOMAIN, key_of

SESSION_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
NOT_AFTER = b"330518033320Z"  # the end of LEAF, as a certificate writes it
LEAF = issue_leaf(key_of(1), SESSION_KEY.public_key(), DOMAIN, not_before_s=1_000, not_after_s=2_000_000_000)


def test_a_leaf_proves_its_node_and_its_process() -> None:
    identity = read_leaf(LEAF, DOMAIN)
    assert identity.address == key_of(1).address
    assert identity.process == process_id(SESSION_KEY.public_key())


def test_every_node_makes_the_same_authority() -> None:
    """A second implementation has to come to these bytes; docs/PROTOCOL.md says how."""
    authority_certificate.cache_clear()
    assert keccak256(authority_certificate(DOMAIN)).hex() == AUTHORITY_HASH
    assert x509.load_der_x509_certificate(authority_certificate(DOMAIN)).public_key() == (
        authority_key(DOMAIN).public_key()
    )


AUTHORITY_HASH = "37ca311ffef1bcc837307001f8f9699b70f31d81fd2e5d58fcb71d638e8e7221"


def test_the_digest_of_a_claim() -> None:
    expected = keccak256(
        b"\x19psephos:tls:1" + (7770).to_bytes(8, "big") + bytes(range(32)) + b"\x05" * 32 + (99).to_bytes(8, "big")
    )
    assert claim_digest(DOMAIN, b"\x05" * 32, 99) == expected


@pytest.mark.parametrize("domain", [Domain(7771, DOMAIN.genesis_hash), Domain(7770, bytes(32))])
def test_a_leaf_of_another_network_proves_another_address_or_none(domain: Domain) -> None:
    try:
        assert read_leaf(LEAF, domain).address != key_of(1).address
    except InvalidIdentity:
        return


@given(st.binary(max_size=400))
def test_any_bytes_prove_nothing(data: bytes) -> None:
    with pytest.raises(InvalidIdentity):
        read_leaf(data, DOMAIN)


@given(st.integers(0, len(LEAF) * 8 - 1))
def test_no_bit_of_a_claim_can_be_changed(bit: int) -> None:
    """Whatever still proves the address has the claimed key, end and claim."""
    changed = bytearray(LEAF)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        identity = read_leaf(bytes(changed), DOMAIN)
    except InvalidIdentity:
        return
    if identity.address == key_of(1).address:
        assert identity.process == process_id(SESSION_KEY.public_key())
        assert NOT_AFTER in changed


def test_the_claim_is_not_critical() -> None:
    leaf = x509.load_der_x509_certificate(LEAF)
    assert not leaf.extensions.get_extension_for_oid(CLAIM_OID).critical


def test_contexts_are_strict() -> None:
    now_s = int(time.time())
    credentials = make_credentials(key_of(1), SESSION_KEY, DOMAIN, now_s=now_s)
    for context in (credentials.server, credentials.client):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.options & ssl.OP_NO_TICKET
        assert len(context.get_ca_certs()) == 1
    assert credentials.server.num_tickets == 0
    assert now_s < credentials.renew_at_s < now_s + 24 * 3600
