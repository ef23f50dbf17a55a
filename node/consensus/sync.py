"""What to fetch from whom to catch up: ranges of final blocks from several peers at once, verified just in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from node.chain import signing
from node.chain.block import Block
from node.chain.domain import Domain
from node.consensus.certificate import Certificate, InvalidCertificate, verify_certificate
from node.consensus.events import Head, HeadAdvanced, PeerGone, PeerStatus, Tick
from node.consensus.messages import Recover
from node.consensus.quorum import tolerance


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """Bounds and patience. Milliseconds are monotonic time."""

    range_blocks_max: int = 32  # asked of one peer at a time
    window_blocks_max: int = 256  # held or asked for beyond the head
    window_bytes_max: int = 64 * 2**20  # held; beyond, only the next block is asked for
    deadline_ms: int = 5_000  # for an answer
    impatience_ms: int = 500  # after which another peer is asked, too, for the one block that everything waits for
    grace_ms: int = 200  # while only this many newest blocks are missing, consensus may bring them by itself:
    grace_blocks: int = 1
    strikes_max: int = 3  # late or empty answers in a row before a peer is dropped
    faults_max: int = 3  # past this many, a peer is asked only for what no other peer speaks of
    peers_max: int = 256


@dataclass(frozen=True, slots=True)
class Fetched:
    """A peer's answer to a `Fetch`, or blocks that it sent unasked because we spoke of a final height."""

    peer: bytes
    items: Sequence[tuple[Block, Certificate]]


@dataclass(frozen=True, slots=True)
class Failed:
    """A peer's answer was no answer, or its block failed in execution: whatever came from it is dropped."""

    peer: bytes
    reason: str


