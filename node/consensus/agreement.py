"""QBFT on one height: takes authentic messages in, and applies the protocol's rules until none applies any more.

The rules are arXiv 2002.03613's Algorithms 2 and 3 (and the EEA specification's "upon" rules), each with its place in
its docstring. They look at what is known, not at what has just arrived, so order and repetition do not matter, and a
restart is no special case.
"""

from node.chain.block import Block
from node.consensus.blocks import CandidateBlocks
from node.consensus.certificate import Certificate
from node.consensus.events import Policy
from node.consensus.guard import Prepared
from node.consensus.justification import (
    Committee,
    check_block,
    check_body,
    check_proposal,
    check_round_change,
    highest_prepared,
)
from node.consensus.messages import (
    NOTHING_ATTACHED,
    ROUND_MAX,
    Attachments,
    InvalidMessage,
    Kind,
    Message,
    Statement,
    Unsigned,
)
from node.consensus.outbox import Outbox
from node.consensus.peers import Peers
from node.consensus.pool import StatementPool
from node.consensus.rounds import CurrentRound
from node.consensus.signer import Signer
from node.consensus.timers import backoff_ms


class Agreement:
    """One height, from the parent's being durable to the decision."""

    def __init__(self, committee: Committee, policy: Policy, signer: Signer, peers: Peers, now_ms: int) -> None:
        self.committee = committee
        self.height = committee.height
        self._policy, self._signer, self._peers = policy, signer, peers
        self._began_ms = now_ms
        self.has_work = False
        self.decided = False
        self._heard = False  # from anybody else, of this height
        self._pool = StatementPool(policy.rounds_max)
        self._blocks = CandidateBlocks(policy.blocks_max)
        self._round_changes: dict[bytes, Message] = {}  # each validator's latest, justified
        self._helped: dict[bytes, int] = {}
        self.prepared: Prepared | None = None
        guard = signer.guard
        resumed = guard is not None and guard.height == self.height
        round_ = guard.round if guard is not None and resumed else 0
        self._now = CurrentRound(round_, sent_ms=now_ms, retry_ms=now_ms)
        # A PROPOSAL signed before a restart is not known any more, and another may not be signed: its round is spent.
        self._spent_round = -1
        if guard is not None and resumed:
            self.prepared = guard.prepared
            if self.prepared is not None:
                self._blocks.add(self.prepared.block)
            proposal = signer.promised(Kind.PROPOSAL, self.height)
            if proposal is not None and not (self.prepared and self.prepared.round == proposal.round):
                self._spent_round = proposal.round

    @property
    def signing(self) -> bool:
        """Whether this node takes part in this height."""
        return self._signer.active(self.height, self.committee.validators)

    @property
    def round(self) -> int:
        return self._now.number

    @property
    def progress(self) -> str:
        """How far the current round has come, for people to look at."""
        if self.decided:
            return "decided"
        if self.prepared is not None and self.prepared.round == self.round:
            return "prepared"
        return "waiting" if self._now.proposal is None else "proposed"

    def knows(self, statement: Statement, signer: bytes) -> bool:
        """Whether this statement has arrived, and counts."""
        signed = self._pool.get(statement.kind, statement.round, signer)
        return signed is not None and signed.statement == statement

    # --- what arrives ---------------------------------------------------------------------------------------------

    def resume(self, out: Outbox) -> None:
        """After a restart, make the promises of the round again that the guard holds: the very same statements."""
        guard = self._signer.guard
        if guard is None or guard.height != self.height or not self.signing:
            return
        for statement in guard.signed.values():
            if statement.round != self.round:
                continue
            if statement.kind is Kind.ROUND_CHANGE:
                self._signer.sign(out, [Unsigned(statement, _carrying(guard.carried))])
            elif statement.kind is not Kind.PROPOSAL:
                self._signer.sign(out, [Unsigned(statement)])
            elif self.round == 0 and self.prepared is not None:
                self._signer.sign(out, [Unsigned(statement, Attachments(self.prepared.block))])
        if self.round > 0 and all(statement.round < self.round for statement in guard.signed.values()):
            self._change_round(self.round, self._began_ms, out)  # an override has moved the guard to a new round

    def receive(self, message: Message, sender: bytes, now_ms: int, out: Outbox) -> None:
        """Take in an authentic message of this height from one of its validators. Raises InvalidMessage."""
        if self.decided:
            return
        evidence = self._pool.add(message.signed, sender)
        if evidence is not None:
            out.evidence(evidence)
        if sender == self._signer.address:
            self._now.keep_own(message)
        else:
            self._heard = True
        if message.statement.kind is Kind.PROPOSAL:
            self._receive_proposal(message, sender, now_ms)
        elif message.statement.kind is Kind.ROUND_CHANGE:
            self._receive_round_change(message, sender, out)

    def receive_built(self, round_: int, block: Block | None, now_ms: int, out: Outbox) -> None:
        """Take in the block asked for in this round, and propose it."""
        if self.decided or round_ != self.round or self._now.awaited is None:
            return
        basis, self._now.awaited = self._now.awaited, None
        if block is None:
            self._now.retry_ms = now_ms + max(self._policy.block_interval_min_ms, 1)
            return
        self._blocks.built(block)
        self._propose(Attachments(block, basis), out)

    def receive_verdict(self, block_hash: bytes, *, valid: bool) -> None:
        """Take in what execution said of a block."""
        self._blocks.answer(block_hash, valid=valid)

    def greet(self, address: bytes, out: Outbox) -> None:
        """Send the own current messages to a validator that can be reached again."""
        for message in self._now.current():
            out.send(message, address)

    def advance(self, now_ms: int, out: Outbox) -> None:
        """Apply the rules until none applies any more."""
        while not self.decided and (
            self._decide(out)
            or self._jump(now_ms, out)
            or self._expire(now_ms, out)
            or self._start_proposing(now_ms, out)
            or self._prepare(out)
            or self._commit(out)
        ):
            pass
        self._resend(now_ms, out)

    def deadline_ms(self) -> int | None:
        """When something is to be done if nothing arrives before."""
        if self.decided or not self.signing:
            return None
        deadlines = [self._timer_deadline_ms(), self._propose_due_ms(), self._resend_due_ms()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _receive_proposal(self, message: Message, sender: bytes, now_ms: int) -> None:
        statement, block = message.statement, message.attachments.block
        if sender != self.committee.proposer(statement.round):
            raise InvalidMessage(f"a PROPOSAL of round {statement.round} from another than its proposer")
        if block is None:
            return
        if statement.round < self.round:
            # Too late to prepare, but COMMITs may yet make it final: the first of each round is kept.
            if self._pool.get(Kind.PROPOSAL, statement.round, sender) == message.signed:
                check_block(block, statement.block_hash, statement.round, self.committee)
                self._blocks.add(block, self._kept())
            return
        if statement.round == self.round and self._now.proposal is not None:
            return
        justified = check_proposal(message, self.committee)
        block = self._blocks.add(block, self._kept())
        for changer in justified.round_changers:
            self._pool.note_reached(changer, statement.round)
        if statement.round > self.round:
            self._begin_round(statement.round, now_ms)
        self._now.proposal, self._now.block, self._now.fresh = message, block, justified.prepared_round is None
        self._now.timer_ms = now_ms  # it has the full time from now (Algorithm 2)

    def _receive_round_change(self, message: Message, sender: bytes, out: Outbox) -> None:
        statement = message.statement
        if statement.prepared_round is not None and message.attachments.block is None:
            return  # bare: it shows how far its sender is, no more
        if statement.round < self.round and self._helped.get(sender, -1) < self.round:
            self._helped[sender] = self.round  # its sender has missed something: once in each round, say it again
            self.greet(sender, out)
        held = self._round_changes.get(sender)
        if held is None or statement.round > held.statement.round:
            check_round_change(message, self.committee)
            self._round_changes[sender] = self._with_known_body(message)

    def _with_known_body(self, message: Message) -> Message:
        """The same message with the right body of its block, kept once where many carry it. Raises InvalidMessage."""
        attached = message.attachments
        if attached.block is None:
            return message
        known = self._blocks.get(attached.block.hash)
        if known is None:
            check_body(attached.block)
            return message
        return Message(message.signed, Attachments(known, (), attached.prepares))

    # --- the rules ------------------------------------------------------------------------------------------------

    def _decide(self, out: Outbox) -> bool:
        """A quorum of COMMITs of any one round finalises a known valid block (Algorithm 2; EEA: UponCommit).

        Of any round, since a quorum of seals in an earlier one is as good as in this.
        """
        for round_, block_hash in self._pool.quorums(Kind.COMMIT, self.committee.quorum):
            commits = self._pool.matching(Kind.COMMIT, round_, block_hash)
            block = self._blocks.get(block_hash)
            if block is None:
                self._ask_for_final_block(out)
            elif self._blocks.is_valid(block, out, fresh=False):
                seals = tuple(commit.signature for commit in commits)
                out.decide(block, Certificate(self.height, round_, block_hash, seals))
                self.decided = True
                return True
        return False

    def _jump(self, now_ms: int, out: Outbox) -> bool:
        """f + 1 validators in higher rounds draw this one along (Algorithm 3; EEA: UponRoundChange).

        The target is the highest round that f + 1 have reached, one of them correct. Any signed statement shows that
        its maker has reached its round, as well as a ROUND-CHANGE does.
        """
        if not self.signing:
            return False
        own = self._signer.address
        ahead = [reached for each, reached in self._pool.reached.items() if each != own and reached > self.round]
        if len(ahead) <= self.committee.tolerance:
            return False
        self._change_round(sorted(ahead, reverse=True)[self.committee.tolerance], now_ms, out)
        return True

    def _expire(self, now_ms: int, out: Outbox) -> bool:
        """The round's timer has expired: change to the next round (Algorithm 3; EEA: UponRoundTimeout)."""
        if not self.signing or self.round >= ROUND_MAX:
            return False
        if self._now.timer_ms is None and self._timer_may_start(now_ms):
            self._now.timer_ms = now_ms
        if self._now.timer_ms is None or now_ms < self._now.timer_ms + self._timeout_ms():
            return False
        proposer = self.committee.proposer(self.round)
        if self._now.proposal is None and proposer != self._signer.address:
            self._peers.miss_turn(proposer)
        self._change_round(self.round + 1, now_ms, out)
        return True

    def _start_proposing(self, now_ms: int, out: Outbox) -> bool:
        """The proposer's turn (Algorithms 2 and 3; EEA: UponBlockTimeout, UponRoundChange).

        In round 0 it builds a block when one is due. Above, with a quorum of ROUND-CHANGEs for this very round, it
        proposes the block of the highest prepared round among them unchanged, or builds one at once if there is none.
        """
        due_ms = self._propose_due_ms()
        if due_ms is None or now_ms < due_ms:
            return False
        justification = self._justification()
        claims = highest_prepared(message.statement for message in justification)
        basis = tuple(message.signed for message in justification)
        if not claims:
            self._now.awaited = basis
            out.build(self.height, self.round)
            return True
        attached = next(each.attachments for each in justification if each.statement == claims[0])
        if attached.block is None:
            raise AssertionError("a justified ROUND-CHANGE carries the block that it claims")
        block = self._blocks.add(attached.block, self._kept())
        return self._propose(Attachments(block, basis, attached.prepares), out)

    def _prepare(self, out: Outbox) -> bool:
        """A justified proposal of a valid block: PREPARE it (Algorithm 2; EEA: UponProposal)."""
        if self._now.proposal is None or self._now.block is None:
            return False
        valid = self._blocks.is_valid(self._now.block, out, fresh=self._now.fresh)
        statement = Statement(Kind.PREPARE, self.height, self.round, self._now.block.hash)
        if not valid or not self.signing or self._promised(statement):
            return False
        return self._signer.sign(out, [Unsigned(statement)])

    def _commit(self, out: Outbox) -> bool:
        """A quorum of PREPAREs for the proposal: it is prepared, so COMMIT (Algorithm 2; EEA: UponPrepare).

        The block and its PREPAREs are noted in the guard with the COMMIT, before it is signed; it is counted when it
        comes back signed. A quorum vouches for the block now: one refused as fresh, perhaps because this node's clock
        is slow, is asked for again.
        """
        if self._now.proposal is None or self._now.block is None or not self.signing:
            return False
        if self.prepared is not None and self.prepared.round >= self.round:
            return False
        prepares = self._pool.matching(Kind.PREPARE, self.round, self._now.block.hash)
        if len(prepares) < self.committee.quorum:
            return False
        if not self._blocks.is_valid(self._now.block, out, fresh=False):
            return False
        prepared = Prepared(self.round, self._now.block, prepares)
        commit = Statement(Kind.COMMIT, self.height, self.round, self._now.block.hash)
        if not self._signer.sign(out, [Unsigned(commit)], prepared):
            return False
        self.prepared = prepared
        return True

    # --- what the rules do ----------------------------------------------------------------------------------------

    def _begin_round(self, round_: int, now_ms: int) -> None:
        self._now = CurrentRound(round_, sent_ms=now_ms, retry_ms=now_ms)

    def _change_round(self, round_: int, now_ms: int, out: Outbox) -> None:
        self._begin_round(round_, now_ms)
        if self.prepared is None:
            statement = Statement(Kind.ROUND_CHANGE, self.height, round_, None)
        else:
            block_hash = self.prepared.block.hash
            statement = Statement(Kind.ROUND_CHANGE, self.height, round_, block_hash, self.prepared.round)
        self._signer.sign(out, [Unsigned(statement, _carrying(self.prepared))])

    def _propose(self, attachments: Attachments, out: Outbox) -> bool:
        """Propose, and prepare in the same breath what is known to be valid: that saves the guard a sync."""
        if attachments.block is None:
            return False
        block_hash = attachments.block.hash
        unsigned = [Unsigned(Statement(Kind.PROPOSAL, self.height, self.round, block_hash), attachments)]
        if self._blocks.known_valid(block_hash):
            unsigned.append(Unsigned(Statement(Kind.PREPARE, self.height, self.round, block_hash)))
        return self._signer.sign(out, unsigned)

    def _promised(self, statement: Statement) -> bool:
        """Whether the guard holds this statement: it is signed, or about to be."""
        return self._signer.promised(statement.kind, self.height) == statement

    def _justification(self) -> list[Message]:
        """The ROUND-CHANGEs known for the current round, in the order of their senders' addresses."""
        known = self._round_changes
        return [known[sender] for sender in sorted(known) if known[sender].statement.round == self.round]

    def _kept(self) -> tuple[bytes, ...]:
        """Blocks that must not give way to others."""
        blocks = (self._now.block, None if self.prepared is None else self.prepared.block)
        return tuple(block.hash for block in blocks if block is not None)

    def _ask_for_final_block(self, out: Outbox) -> None:
        """The block is final elsewhere and was never received: whoever speaks of it can be asked for it."""
        for signer in self._pool.reached:
            if signer != self._signer.address and self._peers.is_news(signer, self.height + 1):
                out.behind(signer, self.height + 1)
                return

    # --- timers ---------------------------------------------------------------------------------------------------

    def _timer_may_start(self, now_ms: int) -> bool:
        """Whether the current round's timer may run from now on.

        In round 0 when there is something to include, when anybody else is heard of this height, or when an empty
        block is due. Above, only once a quorum is known to have reached the round (PBFT, section 4.5.2): capped timers
        that run before never meet again after a long split.
        """
        if self.round > 0:
            return self._pool.count_reached(self.round) >= self.committee.quorum
        return self._heard or now_ms >= self._block_due_ms()

    def _timer_deadline_ms(self) -> int | None:
        if self.round >= ROUND_MAX:
            return None
        if self._now.timer_ms is not None:
            return self._now.timer_ms + self._timeout_ms()
        return self._block_due_ms() if self.round == 0 else None

    def _block_due_ms(self) -> int:
        policy = self._policy
        return self._began_ms + (policy.block_interval_min_ms if self.has_work else policy.block_interval_empty_ms)

    def _timeout_ms(self) -> int:
        """How long the current round may take. Short while its proposer cannot be expected to propose."""
        proposer = self.committee.proposer(self.round)
        if self._now.proposal is None:
            if proposer == self._signer.address:
                if self._spent_round == self.round:
                    return 0
            elif self._peers.is_dead(proposer) or self._pool.reached.get(proposer, -1) > self.round:
                return self._policy.dead_proposer_timeout_ms
        return backoff_ms(self._policy, self.round)

    def _propose_due_ms(self) -> int | None:
        """When this node is to propose in the current round, or None if it is not or not yet known."""
        if not self.signing or self._now.proposal is not None or self._now.awaited is not None:
            return None
        if self.committee.proposer(self.round) != self._signer.address:
            return None
        promised = self._signer.promised(Kind.PROPOSAL, self.height)
        if promised is not None and promised.round >= self.round:
            return None
        if self.round == 0:
            return max(self._now.retry_ms, self._block_due_ms())
        return self._now.retry_ms if len(self._justification()) >= self.committee.quorum else None

    def _resend_due_ms(self) -> int | None:
        return self._now.sent_ms + backoff_ms(self._policy, self._now.sent_times) if self._now.own else None

    def _resend(self, now_ms: int, out: Outbox) -> None:
        """Say everything of this round again when it takes long: queues may have overflowed, cuts may be one-way."""
        due_ms = self._resend_due_ms()
        if self.decided or due_ms is None or now_ms < due_ms or not self.signing:
            return
        for message in self._now.current():
            out.send(message, None)
        self._now.sent_ms, self._now.sent_times = now_ms, self._now.sent_times + 1


def _carrying(prepared: Prepared | None) -> Attachments:
    return NOTHING_ATTACHED if prepared is None else Attachments(prepared.block, (), prepared.prepares)
