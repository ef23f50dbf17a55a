"""One node as a process: opens what it needs, runs the loop, serves JSON-RPC, and stops cleanly."""

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import uvloop

from node import memory, payloads
from node.chain.contracts.members import is_gateway
from node.chain.errors import InvalidTransaction, LedgerError, PeerError
from node.chain.genesis import Genesis, GenesisError, parse_genesis
from node.chain.outcome import Executed
from node.chain.transaction import Transaction
from node.config import NodeConfig, load_config, parse_address
from node.consensus import events as consensus
from node.consensus.certificate import Certificate
from node.consensus.evidence import Evidence
from node.consensus.override import OverrideError
from node.gossip import ANNOUNCE_AFTER_S, GOSSIP_AFTER_S, Gossip, Messages
from node.guardfile import GuardError, GuardFile
from node.inbox import Inbox, InboxFull
from node.jwtfile import load_or_create
from node.ledger import Ledger
from node.leveldb import DatabaseError, LevelDB
from node.membership import Membership
from node.metrics import METRICS, NodeMetrics
from node.overridefile import read_overrides
from node.p2p.events import PeerEvent, PeerInfo, Received
from node.p2p.kinds import Kind
from node.p2p.network import Network
from node.pruning import prune
from node.recovery import Recovery
from node.rpc.pacing import Pace
from node.rpc.ports import Syncing, Watcher
from node.rpc.server import Operators, RpcServer
from node.runtime import Runtime
from node.version import VERSION
from serving.connections import raise_file_limit
from serving.distribution import Distributions
from serving.endpoint import parse_bind
from serving.keyfiles import SecretError, load_key
from serving.logs import Format, configure, fields
from serving.metrics import MetricsServer, Page
from serving.settings import ConfigError

log = logging.getLogger(__name__)

CLIENT_VERSION = f"psephos/{VERSION}/python{sys.version_info.major}.{sys.version_info.minor}"
FILES_SPARE = 1_536  # descriptors for everything else than callers: LevelDB opens up to a thousand files
STARTUP_ERRORS = (
    ConfigError, SecretError, GenesisError, GuardError, OverrideError, DatabaseError, LedgerError, OSError,
)  # fmt: skip


def run(config_path: Path, log_format: Format | None = None) -> int:
    """Run the node until SIGTERM or SIGINT. The exit code: 0 after a clean stop, 1 with a sentence on what is wrong.

    `log_format` goes before the configuration's.
    """
    try:
        config = load_config(config_path)
        configure(config.name, config.log.level, log_format or config.log.format)
        service = Service(config)
        memory.settle()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(service.run())
    except STARTUP_ERRORS as error:
        print(f"psephos node: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        return 1


def load_genesis(path: Path) -> Genesis:
    """Read a genesis file. Raises GenesisError."""
    try:
        return parse_genesis(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise GenesisError(f"there is no genesis file {path}; 'psephos init' writes one") from None
    except json.JSONDecodeError as error:
        raise GenesisError(f"{path} is not JSON: {error}") from None


class FileDisk:
    """The runtime's disk: the guard file and LevelDB, written in one worker thread so that reads go on."""

    def __init__(self, database: LevelDB, guard: GuardFile | None, syncs: Distributions) -> None:
        self._database = database
        self._guard = guard
        self._syncs = syncs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")

    async def append_guard(self, records: tuple[bytes, ...]) -> None:
        """Append to the guard and sync; compact it when it has grown."""
        if self._guard is None:
            raise GuardError("a node without a guard was about to sign")
        began_s = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, self._guard, records)
        self._syncs.observe("guard", time.perf_counter() - began_s)

    async def commit(self, writes: dict[bytes, bytes]) -> None:
        """Write one synced batch."""
        began_s = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.write, writes)
        self._syncs.observe("block", time.perf_counter() - began_s)

    def later(self, write: Callable[[Evidence], None], evidence: Evidence) -> None:
        """Write what nothing waits for, behind what is being written."""

        def logged() -> None:
            try:
                write(evidence)
            except Exception:
                log.exception("evidence could not be written")

        self._thread.submit(logged)

    @staticmethod
    def _append(guard: GuardFile, records: tuple[bytes, ...]) -> None:
        guard.append(records)
        if guard.needs_compaction:
            guard.compact()

    def close(self) -> None:
        """Wait for the last write, then release both locks."""
        self._thread.shutdown()
        if self._guard is not None:
            self._guard.close()
        self._database.close()