SyncEvent: TypeAlias = PeerStatus | PeerGone | Fetched | Failed | HeadAdvanced | Tick


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask `peer` for `count` blocks with certificates from `from_height` on; it may send fewer, but at least one."""

    peer: bytes
    from_height: int
    count: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Disconnect this peer."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class SyncReady:
    """What to do now."""

    fetch: tuple[Fetch, ...] = ()
    drop: tuple[Drop, ...] = ()


@dataclass(slots=True)
class _Peer:
    height: int  # it is believed to hold all final blocks up to here
    asked: Fetch | None = None
    asked_ms: int = 0
    strikes: int = 0


class Syncer:
    """Plans fetches, holds what came until its turn, and gives every block back to whoever must apply it.

    After each `step`, and after each applied block, the shell calls `next_to_apply` with its head until it returns
    None; what execution refuses comes back as `Failed`, what was applied as `HeadAdvanced`.
    """

    def __init__(self, *, domain: Domain, policy: SyncPolicy, head: Head, recover: Recover = signing.recover) -> None:
        self._domain, self._policy, self._recover = domain, policy, recover
        self._head_height = head.header.number
        self._peers: dict[bytes, _Peer] = {}
        self._held: dict[int, tuple[bytes, Block, Certificate]] = {}
        self._held_bytes = 0
        self._behind_ms: int | None = None  # since when the next block is known to be final elsewhere
        self._patient_until_ms: int | None = None  # when to stop waiting for consensus to bring the next block
        self._impatient_ms: int | None = None  # when to ask another peer for the next block
        self._faults: dict[bytes, int] = {}  # bad, late or empty answers by address, also of those who have left
        self._drops: list[Drop] = []

    @property
    def highest(self) -> int:
        """The highest final block that any peer speaks of, for `eth_syncing`; never below the own head."""
        return max([self._head_height, *(peer.height for peer in self._peers.values())])

    def credible_height(self, validators: Sequence[bytes]) -> int:
        """The highest final block that more than f of `validators` speak of, so that no liar alone can raise it."""
        claims = sorted((self._peers[each].height for each in validators if each in self._peers), reverse=True)
        rank = tolerance(len(validators))
        return max(self._head_height, claims[rank] if rank < len(claims) else 0)

    def step(self, event: SyncEvent, *, now_ms: int) -> SyncReady:
        """Take one event in and say whom to ask for what, and whom to drop."""
        match event:
            case PeerStatus(peer, height):
                self._learn(peer, height)
            case PeerGone(peer):
                self._peers.pop(peer, None)
            case Fetched(peer, items):
                self._take(peer, items)
            case Failed(peer, reason):
                self._expel(peer, reason)
            case HeadAdvanced(head):
                self._advance(head.header.number)
            case Tick():
                pass
        self._expire(now_ms)
        fetches = tuple(self._plan(now_ms))
        drops, self._drops = tuple(self._drops), []
        return SyncReady(fetches, drops)

    def next_to_apply(self, head: Head) -> tuple[bytes, Block, Certificate] | None:
        """The block after `head` with its certificate, verified against the validators known for its height, and the
        peer that sent it; None while it is not here. A bad one costs its peer everything that it sent."""
        height = head.header.number + 1
        held = self._held.get(height)
        if held is None:
            return None
        peer, block, certificate = held
        try:
            if block.header.parent_hash != head.header.hash:
                raise InvalidCertificate(f"block {height} does not continue the head 0x{head.header.hash.hex()}")
            verify_certificate(certificate, block.header, head.validators, self._domain, self._recover)
        except InvalidCertificate as error:
            self._expel(peer, f"served a bad block: {error}")
            return None
        return held

    def deadline_ms(self) -> int | None:
        """When to `step(Tick())`, if nothing happens before."""
        if self._drops:
            return 0  # at once: `next_to_apply` found a bad block, so somebody is to be dropped and another asked
        deadlines = [peer.asked_ms + self._policy.deadline_ms for peer in self._peers.values() if peer.asked]
        deadlines.extend(at for at in (self._patient_until_ms, self._impatient_ms) if at is not None)
        return min(deadlines, default=None)

    def _learn(self, peer: bytes, height: int) -> None:
        known = self._peers.get(peer)
        if known is not None:
            known.height = height
        elif len(self._peers) < self._policy.peers_max:
            self._peers[peer] = _Peer(height)

    def _take(self, peer: bytes, items: Sequence[tuple[Block, Certificate]]) -> None:
        known = self._peers.get(peer)
        asked = known.asked if known else None
        solicited = known is not None and asked is not None and (not items or items[0][0].number == asked.from_height)
        if known is not None and asked is not None and solicited:
            known.asked = None
            if not items:
                known.height = min(known.height, asked.from_height - 1)  # it does not hold what it spoke of
                self._strike(peer, known, "has none of the blocks that it speaks of")
                return
            known.strikes = 0
            self._faults.pop(peer, None)
        first = items[0][0].number if items else 0
        room = asked.count if asked and solicited else self._policy.range_blocks_max
        for offset, (block, certificate) in enumerate(items):
            if offset >= room or block.number != first + offset or certificate.height != block.number:
                self._expel(peer, f"sent block {block.number} where {first + offset} of {room} was expected")
                return
            self._hold(peer, block, certificate)

    def _hold(self, peer: bytes, block: Block, certificate: Certificate) -> None:
        beyond = block.number - self._head_height
        if not 1 <= beyond <= self._policy.window_blocks_max or block.number in self._held:
            return
        if beyond > 1 and self._held_bytes >= self._policy.window_bytes_max:
            return
        self._held[block.number] = (peer, block, certificate)
        self._held_bytes += block.bytes_count

    def _release(self, height: int) -> None:
        held = self._held.pop(height, None)
        if held is not None:
            self._held_bytes -= held[1].bytes_count

    def _blame(self, peer: bytes) -> None:
        if peer in self._faults or len(self._faults) < self._policy.peers_max:
            self._faults[peer] = self._faults.get(peer, 0) + 1

    def _expel(self, peer: bytes, reason: str) -> None:
        self._peers.pop(peer, None)
        self._blame(peer)
        for height in [height for height, held in self._held.items() if held[0] == peer]:
            self._release(height)
        self._drops.append(Drop(peer, reason))

    def _strike(self, peer: bytes, known: _Peer, reason: str) -> None:
        known.strikes += 1
        self._blame(peer)
        if known.strikes >= self._policy.strikes_max:
            self._expel(peer, f"{reason}, {known.strikes} times in a row")

    def _advance(self, height: int) -> None:
        if height <= self._head_height:
            return
        self._head_height = height
        self._behind_ms = None
        for each in [each for each in self._held if each <= height]:
            self._release(each)

    def _expire(self, now_ms: int) -> None:
        for peer, known in list(self._peers.items()):
            if known.asked is not None and now_ms >= known.asked_ms + self._policy.deadline_ms:
                known.asked = None
                self._strike(peer, known, f"did not answer within {self._policy.deadline_ms} ms")

    def _plan(self, now_ms: int) -> list[Fetch]:
        highest = self.highest
        self._patient_until_ms = self._impatient_ms = None
        if highest <= self._head_height:
            self._behind_ms = None
            return []
        if self._behind_ms is None:
            self._behind_ms = now_ms
        patience_ms = self._behind_ms + self._policy.grace_ms
        if now_ms < patience_ms and highest - self._head_height <= self._policy.grace_blocks:
            self._patient_until_ms = patience_ms
            return []
        fetches: list[Fetch] = []
        # Those that failed least first, then by address: any order would do, but it must be the same in each run.
        for peer in sorted(self._peers, key=lambda each: (self._faults.get(each, 0), each)):
            known = self._peers[peer]
            if known.asked is None and not self._is_spared(peer):
                fetch = self._next_range(peer, known.height, now_ms)
                if fetch is not None:
                    known.asked, known.asked_ms = fetch, now_ms
                    fetches.append(fetch)
        self._impatient_ms = self._impatient_at(now_ms)
        return fetches

    def _is_spared(self, peer: bytes) -> bool:
        """Whether this peer has failed so often that it is not asked while another speaks of the next block."""
        if self._faults.get(peer, 0) <= self._policy.faults_max:
            return False
        return any(
            known.height > self._head_height and self._faults.get(each, 0) <= self._policy.faults_max
            for each, known in self._peers.items()
        )

    def _impatient_at(self, now_ms: int) -> int | None:
        """When the newest ask for the next block will have waited long enough, if that time is still to come."""
        asked_ms = [known.asked_ms for known in self._peers.values() if self._awaits_next(known)]
        at_ms = max(asked_ms, default=now_ms) + self._policy.impatience_ms
        return at_ms if asked_ms and at_ms > now_ms else None

    def _awaits_next(self, known: _Peer) -> bool:
        asked, height = known.asked, self._head_height + 1
        return asked is not None and asked.from_height <= height < asked.from_height + asked.count

    def _next_range(self, peer: bytes, peer_height: int, now_ms: int) -> Fetch | None:
        """The lowest gap in the window that this peer can fill and nobody was asked for, or not long ago."""
        window = 1 if self._held_bytes >= self._policy.window_bytes_max else self._policy.window_blocks_max
        last = min(self._head_height + window, peer_height)
        asked = [known.asked for known in self._peers.values() if known.asked is not None]
        taken = {height for each in asked for height in range(each.from_height, each.from_height + each.count)}
        if self._impatient_at(now_ms) is None:
            taken.discard(self._head_height + 1)  # whoever was asked for it takes long, and all else waits
        missing = (h for h in range(self._head_height + 1, last + 1) if h not in taken and h not in self._held)
        start = next(missing, None)
        if start is None:
            return None
        count = 1
        while count < self._policy.range_blocks_max and next(missing, None) == start + count:
            count += 1
        return Fetch(peer, start, count)
