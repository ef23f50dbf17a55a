"""Reads what a stopped validator keeps in its LevelDB, proves it from the blocks alone, and hands it to the checker."""

from dataclasses import dataclass, field
from pathlib import Path

from cluster.history import Ballot, Disk
from cluster.records import read_cast
from merkle import log
from node.chain.block import Block, Header
from node.chain.contracts import ballots
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import log_slots, read_election
from node.chain.errors import LedgerError, PeerError
from node.chain.genesis import Genesis, build_genesis, domain_of
from node.chain.receipt import Receipt
from node.chain.state import State
from node.consensus.certificate import verify_certificate
from node.leveldb import DatabaseError, LevelDB
from node.recordindex import RecordIndex
from node.store import Store

_FAULTS_MAX = 20


@dataclass(slots=True)
class _Reading:
    """One pass over the chain: what was found so far."""

    store: Store
    genesis: Genesis
    election: int
    hashes: list[bytes] = field(default_factory=list)
    ballots: list[Ballot] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < _FAULTS_MAX:
            self.faults.append(text)


def read_disk(name: str, folder: Path, genesis: Genesis, election: int) -> Disk:
    """The chain in the LevelDB `folder` of the validator `name`, which must not run, and the ballots of one election.

    Every certificate, every link from block to block and the log's root are checked on the way; what is wrong with
    them stands in the answer's `faults`.
    """
    try:
        database = LevelDB(folder)
    except DatabaseError as error:
        return Disk(name, (), (), (), (str(error),))
    try:
        return _read(name, _Reading(Store(database), genesis, election))
    except (LedgerError, PeerError) as error:
        return Disk(name, (), (), (), (f"the chain cannot be read: {error}",))
    finally:
        database.close()


def _read(name: str, reading: _Reading) -> Disk:
    store = reading.store
    parent: Header | None = None
    for height in range(store.head_height() + 1):
        block, receipts = store.block(height), store.receipts(height)
        if block is None or receipts is None:
            reading.fault(f"block {height} is missing below the head")
            break
        _check_block(reading, block, parent)
        _take_ballots(reading, block, receipts)
        reading.hashes.append(block.hash)
        parent = block.header
    counts = _check_log(reading, parent) if parent is not None else ()
    return Disk(name, tuple(reading.hashes), tuple(reading.ballots), counts, tuple(reading.faults))


def _check_block(reading: _Reading, block: Block, parent: Header | None) -> None:
    """Its place in the chain, its indexes and its certificate."""
    height, store = block.number, reading.store
    if store.height_of(block.hash) != height:
        reading.fault(f"block {height} is not found by its hash")
    if parent is None:
        if block.hash != build_genesis(reading.genesis).block.hash:
            reading.fault("block 0 is another network's")
        return
    if block.header.parent_hash != parent.hash or height != parent.number + 1:
        reading.fault(f"block {height} does not follow block {parent.number}")
    certificate = store.certificate(height)
    if certificate is None:
        reading.fault(f"block {height} has no certificate")
        return
    try:
        verify_certificate(certificate, block.header, store.validators(height), domain_of(reading.genesis))
    except PeerError as error:
        reading.fault(f"block {height}: {error}")


def _take_ballots(reading: _Reading, block: Block, receipts: tuple[Receipt, ...]) -> None:
    """The accepted ballots of a block, from calldata and the outcomes in the event; the log is not looked at."""
    for index, (transaction, receipt) in enumerate(zip(block.transactions, receipts, strict=True)):
        if reading.store.locate(transaction.hash) != (block.number, index):
            reading.fault(f"transaction 0x{transaction.hash.hex()} of block {block.number} is not found by its hash")
        try:
            cast = read_cast(transaction, receipt)
        except LedgerError as error:
            reading.fault(f"block {block.number}: {error}")
            continue
        if cast is None or cast.election != reading.election:
            continue
        if cast.first_index != len(reading.ballots):
            reading.fault(f"block {block.number}: ballots from {cast.first_index}, expected {len(reading.ballots)}")
        for record, outcome in zip(cast.records, cast.outcomes, strict=True):
            if outcome is ballots.Outcome.ACCEPTED:
                found = Ballot(record.nullifier, record.record_id, record.content, block.number, transaction.hash)
                reading.ballots.append(found)


def _check_log(reading: _Reading, head: Header) -> tuple[int, ...]:
    """Compare the election's flat log with the ballots of the blocks; returns the contract's tally."""
    ids = RecordIndex(reading.store.database)
    for _ in ids.fill():  # else each ballot would be looked for in every run; this finds damaged ones, too
        pass
    state = State(ids, head.state_root)
    election = read_election(state, reading.election)
    if election is None:
        reading.fault(f"there is no election {reading.election}")
        return ()
    size_slot, root_slot = log_slots(election.id)
    size, root = state.storage(ELECTIONS, size_slot), state.storage(ELECTIONS, root_slot)
    if size != len(reading.ballots):
        reading.fault(f"the log has {size} ballots, the blocks have {len(reading.ballots)}")
    prefix = ballots.leaf_prefix(domain_of(reading.genesis), election.id)
    leaves = []
    for index, ballot in enumerate(reading.ballots):
        stored = ballots.ballot_by_nullifier(state, election, ballot.nullifier)
        if stored != (index, ballot.nullifier, ballot.record_id, 0, ballot.content, ballot.block_number):
            reading.fault(f"ballot {index} is not in the log as in block {ballot.block_number}")
        record = ballots.pack_record(ballot.nullifier, ballot.record_id, 0, ballot.content)
        leaves.append(log.leaf_hash(prefix + record))
    if leaves and log.root(leaves) != root.to_bytes(32, "big"):
        reading.fault("the log's root is not that of its ballots")
    return tuple(ballots.read_tally(state, election).counts)
