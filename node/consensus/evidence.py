"""Evidence of equivocation: two different statements that one validator signed at one height, round and step."""

from dataclasses import dataclass

from node.chain import signing
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature
from node.consensus.codec import pack_signed, unpack_signed
from node.consensus.messages import InvalidMessage, Kind, Recover, SignedStatement, Statement


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two different statements of one kind, height and round under one validator's signatures. Kept and shown only."""

    validator: bytes
    first: SignedStatement
    second: SignedStatement

    @property
    def key(self) -> tuple[bytes, int, int, int]:
        """(validator, height, round, kind): one piece of evidence of each is enough."""
        statement = self.first.statement
        return (self.validator, statement.height, statement.round, int(statement.kind))


def conflict(first: Statement, second: Statement) -> bool:
    """Whether no correct validator signs both: same kind, height and round, and not the same statement."""
    return _step(first) == _step(second) and first != second


def verify_evidence(evidence: Evidence, domain: Domain, recover: Recover = signing.recover) -> None:
    """Raise InvalidMessage unless the two statements conflict and the named validator signed both."""
    if not conflict(evidence.first.statement, evidence.second.statement):
        raise InvalidMessage("the two statements do not contradict each other")
    for signed in (evidence.first, evidence.second):
        try:
            signer = signed.signer(domain, recover)
        except InvalidSignature as error:
            raise InvalidMessage(f"evidence with a bad signature: {error}") from None
        if signer != evidence.validator:
            raise InvalidMessage(f"0x{signer.hex()} signed this, not 0x{evidence.validator.hex()}")


def pack_evidence(evidence: Evidence) -> list[object]:
    """[validator, first, second], for storage."""
    return [evidence.validator, pack_signed(evidence.first), pack_signed(evidence.second)]


def unpack_evidence(packed: object) -> Evidence:
    """The evidence of what `pack_evidence` made, its form checked and no signature. Raises InvalidMessage."""
    if not isinstance(packed, list) or len(packed) != 3:
        raise InvalidMessage("packed evidence is [validator, first, second]")
    validator = packed[0]
    if not isinstance(validator, bytes) or len(validator) != 20:
        raise InvalidMessage("evidence names a validator by an address of 20 bytes")
    return Evidence(validator, unpack_signed(packed[1]), unpack_signed(packed[2]))


def _step(statement: Statement) -> tuple[Kind, int, int]:
    return (statement.kind, statement.height, statement.round)
