"""Elections as the gateway sees them: definitions kept at hand, keys, creation, and results that are proven."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.book import Book, Item
from gateway.calls import ELECTIONS_ABI
from gateway.chain import Chain, Tally
from gateway.config import ElectionsConfig
from gateway.definitions import Election
from gateway.electionkeys import ElectionKeys
from gateway.nullifier import ElectionKey
from gateway.problems import Problem, election_exists, key_mismatch
from gateway.records import Call
from gateway.state import VerifiedState
from gateway.validators import NoValidator
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import ElectionState

log = logging.getLogger(__name__)

ELECTIONS_KEPT = 10_000
FRESH_S = 2.0  # an older definition is read again, and serves meanwhile
STALE_S = 5.0  # a still older one serves only where the new one does not come in time
READ_S = 0.5
ERASED_AT_ONCE = 16
DELIVERY_GRACE_S = 3_600
CREATE_WAIT_S = 10.0
KINDS = {"open": 1, "sealed": 2, "both": 3}


class Result(NamedTuple):
    """A tally and whether it was read from the chain just now, rather than remembered."""

    election: Election
    tally: Tally
    fresh: bool


class Elections:
    """Definitions, keys and results by election id. `accept` makes an item durable and sends it."""

    def __init__(
        self,
        chain: Chain,
        state: VerifiedState,
        keys: ElectionKeys,
        book: Book,
        accept: Callable[[Call], Awaitable[Item]],
        config: ElectionsConfig,
    ) -> None:
        self._chain, self._state, self._book = chain, state, book
        self.keys = keys
        self._accept = accept
        self.auto_create, self._auto_options = config.auto_create, config.auto_create_options
        self._looked_at = 0  # where among the random keys the next look begins
        self._read_at: dict[int, float] = {}
        self._reading: dict[int, asyncio.Task[Election | None]] = {}
        self._making: dict[int, asyncio.Task[bool]] = {}

    def key(self, id_: int) -> ElectionKey:
        """The election's keyed hashes: those of the key that it was made with, where this gateway has it."""
        known = self._state.elections.get(id_)
        return self.keys.fitting(id_, None if known is None else known.key_check)

    def fresh(self, id_: int) -> Election | None:
        """The election as it was read a moment ago; None where it is to be read."""
        if asyncio.get_running_loop().time() - self._read_at.get(id_, -math.inf) < FRESH_S:
            return self._state.elections.get(id_)
        return None

    async def get(self, id_: int, *, fresh: bool = False) -> Election | None:
        """The election, at most STALE_S old, older when no validator answers; None where there is none.

        A gateway that takes a ballot says by it that the election was open: an old definition may not.
        Raises NoValidator when it was never seen and nobody answers.
        """
        known = self._state.elections.get(id_)
        age_s = asyncio.get_running_loop().time() - self._read_at.get(id_, -math.inf)
        if known is not None and age_s < FRESH_S and not fresh:
            return known
        reading = self._reading.get(id_)
        if reading is None:
            reading = self._reading[id_] = asyncio.create_task(self._read(id_))
            reading.add_done_callback(lambda _: self._reading.pop(id_, None))
        if known is not None and not fresh:
            if age_s > STALE_S:
                await asyncio.wait((reading,), timeout=READ_S)
            return self._state.elections.get(id_, known)  # what is still on its way serves the next one
        try:
            return await asyncio.shield(reading)
        except NoValidator:
            if known is None:
                raise
            return known

    async def page(self, first: int, limit: int) -> tuple[int, list[Election]]:
        """How many elections there are, and those at these places in the order of creation. Raises NoValidator."""
        return await self._chain.election_page(first, limit, self._state.elections)

    async def _read(self, id_: int) -> Election | None:
        try:
            election = await self._chain.election(id_, self._state.elections.get(id_))
        except NoValidator:
            if id_ in self._state.elections:
                return self._state.elections[id_]
            raise
        if election is not None:
            if id_ not in self._state.elections and len(self._state.elections) >= ELECTIONS_KEPT:
                oldest = next(iter(self._state.elections))
                del self._state.elections[oldest]
                self._read_at.pop(oldest, None)
            self._state.elections[id_] = election
            self._read_at[id_] = asyncio.get_running_loop().time()
            await self._erase_useless(election)
        return election

    async def random_key(self, id_: int) -> ElectionKey:
        """A random key to make an election with, durable; the same one each time.

        Raises Problem 409 where the election is there with another key, or ballots wait that were taken, unseen, under
        the shared one: they would count as other voters' under this one. Problem 503 where it cannot be kept.
        """
        if (made := self.keys.random(id_)) is not None:
            return made
        known: Election | None = None
        with contextlib.suppress(NoValidator):
            known = await self.get(id_)
        if known is not None:
            raise election_exists(id_) if self.key_fits(known) else key_mismatch()
        if not self._book.pending_ballots(id_):
            made = await self.keys.make(id_)
            if not self._book.pending_ballots(id_):  # none came while the key was being written
                return made
            await self.keys.erase(id_)
        detail = "Ballots of this election wait that were taken under the shared key."
        raise Problem(409, "ballots-wait", detail)

    async def _erase_useless(self, election: Election) -> None:
        """Erase a random key that the election was not made with, unless ballots wait that were taken under it."""
        key = self.keys.random(election.id)
        if key is not None and key.check != election.key_check and not self._book.pending_ballots(election.id):
            with contextlib.suppress(OSError):  # tried again at the next look
                await self.keys.erase(election.id)
                log.info("the random key of election %d is erased: it was made with another one", election.id)

    def key_fits(self, election: Election) -> bool:
        """Whether this gateway has the key that the election was made with (no check value: anybody's)."""
        random = self.keys.random(election.id)
        if random is not None and random.check != election.key_check:
            return False  # ballots may wait that were taken under it, unseen: until it is erased, nothing is cast
        return election.key_check in (bytes(32), self.key(election.id).check)

    def casts(self, id_: int) -> bool | None:
        """Whether this gateway has the key of an election; None where it has never seen that election."""
        known = self._state.elections.get(id_)
        return None if known is None else self.key_fits(known)

    def voter_key(self, election: Election) -> str:
        """Which key the election was made with, in a word of the API."""
        if election.key_check == bytes(32):
            return "none"
        if election.key_check == self.keys.derived(election.id).check:
            return "shared"
        return "random" if self.key_fits(election) else "elsewhere"

    def create_call(
        self,
        id_: int,
        title: str,
        options: list[str],
        *,
        kinds: str = "both",
        opens_at: int = 0,
        closes_at: int = 0,
        delivery_grace_s: int = DELIVERY_GRACE_S,
        registrars: tuple[bytes, ...] = (),
        key_check: bytes | None = None,
    ) -> Call:
        """The call that creates an election, bound to the key with this check value, or to the derived one."""
        schedule = (KINDS[kinds], opens_at, closes_at, delivery_grace_s)
        check = self.keys.derived(id_).check if key_check is None else key_check
        arguments = (id_, title, options, *schedule, list(registrars), check)
        return Call(ELECTIONS, ELECTIONS_ABI.encode_call("create", *arguments))

    def end_call(self, id_: int, function: str) -> Call:
        """The call that closes or cancels an election (`function`: "close" or "cancel")."""
        return Call(ELECTIONS, ELECTIONS_ABI.encode_call(function, id_))

    async def erase_old_keys(self) -> None:
        """Erase the random keys of elections whose tallies are final; looking erases those of no use, too.

        Looks at some of them each time, since each look may ask a validator.
        """
        ids, begin = self.keys.random_ids(), self._looked_at
        self._looked_at = begin + ERASED_AT_ONCE if begin + ERASED_AT_ONCE < len(ids) else 0
        for id_ in ids[begin : begin + ERASED_AT_ONCE]:
            with contextlib.suppress(NoValidator):
                election, key = await self.get(id_), self.keys.random(id_)
                if election is None or key is None:  # its creation may be on its way
                    continue
                is_over = election.state in (ElectionState.CLOSED, ElectionState.CANCELLED)
                if is_over and not self._book.pending_ballots(id_):
                    await self.keys.erase(id_)
                    log.info("the random key of election %d is erased", id_)

    async def ensure(self, id_: int) -> bool:
        """Whether the election is there; in development networks it is created when it is not."""
        if not self.auto_create:
            return await self.get(id_, fresh=True) is not None
        making = self._making.get(id_)
        if making is None:
            making = self._making[id_] = asyncio.create_task(self._make(id_))
            making.add_done_callback(lambda _: self._making.pop(id_, None))
        return await asyncio.shield(making)

    async def _make(self, id_: int) -> bool:
        if await self.get(id_, fresh=True) is not None:
            return True
        options = [f"Option {number}" for number in range(self._auto_options)]
        item = await self._accept(self.create_call(id_, f"Election {id_}", options))
        await item.wait(CREATE_WAIT_S)
        log.info("election %d did not exist and was created (elections.auto_create)", id_)
        return await self.get(id_, fresh=True) is not None

    async def result(self, id_: int) -> Result | None:
        """The proven tally at the verified head, or the last one remembered; None where there is no election."""
        election = await self.get(id_)
        if election is None:
            return None
        try:
            tally = await self._chain.tally(election)
        except NoValidator:
            remembered = self._state.tallies.get(id_)
            if remembered is None:
                raise
            return Result(election, await self._state.tell(id_, remembered), False)
        if id_ not in self._state.tallies and len(self._state.tallies) >= ELECTIONS_KEPT:
            self._state.tallies.pop(next(iter(self._state.tallies)))
        return Result(election, await self._state.tell(id_, tally), True)


def state_name(election: Election) -> str:
    """The state in words, as of when the definition was read."""
    return ElectionState(election.state).name.lower()
