"""From a vote to a ballot, and from a ballot's refusal to the answer that says why."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.book import Item, wait_for_ends
from gateway.chain import Standing
from gateway.core import Conflict, Core, conflict, same_ballot
from gateway.definitions import Election
from gateway.elections import state_name
from gateway.nullifier import InvalidId
from gateway.plainvotes import Vote
from gateway.problems import Problem, key_mismatch, refusal
from gateway.records import Ballot
from gateway.validators import NoValidator
from gateway.views import record_shown
from node.chain.contracts.elections import KIND_OPEN, KIND_SEALED, ElectionState

_DIGITS = re.compile(r"\d{1,3}", re.ASCII)
CREATE_S = 1.0  # in development: how long a ballot waits for its election before it goes to the journal unseen


def _admit_all(nullifier: bytes) -> None:
    """Refuse no voter."""


async def ballot_of(core: Core, vote: Vote, admit: Callable[[bytes], None] = _admit_all) -> tuple[Ballot, str]:
    """The ballot of a vote and its transaction id. `admit` may refuse the voter.

    Raises Problem where the election will surely not take it; Late, which is to be told by `stood`.
    """
    id_ = vote.election_id
    return _Booth(core, id_, core.elections.fresh(id_) or await _election(core, id_)).ballot(vote, admit)


def ballot_at_once(core: Core, vote: Vote) -> tuple[Ballot, str] | None:
    """The same where nobody is to be asked, and no voter refused; None: the election is to be read. Raises Problem."""
    election = core.elections.fresh(vote.election_id)
    return None if election is None else _Booth(core, vote.election_id, election).ballot(vote, _admit_all)


class Late(Problem):
    """A ballot for an election that takes none any more. It may stand since before: `stood` looks."""

    def __init__(self, state: str, ballot: Ballot, transaction_id: str) -> None:
        super().__init__(409, "election-not-open", f"The election is {state}.", state=state)
        self.ballot = ballot
        self.transaction_id = transaction_id


async def stood(core: Core, late: Late) -> Item:
    """The record that stands for a ballot which was sent again after the end: whoever got no answer still gets one.

    Raises Problem: 409 where another ballot of this voter stands or none does, 503 where too few can be asked.
    """
    ballot = late.ballot
    known = core.book.ballot(ballot.nullifier)
    if known is not None and known.reason is None:
        return await core.cast(ballot)
    standing = await _standing(core, ballot)
    if standing is None:
        raise late
    item = Item(standing.record, standing.timestamp * 1000)
    item.place, item.index = standing.place, standing.index
    if not same_ballot(standing.record, ballot):
        raise conflict(item)
    return item


async def _standing(core: Core, ballot: Ballot) -> Standing | None:
    try:
        async with core.looking_late:
            return await core.chain.ballot(ballot.election, nullifier=ballot.nullifier, sure=True)
    except NoValidator as error:
        detail = f"The election takes no ballots any more, and no validator can say whether this one stands: {error}."
        raise Problem(503, "no-validator", detail) from None


@dataclass(slots=True)
class Casting:
    """What became of one vote of many: an item that is durable, or the problem with it."""

    vote: Vote
    transaction_id: str | None
    item: Item | None = None
    problem: Problem | None = None


async def cast_votes(core: Core, votes: Sequence[Vote], admit: Callable[[bytes], None], wait_s: float) -> list[Casting]:
    """Make the ballots of many votes durable in one go, and wait so long for their ends; each counts on its own."""
    ids = list({vote.election_id: None for vote in votes})
    found = await asyncio.gather(*(_found(core, id_) for id_ in ids))
    # All at one moment: a key that was taken before a wait may be another election's behind it.
    booths = {
        id_: one if isinstance(one, Problem) else _Booth(core, id_, one) for id_, one in zip(ids, found, strict=True)
    }
    castings = []
    for vote in votes:
        booth, transaction_id = booths[vote.election_id], vote.transaction_id
        if isinstance(booth, Problem):
            castings.append(Casting(vote, transaction_id, None, booth))
            continue
        try:
            ballot, transaction_id = booth.ballot(vote, admit)
            castings.append(Casting(vote, transaction_id, core.keep(ballot)))
        except Problem as problem:
            castings.append(Casting(vote, transaction_id, None, problem))
    await _find_late(core, castings)
    await wait_for_ends([casting.item for casting in castings if casting.item is not None], wait_s)
    for casting in castings:
        if casting.item is not None and not casting.item.durable:  # most share one commit, over after the first wait
            try:
                await core.durable(casting.item)
            except Problem as problem:
                casting.item, casting.problem = None, problem
        elif isinstance(casting.problem, Conflict):
            try:
                casting.problem = await core.stands(casting.problem)
            except Problem as problem:
                casting.problem = problem
    return castings


async def _find_late(core: Core, castings: Sequence[Casting]) -> None:
    """Look for what stands of the ballots that came too late."""

    async def find(casting: Casting, late: Late) -> None:
        casting.transaction_id = late.transaction_id
        try:
            casting.item, casting.problem = await stood(core, late), None
        except Problem as problem:
            casting.problem = problem

    await asyncio.gather(*(find(one, one.problem) for one in castings if isinstance(one.problem, Late)))


async def _found(core: Core, id_: int) -> Election | Problem | None:
    try:
        return await _election(core, id_)
    except Problem as problem:
        return problem


class _Booth:
    """Makes the ballots of one request in one election: what is the same for all of them is looked at once."""

    __slots__ = ("_core", "_election", "_id", "_key", "_open_to")

    def __init__(self, core: Core, id_: int, election: Election | None) -> None:
        """`election` None: nobody can say what it is, and the chain will."""
        self._core, self._id, self._election = core, id_, election
        self._key = core.elections.key(id_)
        self._open_to: set[int] = set()  # kinds of ballots that it takes

    def ballot(self, vote: Vote, admit: Callable[[bytes], None]) -> tuple[Ballot, str]:
        """The ballot of a vote and its transaction id. Raises Problem where the election will surely not take it."""
        try:
            nullifier = self._key.nullifier(vote.voter_id)
            transaction_id = vote.transaction_id or self._key.made_transaction_id(nullifier)
            record_id = self._key.record_id(transaction_id)
        except InvalidId as error:
            raise Problem(422, "not-valid", f"{error}.") from None
        admit(nullifier)
        if vote.encrypted_vote is not None:
            kind, content = KIND_SEALED, vote.encrypted_vote.encode()
        else:
            kind, content = KIND_OPEN, bytes((_choice(self._election, vote.choice),))
        ballot = Ballot(self._id, nullifier, record_id, kind, content)
        if kind not in self._open_to:
            if self._election is not None and (state := _check_election(self._core, self._election, kind)) is not None:
                raise Late(state, ballot, transaction_id)
            self._open_to.add(kind)
        return ballot, transaction_id


async def _election(core: Core, id_: int) -> Election | None:
    """The definition; None where no validator can say, and the journal takes the ballot unseen."""
    try:
        election = await core.elections.get(id_)
        if election is None and core.elections.auto_create:
            async with asyncio.timeout(CREATE_S):
                await core.elections.ensure(id_)
            election = await core.elections.get(id_)
    except (NoValidator, TimeoutError):
        return None
    if election is None:
        if core.elections.auto_create:
            return None  # it is on its way
        raise Problem(404, "unknown-election", f"There is no election {id_}.")
    return election


def _choice(election: Election | None, choice: int | str | None) -> int:
    """The option's number. Raises Problem 422, or 503 for a name where nobody can say what the options are called."""
    if isinstance(choice, str):
        if election is None:  # digits may be a name, too: guessing would count the vote for another option
            detail = "No validator can say which option has this name: send the vote again, or 'choice' as a number."
            raise Problem(503, "no-validator", detail)
        if choice in election.options:
            return election.options.index(choice)
        if _DIGITS.fullmatch(choice) and not any(option.isdecimal() for option in election.options):
            choice = int(choice)
    last = (len(election.options) if election is not None else 64) - 1
    if not isinstance(choice, int) or not 0 <= choice <= last:
        raise Problem(422, "choice-outside", f"'choice' is an option's number from 0 to {last}, or an option's name.")
    return choice


