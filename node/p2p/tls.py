"""TLS contexts: version 1.3 only, certificates demanded of both sides, nothing resumed."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.p2p.identity import Identity, InvalidIdentity, authority_certificate, issue_leaf, read_leaf

LEAF_LIFE_S = 24 * 3600
LEAF_BACKDATE_S = 24 * 3600  # clocks that are a day behind ours still accept it


@dataclass(frozen=True, slots=True)
class Credentials:
    """Contexts of one leaf. A renewed leaf comes in new contexts; sessions that are open do not notice."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    renew_at_s: int
    """Unix time, half the leaf's life before its end, after which new connections should use a new leaf."""


def make_credentials(
    node_key: SigningKey, session_key: Ed25519PrivateKey, domain: Domain, *, now_s: int
) -> Credentials:
    """Contexts for both directions with a leaf that is valid for LEAF_LIFE_S from `now_s` (Unix time) on."""
    leaf = issue_leaf(
        node_key,
        session_key.public_key(),
        domain,
        not_before_s=now_s - LEAF_BACKDATE_S,
        not_after_s=now_s + LEAF_LIFE_S,
    )
    return Credentials(
        make_context(leaf, session_key, domain, server_side=True),
        make_context(leaf, session_key, domain, server_side=False),
        now_s + LEAF_LIFE_S // 2,
    )


def make_context(leaf: bytes, session_key: Ed25519PrivateKey, domain: Domain, *, server_side: bool) -> ssl.SSLContext:
    """A context that shows `leaf` (DER) and accepts whatever the network's authority issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # peers are known by address, and dialled by whatever name reaches them
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    if server_side:
        context.num_tickets = 0  # a resumed session would show no certificate
    context.load_verify_locations(cadata=authority_certificate(domain))
    secret = session_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = x509.load_der_x509_certificate(leaf).public_bytes(Encoding.PEM)
    with _readable_path(certificate + secret) as path:
        context.load_cert_chain(path)
    return context


def identify(connection: ssl.SSLObject, domain: Domain) -> Identity:
    """Who is at the other end of a finished handshake. Raises InvalidIdentity; membership is another question."""
    if connection.version() != "TLSv1.3":
        raise InvalidIdentity(f"the session is {connection.version()}, expected TLSv1.3")
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        raise InvalidIdentity("the peer showed no certificate")
    return read_leaf(certificate, domain)


@contextmanager
def _readable_path(content: bytes) -> Iterator[str]:
    """A path for `load_cert_chain`, which reads files only; in memory where the system can (Linux)."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("leaf", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
