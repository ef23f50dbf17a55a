"""Who a TLS certificate belongs to: the network's public authority, and leaves that carry a node key's signature.

The authority's private key follows from the genesis hash, so anybody can make it. It grants no trust: it makes OpenSSL
ask for a certificate at all, and refuse those of other networks. Trust comes from the extension of the leaf, as in
libp2p's TLS specification: the secp256k1 key of the node signs the key of the TLS session.
"""

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from merkle.keccak import keccak256
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature, PeerError
from node.chain.signing import SIGNATURE_BYTES, SigningKey, recover

CLAIM_OID = x509.ObjectIdentifier("2.25.48745850663690962368468322684257820183")  # an arc from a random UUID, X.667
CLAIM_VERSION = 1
CLAIM_TAG = b"psephos:tls:1"
AUTHORITY_TAG = b"psephos:authority:1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AUTHORITY_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # "no end", RFC 5280 §4.1.2.5


class InvalidIdentity(PeerError):
    """A certificate proves no address: no claim in it, or one that its node key did not sign for this network."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a leaf proves, to whoever has seen its TLS key used."""

    address: bytes
    """Of the node key, 20 bytes."""
    process: bytes
    """SHA-256 of the TLS key: the same for all connections of one process, another after a restart."""


@lru_cache(maxsize=16)
def authority_key(domain: Domain) -> Ed25519PrivateKey:
    """The network's authority key, known to all: its seed is keccak256(tag ‖ genesis hash)."""
    return Ed25519PrivateKey.from_private_bytes(keccak256(AUTHORITY_TAG + domain.genesis_hash))


@lru_cache(maxsize=16)
def authority_certificate(domain: Domain) -> bytes:
    """The authority's self-signed certificate, DER; byte for byte the same on every node of the network."""
    key = authority_key(domain)
    name = _authority_name(domain)
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(_EPOCH)
        .not_valid_after(_AUTHORITY_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, None).public_bytes(Encoding.DER)


def issue_leaf(
    node_key: SigningKey, session_key: Ed25519PublicKey, domain: Domain, *, not_before_s: int, not_after_s: int
) -> bytes:
    """A certificate, DER, for a process whose TLS key is `session_key` and whose node key signs for it.

    Times are Unix seconds; outside of them OpenSSL refuses the certificate.
    """
    process = process_id(session_key)
    issuer = authority_key(domain)
    claim = bytes((CLAIM_VERSION,)) + node_key.sign(claim_digest(domain, process, not_after_s))
    builder = (
        x509.CertificateBuilder(
            issuer_name=_authority_name(domain),
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"0x{node_key.address.hex()}")]),
            public_key=session_key,
            serial_number=int.from_bytes(keccak256(claim)[:16], "big") + 1,
        )
        .not_valid_before(datetime.fromtimestamp(not_before_s, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after_s, UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .add_extension(x509.UnrecognizedExtension(CLAIM_OID, claim), critical=False)
    )
    return builder.sign(issuer, None).public_bytes(Encoding.DER)


def read_leaf(certificate: bytes, domain: Domain) -> Identity:
    """Whose node key vouches for a certificate (DER). Raises InvalidIdentity.

    Issuer and validity times are OpenSSL's to check, possession of the TLS key is the handshake's, and whether the
    address is a member is the network's.
    """
    try:
        with warnings.catch_warnings():  # anybody can have odd certificates issued; they are not our log's business
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            leaf = x509.load_der_x509_certificate(certificate)
        key = leaf.public_key()
        claim = leaf.extensions.get_extension_for_oid(CLAIM_OID).value
        not_after_s = int(leaf.not_valid_after_utc.timestamp())
    except Exception as error:  # whatever a parser of strangers' bytes raises; its errors have no common base
        raise InvalidIdentity(f"the certificate carries no claim of a node key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidIdentity(f"the certificate's key is no Ed25519 key but a {type(key).__name__}")
    if not isinstance(claim, x509.UnrecognizedExtension) or len(claim.value) != 1 + SIGNATURE_BYTES:
        raise InvalidIdentity(f"a claim is a version and a signature, {1 + SIGNATURE_BYTES} bytes")
    if claim.value[0] != CLAIM_VERSION:
        raise InvalidIdentity(f"the claim has version {claim.value[0]}, expected {CLAIM_VERSION}")
    if not_after_s < 0:  # OpenSSL refuses it as expired; this holds whoever calls
        raise InvalidIdentity(f"the certificate ended before 1970 ({not_after_s} s)")
    process = process_id(key)
    try:
        return Identity(recover(claim_digest(domain, process, not_after_s), claim.value[1:]), process)
    except InvalidSignature as error:
        raise InvalidIdentity(f"the claim's signature is none ({error})") from None


def claim_digest(domain: Domain, process: bytes, not_after_s: int) -> bytes:
    """What the node key signs. After 0x19 no transaction begins with it, and the tag keeps it off other messages."""
    return keccak256(
        b"\x19"
        + CLAIM_TAG
        + domain.chain_id.to_bytes(8, "big")
        + domain.genesis_hash
        + process
        + not_after_s.to_bytes(8, "big")
    )


def process_id(key: Ed25519PublicKey) -> bytes:
    """SHA-256 of a TLS key's DER SubjectPublicKeyInfo: which process a certificate belongs to."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _authority_name(domain: Domain) -> x509.Name:
    common_name = f"psephos {domain.genesis_hash[:16].hex()}"
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
