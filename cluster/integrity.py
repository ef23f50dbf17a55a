"""Proves a stopped node's database from its blocks alone: executes them all anew, and compares what that makes."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.offline import Offline
from cluster.records import read_cast
from node.chain import keyspace
from node.chain.block import Block, decode_header
from node.chain.contracts import ballots, elections
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.layout import data_slot
from node.chain.errors import LedgerError, PeerError
from node.chain.outcome import Executed
from node.chain.state import State
from node.chain.transaction import decode_transaction
from node.consensus.certificate import verify_certificate
from node.ledger import Ledger
from node.leveldb import LevelDB
from node.pruning import kept_nodes, oldest_state
from node.store import KEY_CLASSES

FAULTS_MAX = 20
SEALED = -1  # stands for the option of a sealed ballot
_NOT_MADE_BY_BLOCKS = ("evidence",)
PRUNING_KEYS = (keyspace.META + b"oldest state", keyspace.META + b"sweeping")  # what a pruned node notes of itself


@dataclass(slots=True)
class Verdict:
    """What was checked, what could not be, and what is wrong (the first FAULTS_MAX of it).

    `oldest_state`: a pruned node's states of lower heights were not compared, since `forgotten` of their trie nodes
    are not there. Each block's state root was checked all the same, by executing it.
    """

    blocks: int = 0
    transactions: int = 0
    ballots: int = 0
    entries: int = 0
    oldest_state: int = 0
    forgotten: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Note what is wrong."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)


Advance = Callable[[str, int, int], None]  # what is done, how far it is, how far it goes


def verify(node: Offline, scratch: Path | None, advance: Advance) -> Verdict:
    """Check a chain from genesis on: links, certificates, every root by execution, indexes, logs, and tallies.

    Signatures are recovered anew, every block is executed on an empty database in a folder below `scratch` (the
    system's temporary one when None; it takes as much room as the chain), and in the end both databases must hold the
    same keys and values. Tallies are counted a second time from calldata and events, without the contract's code.
    """
    verdict = Verdict()
    counted: dict[int, Counter[int]] = {}
    with tempfile.TemporaryDirectory(prefix="psephos-", dir=scratch) as folder:
        anew = LevelDB(Path(folder))
        try:
            ledger = Ledger(anew, node.genesis, node.overrides)
            head = node.store.head_height()
            for height in range(1, head + 1):
                if not _verify_block(node, ledger, anew, height, verdict, counted):
                    return verdict
                advance("executing blocks", height, head)
            _compare_tallies(ledger, counted, verdict)
            verdict.oldest_state = oldest_state(node.database)
            _compare(node.database, anew, verdict, advance)
            if verdict.holds and verdict.oldest_state:
                _check_kept_states(node.database, ledger, verdict)
        finally:
            anew.close()
    return verdict


def _verify_block(
    node: Offline, ledger: Ledger, anew: LevelDB, height: int, verdict: Verdict, counted: dict[int, Counter[int]]
) -> bool:
    """Check one block on its parent, and make it the head of the new database; False when it cannot be."""
    encoded, certificate = node.store.encoded_block(height), node.store.certificate(height)
    if encoded is None or certificate is None:
        verdict.fault(f"block {height} {'has no certificate' if encoded else 'is missing below the head'}")
        return False
    header, raws = encoded
    try:
        block = Block(decode_header(header), tuple(map(decode_transaction, raws)))
        verify_certificate(certificate, block.header, ledger.next_validators, ledger.domain)
        executed = ledger.execute(block)
        _count(executed, verdict, counted)
    except (PeerError, LedgerError) as error:
        verdict.fault(f"block {height}: {error}")
        return False
    anew.write(ledger.writes_of(executed, certificate), synced=False)
    ledger.advance(executed)
    verdict.blocks += 1
    verdict.transactions += len(raws)
    return True


def _count(executed: Executed, verdict: Verdict, counted: dict[int, Counter[int]]) -> None:
    """Count the accepted ballots of a block as anyone would who reads calldata and events."""
    for transaction, receipt in zip(executed.block.transactions, executed.receipts, strict=True):
        cast = read_cast(transaction, receipt)
        if cast is None:
            continue
        tally = counted.setdefault(cast.election, Counter())
        if cast.first_index != tally.total():
            verdict.fault(f"election {cast.election}: ballot {cast.first_index} follows {tally.total()} ballots")
        for record, outcome in zip(cast.records, cast.outcomes, strict=True):
            if outcome is ballots.Outcome.ACCEPTED:
                tally[record.content[0] if record.kind == elections.KIND_OPEN else SEALED] += 1
                verdict.ballots += 1


def _compare_tallies(ledger: Ledger, counted: dict[int, Counter[int]], verdict: Verdict) -> None:
    state = ledger.state()
    for id_ in election_ids(state):
        election = elections.require_election(state, id_)
        tally, seen = ballots.read_tally(state, election), counted.pop(id_, Counter())
        told = [*tally.counts, tally.sealed_count]
        recounted = [*(seen[option] for option in range(len(tally.counts))), seen[SEALED]]
        if told != recounted:
            verdict.fault(f"election {id_}: the contract's tally is {told}, its ballots make {recounted}")
    for id_ in counted:
        verdict.fault(f"election {id_} has ballots, and does not exist")


def election_ids(state: State) -> Iterator[int]:
    """The ids of all elections, in the order in which they were created."""
    first = data_slot(elections.IDS_SLOT)
    for position in range(state.storage(ELECTIONS, elections.IDS_SLOT)):
        yield state.storage(ELECTIONS, first + position)


def _check_kept_states(stored: LevelDB, ledger: Ledger, verdict: Verdict) -> None:
    """A pruned node may lack old states alone: from the oldest one that it keeps on, each must be whole."""
    try:
        kept_nodes(stored, ledger)
    except LedgerError as error:
        verdict.fault(f"states from height {verdict.oldest_state} on: {error}")


def _compare(stored: LevelDB, anew: LevelDB, verdict: Verdict, advance: Advance) -> None:
    """Both databases must hold the same; what peers have signed twice is in the node's alone.

    A pruned node lacks trie nodes of old states: those that it has must be the right ones, and the others are counted.
    """
    pruned = verdict.oldest_state > 0
    for done, (name, prefix) in enumerate(KEY_CLASSES.items()):
        advance("comparing entries", done, len(KEY_CLASSES))
        if name in _NOT_MADE_BY_BLOCKS:
            continue
        end = bytes((prefix[0] + 1,))
        left, right = stored.scan(prefix, end), anew.scan(prefix, end)
        one, other = next(left, None), next(right, None)
        while one is not None or other is not None:
            verdict.entries += 1
            if one == other:
                one, other = next(left, None), next(right, None)
            elif other is None or (one is not None and one[0] < other[0]):
                assert one is not None
                if one[0] not in PRUNING_KEYS:
                    verdict.fault(f"{name}: {_shown(one[0])} is stored, and no block makes it")
                one = next(left, None)
            elif one is None or other[0] < one[0]:
                if pruned and name == "state":
                    verdict.forgotten += 1
                else:
                    verdict.fault(f"{name}: {_shown(other[0])} is missing")
                other = next(right, None)
            else:
                verdict.fault(f"{name}: {_shown(one[0])} is not what the blocks make")
                one, other = next(left, None), next(right, None)
            if len(verdict.faults) >= FAULTS_MAX:
                return


def _shown(key: bytes) -> str:
    by_height = (keyspace.BLOCK, keyspace.CERTIFICATE, keyspace.RECEIPTS, keyspace.VALIDATORS)
    return f"height {int.from_bytes(key[1:], 'big')}" if key[:1] in by_height else f"key 0x{key[1:].hex()}"
