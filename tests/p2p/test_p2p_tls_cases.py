"""Who gets in: ten ways to be refused, over real sockets, and each time nothing reaches a handler."""

import asyncio
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from node.chain.domain import Domain
from node.p2p import identity
from node.p2p.framing import encode_frame
from node.p2p.identity import authority_key, issue_leaf
from node.p2p.kinds import Kind
from tests.p2p.conftest import (
    DOMAIN,
    Crowd,
    HandMadePeer,
    Node,
    client_context,
    hello_frame,
    key_of,
    leaf_context,
    until,
)

MEMBER, STRANGER, SERVER = 2, 99, 1
MESSAGE = encode_frame(Kind.STATUS, b"let me in")


def good_leaf(session_key: Ed25519PrivateKey, *, number: int = MEMBER, life_s: int = 3600) -> bytes:
    now_s = int(time.time())
    return issue_leaf(
        key_of(number),
        session_key.public_key(),
        DOMAIN,
        not_before_s=now_s - 7200,
        not_after_s=now_s + life_s,
    )


def reissued(leaf: bytes, *, issuer: Ed25519PrivateKey, session_key: Ed25519PublicKey) -> bytes:
    """The same certificate, claim and all, for another TLS key or by another issuer."""
    old = x509.load_der_x509_certificate(leaf)
    builder = (
        x509.CertificateBuilder(issuer_name=old.issuer, subject_name=old.subject, public_key=session_key)
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(issuer, None).public_bytes(Encoding.DER)


def attempt(port: int, context: ssl.SSLContext | None, data: bytes) -> bytes:
    """Connect, send everything with the handshake's last message, and read what the server says until it hangs up."""
    peer = HandMadePeer(port, context)
    try:
        peer.begin(data)
        return peer.read_to_end()
    except (EOFError, ssl.SSLError, ConnectionError):
        return b""
    finally:
        peer.close()


async def assert_refused(server: Node, context: ssl.SSLContext | None, data: bytes = hello_frame() + MESSAGE) -> None:
    said = await asyncio.to_thread(attempt, server.port, context, data)
    assert said == b""  # the server has not even said hello
    assert server.events == []
    assert server.network.peers() == []


async def test_a_member_is_heard(crowd: Crowd) -> None:
    """The control: the same attempt with a good certificate reaches the handler."""
    server = await crowd.start(SERVER)
    session_key = Ed25519PrivateKey.generate()
    context = leaf_context(good_leaf(session_key), session_key)
    peer = HandMadePeer(server.port, context)
    await asyncio.to_thread(peer.begin, hello_frame() + MESSAGE)
    await until(lambda: server.received() == [(Kind.STATUS, b"let me in")])
    assert server.connected_to() == {key_of(MEMBER).address}
    peer.close()
    await until(lambda: server.lost())


async def test_1_stranger(crowd: Crowd) -> None:
    server = await crowd.start(SERVER)
    await assert_refused(server, client_context(STRANGER))


async def test_2_no_certificate(crowd: Crowd) -> None:
    server = await crowd.start(SERVER)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await assert_refused(server, context)


async def test_3_another_issuer(crowd: Crowd) -> None:
    """The leaf of a member, its claim and all, but signed by an authority that is not the network's."""
    server = await crowd.start(SERVER)
    session_key = Ed25519PrivateKey.generate()
    leaf = reissued(good_leaf(session_key), issuer=Ed25519PrivateKey.generate(), session_key=session_key.public_key())
    await assert_refused(server, leaf_context(leaf, session_key))


async def test_4_a_claim_for_anothers_key(crowd: Crowd) -> None:
    """A member's claim, copied from its real certificate, on a certificate for the thief's own TLS key."""
    server = await crowd.start(SERVER)
    thief = Ed25519PrivateKey.generate()
    leaf = reissued(
        good_leaf(Ed25519PrivateKey.generate()), issuer=authority_key(DOMAIN), session_key=thief.public_key()
    )
    await assert_refused(server, leaf_context(leaf, thief))


async def test_4_the_servers_own_key(crowd: Crowd) -> None:
    """Nor does somebody with the server's own node key get in, though that address is a member."""
    server = await crowd.start(SERVER)
    await assert_refused(server, client_context(SERVER))


@pytest.mark.parametrize("life_s", [-1, -3600])
async def test_5_expired(crowd: Crowd, life_s: int) -> None:
    server = await crowd.start(SERVER)
    session_key = Ed25519PrivateKey.generate()
    await assert_refused(server, leaf_context(good_leaf(session_key, life_s=life_s), session_key))


async def test_5_not_valid_for_longer_than_was_claimed(crowd: Crowd) -> None:
    """Anybody can have the authority sign a later end, but the node key signed the end, too."""
    server = await crowd.start(SERVER)
    session_key = Ed25519PrivateKey.generate()
    expired = x509.load_der_x509_certificate(good_leaf(session_key, life_s=-60))
    claim = expired.extensions.get_extension_for_oid(identity.CLAIM_OID)
    fresh = x509.load_der_x509_certificate(good_leaf(session_key))
    builder = (
        x509.CertificateBuilder(issuer_name=fresh.issuer, subject_name=fresh.subject, serial_number=7)
        .public_key(session_key.public_key())
        .not_valid_before(fresh.not_valid_before_utc)
        .not_valid_after(fresh.not_valid_after_utc)
        .add_extension(claim.value, critical=False)
    )
    leaf = builder.sign(authority_key(DOMAIN), None).public_bytes(Encoding.DER)
    await assert_refused(server, leaf_context(leaf, session_key))


@pytest.mark.parametrize(
    "domain", [Domain(DOMAIN.chain_id, bytes(32)), Domain(DOMAIN.chain_id + 1, DOMAIN.genesis_hash)]
)
async def test_6_another_genesis(crowd: Crowd, domain: Domain) -> None:
    server = await crowd.start(SERVER)
    await assert_refused(server, client_context(MEMBER, domain))


async def test_7_tls_1_2(crowd: Crowd) -> None:
    server = await crowd.start(SERVER)
    context = client_context(MEMBER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await assert_refused(server, context)


async def test_8_plain_text(crowd: Crowd) -> None:
    server = await crowd.start(SERVER)
    said = await asyncio.to_thread(attempt, server.port, None, hello_frame() + MESSAGE)
    assert said[:1] in (b"", b"\x15")  # a TLS alert at the most
    assert server.events == []
    assert server.network.peers() == []


async def test_9_removed_member(crowd: Crowd) -> None:
    """Who was a member is dropped when it no longer is, and does not get in again."""
    server = await crowd.start(SERVER)
    peer = HandMadePeer(server.port, client_context(MEMBER))
    await asyncio.to_thread(peer.begin, hello_frame())
    await until(lambda: server.connected_to() == {key_of(MEMBER).address})
    crowd.members.discard(key_of(MEMBER).address)
    server.network.members_changed()
    assert server.network.peers() == []
    await asyncio.to_thread(peer.read_to_end)
    await until(lambda: server.lost() == ["is no longer a member"])
    peer.close()
    server.events.clear()
    await assert_refused(server, client_context(MEMBER))


@pytest.mark.parametrize(("oldest", "newest"), [(2, 2), (2, 9)])
async def test_10_wrong_version(crowd: Crowd, oldest: int, newest: int) -> None:
    """Both sides say which versions they speak; with none in common no message counts."""
    server = await crowd.start(SERVER)
    said = await asyncio.to_thread(attempt, server.port, client_context(MEMBER), hello_frame(oldest, newest) + MESSAGE)
    assert said[4:5] in (b"", bytes((Kind.HELLO,)))  # the server's hello, unless its end was quicker
    assert server.events == []
    assert server.network.peers() == []


async def test_nothing_before_hello(crowd: Crowd) -> None:
    """A member whose first message is no hello is not heard either."""
    server = await crowd.start(SERVER)
    said = await asyncio.to_thread(attempt, server.port, client_context(MEMBER), MESSAGE + hello_frame())
    assert said[4:5] in (b"", bytes((Kind.HELLO,)))
    assert server.events == []


async def test_the_dialler_checks_whom_it_reached(crowd: Crowd) -> None:
    """Member 3 answers where member 2 was expected: good enough for a session, but not for this one."""
    other = await crowd.start(3)
    wrong = await crowd.start(SERVER, knows=[(key_of(2).address, other.network.endpoint)])
    control = await crowd.start(4, knows=[(key_of(3).address, other.network.endpoint)])
    await until(lambda: control.connected_to() == {key_of(3).address})
    await asyncio.sleep(0.3)  # several attempts of `wrong`, whose first came before the control's
    assert wrong.events == []
    assert other.connected_to() == {key_of(4).address}


async def test_versions_that_overlap_agree_on_the_newest_common_one(crowd: Crowd) -> None:
    server = await crowd.start(SERVER)
    peer = HandMadePeer(server.port, client_context(MEMBER))
    await asyncio.to_thread(peer.begin, hello_frame(1, 5))
    await until(lambda: server.connected_to())
    assert [info.protocol_version for info in server.network.peers()] == [1]
    peer.close()
