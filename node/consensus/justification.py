"""QBFT's justification rules, stateless: which round changes and proposals a correct validator may act on.

They are arXiv 2002.03613's Algorithm 4 (JustifyRoundChange, JustifyPrePrepare, HighestPrepared) with the block's hash
for the value, and the EEA specification's isProposalJustification and validRoundChange.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from merkle.patricia import EMPTY_ROOT
from node.chain import signing
from node.chain.block import Block, Header
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature
from node.consensus.messages import InvalidMessage, Kind, Message, Recover, SignedStatement, Statement
from node.consensus.override import Override
from node.consensus.quorum import proposed_by_round, proposer, quorum, tolerance


@dataclass(frozen=True, slots=True)
class Committee:
    """Who decides one height, and on which parent: all that the rules need to know besides the messages."""

    domain: Domain
    parent: Header
    validators: tuple[bytes, ...]
    recover: Recover = signing.recover
    override: Override | None = None

    @property
    def height(self) -> int:
        return self.parent.number + 1

    @property
    def quorum(self) -> int:
        return quorum(len(self.validators))

    @property
    def tolerance(self) -> int:
        return tolerance(len(self.validators))

    def proposer(self, round_: int) -> bytes:
        return proposer(self.validators, self.height, round_)

    def signers(self, statements: Sequence[SignedStatement]) -> tuple[bytes, ...]:
        """The signers of a quorum of distinct validators' statements, in order. Raises InvalidMessage if it is none."""
        if not self.quorum <= len(statements) <= len(self.validators):
            raise InvalidMessage(
                f"a justification of {len(statements)} statements, expected {self.quorum} to {len(self.validators)}"
            )
        try:
            signers = tuple(signed.signer(self.domain, self.recover) for signed in statements)
        except InvalidSignature as error:
            raise InvalidMessage(f"a justification with a bad signature: {error}") from None
        if len(set(signers)) != len(signers):
            raise InvalidMessage("a validator appears twice in one justification")
        for signer in signers:
            if signer not in self.validators:
                raise InvalidMessage(f"0x{signer.hex()} is in a justification and no validator")
        return signers


def check_round_change(message: Message, committee: Committee) -> None:
    """Raise InvalidMessage unless a ROUND-CHANGE is one that its receiver may count towards a proposal.

    Paper, Algorithm 4, JustifyRoundChange, second disjunct, asked of each sender: it has prepared nothing, or shows a
    quorum of PREPAREs for the very round and block that it claims, and the block itself (EEA: validRoundChange).
    """
    statement, attached = message.statement, message.attachments
    if statement.prepared_round is None:
        if attached.block is not None or attached.prepares:
            raise InvalidMessage("a ROUND_CHANGE carries a block and claims to have prepared none")
        return
    if attached.block is None:
        raise InvalidMessage("a ROUND_CHANGE claims a prepared block and does not carry it")
    if statement.prepared_round >= statement.round:
        raise InvalidMessage(f"prepared in round {statement.prepared_round}, not before round {statement.round}")
    check_prepares(attached.prepares, statement.prepared_round, statement.block_hash, committee)
    check_block(attached.block, statement.block_hash, statement.prepared_round, committee)


def check_prepares(
    prepares: Sequence[SignedStatement], round_: int, block_hash: bytes | None, committee: Committee
) -> None:
    """Raise InvalidMessage unless a quorum of distinct validators has prepared this block in this round.

    Paper, Algorithm 4: "received a quorum of valid PREPARE messages such that …" of both Justify predicates.
    """
    expected = Statement(Kind.PREPARE, committee.height, round_, block_hash)
    if any(signed.statement != expected for signed in prepares):
        raise InvalidMessage(f"a PREPARE for something else than what was prepared in round {round_}")
    committee.signers(prepares)


def highest_prepared(round_changes: Iterable[Statement]) -> list[Statement]:
    """Those ROUND-CHANGEs that claim the highest prepared round among them; empty when none has prepared anything.

    Paper, Algorithm 4, HighestPrepared. It is a list because a liar may claim the same round with another block: only
    one of the claims can be backed by a quorum of PREPAREs.
    """
    claims = [statement for statement in round_changes if statement.prepared_round is not None]
    highest = max((claim.prepared_round or 0 for claim in claims), default=0)
    return [claim for claim in claims if claim.prepared_round == highest]


