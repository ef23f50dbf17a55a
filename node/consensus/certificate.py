"""Certificates: height, round, block hash and the seals of a quorum, which make a block final for all who check."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.chain import signing
from node.chain.block import Header
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature, PeerError
from node.consensus.messages import HEIGHT_MAX, ROUND_MAX, Kind, Recover, Statement
from node.consensus.quorum import proposed_by_round, quorum

SEALS_MAX = 1024


class InvalidCertificate(PeerError):
    """Bytes that are no certificate, or a certificate that does not make its block final."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why a block is final: the COMMIT signatures (65 bytes each) of a quorum of validators in one round.

    It lies beside the block, never in its hash; two certificates of one block may differ in round and seals.
    """

    height: int
    round: int
    block_hash: bytes
    seals: tuple[bytes, ...]


def seal_digest(domain: Domain, height: int, round_: int, block_hash: bytes) -> bytes:
    """The 32 bytes that a seal signs: the digest of the COMMIT."""
    return Statement(Kind.COMMIT, height, round_, block_hash).digest(domain)


def sealers(certificate: Certificate, domain: Domain, recover: Recover = signing.recover) -> tuple[bytes, ...]:
    """The address behind each seal, in the seals' order. Raises InvalidSignature."""
    digest = seal_digest(domain, certificate.height, certificate.round, certificate.block_hash)
    return tuple(recover(digest, seal) for seal in certificate.seals)


def verify_certificate(
    certificate: Certificate,
    header: Header,
    validators: Sequence[bytes],
    domain: Domain,
    recover: Recover = signing.recover,
) -> None:
    """Raise InvalidCertificate unless `certificate` makes the block of `header` final for its height's `validators`.

    It must name the header's height and hash, hold valid seals of a quorum of distinct validators and of nobody else,
    and the header's miner must have been the proposer of some round up to the certificate's.
    """
    if (certificate.height, certificate.block_hash) != (header.number, header.hash):
        raise InvalidCertificate(
            f"certificate of height {certificate.height} and block 0x{certificate.block_hash.hex()} "
            f"beside header {header.number}, 0x{header.hash.hex()}"
        )
    count = len(certificate.seals)
    needed = quorum(len(validators))
    if not needed <= count <= len(validators):
        raise InvalidCertificate(f"{count} seals at height {header.number}, expected {needed} to {len(validators)}")
    if not proposed_by_round(validators, header.miner, header.number, certificate.round):
        raise InvalidCertificate(
            f"miner 0x{header.miner.hex()} was no proposer of height {header.number} up to round {certificate.round}"
        )
    try:
        signers = sealers(certificate, domain, recover)
    except InvalidSignature as error:
        raise InvalidCertificate(f"a seal at height {header.number}: {error}") from None
    if len(set(signers)) != count:
        raise InvalidCertificate(f"a validator sealed height {header.number} twice in one certificate")
    for signer in signers:
        if signer not in validators:
            raise InvalidCertificate(f"0x{signer.hex()} sealed height {header.number} and is no validator of it")


def pack_certificate(certificate: Certificate) -> list[object]:
    """The plain list that msgpack carries: [height, round, block hash, [seals]]."""
    return [certificate.height, certificate.round, certificate.block_hash, list(certificate.seals)]


def unpack_certificate(packed: object) -> Certificate:
    """The certificate of what `pack_certificate` made, its form checked and nothing else. Raises InvalidCertificate."""
    if not isinstance(packed, (list, tuple)) or len(packed) != 4:
        raise InvalidCertificate("a packed certificate is [height, round, block hash, seals]")
    height, round_, block_hash, seals = packed
    if type(height) is not int or not 0 <= height <= HEIGHT_MAX:
        raise InvalidCertificate(f"certificate height {height!r}, expected 0 to {HEIGHT_MAX}")
    if type(round_) is not int or not 0 <= round_ <= ROUND_MAX:
        raise InvalidCertificate(f"certificate round {round_!r}, expected 0 to {ROUND_MAX}")
    if not isinstance(block_hash, bytes) or len(block_hash) != 32:
        raise InvalidCertificate("a certificate's block hash has 32 bytes")
    if not isinstance(seals, (list, tuple)) or len(seals) > SEALS_MAX:
        raise InvalidCertificate(f"a certificate's seals are a list of at most {SEALS_MAX}")
    if not all(isinstance(seal, bytes) and len(seal) == signing.SIGNATURE_BYTES for seal in seals):
        raise InvalidCertificate(f"a seal has {signing.SIGNATURE_BYTES} bytes")
    return Certificate(height, round_, block_hash, tuple(seals))
