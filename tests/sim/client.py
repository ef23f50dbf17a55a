"""A simulated gateway: casts ballots, sends again what is not final, signs anew what cannot become final, and forgets.

It acknowledges a ballot when a node shows it final. Its own crash leaves it nothing but the ballots that it owes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.ballots import ballot_by_nullifier, pack_record
from node.chain.contracts.elections import ABI, require_election
from node.chain.errors import InvalidTransaction
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from tests.sim.foundation import CHAIN_ID, ELECTION, OPTIONS
from tests.sim.node import Process
from tests.sim.referee import Referee
from tests.sim.scheduler import Scheduler

GAS = 200_000
BATCH_MAX = 4
IN_FLIGHT_MAX = 3
RESEND_AFTER_US = 1_500_000


@dataclass
class Ballot:
    """One ballot that is owed. It is open: the content is one byte, the option's number."""

    nullifier: bytes
    record_id: bytes
    content: bytes


@dataclass
class InFlight:
    """One signed transaction that is not known to be final."""

    transaction: Transaction
    ballots: list[Ballot]
    sent_us: int


class Client:
    """One key. `processes` gives the honest nodes that can be asked now."""

    def __init__(
        self,
        key: SigningKey,
        scheduler: Scheduler,
        random: Random,
        referee: Referee,
        processes: Callable[[], list[Process]],
        *,
        ballots_max: int,
        interval_us: int,
    ) -> None:
        self.key = key
        self.owed: list[Ballot] = []  # neither final nor in flight
        self.in_flight: dict[int, InFlight] = {}  # by nonce
        self._scheduler = scheduler
        self._random = random
        self._referee = referee
        self._processes = processes
        self._ballots_left = ballots_max
        self._interval_us = interval_us

    @property
    def is_done(self) -> bool:
        """Whether everything that it was asked to cast is acknowledged."""
        return not (self.owed or self.in_flight or self._ballots_left)

    def start(self) -> None:
        """Work until told otherwise."""
        self._scheduler.after(self._random.randint(0, self._interval_us), self._work)

    def crash(self) -> None:
        """Forget what was sent; the ballots are in the journal."""
        for each in self.in_flight.values():
            self.owed.extend(each.ballots)
        self.in_flight.clear()

    def cast_another(self) -> None:
        """Owe one more ballot."""
        self._ballots_left += 1

    def _work(self) -> None:
        self._scheduler.after(self._random.randint(1, 2 * self._interval_us), self._work)
        if self._ballots_left and self._random.random() < 0.7:
            self._ballots_left -= 1
            self.owed.append(self._new_ballot())
        processes = self._processes()
        if not processes:
            return
        process = self._random.choice(processes)
        self._look(process)
        self._send_owed(process)
        self._send_again(processes)

    def _new_ballot(self) -> Ballot:
        random = self._random
        known = list(self._referee.box.ballots)
        if known and random.random() < 0.1:  # somebody votes twice
            return Ballot(random.choice(known), random.randbytes(32), bytes((random.randrange(OPTIONS),)))
        return Ballot(random.randbytes(32), random.randbytes(32), bytes((random.randrange(OPTIONS),)))

    def _look(self, process: Process) -> None:
        """See what this node holds as final: acknowledge, and take back what has lost its nonce to another."""
        next_nonce = process.runtime.intake.state().nonce(self.key.address)
        for nonce, sent in list(self.in_flight.items()):
            if nonce >= next_nonce:
                continue
            del self.in_flight[nonce]
            if process.ledger.locate(sent.transaction.hash) is None:
                self.owed.extend(sent.ballots)
            else:
                self._acknowledge(process, sent)

    def _acknowledge(self, process: Process, sent: InFlight) -> None:
        """The transaction is final on this node: each of its ballots stands there, or another with its nullifier."""
        state = process.ledger.state()
        election = require_election(state, ELECTION)
        for ballot in sent.ballots:
            standing = ballot_by_nullifier(state, election, ballot.nullifier)
            if standing is None or standing[4] == ballot.content:
                self._referee.acknowledge(ballot.nullifier, ballot.content)

    def _send_owed(self, process: Process) -> None:
        if not self.owed or len(self.in_flight) >= IN_FLIGHT_MAX:
            return
        nonce = process.runtime.intake.state().nonce(self.key.address)
        while nonce in self.in_flight:
            nonce += 1
        if any(other > nonce for other in self.in_flight):
            return  # this node is behind: it would sign over what is in flight
        ballots, self.owed = self.owed[:BATCH_MAX], self.owed[BATCH_MAX:]
        packed = b"".join(pack_record(each.nullifier, each.record_id, 0, each.content) for each in ballots)
        data = ABI.encode_call("castBatch", ELECTION, packed)
        transaction = sign_transaction(self.key, chain_id=CHAIN_ID, nonce=nonce, to=ELECTIONS, gas_limit=GAS, data=data)
        now_us = self._scheduler.now_us
        self.in_flight[nonce] = InFlight(transaction, ballots, now_us)
        self._submit(process, self.in_flight[nonce])

    def _send_again(self, processes: list[Process]) -> None:
        """The same bytes, to everyone: they can become final only once."""
        for sent in self.in_flight.values():
            if self._scheduler.now_us - sent.sent_us > RESEND_AFTER_US:
                sent.sent_us = self._scheduler.now_us
                for process in processes:
                    self._submit(process, sent)

    def _submit(self, process: Process, sent: InFlight) -> None:
        process.submit([sent.transaction.raw], self._answered)

    def _answered(self, _outcomes: list[bytes | InvalidTransaction]) -> None:
        """Neither a hash nor a refusal says what becomes final; looking at the chain does."""
