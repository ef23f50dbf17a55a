"""The gateway's core as a library: an asyncio backend casts and reads ballots at the validators, without a server.

    async with BlockchainClient() as client:
        await client.submit_vote("voter-17", 1, encrypted_vote, "my-id-1")

What is confirmed has been proven here: certificates, roots and proofs are checked, and no validator is believed. What
is not confirmed yet is kept in this process's memory alone, and sent again until it is final. For records that must
survive this process, use the gateway, which has a journal.
"""

import asyncio
import contextlib
import logging
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from pydantic import ValidationError

from gateway.audit import Auditor
from gateway.book import Commit, Item
from gateway.casting import Late, ballot_of, refused, stood
from gateway.client_types import (
    BlockchainState,
    ConfirmationStatus,
    ElectionResults,
    IntegrityReport,
    ValidatorReport,
    VoteReceipt,
)
from gateway.config import AnchorsConfig, BatchConfig, ElectionsConfig, RpcConfig, load_genesis
from gateway.core import LEVELS, Core, Plan
from gateway.elections import state_name
from gateway.faults import invalid_body
from gateway.journal_format import Place
from gateway.models import show_election_id
from gateway.nullifier import InvalidId
from gateway.plainvotes import Vote, read_vote
from gateway.problems import Problem
from gateway.state import first_state
from gateway.validators import DEFAULT_VALIDATORS, NoValidator, ValidatorNode, ValidatorStatus
from gateway.views import audit_shown, chain_status, kept_status, results_shown, taken, validators_shown
from node.chain.genesis import domain_of
from serving.keyfiles import SecretError, load_key, read_secret
from serving.settings import ConfigError

__all__ = [
    "DEFAULT_VALIDATORS",
    "BlockchainClient",
    "ClientConfig",
    "ClientError",
    "ConfigError",
    "NoValidator",
    "Problem",
    "SecretError",
    "ValidatorNode",
    "ValidatorStatus",
    "close_blockchain_client",
    "get_blockchain_client",
    "get_blockchain_client_sync",
    "init_blockchain_client",
    "load_client_config",
]

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "PSEPHOS_CLIENT_CONFIG"
SUBMIT_WAIT_S = 5.0
CALL_DEADLINE_S = 30.0
PENDING_MAX = 50_000
PENDING_BYTES_MAX = 64 << 20
MEMORY_ONLY = "not final yet, and kept in this process's memory alone"
NO_QUORUM = "no quorum of validators: what is pending is kept in this process's memory alone"


class ClientError(RuntimeError):
    """What was asked for cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client has to know: the network, whom to ask, who it is. Paths are those of files."""

    genesis: Path
    key: Path
    master_secret: Path
    validators: tuple[ValidatorNode, ...] = DEFAULT_VALIDATORS
    elections: ElectionsConfig = field(default_factory=ElectionsConfig)
    key_password_file: Path | None = None


def load_client_config(path: Path | None = None) -> ClientConfig:
    """Read client.toml: `path`, else PSEPHOS_CLIENT_CONFIG, else that of the nearest dev network (`data/client.toml`).

    Raises ConfigError.
    """
    found = path or _find_config()
    try:
        document: dict[str, Any] = tomllib.loads(found.read_text(encoding="utf-8"))
        folder = found.resolve().parent
        validators = tuple(
            ValidatorNode(one["node_id"], one["rpc_url"], one.get("p2p_url", "")) for one in document["validators"]
        )
        password_file = document.get("key_password_file")
        return ClientConfig(
            folder / document["genesis"],
            folder / document["key"],
            folder / document["master_secret"],
            validators,
            ElectionsConfig(**document.get("elections", {})),
            None if password_file is None else folder / password_file,
        )
    except OSError as error:
        raise ConfigError(f"client configuration {found}: {error.strerror}") from None
    except KeyError as error:
        raise ConfigError(f"client configuration {found}: {error} is missing; a dev network writes all of it") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"client configuration {found}: {error}") from None


def _find_config() -> Path:
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    here = Path.cwd()
    places = [*(folder / "data" / "client.toml" for folder in (here, *here.parents)), here / "client.toml"]
    places.append(Path(__file__).resolve().parent.parent / "data" / "client.toml")
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"no client.toml here or above: run `make up`, or set {CONFIG_VARIABLE}")


class _Memory:
    """Answers for records as long as the process lives."""

    def __init__(self, on_kept: Callable[[Sequence[Item]], None]) -> None:
        self._on_kept = on_kept

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def accept(self, item: Item) -> Commit:
        commit = Commit()
        commit.finish()
        self._on_kept([item])
        return commit

    def settle(self, place: Place, items: list[Item]) -> None:
        """The book remembers where they are."""

    def reject(self, item: Item) -> None:
        """The book remembers why."""


class _Core(Core):
    """The gateway's, without a journal."""

    levels = LEVELS | {3: NO_QUORUM}


