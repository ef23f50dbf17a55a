"""The mutation gate: bugs planted one at a time, each of which the simulator must catch within so many seeds."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from tests.sim.mutation import Change
from tests.sim.run import Result, run_seed
from tests.sim.workers import workers

SEEDS_MAX = 500

AGREEMENT = "node.consensus.agreement:Agreement"
ENGINE = "node.consensus.engine:Engine"
GUARD = "node.consensus.guard"
INDEX = "node.recordindex:RecordIndex"
JUSTIFICATION = "node.consensus.justification"
RUNTIME = "node.runtime:Runtime"
_COMMIT = "await self._disk.commit(self._ledger.writes_of(executed, certificate))"
_ANY_ROUND_CHANGE = Change(
    f"{GUARD}:_carries", "if prepared is None:", "if True:\n        return True\n    if prepared is None:"
)

MUTANTS: dict[str, tuple[Change, ...]] = {
    "the guard is not synced before signing": (
        Change(f"{RUNTIME}._step", "await self._disk.append_guard(ready.guard)", "pass"),
    ),
    "a block is not synced before it is shown": (Change(f"{RUNTIME}._finalise", _COMMIT, "pass"),),
    "a block is written in two batches": (
        Change(
            f"{RUNTIME}._finalise",
            _COMMIT,
            "writes = self._ledger.writes_of(executed, certificate)\n"
            "    first = {key: value for key, value in writes.items() if key[:1] == b'm'}\n"
            "    await self._disk.commit(first)\n"
            "    await self._disk.commit(writes)",
        ),
    ),
    "the prepared lock is forgotten": (
        Change(f"{AGREEMENT}._change_round", "if self.prepared is None:", "self.prepared = None\n    if True:"),
        _ANY_ROUND_CHANGE,
    ),
    "the prepared lock is forgotten at a restart": (
        Change(f"{AGREEMENT}.__init__", "self.prepared = guard.prepared", "self.prepared = None"),
        _ANY_ROUND_CHANGE,
    ),
    "the guard forgets everything at a restart": (
        Change(f"{GUARD}:GuardState._apply_signed", "self.signed[statement.kind] = statement", "pass"),
    ),
    "a lost guard counts as a new one": (Change(f"{GUARD}:create_records", "if lost:", "if False:"),),
    "a guard that is lost signs on without a floor": (
        Change(
            f"{ENGINE}._recover_guard", "guard.note_floor(head.header.number + 2, asked)", "guard.note_floor(0, asked)"
        ),
    ),
    "a torn tail is refused": (
        Change(f"{GUARD}:replay", "if position == 0 or _record_after", "if True or _record_after"),
    ),
    "a quorum is one too low": (
        Change("node.consensus.quorum:quorum", "return -(-2 * count // 3)", "return max(1, -(-2 * count // 3) - 1)"),
    ),
    "a COMMIT comes before a quorum of PREPAREs": (
        Change(f"{AGREEMENT}._commit", "if len(prepares) < self.committee.quorum:", "if False:"),
    ),
    "a COMMIT is counted from anyone, twice": (
        Change(
            f"{AGREEMENT}._decide",
            "for round_, block_hash in self._pool.quorums(Kind.COMMIT, self.committee.quorum):",
            "for round_, block_hash in self._pool.quorums(Kind.COMMIT, self.committee.tolerance + 1):",
        ),
    ),
    "a restart resumes in round 0": (
        Change(f"{AGREEMENT}.__init__", "guard.round if", "0 if"),
        Change(f"{GUARD}:GuardState.may_sign", "statement.round < round_change.round", "False"),
    ),
    "the arming rule is left out": (
        Change(
            f"{AGREEMENT}._timer_may_start",
            "if self.round > 0:",
            "if self.round > 0:\n        return True\n    if self.round > 0:",
        ),
    ),
    "the chain id is not signed": (
        Change("node.consensus.messages:Statement.digest", "rlp.encode_int(domain.chain_id),", ""),
    ),
    "the genesis hash is not signed": (Change("node.consensus.messages:Statement.digest", "domain.genesis_hash,", ""),),
    "a proposal is taken from the wrong proposer": (
        Change(f"{AGREEMENT}._receive_proposal", "if sender != self.committee.proposer(statement.round):", "if False:"),
        Change(
            f"{JUSTIFICATION}:_check_fresh",
            "if block.header.miner != committee.proposer(statement.round):",
            "if False:",
        ),
    ),
    "a proposal needs no quorum of ROUND-CHANGEs": (
        Change(
            f"{JUSTIFICATION}:Committee.signers",
            "if not self.quorum <= len(statements) <= len(self.validators):",
            "if False:",
        ),
    ),
    "a prepared certificate needs no signatures": (
        Change(f"{JUSTIFICATION}:check_prepares", "committee.signers(prepares)", "pass"),
    ),
    "the lowest prepared round is proposed again": (
        Change(f"{JUSTIFICATION}:highest_prepared", "highest = max(", "highest = min("),
    ),
    "a block may ignore what was prepared": (
        Change(f"{JUSTIFICATION}:check_proposal", "if not claims:", "if True:"),
        Change(f"{AGREEMENT}._start_proposing", "if not claims:", "if True:"),
    ),
    "certificates of fetched blocks are not checked": (
        Change("node.consensus.sync:Syncer.next_to_apply", "verify_certificate(", "(lambda *_: None)("),
    ),
    "a timestamp from a fast clock stalls the chain": (
        Change(
            f"{RUNTIME}._validate",
            "max(self._ledger.head.timestamp, self._wall_clock_s() + self._clock_drift_max_s)",
            "self._wall_clock_s() + self._clock_drift_max_s",
        ),
    ),
    "work is forgotten after a block": (
        Change("node.chain.mempool:Mempool.has_work", "return any(", "return False and any("),
    ),
    "a nullifier may be used twice": (
        Change("node.chain.contracts.ballots:_Box.put", "stored = new.get(key) or record(key)", "stored = None"),
    ),
    "a nonce may be used twice": (
        Change(
            "node.chain.processing:run_transaction", "if transaction.nonce != nonce:", "if transaction.nonce > nonce:"
        ),
        Change("node.chain.mempool:_Sender.advance", "if nonce <= self.nonce:", "if True:"),
    ),
    "the index is not told of new ballots": (
        Change("node.ledger:Ledger.advance", "self._index.add(block.number)", "pass"),
    ),
    "what is in no run of the index is forgotten at a restart": (
        Change(f"{INDEX}.__init__", "self._keep(pairs, _sorted(pairs))", "del pairs"),
    ),
    "a run of the index is not written": (Change(f"{INDEX}.pack", "writes |= self._run()", "pass"),),
    "a run whose filter is not there yet is not searched": (
        Change(f"{INDEX}.get", "key in group.filter or group.unread_count", "key in group.filter"),
    ),
    "runs of the index are made anew after a restart": (
        Change(
            f"{INDEX}.__init__", 'self._runs = int.from_bytes(state[:4], "big")', "state, self._runs = bytes(4), 0"
        ),
    ),
    "the block behind a run of the index is forgotten at a restart": (
        Change(f"{INDEX}.pack", "+ _pack(spans)", "+ _pack({} if is_run_due else spans)"),
    ),
    "runs of the index are longer on a node that was started again": (
        Change(f"{INDEX}.__init__", "self._groups = [", "self._run_keys += self._runs > 0; self._groups = ["),
    ),
    "a change of the set is ignored": (
        Change(
            "node.ledger:Ledger.advance",
            "self._choose_next(executed.next_validators)",
            "self._choose_next(self.next_validators)",
        ),
    ),
    "the set in force is not noted in the state": (
        Change("node.chain.contracts.registry:begin_block", "validators.begin_block(block.state)", "pass"),
    ),
    "half of the validators decide a change": (
        Change(
            "node.chain.contracts.proposals:needed", "// 2 + 1", "// 2 + (len(members.next_validators(state)) == 1)"
        ),
    ),
    "the removed may still vote": (
        Change(
            "node.chain.contracts.validators:_require_validator",
            "if not members.is_validator(call.block.state, call.sender):",
            "if False:",
        ),
        Change("node.chain.contracts.proposals:counts", "voter.member and", ""),
    ),
    "messages of heights to come are kept of validators alone": (
        Change(
            f"{ENGINE}._keep_future",
            "if height <= self.height + self._policy.future_heights_max:",
            "if sender in self._head.validators and height <= self.height + self._policy.future_heights_max:",
        ),
    ),
    "nobody begins the rounds after an override": (
        Change(
            f"{AGREEMENT}.resume",
            "if self.round > 0 and all(statement.round < self.round for statement in guard.signed.values()):",
            "if False:",
        ),
    ),
    "an override lets old claims bind": (
        Change(f"{JUSTIFICATION}:check_block", "if override is not None and", "if False and"),
    ),
    "the guard keeps what an override gave up": (
        Change(f"{ENGINE}._begin_override", "if guard is not None and override is not None:", "if False:"),
    ),
    "the guard is not synced when it is opened": (
        Change("tests.sim.node:Process._open_guard", "    platter.sync()\n", ""),
    ),
    "acknowledged at the mempool": (
        Change(
            "tests.sim.client:Client._submit",
            "process.submit([sent.transaction.raw], self._answered)",
            "[self._referee.acknowledge(each.nullifier, each.content) for each in sent.ballots]",
        ),
    ),
    "a nonce that is used up counts as success": (
        Change("tests.sim.client:Client._look", "process.ledger.locate(sent.transaction.hash) is None", "False"),
        Change("tests.sim.client:Client._acknowledge", "standing is None or ", "standing is None or True or "),
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Which seed caught a mutant first, and by which invariant; None: none of those tried did."""

    mutant: str
    caught: Result | None
    seeds: int


