"""What a node tells Prometheus: noted by the shell as blocks become final, or read when somebody asks."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from node.chain.contracts import anchors, elections
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.ballots import Outcome
from node.chain.outcome import Executed
from node.chain.receipt import EMPTY_BLOOM, Receipt
from node.consensus.certificate import Certificate
from node.leveldb import LevelDB
from node.p2p.events import PeerInfo
from node.rpc.counts import RecordCounts
from node.rpc.ports import NodePort
from node.store import KEY_CLASSES
from serving.distribution import Calls, Distribution, Distributions
from serving.metrics import COMMON, DISK_FREE, INFO, Metric, Page, disk_free_bytes

BALLOTS_CAST = elections.ABI.events["BallotsCast"].id
ANCHORED = anchors.ABI.events["Anchored"].id
_OUTCOMES_AT = 128  # in the event's data, behind first index, count, offset and length
_ROUND_BOUNDS = (1, 2, 3, 4, 6, 8, 16)

HEIGHT = Metric("psephos_height", "gauge", "Height of the newest final block.")
HEAD_TIME = Metric("psephos_head_timestamp_seconds", "gauge", "Unix time that the newest final block bears.")
ROUND = Metric("psephos_consensus_round", "gauge", "Round in which the next height is being decided.")
ROUNDS = Metric("psephos_block_rounds", "histogram", "Rounds that a final block took.")
STEPS = Metric(
    "psephos_consensus_step_seconds",
    "histogram",
    "Time in one step: waiting (for a proposal, idle time included), proposed (for a quorum to prepare), "
    "prepared (for its seals), decided (for the disk).",
    ("step",),
)
FINALITY = Metric("psephos_finality_seconds", "histogram", "From a height's first proposal to its block on this disk.")
TRANSACTIONS = Metric("psephos_transactions_total", "counter", "Transactions in final blocks.", ("result",))
BALLOTS = Metric("psephos_ballots_total", "counter", "Ballots in final blocks since this node started.", ("outcome",))
STORED_BALLOTS = Metric("psephos_stored_ballots", "gauge", "Ballots in all elections.")
STORED_ANCHORS = Metric("psephos_stored_anchors", "gauge", "Anchors in their log.")
ANCHORS_FINAL = Metric("psephos_anchors_total", "counter", "Anchors in final blocks since this node started.")
PROPOSALS = Metric("psephos_validator_proposals_total", "counter", "Final blocks by who made them.", ("validator",))
MISSING = Metric(
    "psephos_validator_missing_seals_total",
    "counter",
    "Final blocks whose certificate, as kept here, lacks a validator's seal; a quorum suffices: slow ones miss some.",
    ("validator",),
)
SILENT = Metric(
    "psephos_validator_silent_seconds", "gauge", "Since a validator's last consensus message came.", ("validator",)
)
VALIDATORS = Metric("psephos_validators", "gauge", "Validators that decide the next height.")
QUORUM = Metric("psephos_quorum", "gauge", "How many of them are needed.")
REACH = Metric("psephos_validators_within_reach", "gauge", "How many of them are connected, this node included.")
SIGNS = Metric("psephos_signs", "gauge", "1 while this node may sign at the next height.")
GUARD_LOST = Metric("psephos_guard_lost", "gauge", "1 while the sign guard counts as lost.")
EVIDENCE = Metric("psephos_equivocations_total", "counter", "Validators caught signing two things at one step.")
BEHIND = Metric("psephos_behind_blocks", "gauge", "How many blocks this node knows that it lacks.")
PEERS = Metric("psephos_peers", "gauge", "Open sessions with peers.", ("direction",))
ROUND_TRIP = Metric("psephos_peer_round_trip_seconds", "gauge", "Of the last ping that a peer answered.", ("peer",))
PEER_BYTES = Metric("psephos_peer_bytes", "gauge", "Bytes over a peer's present session.", ("peer", "direction"))
DROPPED = Metric("psephos_inbox_dropped_total", "counter", "Messages of peers for which there was no room.")
MEMPOOL = Metric(
    "psephos_mempool_transactions", "gauge", "Transactions that wait; queued ones for an earlier nonce.", ("state",)
)
MEMPOOL_BYTES = Metric("psephos_mempool_bytes", "gauge", "Bytes of the transactions that wait.")
SYNCS = Metric("psephos_disk_sync_seconds", "histogram", "Time to write and sync to disk.", ("what",))
DATABASE = Metric("psephos_leveldb_bytes", "gauge", "Bytes on disk by kind of entry, estimated.", ("entries",))
FILES = Metric("psephos_leveldb_files_bytes", "gauge", "Bytes of all of LevelDB's files.")
RPC = Metric(
    "psephos_rpc_seconds", "histogram", "Time to answer a JSON-RPC call; poa_getBlocks waits on purpose.", ("method",)
)
RPC_FAILED = Metric("psephos_rpc_failed_total", "counter", "JSON-RPC calls answered with an error.", ("method",))

METRICS = (
    *COMMON, HEIGHT, HEAD_TIME, ROUND, ROUNDS, STEPS, FINALITY, TRANSACTIONS, BALLOTS, STORED_BALLOTS, STORED_ANCHORS,
    ANCHORS_FINAL, PROPOSALS, MISSING, SILENT, VALIDATORS, QUORUM, REACH, SIGNS, GUARD_LOST, EVIDENCE, BEHIND, PEERS,
    ROUND_TRIP, PEER_BYTES, DROPPED, MEMPOOL, MEMPOOL_BYTES, SYNCS, DATABASE, FILES, RPC, RPC_FAILED,
)  # fmt: skip


def count_ballots(receipts: Sequence[Receipt]) -> tuple[Counter[str], int]:
    """Ballots by outcome, and anchors, in the receipts of one block; a few operations a batch, none a ballot."""
    outcomes: Counter[str] = Counter()
    anchored = 0
    for receipt in receipts:
        for event in receipt.event_logs:
            if event.address == ELECTIONS and event.topics[0] == BALLOTS_CAST:
                length = int.from_bytes(event.data[_OUTCOMES_AT - 32 : _OUTCOMES_AT], "big")
                codes = event.data[_OUTCOMES_AT : _OUTCOMES_AT + length]
                for outcome in Outcome:
                    if count := codes.count(outcome):
                        outcomes[outcome.name.lower()] += count
            elif event.address == ANCHORS and event.topics[0] == ANCHORED:
                anchored += 1
    return outcomes, anchored


class NodeMetrics:
    """Counts and times since this process started.

    Args:
        now_s: monotonic seconds.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.calls = Calls()
        self.syncs = Distributions()
        self.equivocations = 0
        self.inbox_dropped = 0
        self._now_s = now_s
        self._steps = Distributions()
        self._finality = Distribution()
        self._rounds = Distribution(_ROUND_BOUNDS)
        self._transactions: Counter[str] = Counter(succeeded=0, failed=0)
        self._ballots: Counter[str] = Counter({outcome.name.lower(): 0 for outcome in Outcome})
        self._anchors = 0
        self._proposals: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._height = -1
        self._step = ""
        self._step_at_s = 0.0
        self._proposed_at_s: float | None = None  # when this height was first seen to have a proposal
        self._stored: RecordCounts | None = None

    def progressed(self, height: int, step: str) -> None:
        """Consensus has come to another height, round or step."""
        now_s = self._now_s()
        if self._step and height >= self._height:
            self._steps.observe(self._step, now_s - self._step_at_s)
        if height != self._height:
            if self._proposed_at_s is not None and height == self._height + 1:
                self._finality.observe(now_s - self._proposed_at_s)
            self._height, self._proposed_at_s = height, None
        if step != "waiting" and self._proposed_at_s is None:
            self._proposed_at_s = now_s
        self._step, self._step_at_s = step, now_s

    def since_proposed_s(self, height: int) -> float | None:
        """Seconds since the first proposal of the height that is being decided; None where it was fetched instead."""
        if height != self._height or self._proposed_at_s is None:
            return None
        return self._now_s() - self._proposed_at_s

    def finalised(self, executed: Executed, certificate: Certificate, missing: Sequence[bytes]) -> tuple[int, int]:
        """A block is final here; `missing` are the validators whose seal its certificate lacks.

        Returns how many ballots and anchors it holds, whatever became of them.
        """
        block = executed.block
        self._rounds.observe(certificate.round + 1)
        self._proposals["0x" + block.header.miner.hex()] += 1
        for validator in missing:
            self._missing["0x" + validator.hex()] += 1
        failed = sum(not receipt.succeeded for receipt in executed.receipts)
        self._transactions["succeeded"] += len(executed.receipts) - failed
        self._transactions["failed"] += failed
        if block.header.logs_bloom == EMPTY_BLOOM:
            return 0, 0
        outcomes, anchored = count_ballots(executed.receipts)
        self._ballots += outcomes
        self._anchors += anchored
        return outcomes.total(), anchored

    async def fill(self, page: Page, node: NodePort, peers: Sequence[PeerInfo], database: LevelDB) -> None:
        """Put everything on a page."""
        chain, head = node.chain, node.chain.head
        page.put(INFO, 1, node.client_version.split("/")[1], "node", node.name, "0x" + node.address.hex())
        page.put(HEIGHT, head.number)
        page.put(HEAD_TIME, head.timestamp)
        self._fill_consensus(page, node, peers)
        self._fill_mempool(page, node)
        page.put_counts(TRANSACTIONS, self._transactions)
        page.put_counts(BALLOTS, {outcome.name.lower(): self._ballots[outcome.name.lower()] for outcome in Outcome})
        page.put(ANCHORS_FINAL, self._anchors)
        page.put_distributions(SYNCS, self.syncs)
        page.put_distributions(RPC, self.calls.seconds)
        page.put_counts(RPC_FAILED, {name: self.calls.failed[name] for name, _ in self.calls.seconds})
        if self._stored is None:
            self._stored = RecordCounts(chain)
        page.put(STORED_BALLOTS, await self._stored.ballots())
        page.put(STORED_ANCHORS, self._stored.anchors())
        sizes, files_bytes = await asyncio.to_thread(_sizes, database)
        for entries, size in sizes.items():
            page.put(DATABASE, size, entries)
        page.put(FILES, files_bytes)
        page.put(DISK_FREE, disk_free_bytes(database.path), "chain")

    def _fill_consensus(self, page: Page, node: NodePort, peers: Sequence[PeerInfo]) -> None:
        status, now_ms = node.consensus(), int(self._now_s() * 1000)
        validators = status.validators
        page.put(ROUND, status.round)
        page.put_distribution(ROUNDS, self._rounds)
        page.put_distributions(STEPS, self._steps)
        page.put_distribution(FINALITY, self._finality)
        page.put(VALIDATORS, len(validators))
        page.put(QUORUM, node.chain.quorum(status.height))
        within_reach = {peer.address for peer in peers} | {node.address}
        page.put(REACH, len(within_reach.intersection(validators)))
        page.put(SIGNS, int(status.signs))
        page.put(GUARD_LOST, int(status.guard_lost))
        page.put(EVIDENCE, self.equivocations)
        syncing = node.syncing()
        page.put(BEHIND, syncing.highest - syncing.current if syncing else 0)
        for validator in validators:
            name = "0x" + validator.hex()
            page.put(PROPOSALS, self._proposals[name], name)
            page.put(MISSING, self._missing[name], name)
            heard_ms = status.heard_ms.get(validator)
            if validator != node.address and heard_ms is not None:
                page.put(SILENT, max(0, now_ms - heard_ms) / 1000, name)
        for direction in ("in", "out"):
            page.put(PEERS, sum(peer.direction == direction for peer in peers), direction)
        for peer in peers:
            name = "0x" + peer.address.hex()
            if peer.round_trip_ms is not None:
                page.put(ROUND_TRIP, peer.round_trip_ms / 1000, name)
            page.put(PEER_BYTES, peer.bytes_received, name, "in")
            page.put(PEER_BYTES, peer.bytes_sent, name, "out")
        page.put(DROPPED, self.inbox_dropped)

    def _fill_mempool(self, page: Page, node: NodePort) -> None:
        ready = node.mempool.ready_count
        page.put(MEMPOOL, ready, "pending")
        page.put(MEMPOOL, len(node.mempool) - ready, "queued")
        page.put(MEMPOOL_BYTES, node.mempool.bytes_count)


def _sizes(database: LevelDB) -> tuple[dict[str, int], int]:
    ranges = {name: (prefix, bytes((prefix[0] + 1,))) for name, prefix in KEY_CLASSES.items()}
    return database.approximate_bytes(ranges), database.files_bytes()