class BlockchainClient:
    """Casts and reads ballots. Use as `async with`, or call `start` and `close`; the first call starts it, too.

    Args:
        validators: whom to ask; those of the configuration, when left out.
        config: key, secret and genesis; found as `load_client_config` says, when left out.
        submit_wait_s: how long `submit_vote` waits for finality before it answers `pending`.
        deadline_s: for every other call.

    Raises ConfigError or SecretError.
    """

    def __init__(
        self,
        validators: Iterable[ValidatorNode] | None = None,
        *,
        config: ClientConfig | Path | None = None,
        submit_wait_s: float = SUBMIT_WAIT_S,
        deadline_s: float = CALL_DEADLINE_S,
    ) -> None:
        settings = config if isinstance(config, ClientConfig) else load_client_config(config)
        genesis = load_genesis(settings.genesis)
        domain = domain_of(genesis)
        self.validators = tuple(validators) if validators is not None else settings.validators
        self._submit_wait_s, self._deadline_s = submit_wait_s, deadline_s
        plan = Plan(
            domain,
            load_key(settings.key, settings.key_password_file, what="the client's key"),
            read_secret(settings.master_secret, "the master secret"),
            self.validators,
            RpcConfig(),
            BatchConfig(),
            settings.elections,
            AnchorsConfig(),
            PENDING_MAX,
            PENDING_BYTES_MAX,
        )
        self._plan = plan
        self._state = first_state(None, domain, genesis)
        self._core: Core | None = None
        self._auditor: Auditor | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Look for validators and begin to follow the chain. Needs no validator. Harmless when it runs already."""
        async with self._starting:
            if self._core is None:
                core = _Core(self._plan, self._state, _Memory)
                await core.begin()
                self._auditor = Auditor(core.pool, core.follower, core.domain)
                self._core = core

    async def close(self) -> None:
        """End. What is pending is given up."""
        async with self._starting:
            core, self._core = self._core, None
            if core is None:
                return
            if waiting := core.book.pending_count:
                log.warning("%d votes were not final when the client was closed", waiting)
            if self._auditor is not None:
                await self._auditor.stop()
            await core.end()
            await core.close_connections()

    async def _running(self) -> Core:
        if self._core is None:
            await self.start()
        assert self._core is not None
        return self._core

    @contextlib.asynccontextmanager
    async def _within(self) -> AsyncIterator[Core]:
        try:
            async with asyncio.timeout(self._deadline_s):
                yield await self._running()
        except TimeoutError:
            raise NoValidator(f"no answer within {self._deadline_s:g} s") from None

    async def submit_vote(
        self, voter_id: str, election_id: int | str, encrypted_vote: str | bytes, transaction_id: str | None = None
    ) -> VoteReceipt:
        """Cast a sealed ballot, and wait a while until it is final.

        Raises Problem (409 where the voter has cast another ballot, with `extra["standing"]`; 404, 422).
        """
        core = await self._running()
        sealed = _text(encrypted_vote)
        body = _vote(voter_id=voter_id, election_id=election_id, encrypted_vote=sealed, transaction_id=transaction_id)
        try:
            ballot, known_as = await ballot_of(core, body)
            item = await core.cast(ballot)
        except Late as late:
            ballot, known_as, item = late.ballot, late.transaction_id, await stood(core, late)
        await item.wait(self._submit_wait_s)
        log.debug("vote of %s… in election %d: %s", ballot.nullifier.hex()[:8], ballot.election, _state_of(item))
        if item.reason is not None:
            raise await refused(core, item, {})
        shown = taken(item, ballot.election, known_as) | {"level": core.level(), "warning": core.warning()}
        if item.place is None and shown["warning"] is None:
            shown["warning"] = MEMORY_ONLY
        return cast(VoteReceipt, shown)

    async def get_transaction_receipt(self, transaction_id: str, election_id: int | str) -> ConfirmationStatus | None:
        """Where a ballot is, proven; None where it is not final, or unknown to a quorum. Raises NoValidator."""
        status = await self.get_vote_confirmation_status(transaction_id, election_id)
        return status if status["status"] == "confirmed" else None

    async def get_vote_confirmation_status(self, transaction_id: str, election_id: int | str) -> ConfirmationStatus:
        """`pending`, `confirmed`, `rejected` with reason, or `unknown` to a quorum. Raises NoValidator, Problem."""
        async with self._within() as core:
            election = _election_id(election_id)
            shown = {"transaction_id": transaction_id, "election_id": show_election_id(election)}
            try:
                kept = kept_status(core, election, transaction_id, shown)
                return cast(ConfirmationStatus, kept or await chain_status(core, election, transaction_id, shown))
            except InvalidId as error:
                raise Problem(422, "not-valid", f"{error}.") from None

    async def wait_for_confirmation(
        self, transaction_id: str, election_id: int | str, max_wait_seconds: float = 30.0
    ) -> ConfirmationStatus:
        """The status once it is final or refused, or what it is when the time is over."""
        core = await self._running()
        election = _election_id(election_id)
        end = asyncio.get_running_loop().time() + max_wait_seconds
        while True:
            status = await self.get_vote_confirmation_status(transaction_id, election_id)
            left_s = end - asyncio.get_running_loop().time()
            if status["status"] in ("confirmed", "rejected") or left_s <= 0:
                return status
            item = core.book.by_alias(core.elections.key(election).record_id(transaction_id))
            if item is not None and item.pending:
                await item.wait(left_s)
            else:  # it went another way: it may be in the next block
                await core.follower.wait_for(core.follower.head.header.number + 1, min(left_s, 1.0))

    async def get_election_results(self, election_id: int | str) -> ElectionResults:
        """The tally, proven; the last proven one with `stale` where no validator answers.

        Raises ClientError where there is no such election, NoValidator where nothing is known.
        """
        async with self._within() as core:
            election = _election_id(election_id)
            result = await core.elections.result(election)
            if result is None:
                raise ClientError(f"there is no election {election}")
            return cast(ElectionResults, results_shown(result, core.book.pending_ballots(election)))

    async def get_blockchain_state(self, election_id: int | str) -> BlockchainState:
        """The verified head, the level, and the election with its proven totals. Raises ClientError, NoValidator."""
        async with self._within() as core:
            results = await self.get_election_results(election_id)
            definition = await core.elections.get(_election_id(election_id))
            head = core.follower.head.header
            return {
                "chain_id": core.domain.chain_id,
                "genesis_hash": "0x" + core.domain.genesis_hash.hex(),
                "height": head.number,
                "block_hash": "0x" + head.hash.hex(),
                "timestamp": head.timestamp,
                "level": core.level(),
                "validators": ["0x" + address.hex() for address in core.follower.head.validators],
                "validators_reachable": core.pool.reachable_count(),
                "election_id": results["election_id"],
                "election_state": state_name(definition) if definition is not None else results["state"],
                "total": results["total"],
                "pending": results["pending"],
                "stale": results["stale"],
            }

    async def verify_blockchain_integrity(self, election_id: int | str) -> IntegrityReport:
        """Check the whole chain of an election, and recount it; takes as long as that takes.

        Raises ClientError where there is no such election, NoValidator.
        """
        core = await self._running()
        election = await core.elections.get(_election_id(election_id), fresh=True)
        if election is None or self._auditor is None:
            raise ClientError(f"there is no election {election_id}")
        audit = self._auditor.start(election, await core.chain.tally(election))
        await audit.done.wait()
        return cast(IntegrityReport, audit_shown(audit))

    async def refresh_validator_status(self) -> list[ValidatorReport]:
        """Probe every validator now."""
        async with self._within() as core:
            await core.pool.probe_all()
            return cast(list[ValidatorReport], validators_shown(core.pool))


def _vote(**given: object) -> Vote:
    """A vote of these fields. Raises Problem 422, which shows no voter and no ballot."""
    try:
        return read_vote(given)
    except ValidationError as error:
        raise invalid_body(error, given) from None


def _text(encrypted_vote: str | bytes) -> str:
    try:
        if isinstance(encrypted_vote, str):
            encrypted_vote.encode()  # a lone surrogate is no text either
        return encrypted_vote.decode() if isinstance(encrypted_vote, bytes) else encrypted_vote
    except UnicodeError:
        raise Problem(422, "not-valid", "encrypted_vote: expected text, or its bytes in UTF-8.") from None


def _election_id(election_id: int | str) -> int:
    return _vote(voter_id="-", election_id=election_id, choice=0).election_id


def _state_of(item: Item) -> str:
    return "pending" if item.pending else "confirmed" if item.place is not None else f"rejected ({item.reason})"


_client: BlockchainClient | None = None


async def init_blockchain_client(
    validators: Iterable[ValidatorNode] | None = None, *, config: ClientConfig | Path | None = None
) -> BlockchainClient:
    """Make and start the process's client; the one before it is closed."""
    global _client
    fresh = BlockchainClient(validators, config=config)
    await close_blockchain_client()
    await fresh.start()
    _client = fresh
    return fresh


async def get_blockchain_client() -> BlockchainClient:
    """The process's client, made with its defaults when there is none."""
    return _client if _client is not None else await init_blockchain_client()


def get_blockchain_client_sync() -> BlockchainClient:
    """The process's client, for code that cannot wait. Raises ClientError before `init_blockchain_client`."""
    if _client is None:
        raise ClientError("there is no client yet: await init_blockchain_client() when the program starts")
    return _client


async def close_blockchain_client() -> None:
    """Close the process's client, if there is one."""
    global _client
    client, _client = _client, None
    if client is not None:
        await client.close()