def hunt(mutant: str, seeds_max: int = SEEDS_MAX) -> Verdict:
    """Plant the bug in this process, for good, and run seeds until one fails."""
    for change in MUTANTS[mutant]:
        change.apply()
    for seed in range(seeds_max):
        result = run_seed(seed)
        if result.invariant:
            return Verdict(mutant, result, seed + 1)
    return Verdict(mutant, None, seeds_max)


def _hunt_job(job: tuple[str, int]) -> Verdict:
    return hunt(*job)


def main(names: Sequence[str] = (), seeds_max: int = SEEDS_MAX) -> int:
    """Hunt each mutant in a process of its own, list what caught it; 1 when any survives, else 0."""
    console = Console()
    jobs = [(name, seeds_max) for name in MUTANTS if not names or any(each in name for each in names)]
    survivors = 0
    with workers(len(os.sched_getaffinity(0)), tasks_each=1) as pool:
        for verdict in pool.imap_unordered(_hunt_job, jobs, chunksize=1):
            caught = verdict.caught
            survivors += caught is None
            how = "SURVIVED" if caught is None else f"seed {caught.seed:3}  {caught.invariant}"
            console.print(f"{verdict.mutant:50} {how}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(jobs) - survivors} of {len(jobs)} planted bugs caught within {seeds_max} seeds each")
    return 1 if survivors else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help=f"at most so many each (default: {SEEDS_MAX})")
    chosen = parser.parse_args()
    try:
        raise SystemExit(main(chosen.names, chosen.seeds))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
