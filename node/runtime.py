"""The node's one loop body: an event in; persist, sign, send, apply, in that order, and then the next.

Everything the runtime touches comes in as a port, so that the simulator can drive the very same logic with a clock,
a disk and a network of its own. A port's awaitable is the only place where `handle` can pause.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

from node import payloads
from node.chain.block import Block
from node.chain.errors import InvalidBlock, PeerError
from node.chain.execution import HEADER_BYTES_MAX
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.outcome import Executed
from node.chain.signing import SigningKey, recover
from node.chain.transaction import Transaction
from node.consensus import events as consensus
from node.consensus.certificate import Certificate, pack_certificate, sealers
from node.consensus.codec import decode_message, encode_message
from node.consensus.engine import Engine
from node.consensus.evidence import Evidence
from node.consensus.guard import GuardState
from node.consensus.messages import authenticate
from node.consensus.sync import Failed, Fetched, Syncer, SyncEvent, SyncPolicy
from node.gossip import announcement
from node.inbox import InboxEvent, Woken
from node.intake import Intake, RecoverSenders
from node.ledger import Ledger
from node.p2p.events import Connected, Disconnected, Received
from node.p2p.kinds import Kind

log = logging.getLogger(__name__)

BUILD_SHARE = 0.25  # of round 0's time: building ends there, and the other validators check what was built as long
RECOVERED_MAX = 16_384  # signatures remembered: a quorum's certificate repeats COMMITs that came one by one


class Disk(Protocol):
    """What must be durable once the awaitable is done. A failure is fatal: what the disk then holds is unknown."""

    async def append_guard(self, records: tuple[bytes, ...]) -> None: ...

    async def commit(self, writes: dict[bytes, bytes]) -> None: ...


class Peers(Protocol):
    """The connected peers."""

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool: ...

    def broadcast(self, kind: Kind, payload: bytes) -> None: ...

    def drop(self, peer: bytes, reason: str) -> None: ...


class Recoverer:
    """Recovers each signature once and remembers the address; bounded."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()

    def __call__(self, digest: bytes, signature: bytes) -> bytes:
        """The signer's address. Raises InvalidSignature."""
        key = (digest, signature)
        address = self._known.get(key)
        if address is None:
            address = self._known[key] = recover(digest, signature)
            if len(self._known) > RECOVERED_MAX:
                self._known.popitem(last=False)
        return address