class Service:
    """The node's parts and the wires between them; also what JSON-RPC sees of the node (`node.rpc.ports.NodePort`)."""

    client_version = CLIENT_VERSION

    def __init__(self, config: NodeConfig) -> None:
        """Open the key, the guard and the database. Raises one of STARTUP_ERRORS."""
        self._config = config
        genesis = load_genesis(config.genesis)
        key = load_key(config.key, config.key_password_file)
        overrides = read_overrides(config.override) if config.override else ()
        database = LevelDB(config.data)
        try:
            self.chain = Ledger(database, genesis, overrides)
            self.chain.oldest_state = prune(database, self.chain, config.chain.keep_states)
            guard = GuardFile(config.guard, self.chain.domain, key.address) if config.sign else None
        except Exception:
            database.close()
            raise
        self._database = database
        self.name = config.name
        self.address = key.address
        self._members = Membership(
            key.address,
            signs=config.sign,
            validators=self.chain.next_validators,
            observers=map(parse_address, config.p2p.observers),
            now_s=time.monotonic,
        )
        self._inbox = Inbox()
        self._metrics = NodeMetrics()
        self._disk = FileDisk(database, guard, self._metrics.syncs)
        self._network = Network(
            key=key,
            domain=self.chain.domain,
            bind=parse_bind(config.p2p.bind),
            advertise=config.p2p.advertise or "",
            name=config.name,
            is_member=self._members.__contains__,
            on_event=self._on_peer_event,
            head_height=lambda: self.chain.head.number,
            block_bytes_max=genesis.block_bytes_max,
            bootnodes=config.p2p.bootnodes,
            peers_file=config.p2p.peers_file,
            rpc_url=f"http://{config.rpc.bind}",
        )
        recovery = Recovery()
        self._runtime = Runtime(
            ledger=self.chain,
            key=key,
            guard=guard.state if guard else None,
            policy=config.consensus.policy(),
            mempool_limits=config.mempool.limits(),
            disk=self._disk,
            peers=self._network,
            now_ms=_now_ms,
            wall_clock_s=lambda: int(time.time()),
            clock_drift_max_s=config.consensus.clock_drift_max_s,
            recover_senders=recovery.of_block,
            recover_submitted=recovery.of_submitted,
            on_final=self._on_final,
            on_added=self._on_added,
            on_evidence=self._on_evidence,
            on_progress=self._on_progress,
        )
        self.mempool = self._runtime.mempool
        self._advanced = asyncio.Event()
        self._peer_transactions = Inbox()  # apart, since checking signatures must not hold blocks up
        self._gossip = Gossip(self.mempool, self._is_gateway)
        self._started_at_height = self.chain.head.number
        self._watchers: set[Watcher] = set()
        self._position = (0, 0, "")
        self._is_quorum_in_reach: bool | None = None  # None until there was one

    # -- the process ---------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal comes, or something that cannot go on fails. The exit code."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = self._rpc_server()
        metrics: MetricsServer | None = None
        if (bind := self._config.metrics.bind) is not None:
            metrics = MetricsServer(parse_bind(bind), METRICS, self._fill, self._config.metrics.url_file)
        try:
            await self._network.start()
            await server.start()
            if metrics is not None:
                await metrics.start()
            log.info(
                "0x%s, %s, at height %d; JSON-RPC on %s, peers on %s",
                self.address.hex(), self._members.describe(), self.chain.head.number, self._config.rpc.bind,
                self._config.p2p.bind,
            )  # fmt: skip
            if server.operators_address is not None:
                self._tell_operators(*server.operators_address)
            return await self._work_until(stop)
        finally:
            if metrics is not None:
                await metrics.stop()
            await server.stop()
            await self._network.stop()
            self._disk.close()
            log.info("stopped at height %d", self.chain.head.number)

    def _tell_operators(self, host: str, port: int) -> None:
        """Write down where their listener is; the port may be another one at each start."""
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._config.rpc.operators.url_file.write_text(url + "\n")
        log.info("operators' JSON-RPC on %s", url)

    def _rpc_server(self) -> RpcServer:
        """The listeners. Raises SecretError when the operators' secret cannot be used."""
        rpc, operators = self._config.rpc, self._config.rpc.operators
        limits = rpc.limits
        files = raise_file_limit()
        if limits.connections_max > (most := max(files - FILES_SPARE, 64)):
            limits = replace(limits, connections_max=most)
            log.warning("only %d files may be open, so JSON-RPC takes at most %d connections", files, most)
        return RpcServer(
            self,
            parse_bind(rpc.bind),
            limits,
            hosts=rpc.hosts,
            origins=rpc.origins,
            dev_accounts=rpc.dev_accounts,
            calls=self._metrics.calls,
            operators=Operators(parse_bind(operators.bind), load_or_create(operators.jwt_secret))
            if operators.bind
            else None,
        )

    async def _work_until(self, stop: asyncio.Event) -> int:
        exit_code = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(work) for work in (self._loop(), self._take_peer_transactions(), self._warm())
                ]
                await stop.wait()
                for worker in workers:
                    worker.cancel()
        except* Exception as failures:  # a disk that failed, or a mistake of ours: going on would risk what is final
            exit_code = 1
            for failure in failures.exceptions:
                log.critical("cannot go on: %s", failure or type(failure).__name__, exc_info=failure)
        return exit_code

    async def _loop(self) -> None:
        """The only place from which the runtime is driven."""
        self._inbox.wake()
        while True:
            deadline_ms = self._runtime.deadline_ms()
            timeout_s = None if deadline_ms is None else max(0, deadline_ms - _now_ms()) / 1000
            await self._runtime.handle(await self._inbox.get(timeout_s))

    async def _warm(self) -> None:
        pace = Pace()
        for _ in self.chain.warm():
            await pace.breathe()

    async def _take_peer_transactions(self) -> None:
        while True:
            event = await self._peer_transactions.get(None)
            if not isinstance(event, Received):
                continue
            try:
                raws = payloads.unpack_transactions(event.payload)
                await self._runtime.intake.submit(raws, from_client=False)
            except PeerError as error:
                self._network.drop(event.peer, str(error))

    # -- what the network and the runtime tell -----------------------------------------------------------------

    def _on_peer_event(self, event: PeerEvent) -> None:
        try:
            if isinstance(event, Received) and event.kind is Kind.TRANSACTIONS:
                self._peer_transactions.put(event)
            else:
                self._inbox.put(event)
                if not isinstance(event, Received):
                    self._look_at_reach()
        except InboxFull as error:
            self._metrics.inbox_dropped += 1
            log.debug("a message of a peer was dropped: %s", error)  # consensus resends, sync and gossip ask again

    def _on_final(self, executed: Executed, certificate: Certificate) -> None:
        block = executed.block
        self._tell_of_block(executed, certificate)
        if self._members.change(self.chain.next_validators, block.number + 1):
            self._network.members_changed()
        self._advanced.set()
        self._advanced = asyncio.Event()
        for watcher in self._watchers:
            watcher.head_advanced()

    def _tell_of_block(self, executed: Executed, certificate: Certificate) -> None:
        """One line a block, with what mattered; empty blocks of round 0 are no news."""
        block = executed.block
        validators, sealers = self.chain.validators(block.number), self._runtime.sealers(certificate)
        missing = [validator for validator in validators if validator not in sealers]
        ballots, anchors = self._metrics.finalised(executed, certificate, missing)
        level = logging.INFO if block.transactions or certificate.round else logging.DEBUG
        if not log.isEnabledFor(level):
            return
        final_s = self._metrics.since_proposed_s(block.number)
        log.log(
            level,
            "block %d 0x%s… round %d: %d transactions, %d ballots, %d anchors; %s; %d of %d seals%s",
            block.number, block.hash.hex()[:12], certificate.round, len(block.transactions), ballots, anchors,
            "fetched" if final_s is None else f"final in {final_s * 1000:.0f} ms", len(sealers), len(validators),
            "".join(f", without 0x{validator.hex()[:8]}…" for validator in missing),
            extra=fields(
                event="block", height=block.number, hash="0x" + block.hash.hex(), round=certificate.round,
                transactions=len(block.transactions), ballots=ballots, anchors=anchors,
                final_ms=None if final_s is None else round(final_s * 1000, 1),
                missing_seals=["0x" + validator.hex() for validator in missing],
            ),
        )  # fmt: skip

    def _on_progress(self, height: int, round_: int, step: str) -> None:
        """Consensus moves on; a round above 0 is news, since another one has failed."""
        before, self._position = self._position, (height, round_, step)
        self._metrics.progressed(height, step)
        if round_ == 0 or before[:2] == (height, round_):
            return
        proposer = self.chain.proposer(height, before[1]) if before[0] == height else b""
        lacked = {"waiting": "proposal of", "proposed": "quorum for the proposal of", "prepared": "seals for that of"}
        log.info(
            "height %d goes to round %d: round %d had no %s 0x%s…",
            height, round_, before[1], lacked.get(before[2], "end by"), proposer.hex()[:8],
            extra=fields(event="round", height=height, round=round_, step=before[2], proposer="0x" + proposer.hex()),
        )  # fmt: skip

    def _look_at_reach(self) -> None:
        """Say when a quorum of validators comes within reach, and when it is lost."""
        count, needed = self._within_reach(), self.chain.quorum(self.chain.head.number + 1)
        if (count >= needed) == bool(self._is_quorum_in_reach):
            return
        self._is_quorum_in_reach = count >= needed
        log.log(
            logging.INFO if count >= needed else logging.WARNING,
            "%d of %d validators within reach, and a quorum is %d: the chain %s",
            count, len(self.chain.next_validators), needed, "goes on" if count >= needed else "waits",
            extra=fields(event="quorum", within_reach=count, quorum=needed),
        )  # fmt: skip

    async def _fill(self, page: Page) -> None:
        await self._metrics.fill(page, self, self._network.peers(), self._database)

    def _on_evidence(self, evidence: Evidence) -> None:
        self._metrics.equivocations += 1
        statement = evidence.first.statement
        log.warning(
            "0x%s signed two different %ss at height %d round %d",
            evidence.validator.hex(), statement.kind.name, statement.height, statement.round,
        )  # fmt: skip
        self._disk.later(self.chain.keep_evidence, evidence)

    def _on_added(self, transactions: list[Transaction], from_client: bool) -> None:
        if not self._runtime.has_work:
            self._inbox.wake()
        for watcher in self._watchers:
            watcher.transactions_added(transactions)
        if not from_client:
            return  # whoever brought it in announced it to everyone
        loop = asyncio.get_running_loop()
        is_to_send, is_to_announce = self._gossip.put(transactions)
        if is_to_send:
            loop.call_later(GOSSIP_AFTER_S, lambda: self._tell_peers(self._gossip.send()))
        if is_to_announce:
            loop.call_later(ANNOUNCE_AFTER_S, lambda: self._tell_peers(self._gossip.announce()))

    def _tell_peers(self, messages: Messages) -> None:
        for kind, payload in messages:
            self._network.broadcast(kind, payload)

    def _is_gateway(self, address: bytes) -> bool:
        return is_gateway(self._runtime.intake.state(), address)

    # -- what JSON-RPC sees --------------------------------------------------------------------------------------

    async def submit(self, transactions: Sequence[bytes]) -> list[bytes | InvalidTransaction]:
        """Take raw transactions of a client; for each its hash or the refusal."""
        return await self._runtime.intake.submit(transactions, from_client=True)

    def peers(self) -> list[PeerInfo]:
        """The open sessions."""
        return self._network.peers()

    def syncing(self) -> Syncing | None:
        """None when no peer is known to be more than one block ahead."""
        highest = self._runtime.syncer.credible_height(self.chain.next_validators)
        current = self.chain.head.number
        return Syncing(self._started_at_height, current, highest) if highest > current + 1 else None

    def consensus(self) -> consensus.Status:
        """What the engine is doing."""
        return self._runtime.engine.status()

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of new heads and waiting transactions from now on."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more."""
        self._watchers.discard(watcher)

    async def wait_for_height(self, height: int, timeout_s: float) -> bool:
        """Wait until `height` is final here."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.chain.head.number < height:
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    def ready(self) -> tuple[bool, str]:
        """Whether this node is at the head and within reach of a quorum."""
        if (syncing := self.syncing()) is not None:
            return False, f"catching up: at height {syncing.current} of {syncing.highest}"
        count, needed = self._within_reach(), self.chain.quorum(self.chain.head.number + 1)
        total = len(self.chain.next_validators)
        if count < needed:
            return False, f"{count} of {total} validators within reach, and a quorum is {needed}"
        return True, f"at height {self.chain.head.number} with {count} of {total} validators within reach"

    def _within_reach(self) -> int:
        """How many of the validators that decide the next height are connected, this node included."""
        within_reach = {peer.address for peer in self.peers()} | {self.address}
        return len(within_reach.intersection(self.chain.next_validators))


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
