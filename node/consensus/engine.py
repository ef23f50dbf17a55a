"""The consensus engine: one deterministic step from an event and the time to what the shell is to do next."""

from node.chain import signing
from node.chain.domain import Domain
from node.chain.genesis import validators_hash
from node.consensus.agreement import Agreement
from node.consensus.events import (
    Built,
    Event,
    Head,
    HeadAdvanced,
    PeerConnected,
    PeerGone,
    PeerStatus,
    Policy,
    Ready,
    Received,
    Status,
    Tick,
    Validated,
    WorkChanged,
)
from node.consensus.future import FutureMessages
from node.consensus.guard import GuardState
from node.consensus.justification import Committee
from node.consensus.messages import InvalidMessage, Kind, Message, Recover, Statement
from node.consensus.outbox import Outbox
from node.consensus.peers import Peers
from node.consensus.signer import Signer


class Engine:
    """QBFT across heights. It never signs, waits, reads a clock or touches a disk: `step` says what to do.

    `address` is None in an observer, which follows and decides but signs nothing. The engine owns `guard` from here
    on: it notes in it what it is about to sign and hands out the records to sync.
    """

    def __init__(
        self,
        *,
        domain: Domain,
        address: bytes | None,
        policy: Policy,
        guard: GuardState | None,
        head: Head,
        now_ms: int,
        recover: Recover = signing.recover,
    ) -> None:
        self._domain, self._policy, self._recover = domain, policy, recover
        self._signer = Signer(address, guard)
        self._peers = Peers()
        self._future = FutureMessages(policy)
        self._has_work = False
        self._head, self._head_ms = head, now_ms
        self._begin_override()
        self._agreement = self._agree(now_ms)
        self._resumed = False

    @property
    def guard(self) -> GuardState | None:
        """The guard as it is now, for compaction (`snapshot_records`) and for people to look at."""
        return self._signer.guard

    @property
    def height(self) -> int:
        """The height being decided."""
        return self._agreement.height

    @property
    def position(self) -> tuple[int, int, str]:
        """Height, round and step: what `status` says of them, cheap enough to look at after every event."""
        return self._agreement.height, self._agreement.round, self._agreement.progress

    def step(self, event: Event, *, now_ms: int) -> Ready:
        """Take one event in and say what to do. `now_ms` is monotonic and never goes back."""
        out = Outbox()
        if not self._resumed:
            self._resumed = True
            self._agreement.resume(out)
        self._handle(event, now_ms, out)
        self._recover_guard()
        self._agreement.advance(now_ms, out)
        guard = self._signer.guard
        return out.ready(guard.flush() if guard is not None else ())

    def knows(self, statement: Statement, signer: bytes) -> bool:
        """Whether this statement of the present height has arrived, and counts."""
        return self._agreement.knows(statement, signer)

    def deadline_ms(self) -> int | None:
        """When to `step(Tick())`, if nothing happens before."""
        return self._agreement.deadline_ms()

    def status(self) -> Status:
        """What the engine is doing, for RPC and logs."""
        agreement, guard = self._agreement, self._signer.guard
        prepared = agreement.prepared
        return Status(
            height=agreement.height,
            round=agreement.round,
            step=agreement.progress,
            proposer=agreement.committee.proposer(agreement.round),
            validators=self._head.validators,
            prepared_round=None if prepared is None else prepared.round,
            signs=agreement.signing,
            guard_lost=guard is not None and guard.lost,
            guard_floor=0 if guard is None else guard.floor,
            heard_ms=dict(self._peers.heard_ms),
            heads=dict(self._peers.heads),
            deadline_ms=self.deadline_ms(),
        )

    def _handle(self, event: Event, now_ms: int, out: Outbox) -> None:
        match event:
            case Received(message, sender):
                self._receive(message, sender, now_ms, out)
            case Built(height, round_, block):
                if height == self.height:
                    self._agreement.receive_built(round_, block, now_ms, out)
            case Validated(block_hash, valid):
                self._agreement.receive_verdict(block_hash, valid=valid)
            case HeadAdvanced(head):
                self._advance_head(head, now_ms, out)
            case WorkChanged(has_work):
                self._has_work = self._agreement.has_work = has_work
            case PeerConnected(address):
                self._connect(address, out)
            case PeerGone(address):
                self._peers.disconnect(address)
            case PeerStatus(peer, height):
                self._peers.report_head(peer, height)
            case Tick():
                pass

    def _agree(self, now_ms: int) -> Agreement:
        head = self._head
        committee = Committee(self._domain, head.header, head.validators, self._recover, head.override)
        agreement = Agreement(committee, self._policy, self._signer, self._peers, now_ms)
        agreement.has_work = self._has_work
        return agreement

    def _advance_head(self, head: Head, now_ms: int, out: Outbox) -> None:
        if head.header.number <= self._head.header.number:
            return
        self._head, self._head_ms = head, now_ms
        self._peers.retain(head.validators)
        self._begin_override()
        self._agreement = self._agree(now_ms)
        self._agreement.resume(out)
        for message, sender in self._future.take(self.height):
            self._receive(message, sender, now_ms, out)

    def _connect(self, address: bytes, out: Outbox) -> None:
        """Say again what is current to whom may have missed it, and show it the newest statement of its own."""
        self._peers.connect(address)
        latest = self._peers.latest(address)
        if latest is not None:
            out.send(latest, address)
        self._agreement.greet(address, out)

    def _receive(self, message: Message, sender: bytes, now_ms: int, out: Outbox) -> None:
        statement = message.statement
        if sender == self._signer.address:
            if not self._is_own(message):
                return
        elif sender in self._head.validators:
            self._peers.hear(message, sender, now_ms)
        elif not self._peers.is_connected(sender):
            return
        if statement.height < self.height:
            self._answer_final(message, sender, now_ms, out)
        elif statement.height > self.height:
            self._keep_future(message, sender, out)  # perhaps of one that the block in between makes a validator
        elif sender not in self._head.validators:
            out.refuse(sender, f"a {statement.kind.name} of height {statement.height} from no validator of it")
        else:
            try:
                self._agreement.receive(message, sender, now_ms, out)
            except InvalidMessage as error:
                out.refuse(sender, str(error))

    def _is_own(self, message: Message) -> bool:
        """Whether the guard accounts for a message that bears our own signature.

        If not, the guard is older than our last signature: it is stale, and that is the same as lost.
        """
        guard = self._signer.guard
        if guard is None or guard.covers(message.statement):
            return True
        if not guard.lost:
            guard.note_lost()
        return False

    def _answer_final(self, message: Message, sender: bytes, now_ms: int, out: Outbox) -> None:
        """Who speaks of a final height gets its block and certificate (Algorithm 3).

        Save that of the newest height, the last PREPAREs and COMMITs come late as a matter of course.
        """
        statement, grace_ms = message.statement, self._policy.lagging_grace_ms
        if sender == self._signer.address:
            return
        newest = statement.height == self._head.header.number
        if newest and statement.kind is not Kind.ROUND_CHANGE and now_ms - self._head_ms < grace_ms:
            return
        if self._peers.may_tell(sender, statement.height, now_ms, grace_ms):
            out.lagging(sender, statement.height)

    def _keep_future(self, message: Message, sender: bytes, out: Outbox) -> None:
        height = message.statement.height
        if height <= self.height + self._policy.future_heights_max:
            self._future.add(message, sender)
        expected = self._agreement.decided and height == self.height + 1  # we only wait for our own disk
        if not expected and self._peers.is_news(sender, height):
            out.behind(sender, height)

    def _begin_override(self) -> None:
        """Where operators have named other validators: what was prepared among the lost ones binds nobody any more."""
        guard, override = self._signer.guard, self._head.override
        if guard is not None and override is not None:
            guard.note_override(override.height + 1, override.digest)

    def _recover_guard(self) -> None:
        """A lost guard: sign again above h + 2, where h is the own head, not below any that a quorum of the others has.

        What was signed before the loss was at most at h + 2: its parent had a certificate, so some correct validator
        of any quorum had signed the parent's COMMIT, and its head was at most one below the parent. This node must
        have come as far itself, so that it knows who the validators are. Where the others are no quorum, only an
        operator's command (a floor noted in the guard's file) resumes.

        All this holds for one set of validators. Where a block up to the floor names another, those who were asked may
        have been left behind long ago, and the new ones are asked.
        """
        guard, head = self._signer.guard, self._head
        if guard is None:
            return
        asked = validators_hash(head.validators)
        if guard.asked not in (None, asked) and not guard.lost and head.header.number < guard.floor:
            guard.note_lost()
        if not guard.lost or guard.address not in head.validators:
            return
        others = [each for each in head.validators if each != guard.address]
        highest = self._peers.quorum_head(others, self._agreement.committee.quorum)
        if highest is not None and head.header.number >= highest:
            guard.note_floor(head.header.number + 2, asked)
