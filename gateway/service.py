"""One gateway put together: the core behind a durable journal, and what it remembers across restarts."""

import asyncio
import contextlib
import logging

import httpx

from gateway.access import Gatekeeper
from gateway.anchorage import Anchorage
from gateway.audit import Auditor
from gateway.callbacks import Callbacks
from gateway.calls import anchor_call
from gateway.config import GatewayConfig, load_overrides
from gateway.core import LEVELS, Core, Plan, conflict
from gateway.disk import Disk, FileLock, lock_folder
from gateway.durability import Durability, Storage
from gateway.journal import Journal
from gateway.records import Anchor
from gateway.state import load_state
from gateway.validators import NoValidator, ValidatorNode
from node.chain.genesis import Genesis, domain_of
from node.chain.signing import SigningKey
from node.consensus.override import OverrideError
from serving.settings import ConfigError

__all__ = ["LEVELS", "Gateway", "conflict"]

log = logging.getLogger(__name__)

SAVE_INTERVAL_S = 2.0
WARM_UP_S = 0.5
TALLIES_AT_ONCE = 32


class Gateway(Core):
    """Everything behind the HTTP API."""

    def __init__(
        self, config: GatewayConfig, genesis: Genesis, key: SigningKey, secret: bytes, *, disk: Disk | None = None
    ) -> None:
        """Reads journal, spool and state; `secret` is the gateways' master secret.

        Raises InUse, JournalCorrupt, ConfigError, SecretError or OSError.
        """
        self.config = config
        domain = domain_of(genesis)
        disk = disk or Disk()
        self._locks = [lock_folder(config.journal), lock_folder(config.spool)]
        journal, spool = (Journal(folder, domain, disk=disk) for folder in (config.journal, config.spool))
        plan = Plan(
            domain,
            key,
            secret,
            tuple(ValidatorNode(one.name, one.rpc_url, one.p2p_url) for one in config.validators),
            config.rpc,
            config.batch,
            config.elections,
            config.anchors,
            config.limits.pending_max,
            config.limits.pending_bytes_max,
            config.election_keys,
        )
        state = load_state(config.state, domain, genesis, load_overrides(config.overrides, genesis))
        try:
            state.sets.check_overrides_fit(state.head.header)
        except OverrideError as error:
            raise ConfigError(f"{error}") from None
        super().__init__(plan, state, lambda on_durable: Durability(journal, spool, on_durable))
        assert isinstance(self.keeper, Durability)
        self._durability = self.keeper
        self._http = httpx.AsyncClient(trust_env=False)  # for callbacks: strangers' servers, and few calls
        self.callbacks = Callbacks(config.callbacks, self._http)
        self.anchorage = Anchorage(self, config.anchors, self.callbacks)
        self.auditor = Auditor(self.pool, self.follower, self.domain)
        self.gatekeeper = Gatekeeper(config.api_keys, config.rates)
        self._saver: asyncio.Task[None] | None = None

    def hold(self, lock: FileLock) -> None:
        """Keep a lock as long as the gateway runs."""
        self._locks.append(lock)

    async def start(self) -> None:
        """Take up what the journal holds, and go on. Needs no validator."""
        items = self._durability.recover()
        for item in items:
            self.book.add(item)
        waiting = [item for item in items if item.pending]
        if waiting:
            log.info("the journal holds %d records that are not final yet", len(waiting))
        await self._durability.start()
        await self.begin(waiting)
        await self.callbacks.start()
        await self.anchorage.start()
        await self._warm_up()
        self._saver = asyncio.create_task(self._save_now_and_then(), name="state")

    async def _warm_up(self) -> None:
        """Do once what the first anchor would wait for: codecs made on first use, and a connection."""
        nothing = Anchor(bytes(32), bytes(32), 0, "")
        anchor_call(nothing)
        await self.anchorage.is_told(nothing.batch_id, WARM_UP_S)

    async def stop(self) -> None:
        """Sync what was accepted and end. What is not final is in the journal."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        await self.auditor.stop()
        await self.anchorage.stop()
        await self.callbacks.stop()
        await self.end()
        await self._durability.stop()
        with contextlib.suppress(OSError):
            await self._save()
        await self.close_connections()
        await self._http.aclose()
        for lock in self._locks:
            lock.release()

    @property
    def durability(self) -> Durability:
        """Journal and spool."""
        return self._durability

    def level(self) -> int:
        """1 to 5, as LEVELS words them."""
        storage = self._durability.storage
        if storage is Storage.JOURNAL:
            return super().level()
        return 4 if storage is Storage.SPOOL else 5

    def default_wait_s(self) -> float:
        """How long a caller waits who names no time: not at all while no quorum is known."""
        return self.config.limits.wait_s if self.level() <= 2 else 0.0

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self._look_at_tallies()
            try:
                await self.elections.erase_old_keys()
            except OSError as error:
                log.warning("an election's key cannot be erased: %s", error)
            try:
                await self._save()
            except OSError as error:
                log.warning("%s cannot be written: %s", self.config.state, error)

    async def _look_at_tallies(self) -> None:
        """Read the tallies that have moved, so that an outage finds the last of them, not the last one asked for."""
        touched, self.touched = self.touched, set()
        for election in list(touched)[:TALLIES_AT_ONCE]:
            with contextlib.suppress(NoValidator, OSError):
                await self.elections.result(election)

    async def _save(self) -> None:
        self._state.head, self._state.sets = self.follower.head, self.follower.sets
        await self._state.save()
