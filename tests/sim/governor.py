"""Validators who vote on who validates: one change at a time, said again until it is in force."""

from dataclasses import dataclass
from random import Random
from typing import Protocol

from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.proposals import NOBODY
from node.chain.contracts.validators import ABI
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from tests.sim.budget import Budget
from tests.sim.faults import NODES_MAX
from tests.sim.foundation import CHAIN_ID, Foundation
from tests.sim.model import ADD, REMOVE, REPLACE
from tests.sim.node import Machine, Process
from tests.sim.referee import Referee, Violation
from tests.sim.scheduler import Scheduler

GAS = 5_000_000
WORK_US = 400_000
STRANGERS = 0.4  # of the changes, somebody votes on who has no vote
Change = tuple[int, bytes, bytes]  # as `propose` takes it: kind, account, replacement


class Parish(Protocol):
    """Where the votes are given."""

    random: Random
    scheduler: Scheduler
    referee: Referee
    foundation: Foundation
    machines: list[Machine]

    def honest_processes(self) -> list[Process]: ...


@dataclass
class Campaign:
    """A change on its way: the set that it leads to, and the votes that are needed."""

    target: tuple[bytes, ...]
    votes: list[Transaction]


class Governor:
    """Asks for changes that the network can bear, and has as many validators vote as it takes."""

    def __init__(self, scene: Parish, budget: Budget) -> None:
        self._scene = scene
        self._budget = budget
        self._campaign: Campaign | None = None
        self._is_retired = False
        self._nonces: dict[bytes, int] = {}
        self._strangers: list[Transaction] = []  # votes without effect that are not on the chain yet
        self.changes_count = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is being voted on."""
        return self._campaign is None

    def start(self) -> None:
        """See to the votes until told otherwise."""
        self._scene.scheduler.after(self._scene.random.randint(1, WORK_US), self._work)

    def retire(self) -> None:
        """Ask for no more changes; what is being voted on may have been lost."""
        self._campaign, self._is_retired, self._budget.coming = None, True, None

    def ask(self) -> None:
        """Begin another change, unless one is on its way or no change can be borne now."""
        if self._campaign is not None or self._is_retired:
            return
        random, members = self._scene.random, set(self._scene.referee.validators)
        changes = self._changes(members)
        random.shuffle(changes)
        for change in changes:
            _, account, replacement = change
            target = members ^ ({account} if replacement == NOBODY else {account, replacement})
            if 1 <= len(target) <= NODES_MAX and self._budget.bears(target):
                self._begin(change, tuple(sorted(target)))
                return

    def _changes(self, members: set[bytes]) -> list[Change]:
        there = [machine.key.address for machine in self._scene.machines if machine.honest and not machine.is_gone]
        outside = sorted(set(there) - members)
        adds = [(ADD, address, NOBODY) for address in outside]
        removals = [(REMOVE, address, NOBODY) for address in sorted(members)]
        swaps = [(REPLACE, old, new) for old in sorted(members) for new in outside]
        return self._scene.random.choice(([*adds, *swaps], removals, [*adds, *removals, *swaps]))

    def _begin(self, change: Change, target: tuple[bytes, ...]) -> None:
        members = self._scene.referee.validators
        voters = self._scene.random.sample(list(members), len(members) // 2 + 1)
        keys = {key.address: key for key in self._scene.foundation.keys}
        self._campaign = Campaign(target, [self._vote(keys[voter], change) for voter in voters])
        self._budget.coming = target
        outsiders = [address for address in keys if address not in members]
        if outsiders and self._scene.random.random() < STRANGERS:  # who was removed, or never was in, votes as well
            self._strangers.append(self._vote(keys[self._scene.random.choice(outsiders)], change))
        self._submit_all(self._campaign)

    def _vote(self, key: SigningKey, change: Change) -> Transaction:
        nonce = self._nonces.get(key.address, 0)
        self._nonces[key.address] = nonce + 1
        data = ABI.encode_call("propose", *change)
        return sign_transaction(key, chain_id=CHAIN_ID, nonce=nonce, to=VALIDATORS, gas_limit=GAS, data=data)

    def _work(self) -> None:
        scene, campaign = self._scene, self._campaign
        scene.scheduler.after(scene.random.randint(WORK_US // 4, 2 * WORK_US), self._work)
        if campaign is None:
            return
        if scene.referee.validators == campaign.target:
            self._campaign, self._budget.coming = None, None
            self.changes_count += 1
            return
        if scene.referee.are_final(campaign.votes):
            raise Violation("set changes", "more than half have voted, and the set is another than they voted for")
        self._submit_all(campaign)

    def _submit_all(self, campaign: Campaign) -> None:
        self._strangers = [vote for vote in self._strangers if not self._scene.referee.are_final([vote])]
        for vote in (*self._strangers, *campaign.votes):
            self._submit(vote)

    def _submit(self, vote: Transaction) -> None:
        """To the voter's own node, or to any: the same bytes, so that they count once."""
        processes = self._scene.honest_processes()
        own = [process for process in processes if process.address == vote.sender]
        if processes:
            self._scene.random.choice(own or processes).submit([vote.raw], lambda _outcomes: None)