@dataclass(frozen=True, slots=True)
class Justified:
    """What a proposal's justification shows: the round in which its block was prepared, or None for a fresh block, and
    the validators whose ROUND-CHANGEs brought the round about (none in round 0)."""

    prepared_round: int | None
    round_changers: tuple[bytes, ...]


def check_proposal(message: Message, committee: Committee) -> Justified:
    """Raise InvalidMessage unless a PROPOSAL may be accepted; its block is not executed here.

    Paper, Algorithm 4, JustifyPrePrepare (EEA: isProposalJustification). In round 0 a fresh block of the proposer's
    own. Above, a quorum of ROUND-CHANGEs for this very height and round, and then: where none has prepared anything, a
    fresh block; else the block of the highest prepared round among them, unchanged, with its quorum of PREPAREs.
    """
    statement, attached = message.statement, message.attachments
    if attached.block is None:
        raise InvalidMessage("a PROPOSAL without its block")
    if statement.round == 0:
        if attached.round_changes or attached.prepares:
            raise InvalidMessage("a PROPOSAL of round 0 needs no justification and carries one")
        _check_fresh(attached.block, statement, committee)
        return Justified(None, ())
    for signed in attached.round_changes:
        _check_embedded(signed.statement, statement)
    changers = committee.signers(attached.round_changes)
    claims = highest_prepared(signed.statement for signed in attached.round_changes)
    if not claims:
        if attached.prepares:
            raise InvalidMessage("a PROPOSAL carries PREPAREs and none of its ROUND_CHANGEs has prepared anything")
        _check_fresh(attached.block, statement, committee)
        return Justified(None, changers)
    if all(claim.block_hash != statement.block_hash for claim in claims):
        raise InvalidMessage(f"a PROPOSAL of another block than that prepared in round {claims[0].prepared_round}")
    prepared_round = claims[0].prepared_round or 0
    check_prepares(attached.prepares, prepared_round, statement.block_hash, committee)
    check_block(attached.block, statement.block_hash, prepared_round, committee)
    return Justified(prepared_round, changers)


def check_block(block: Block, block_hash: bytes | None, round_: int, committee: Committee) -> None:
    """Raise InvalidMessage unless `block` has this hash, continues the head and was proposed by `round_` at the latest.

    These are the checks that need no execution. Whether its body is the one its header names is `check_body`.
    """
    header = block.header
    if header.hash != block_hash:
        raise InvalidMessage(f"block 0x{header.hash.hex()} attached to a statement about another")
    if header.number != committee.height or header.parent_hash != committee.parent.hash:
        raise InvalidMessage(f"block {header.number} on 0x{header.parent_hash.hex()} does not continue the head")
    if not proposed_by_round(committee.validators, header.miner, committee.height, round_):
        raise InvalidMessage(f"miner 0x{header.miner.hex()} was no proposer up to round {round_}")
    # What the lost validators prepared at this height can never be this, so no message of theirs binds anybody.
    override = committee.override
    if override is not None and (header.transactions_root, header.extra_data) != (EMPTY_ROOT, override.committed):
        raise InvalidMessage(f"block {header.number} does not put the override in place, and nothing else")


def check_body(block: Block) -> None:
    """Raise InvalidMessage unless the transactions are those of the header.

    A block is known by its header's hash, so a body that does not belong to it must not stand in for the right one.
    """
    if block.transactions_root != block.header.transactions_root:
        raise InvalidMessage(f"the transactions of block 0x{block.hash.hex()} are not those that its header names")


def _check_fresh(block: Block, statement: Statement, committee: Committee) -> None:
    check_block(block, statement.block_hash, statement.round, committee)
    if block.header.miner != committee.proposer(statement.round):
        raise InvalidMessage(f"a fresh block of round {statement.round} with another proposer as its miner")


def _check_embedded(round_change: Statement, proposal: Statement) -> None:
    if (round_change.height, round_change.round) != (proposal.height, proposal.round):
        raise InvalidMessage(
            f"a PROPOSAL of round {proposal.round} at height {proposal.height} carries a ROUND_CHANGE of round "
            f"{round_change.round} at height {round_change.height}"
        )
    if round_change.prepared_round is not None and round_change.prepared_round >= proposal.round:
        raise InvalidMessage(f"a ROUND_CHANGE to round {proposal.round} prepared in {round_change.prepared_round}")
