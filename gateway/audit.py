"""Checks the whole chain of an election: links, certificates, roots, and that a recount gives the proven tally."""

import asyncio
import logging
import uuid
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gateway.calls import ballots_of, read_cast
from gateway.chain import Tally
from gateway.definitions import Election
from gateway.follower import Follower
from gateway.jsonrpc import RpcError, RpcFailure
from gateway.receipt_check import leaf_data
from gateway.sets import ValidatorSets
from gateway.validators import NoValidator, Pool, Validator
from gateway.verify import FinalBlock, Head, NotProven, check_next
from merkle.log import EMPTY_ROOT, Frontier, leaf_hash
from node.chain.contracts.ballots import Outcome
from node.chain.contracts.elections import KIND_OPEN
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.receipt import decode_receipt
from node.chain.transaction import decode_transaction

log = logging.getLogger(__name__)

JOBS_MAX = 2
JOBS_KEPT = 64
CHUNK_BLOCKS = 64
PAUSE_S = 0.2
FAILURES_MAX = 20  # in a row, after which a check is given up


class Busy(RuntimeError):
    """As many checks are under way as may be."""


@dataclass(eq=False, slots=True)
class Recount:
    """An election's ballots, counted again from the transactions of checked blocks. Not shared between threads."""

    election: int
    domain: Domain
    open_counts: Counter[int] = field(default_factory=Counter)
    sealed_count: int = 0
    log: Frontier = field(default_factory=Frontier)

    def add(self, block: FinalBlock) -> None:
        """Count the ballots that a checked block accepts."""
        number = self.election.to_bytes(32, "big")
        for position, raw in enumerate(block.transactions):
            if number not in raw:
                continue
            receipt = decode_receipt(block.receipts[position])
            cast = read_cast(receipt) if receipt.succeeded else None
            if cast is None or cast.election != self.election:
                continue
            transaction = decode_transaction(raw)
            for ballot, outcome in zip(ballots_of(transaction.to, transaction.data), cast.outcomes, strict=True):
                if outcome != Outcome.ACCEPTED:
                    continue
                if ballot.kind == KIND_OPEN:
                    self.open_counts[ballot.content[0]] += 1
                else:
                    self.sealed_count += 1
                self.log.append(leaf_hash(leaf_data(self.domain, ballot)))

    @property
    def root(self) -> bytes:
        """The root that the election's log must have."""
        return self.log.root() if self.log.size else EMPTY_ROOT


@dataclass(eq=False, slots=True)
class Audit:
    """One check and how far it is. `checks` holds what has been found, by name; `fault` what does not hold."""

    id: str
    election: int
    target: int  # height
    height: int = 0
    status: str = "running"  # running, complete, or failed: nobody could be asked
    checks: dict[str, bool] = field(default_factory=dict)
    fault: str | None = None
    validators: list[str] = field(default_factory=list)  # whose blocks were checked
    distrusted: dict[str, str] = field(default_factory=dict)  # who served what does not check, and what
    ballots: int = 0
    counts: list[int] = field(default_factory=list)
    sealed_count: int = 0
    block_hash: bytes = b""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def valid(self) -> bool | None:
        """None while it is not known."""
        if self.status != "complete":
            return None
        return all(self.checks.values())


class Auditor:
    """Runs checks, few at a time, and keeps the last ones."""

    def __init__(self, pool: Pool, follower: Follower, domain: Domain) -> None:
        self._pool, self._follower, self._domain = pool, follower, domain
        self._audits: OrderedDict[str, Audit] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def get(self, id_: str) -> Audit | None:
        return self._audits.get(id_)

    def start(self, election: Election, tally: Tally) -> Audit:
        """Begin to check everything up to the block of a proven tally; a check of that election under way is it.

        Raises Busy.
        """
        for audit in self._audits.values():
            if audit.election == election.id and audit.status == "running":
                return audit
        if len(self._tasks) >= JOBS_MAX:
            raise Busy(f"{JOBS_MAX} checks are under way already")
        audit = Audit(str(uuid.uuid4()), election.id, tally.block_number)
        self._audits[audit.id] = audit
        while len(self._audits) > JOBS_KEPT:
            self._audits.popitem(last=False)
        task = asyncio.create_task(self._run(audit, tally), name="audit")
        self._tasks[audit.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(audit.id, None))
        return audit

    async def _run(self, audit: Audit, tally: Tally) -> None:
        try:
            recount = Recount(audit.election, self._domain)
            head = await self._walk(audit, recount)
            audit.block_hash = head.header.hash
            if head.header.number:
                audit.checks |= {"headers_linked": True, "certificates": True, "roots": True}
            audit.checks["same_chain"] = head.header.hash == tally.block_hash
            audit.counts = [recount.open_counts[option] for option in range(len(tally.counts))]
            audit.sealed_count, audit.ballots = recount.sealed_count, recount.log.size
            audit.checks["tally"] = audit.counts == list(tally.counts) and audit.sealed_count == tally.sealed_count
            audit.checks["log_root"] = recount.root == tally.log_root
            audit.status = "complete"
            failed = [name for name, holds in audit.checks.items() if not holds]
            if failed:
                audit.fault = "does not hold: " + ", ".join(failed)
        except NoValidator as error:
            audit.status, audit.fault = "failed", str(error)
        except NotProven as error:  # every validator's blocks fail a check
            audit.status, audit.fault = "complete", str(error)
            audit.checks["blocks"] = False
        except Exception:
            log.exception("the check of election %d failed", audit.election)
            audit.status, audit.fault = "failed", "the check itself failed; the gateway's log has the reason"
        finally:
            audit.done.set()

    async def _walk(self, audit: Audit, recount: Recount) -> Head:
        """Check block after block from block 0 on, from validators in turn. Raises NoValidator or NotProven."""
        first = self._follower.sets.at(1)
        head, sets = Head(self._follower.first_header, first), self._follower.sets
        failures, turn = 0, 0
        while head.header.number < audit.target:
            trusted = [one for one in self._pool.ordered() if one.node.node_id not in audit.distrusted]
            reachable = [one for one in trusted if one.reachable]
            if not trusted:
                raise NotProven("; ".join(f"{name}: {fault}" for name, fault in audit.distrusted.items()))
            validator = (reachable or trusted)[turn % len(reachable or trusted)]
            turn += 1
            count = min(CHUNK_BLOCKS, audit.target - head.header.number)
            try:
                blocks = await self._follower.blocks(validator, head.header.number + 1, count)
                if not blocks:
                    raise RpcFailure("serves no block that it has")
                head = await asyncio.to_thread(_check_all, head, blocks, sets, self._domain, recount)
            except (RpcFailure, RpcError) as error:
                failures += 1
                if failures > FAILURES_MAX:
                    raise NoValidator(f"no validator serves block {head.header.number + 1}: {error}") from None
                await asyncio.sleep(PAUSE_S)
                continue
            except PeerError as error:
                audit.distrusted[validator.node.node_id] = str(error)
                continue
            failures = 0
            audit.height = head.header.number
            self._note(audit, validator)
        return head

    def _note(self, audit: Audit, validator: Validator) -> None:
        if validator.node.node_id not in audit.validators:
            audit.validators.append(validator.node.node_id)


def _check_all(head: Head, blocks: list[FinalBlock], sets: ValidatorSets, domain: Domain, recount: Recount) -> Head:
    """Check a run of blocks, then count it: a liar's blocks must not have been counted in part."""
    for block in blocks:
        check_next(head, block, domain)
        head = Head(block.header, sets.at(block.header.number + 1))
    for block in blocks:
        recount.add(block)
    return head