def _check_election(core: Core, election: Election, kind: int) -> str | None:
    """The election's state where it takes no ballots any more. Raises Problem where it never took this kind here."""
    if not core.elections.key_fits(election):
        raise key_mismatch()
    if not election.kinds >> kind & 1:
        taken = "sealed ballots ('encrypted_vote')" if kind == KIND_OPEN else "open ballots ('choice')"
        raise Problem(422, "not-allowed", f"This election takes only {taken}.")
    # The grace is for what came before closing: what comes now is too late, whatever the definition's age.
    if 0 < election.closes_at <= time.time() and election.state == ElectionState.OPEN:
        return state_name(replace(election, state=ElectionState.DELIVERING))
    over = election.state in (ElectionState.CLOSED, ElectionState.CANCELLED, ElectionState.DELIVERING)
    return state_name(election) if over else None


async def refused(core: Core, item: Item, shown: dict[str, Any]) -> Problem:
    """Why a ballot does not count; with the record that stands in its place, where there is one."""
    reason = item.reason or ""
    if reason.startswith("NULLIFIER_USED") and isinstance(item.record, Ballot):
        standing: Standing | None = None
        try:
            standing = await core.chain.ballot(item.record.election, nullifier=item.record.nullifier)
        except NoValidator as error:
            shown["warning"] = f"The record that stands cannot be shown now: {error}."
        if standing is not None:
            shown["standing"] = {
                "status": "confirmed",
                **record_shown(standing.record, standing.place, standing.index),
            }
        detail = "This voter has cast another ballot in this election; the first one stands."
        return Problem(409, "already-cast", detail, **shown)
    return refusal(reason, **shown)
