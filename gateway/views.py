"""Records, tallies and checks as callers see them, over HTTP and through the client library alike."""

import re
from typing import Any

from gateway.audit import Audit
from gateway.book import Item
from gateway.core import Core
from gateway.elections import Result, state_name
from gateway.journal_format import Place
from gateway.models import show_election_id
from gateway.problems import key_mismatch
from gateway.records import Ballot
from gateway.shown import shown_time
from gateway.validators import Pool, Validator
from node.chain.contracts.elections import ElectionState

UNKNOWN = (
    "No ballot of this election stands under this id. One that was equal to its voter's first ballot and came under "
    "another id stands under the first one's: sent again, it is answered with that record."
)
_NOWHERE = dict.fromkeys(("transaction_hash", "block_number", "block_hash", "ballot_index"))
_SEALED_ONLY = 2
_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


def record_shown(record: object, place: Place | None, index: int) -> dict[str, Any]:
    """Where a ballot is, without what it says."""
    record_id = "0x" + record.record_id.hex() if isinstance(record, Ballot) else None
    if place is None:
        return {"record_id": record_id, **_NOWHERE}
    return {
        "record_id": record_id,
        "transaction_hash": "0x" + place.transaction_hash.hex(),
        "block_number": place.block_number,
        "block_hash": "0x" + place.block_hash.hex(),
        "ballot_index": index,
    }


def taken(item: Item, election: int, transaction_id: str) -> dict[str, Any]:
    """A ballot that is kept: pending, or confirmed."""
    return {
        "status": "pending" if item.place is None else "confirmed",
        "transaction_id": transaction_id,
        "election_id": show_election_id(election),
        **record_shown(item.record, item.place, item.index),
        "validator": item.taken_by,
    }


def confirmations(core: Core, height: int) -> int:
    """Final blocks from this one on."""
    return max(core.follower.head.header.number - height + 1, 1)


def item_status(core: Core, item: Item, shown: dict[str, Any]) -> dict[str, Any]:
    """What became of a ballot that went through here."""
    shown |= record_shown(item.record, item.place, item.index)
    if item.place is not None:
        since = confirmations(core, item.place.block_number)
        return {"status": "confirmed", **shown, "source": "poa", "confirmations": since}
    if item.reason is not None:
        return {"status": "rejected", **shown, "reason": item.reason, "source": "poa", "confirmations": 0}
    return {"status": "pending", **shown, "source": "journal", "confirmations": 0, "level": core.level()}


def _record_ids(core: Core, election: int, transaction_id: str) -> list[bytes]:
    """The record ids that a name may stand for: that of a transaction id, and itself."""
    own = core.elections.key(election).record_id(transaction_id)
    return [own, bytes.fromhex(transaction_id[2:])] if _HASH.fullmatch(transaction_id) else [own]


def kept_status(core: Core, election: int, transaction_id: str, shown: dict[str, Any]) -> dict[str, Any] | None:
    """What became of a ballot that went through here; None where it is not remembered. Raises InvalidId."""
    for record_id in _record_ids(core, election, transaction_id):
        item = core.book.by_alias(record_id)
        if item is not None and item.durable and isinstance(item.record, Ballot) and item.record.election == election:
            return item_status(core, item, shown)
    return None


async def chain_status(core: Core, election: int, transaction_id: str, shown: dict[str, Any]) -> dict[str, Any]:
    """What a quorum knows of a ballot by its transaction id; its record id is taken for one, too.

    Raises InvalidId; NoValidator; Problem 409 where this gateway has not the election's key, so that a transaction id
    means nothing to it.
    """
    definition = await core.elections.get(election)
    fits = definition is None or core.elections.key_fits(definition)
    record_ids = _record_ids(core, election, transaction_id)
    for record_id in record_ids if fits else record_ids[1:]:
        standing = await core.chain.ballot(election, record_id=record_id, sure=True)
        if standing is not None:
            shown |= record_shown(standing.record, standing.place, standing.index)
            since = confirmations(core, standing.place.block_number)
            return {"status": "confirmed", **shown, "source": "poa", "confirmations": since}
    if not fits:
        raise key_mismatch()
    return {"status": "unknown", **shown, "reason": UNKNOWN, "source": "poa", "confirmations": 0}


def results_shown(result: Result, waiting: int) -> dict[str, Any]:
    """A tally. What waits is counted apart."""
    election, tally = result.election, result.tally
    opened = sum(tally.counts)
    return {
        "election_id": show_election_id(election.id),
        "title": election.title,
        "state": state_name(election),
        "results": [
            {
                "option": number,
                "name": name,
                "count": count,
                "percentage": round(100 * count / opened, 2) if opened else 0.0,
            }
            for number, (name, count) in enumerate(zip(election.options, tally.counts, strict=True))
        ],
        "open_count": opened,
        "sealed_count": tally.sealed_count,
        "sealed": election.kinds == _SEALED_ONLY,
        "total": opened + tally.sealed_count,
        "pending": waiting,
        "preliminary": election.state not in (ElectionState.CLOSED, ElectionState.CANCELLED),
        "as_of_block": tally.block_number,
        "block_number": tally.block_number,
        "block_hash": "0x" + tally.block_hash.hex(),
        "source": "poa" if result.fresh else "journal",
        "stale": not result.fresh,
        "verified": True,
    }


def audit_shown(audit: Audit) -> dict[str, Any]:
    """How far a check is, and what it found."""
    return {
        "job_id": audit.id,
        "election_id": show_election_id(audit.election),
        "status": audit.status,
        "valid": audit.valid,
        "checks": audit.checks,
        "error": audit.fault,
        "blocks_checked": audit.height,
        "blocks_total": audit.target,
        "progress": round(audit.height / audit.target, 4) if audit.target else 1.0,
        "ballots_counted": audit.ballots,
        "results": audit.counts,
        "sealed_count": audit.sealed_count,
        "block_hash": "0x" + audit.block_hash.hex() if audit.block_hash else None,
        "validators": audit.validators,
        "distrusted": audit.distrusted,
        "source": "poa",
        "started_at": shown_time(audit.started_at.timestamp()),
    }


def validators_shown(pool: Pool) -> list[dict[str, Any]]:
    """Every validator of the pool."""
    best = pool.best_height()
    return [_validator(validator, best) for validator in pool.validators]


def _validator(validator: Validator, best_height: int) -> dict[str, Any]:
    seen = validator.height >= 0
    return {
        "node_id": validator.node.node_id,
        "rpc_url": validator.node.rpc_url,
        "p2p_url": validator.node.p2p_url,
        "status": validator.status.value,
        "height": validator.height if seen else None,
        "lag": max(best_height - validator.height, 0) if seen else None,
        "latency_ms": None if validator.latency_ms is None else round(validator.latency_ms, 2),
        "last_error": validator.last_error,
        "last_seen_at": None if validator.last_seen_at is None else shown_time(validator.last_seen_at),
        "address": "0x" + validator.address.hex() if validator.address else None,
    }
