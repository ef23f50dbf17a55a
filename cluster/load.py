"""Callers of a gateway that cast ballots, repeat them, vote twice and ask, and note all that they are told."""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field

import httpx

from cluster.history import Outcome, Place, Request, TallyRead
from gateway.nullifier import ElectionKey

OPTIONS = ("red", "green", "blue")
TIMEOUT_S = 12.0
WAITS_S = (0, 0, 2, 8)  # what callers ask for by `Prefer: wait`
ATTEMPTS_MAX = 12
BACKOFF_S = 0.25
REQUESTS_MAX = 1_000_000
_OUTCOMES: dict[str, Outcome] = {"confirmed": "ok", "pending": "pending", "rejected": "refused", "unknown": "absent"}


@dataclass(frozen=True, slots=True)
class Vote:
    """One ballot as a caller sends it; `nullifier` and `record_id` are what stands for it on the chain."""

    transaction_id: str
    voter_id: str
    choice: int
    nullifier: bytes
    record_id: bytes


@dataclass(slots=True)
class Load:
    """`clients` callers that share `rate` new ballots a second, from one seed. `began` is the clock's zero."""

    gateway_url: str
    key: ElectionKey
    seed: int
    rate: float
    clients: int
    began: float = field(default_factory=time.monotonic)
    requests: list[Request] = field(default_factory=list)
    tallies: list[TallyRead] = field(default_factory=list)
    stopping: bool = False
    _http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=self.clients + 2)
        self._http = httpx.AsyncClient(base_url=self.gateway_url, timeout=TIMEOUT_S, limits=limits, trust_env=False)

    def now_s(self) -> float:
        """Seconds since `began`."""
        return time.monotonic() - self.began

    async def run(self) -> None:
        """Cast until `stopping` is set and each caller has heard of its last ballot, or given it up."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.clients):
                tasks.create_task(self._caller(number))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def vote(self, name: str, voter: str, choice: int) -> Vote:
        """A ballot under `name`, which is unique."""
        transaction_id = f"chaos-{name}"
        return Vote(transaction_id, voter, choice, self.key.nullifier(voter), self.key.record_id(transaction_id))

    async def _caller(self, number: int) -> None:
        dice = random.Random(f"caller {self.seed} {number}")  # nosec B311 # no secret: the same seed, the same ballots
        count = 0
        sent: list[Vote] = []
        while not self.stopping and len(self.requests) < REQUESTS_MAX:
            count += 1
            pause = asyncio.create_task(asyncio.sleep(dice.expovariate(self.rate / self.clients)))
            name, voter = f"{number}-{count}", f"voter-{number}-{count}"
            vote = self.vote(name, voter, dice.randrange(len(OPTIONS)))
            sent.append(vote)
            await self._pursue(vote, dice)
            act = dice.random()
            if act < 0.1:
                await self.submit(vote, dice.choice(WAITS_S))  # the same again
            elif act < 0.2:
                choice = (vote.choice + 1) % len(OPTIONS)
                await self._pursue(self.vote(f"{name}-again", voter, choice), dice)  # the same voter, another ballot
            elif act < 0.3:
                await self.ask(dice.choice(sent))
            await pause

    async def _pursue(self, vote: Vote, dice: random.Random) -> None:
        """Send until somebody answers; a few callers give up at once, so that what became of it stays unknown."""
        gives_up = dice.random() < 0.2
        for _ in range(ATTEMPTS_MAX):
            if await self.submit(vote, dice.choice(WAITS_S)) != "unknown" or gives_up or self.stopping:
                return
            await asyncio.sleep(BACKOFF_S)

    async def submit(self, vote: Vote, wait_s: int) -> Outcome:
        """Cast one ballot and note the answer."""
        body = {
            "election_id": str(self.key.election),
            "voter_id": vote.voter_id,
            "choice": vote.choice,
            "transaction_id": vote.transaction_id,
        }
        started_s = self.now_s()
        try:
            answer = await self._http.post("/api/votes/submit", json=body, headers={"prefer": f"wait={wait_s}"})
        except httpx.HTTPError as error:
            return self._note("submit", vote, started_s, "unknown", type(error).__name__)
        if answer.status_code in (200, 202):
            return self._take(vote, "submit", started_s, answer)
        refused = 400 <= answer.status_code < 500 and answer.status_code not in (408, 429)
        return self._note("submit", vote, started_s, "refused" if refused else "unknown", _told(answer))

    async def ask(self, vote: Vote) -> Outcome:
        """Ask what became of a ballot and note the answer."""
        query = {"transaction_id": vote.transaction_id, "election_id": str(self.key.election)}
        started_s = self.now_s()
        try:
            answer = await self._http.get("/api/votes/transaction-status", params=query)
        except httpx.HTTPError as error:
            return self._note("ask", vote, started_s, "unknown", type(error).__name__)
        if answer.status_code in (200, 404):
            return self._take(vote, "ask", started_s, answer)
        return self._note("ask", vote, started_s, "unknown", _told(answer))

    def _take(self, vote: Vote, kind: str, started_s: float, answer: httpx.Response) -> Outcome:
        told = answer.json()
        outcome = _OUTCOMES.get(told.get("status"), "unknown")
        place = _place(told) if outcome == "ok" else None
        return self._note(kind, vote, started_s, outcome, _told(answer), place)

    def _note(
        self, kind: str, vote: Vote, started_s: float, outcome: Outcome, detail: str, place: Place | None = None
    ) -> Outcome:
        self.requests.append(
            Request(
                kind="ask" if kind == "ask" else "submit",
                record_id=vote.record_id,
                nullifier=vote.nullifier,
                content=bytes((vote.choice,)),
                started_s=started_s,
                ended_s=self.now_s(),
                outcome=outcome,
                place=place,
                detail=detail,
            )
        )
        return outcome

    async def read_tally(self) -> int | None:
        """Read the tally and note it; how many records still wait at the gateway, None when it does not answer."""
        started_s = self.now_s()
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.get("/api/votes/results", params={"election_id": str(self.key.election)})
            if answer.status_code == httpx.codes.OK:
                told = answer.json()
                counts = tuple(int(option["count"]) for option in told["results"])
                block_hash = bytes.fromhex(told["block_hash"][2:])
                self.tallies.append(TallyRead(started_s, self.now_s(), int(told["block_number"]), block_hash, counts))
                return int(told["pending"])
        return None


def _place(told: dict[str, object]) -> Place | None:
    """The receipt in an answer that says `confirmed`."""
    try:
        return Place(
            transaction_hash=bytes.fromhex(str(told["transaction_hash"]).removeprefix("0x")),
            block_number=int(str(told["block_number"])),
            block_hash=bytes.fromhex(str(told["block_hash"]).removeprefix("0x")),
            index=int(str(told["ballot_index"])),
        )
    except (KeyError, ValueError):
        return None


def _told(answer: httpx.Response) -> str:
    """An answer in a few words, for the history."""
    try:
        document = answer.json()
    except ValueError:
        return str(answer.status_code)
    if not isinstance(document, dict):
        return str(answer.status_code)
    return f"{answer.status_code} {document.get('status') if answer.is_success else document.get('code')}"
