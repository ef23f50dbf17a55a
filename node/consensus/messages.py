"""The four QBFT messages: the statement that is signed, and what travels with it to justify it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from merkle import rlp
from merkle.keccak import keccak256
from node.chain import signing
from node.chain.block import Block
from node.chain.domain import Domain
from node.chain.errors import PeerError

PREFIX = b"\x19psephos"  # 0x19 begins no RLP list and no transaction type, so no transaction is ever signed as this
HEIGHT_MAX = 2**63 - 1
ROUND_MAX = 2**32 - 1

Recover = Callable[[bytes, bytes], bytes]
"""(digest, signature) → address, raising InvalidSignature. Injected, so that a shell may remember what it verified."""


class InvalidMessage(PeerError):
    """A consensus message that breaks a rule of the protocol or of its encoding."""


class Kind(IntEnum):
    """Which of QBFT's messages a statement is; the number is what is signed."""

    PROPOSAL = 1
    PREPARE = 2
    COMMIT = 3
    ROUND_CHANGE = 4


@dataclass(frozen=True, slots=True)
class Statement:
    """What a validator signs. `block_hash` is 32 bytes; of a ROUND-CHANGE it is the prepared block, or None.

    `prepared_round` is set in a ROUND-CHANGE whose sender has prepared `block_hash` in that round, and nowhere else.
    """

    kind: Kind
    height: int
    round: int
    block_hash: bytes | None
    prepared_round: int | None = None

    def digest(self, domain: Domain) -> bytes:
        """The 32 bytes under the signature: keccak256(0x19 ‖ "psephos" ‖ rlp([kind, chain id, genesis hash, …]))."""
        items = [
            rlp.encode_int(self.kind),
            rlp.encode_int(domain.chain_id),
            domain.genesis_hash,
            rlp.encode_int(self.height),
            rlp.encode_int(self.round),
        ]
        if self.kind is Kind.ROUND_CHANGE:
            items.append(rlp.encode_int(0 if self.prepared_round is None else self.prepared_round + 1))
        items.append(self.block_hash or b"")
        return keccak256(PREFIX + rlp.encode(items))


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement and its 65-byte recoverable, low-s signature. Of a COMMIT, the signature is the seal."""

    statement: Statement
    signature: bytes

    def signer(self, domain: Domain, recover: Recover = signing.recover) -> bytes:
        """The 20-byte address that signed. Raises InvalidSignature."""
        return recover(self.statement.digest(domain), self.signature)


@dataclass(frozen=True)
class Attachments:
    """What justifies a statement, unsigned as a whole: every part carries signatures of its own.

    A PROPOSAL has its block and, in rounds above 0, a quorum of ROUND-CHANGEs and the PREPAREs of the highest prepared
    block among them. A ROUND-CHANGE has its prepared block and the PREPAREs. PREPARE and COMMIT have none.
    """

    block: Block | None = None
    round_changes: tuple[SignedStatement, ...] = ()
    prepares: tuple[SignedStatement, ...] = ()


NOTHING_ATTACHED = Attachments()


@dataclass(frozen=True)
class Message:
    """A signed statement with its attachments: what validators send each other.

    Any statement may also travel bare, without what would justify it: as a reminder to its own signer, and as proof of
    equivocation. Nobody else counts a bare PROPOSAL, or a bare ROUND-CHANGE that claims a prepared block.
    """

    signed: SignedStatement
    attachments: Attachments = NOTHING_ATTACHED

    @property
    def statement(self) -> Statement:
        return self.signed.statement

    @property
    def bare(self) -> "Message":
        """The same statement and signature with nothing attached."""
        return self if self.attachments is NOTHING_ATTACHED else Message(self.signed)

    @cached_property
    def bytes_count(self) -> int:
        """About how many bytes it takes, for bounds on what is buffered."""
        parts = 1 + len(self.attachments.round_changes) + len(self.attachments.prepares)
        return 160 * parts + (self.attachments.block.bytes_count if self.attachments.block else 0)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A statement that this validator has decided to make, with its attachments, awaiting the key."""

    statement: Statement
    attachments: Attachments = NOTHING_ATTACHED

    def digest(self, domain: Domain) -> bytes:
        """What to sign, 32 bytes."""
        return self.statement.digest(domain)

    def signed(self, signature: bytes) -> Message:
        """The message, once the key has signed `digest`."""
        return Message(SignedStatement(self.statement, signature), self.attachments)


def authenticate(domain: Domain, message: Message, recover: Recover = signing.recover) -> bytes:
    """The 20-byte address that signed the message's statement. Attachments are the engine's to judge.

    Raises InvalidSignature.
    """
    return message.signed.signer(domain, recover)