class Runtime:
    """One node between its ports. `handle` is called for one event at a time, from one place.

    Args:
        key: signs consensus statements; the engine decides which.
        guard: what this validator has promised by signing. None: an observer, which signs nothing.
        now_ms: monotonic milliseconds.
        wall_clock_s: Unix time in whole seconds.
        clock_drift_max_s: how far in the future a fresh proposal's timestamp may lie.
        recover_senders: makes the senders of transactions known where their signatures are valid; raises nothing.
        recover_submitted: the same for what comes to the mempool, which is in no hurry; None: by `recover_senders`.
        on_final: told of every block that has become durable, in order.
        on_added: told of every batch that entered the mempool, and whether a client (not a peer) sent it.
        on_progress: told of each height, round and step (`Status.step`) that consensus comes to.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        key: SigningKey,
        guard: GuardState | None,
        policy: consensus.Policy,
        mempool_limits: MempoolLimits,
        disk: Disk,
        peers: Peers,
        now_ms: Callable[[], int],
        wall_clock_s: Callable[[], int],
        clock_drift_max_s: int,
        recover_senders: RecoverSenders,
        recover_submitted: RecoverSenders | None = None,
        on_final: Callable[[Executed, Certificate], None],
        on_added: Callable[[list[Transaction], bool], None],
        on_evidence: Callable[[Evidence], None],
        on_progress: Callable[[int, int, str], None] = lambda _height, _round, _step: None,
    ) -> None:
        genesis = ledger.genesis
        self.mempool = Mempool(mempool_limits, chain_id=genesis.chain_id, gas_max=genesis.gas_limit // 2)
        self.intake = Intake(ledger, self.mempool, recover_submitted or recover_senders, on_added)
        self._recoverer = Recoverer()
        head = consensus.Head(ledger.head, ledger.next_validators, ledger.override)
        self.syncer = Syncer(domain=ledger.domain, policy=SyncPolicy(), head=head, recover=self._recoverer)
        self.engine = Engine(
            domain=ledger.domain,
            address=key.address if guard else None,
            policy=policy,
            guard=guard,
            head=head,
            recover=self._recoverer,
            now_ms=now_ms(),
        )
        self._ledger = ledger
        self._key = key
        self._disk = disk
        self._peers = peers
        self._now_ms = now_ms
        self._wall_clock_s = wall_clock_s
        self._build_ms_max = int(policy.round_timeout_ms * BUILD_SHARE)
        self._clock_drift_max_s = clock_drift_max_s
        self._recover_senders = recover_senders
        self._on_final = on_final
        self._on_evidence = on_evidence
        self._on_progress = on_progress
        self._position = (-1, -1, "")
        self._has_work = False

    # -- events --------------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """When `handle(WOKEN)` is due, in monotonic milliseconds."""
        deadlines = [at for at in (self.engine.deadline_ms(), self.syncer.deadline_ms()) if at is not None]
        return min(deadlines, default=None)

    @property
    def has_work(self) -> bool:
        """Whether consensus knows already that the mempool has something for a block: more of it is no news."""
        return self._has_work

    async def handle(self, event: InboxEvent) -> None:
        """Take in one event and do everything that follows from it. A peer's fault drops the peer, and no more."""
        match event:
            case Woken():
                await self._look_around()
            case Connected(peer=peer):
                self._peers.send(peer, Kind.STATUS, self._status())
                self._announce_mempool(peer)
                await self._step(consensus.PeerConnected(peer))
            case Disconnected(peer=peer):
                await self._step(consensus.PeerGone(peer))
                await self._sync(consensus.PeerGone(peer))
            case Received(peer=peer):
                try:
                    await self._receive(event)
                except PeerError as error:
                    log.warning("dropping peer 0x%s: %s", peer.hex(), error)
                    self._peers.drop(peer, str(error))

    async def _receive(self, event: Received) -> None:
        peer, payload = event.peer, event.payload
        match event.kind:
            case Kind.CONSENSUS:
                message = decode_message(payload, self.intake.known.decode)
                sender = authenticate(self._ledger.domain, message, self._recoverer)
                if sender not in (peer, self._key.address):  # nobody honest relays, and what is attached is not signed
                    raise payloads.BadPayload(f"a statement of 0x{sender.hex()}, which this peer is not")
                await self._step(consensus.Received(message, sender))
            case Kind.STATUS:
                height, _ = payloads.unpack_status(payload)
                await self._step(consensus.PeerStatus(peer, height))
                await self._sync(consensus.PeerStatus(peer, height))
            case Kind.GET_BLOCKS:
                self._serve_blocks(peer, *payloads.unpack_get_blocks(payload))
            case Kind.BLOCKS:
                pairs = payloads.unpack_blocks(payload, self.intake.known.decode)
                await self._sync(Fetched(peer, pairs))
            case Kind.TRANSACTION_HASHES:
                missing = [digest for digest in payloads.unpack_hashes(payload) if self._is_unknown(digest)]
                if missing:
                    self._peers.send(peer, Kind.GET_TRANSACTIONS, payloads.pack_hashes(missing))
            case Kind.GET_TRANSACTIONS:
                self._serve_transactions(peer, payloads.unpack_hashes(payload))
            case _:
                raise payloads.BadPayload(f"a message of kind {event.kind.name} is not for this handler")

    async def _look_around(self) -> None:
        """Deadlines may be over, or the mempool may have work."""
        await self._tell_work()
        await self._step(consensus.Tick())
        await self._sync(consensus.Tick())

    async def _tell_work(self) -> None:
        has_work = self.mempool.has_work(self.intake.state().nonce)
        if has_work != self._has_work:
            self._has_work = has_work
            await self._step(consensus.WorkChanged(has_work))

    # -- consensus -----------------------------------------------------------------------------------------------

    async def _step(self, event: consensus.Event) -> None:
        """Step the engine, and with everything that its answers bring about, in the order that `Ready` demands."""
        pending: deque[consensus.Event] = deque((event,))
        while pending:
            ready = self.engine.step(pending.popleft(), now_ms=self._now_ms())
            position = self.engine.position
            if position != self._position:
                self._position = position
                self._on_progress(*position)
            if ready.guard:
                await self._disk.append_guard(ready.guard)
            for unsigned in ready.sign:
                message = unsigned.signed(self._key.sign(unsigned.digest(self._ledger.domain)))
                self._peers.broadcast(Kind.CONSENSUS, encode_message(message))
                pending.append(consensus.Received(message, self._key.address))
            for send in ready.send:
                self._send(send)
            if ready.build is not None:
                pending.append(self._build(ready.build))
            for validate in ready.validate:
                pending.append(await self._validate(validate))
            if ready.decided is not None:
                await self._finalise(ready.decided.block, ready.decided.certificate, pending)
            self._report(ready)
            if ready.behind is not None:
                self._plan(consensus.PeerStatus(ready.behind.peer, ready.behind.height - 1))

    def sealers(self, certificate: Certificate) -> tuple[bytes, ...]:
        """Whose seals a certificate holds; those that came as COMMITs are not recovered again."""
        return sealers(certificate, self._ledger.domain, self._recoverer)

    def _send(self, send: consensus.Send) -> None:
        payload = encode_message(send.message)
        if send.to is None:
            self._peers.broadcast(Kind.CONSENSUS, payload)
        else:
            self._peers.send(send.to, Kind.CONSENSUS, payload)

    def _report(self, ready: consensus.Ready) -> None:
        for lagging in ready.lagging:
            self._serve_blocks(lagging.peer, lagging.height, 1)
        for evidence in ready.evidence:
            self._on_evidence(evidence)
        for refused in ready.refused:
            log.debug("refused a message of 0x%s: %s", refused.peer.hex(), refused.reason)

    def _build(self, request: consensus.Build) -> consensus.Built:
        genesis = self._ledger.genesis
        selected = self.mempool.select(
            gas_max=genesis.gas_limit // 2,
            bytes_max=genesis.block_bytes_max - HEADER_BYTES_MAX,
            next_nonce=self.intake.state().nonce,
        )
        timestamp = max(self._ledger.head.timestamp, self._wall_clock_s())
        built = self._ledger.build(self._in_time(selected), miner=self._key.address, timestamp=timestamp)
        for transaction, refusal in built.dropped:
            log.debug("dropped transaction 0x%s: %s", transaction.hash.hex(), refusal)
            self.mempool.remove(transaction.hash)
        return consensus.Built(request.height, request.round, built.executed.block)

    def _in_time(self, transactions: list[Transaction]) -> Iterator[Transaction]:
        """As many as are executed in BUILD_SHARE of a round.

        Every validator takes about as long again. What fills a block's gas, as after an outage, takes each of them two
        seconds: the round would fail, and the next ones, until one is long enough.
        """
        until_ms = self._now_ms() + self._build_ms_max
        for transaction in transactions:
            yield transaction
            if self._now_ms() >= until_ms:
                return

    async def _validate(self, request: consensus.Validate) -> consensus.Validated:
        block = request.block
        try:
            # The head's own timestamp is never too late: time may not go back, so nothing earlier could follow it.
            latest = max(self._ledger.head.timestamp, self._wall_clock_s() + self._clock_drift_max_s)
            if request.fresh and block.header.timestamp > latest:
                raise InvalidBlock(f"timestamp {block.header.timestamp} lies too far in the future")
            await self._execute(block)
        except PeerError as error:
            log.warning("proposed block %d 0x%s is not valid: %s", block.number, block.hash.hex(), error)
            return consensus.Validated(block.hash, valid=False)
        return consensus.Validated(block.hash, valid=True)

    async def _execute(self, block: Block) -> Executed:
        executed = self._ledger.executed(block.hash)
        if executed is None:
            await self._recover_senders(block.transactions)
            executed = self._ledger.execute(block)
        return executed

    async def _finalise(self, block: Block, certificate: Certificate, pending: deque[consensus.Event]) -> None:
        """Make the block durable, then the head; only then tell anyone."""
        executed = await self._execute(block)
        await self._disk.commit(self._ledger.writes_of(executed, certificate))
        self._ledger.advance(executed)
        state = self.intake.state()
        # Not `block`'s: a certificate covers the header, and what a peer sent as its body may be anything.
        self.mempool.finalised(executed.block.transactions, state.nonce)
        head = consensus.HeadAdvanced(self._head())
        self._plan(head)
        self._on_final(executed, certificate)
        self._has_work = self.mempool.has_work(state.nonce)
        pending.append(consensus.WorkChanged(self._has_work))
        pending.append(head)
        self._peers.broadcast(Kind.STATUS, self._status())

    # -- catching up ---------------------------------------------------------------------------------------------

    async def _sync(self, event: SyncEvent) -> None:
        """Tell the syncer, ask for what it wants, and apply what has been fetched and verified."""
        self._plan(event)
        while (item := self.syncer.next_to_apply(self._head())) is not None:
            peer, block, certificate = item
            pending: deque[consensus.Event] = deque()
            try:
                await self._finalise(block, certificate, pending)
            except PeerError as error:
                self._plan(Failed(peer, f"served block {block.number}, which is not valid: {error}"))
            for each in pending:
                await self._step(each)
        self._plan(consensus.Tick())  # what did not stand verification has cost its peer something

    def _plan(self, event: SyncEvent) -> None:
        """Step the syncer and send its requests; blocks that came are applied by `_sync` alone."""
        events = deque((event,))
        while events:
            ready = self.syncer.step(events.popleft(), now_ms=self._now_ms())
            for fetch in ready.fetch:
                payload = payloads.pack_get_blocks(fetch.from_height, fetch.count)
                if not self._peers.send(fetch.peer, Kind.GET_BLOCKS, payload):
                    # Known by a message that another passed on, or deaf: nobody is to wait for its answer.
                    events.append(consensus.PeerGone(fetch.peer))
            for drop in ready.drop:
                log.warning("dropping peer 0x%s: %s", drop.peer.hex(), drop.reason)
                self._peers.drop(drop.peer, drop.reason)

    def _head(self) -> consensus.Head:
        return consensus.Head(self._ledger.head, self._ledger.next_validators, self._ledger.override)

    def _status(self) -> bytes:
        return payloads.pack_status(self._ledger.head.number, self._ledger.head.hash)

    def _serve_blocks(self, peer: bytes, from_height: int, count: int) -> None:
        items: list[tuple[bytes, list[bytes], object]] = []
        bytes_count = 0
        bytes_max = min(payloads.BLOCKS_BYTES_MAX, self._ledger.genesis.block_bytes_max)  # what a message may hold
        for height in range(max(from_height, 1), min(from_height + count, self._ledger.head.number + 1)):
            encoded, certificate = self._ledger.encoded_block(height), self._ledger.certificate(height)
            if encoded is None or certificate is None:
                break
            header, raws = encoded
            bytes_count += len(header) + sum(map(len, raws))
            if items and bytes_count > bytes_max:
                break
            items.append((header, raws, pack_certificate(certificate)))
        self._peers.send(peer, Kind.BLOCKS, payloads.pack_blocks(items))

    # -- transactions --------------------------------------------------------------------------------------------

    def _is_unknown(self, transaction_hash: bytes) -> bool:
        return transaction_hash not in self.mempool and self._ledger.locate(transaction_hash) is None

    def _announce_mempool(self, peer: bytes) -> None:
        for kind, payload in announcement([transaction.hash for transaction in self.mempool]):
            self._peers.send(peer, kind, payload)

    def _serve_transactions(self, peer: bytes, hashes: list[bytes]) -> None:
        batch: list[bytes] = []
        batch_bytes = 0
        for transaction_hash in dict.fromkeys(hashes):
            transaction = self.mempool.get(transaction_hash)
            if transaction is None:
                continue
            if batch and batch_bytes + len(transaction.raw) > payloads.BATCH_BYTES_MAX:
                if not self._peers.send(peer, Kind.TRANSACTIONS, payloads.pack_transactions(batch)):
                    return  # its queue is full, and the rest would cost time and be dropped
                batch, batch_bytes = [], 0
            batch.append(transaction.raw)
            batch_bytes += len(transaction.raw)
        if batch:
            self._peers.send(peer, Kind.TRANSACTIONS, payloads.pack_transactions(batch))
