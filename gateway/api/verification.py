"""Routes that check the chain anew for whoever asks: an election's whole chain, an anchor, a transaction."""

import asyncio
import re
from typing import Any

from aiohttp import web

from gateway import answers
from gateway.anchorage import view
from gateway.api.anchors import BATCH_PATH, batch_in
from gateway.api.common import GATEWAY, answer, read_body, wait_s
from gateway.api.operations import Operation, Parameter, Reply
from gateway.audit import Audit, Busy
from gateway.faults import not_valid
from gateway.logs import Logs
from gateway.models import VerifyChainBody, show_batch_id
from gateway.problems import Problem
from gateway.records import Anchor
from gateway.service import Gateway
from gateway.shown import shown_time
from gateway.verify import receipt_at
from gateway.views import audit_shown
from node.consensus.certificate import sealers
from node.consensus.quorum import quorum

_HASH = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
_ROOT = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)


async def verify_chain(request: web.Request) -> web.Response:
    """Check an election's chain from block 0 on: links, certificates, roots, and a recount against the proven tally.

    A check that takes longer than the caller waits is answered with 202 and the URL that shows its progress.
    """
    gateway = request.app[GATEWAY]
    body = await read_body(request, VerifyChainBody)
    election = await gateway.elections.get(body.election_id, fresh=True)
    if election is None:
        raise Problem(404, "unknown-election", f"There is no election {body.election_id}.")
    tally = await gateway.chain.tally(election)
    try:
        audit = gateway.auditor.start(election, tally)
    except Busy as busy:
        raise Problem(503, "busy", f"{busy}; try again later.") from None
    try:
        async with asyncio.timeout(wait_s(request, gateway)):
            await audit.done.wait()
    except TimeoutError:
        return answer(_audit(audit), 202, {"Location": _progress_url(audit)})
    return answer(_audit(audit))


async def verify_chain_progress(request: web.Request) -> web.Response:
    """How far a check is, or what it found."""
    audit = request.app[GATEWAY].auditor.get(request.match_info["job_id"])
    if audit is None:
        raise Problem(404, "unknown-job", "There is no such check: the last ones are kept, and none across a restart.")
    return answer(_audit(audit))


def _progress_url(audit: Audit) -> str:
    return f"/api/votes/verify-blockchain/{audit.id}"


def _audit(audit: Audit) -> dict[str, Any]:
    return audit_shown(audit) | {"progress_url": _progress_url(audit)}


async def verify_anchor(request: web.Request) -> web.Response:
    """Check an anchor anew: the root on the chain against the recorded one, its block's certificate, its proof."""
    gateway = request.app[GATEWAY]
    batch_id = gateway.anchorage.batch_id(batch_in(request, "batch_id"))
    item = gateway.book.anchor(batch_id)
    recorded = item.record if item is not None and isinstance(item.record, Anchor) else None
    wanted = _wanted_root(request)
    waits = item is not None and item.durable and item.pending
    # One that the chain refused has lost to another root: that one is compared.
    standing = None if waits else await gateway.chain.anchor(batch_id, sure=True)
    if standing is None or not isinstance(standing.record, Anchor):
        if item is not None and item.durable and recorded is not None:
            shown = view(gateway.domain.chain_id, recorded, item, None)
            return answer(shown | _verdict(None, f"The anchor is {shown['status']}: it is in no final block."))
        raise Problem(404, "unknown-anchor", f"There is no anchor of batch {show_batch_id(batch_id)}.")
    logs = Logs(gateway.pool, gateway.follower, gateway.chain, gateway.domain)
    receipt = await logs.receipt(standing)  # raises where any part of it does not hold
    root = standing.record.merkle_root
    compared = [other for other in (None if recorded is None else recorded.merkle_root, wanted) if other is not None]
    fits = all(other == root for other in compared) if compared else None
    reason = "The Merkle root on the chain is another one." if fits is False else None
    verdict = _verdict(fits, reason) | {
        "block_hash": "0x" + standing.place.block_hash.hex(),
        "log_index": receipt.index,
        "log_size": receipt.head.size,
    }
    verdict["valid"] = fits is not False
    verdict["checks"] |= {"certificate": True, "proof": True}
    return answer(view(gateway.domain.chain_id, standing.record, item, standing) | verdict)


def _verdict(root_fits: bool | None, reason: str | None) -> dict[str, Any]:
    checks = {"merkle_root": root_fits, "certificate": False, "proof": False}
    nowhere = {"block_hash": None, "log_index": None, "log_size": None}
    return {"valid": False, "reason": reason, "checks": checks, **nowhere}


def _wanted_root(request: web.Request) -> bytes | None:
    text = request.query.get("merkle_root")
    if text is None:
        return None
    if not _ROOT.fullmatch(text):
        raise not_valid("merkle_root", text, "64 hex digits")
    return bytes.fromhex(text.removeprefix("0x"))


async def verify_transaction(request: web.Request) -> web.Response:
    """Whether a transaction is in a final block, where, and by whose certificate. Unknown ones are not valid."""
    gateway = request.app[GATEWAY]
    text = request.match_info["tx_id"]
    if not _HASH.fullmatch(text):
        raise not_valid("tx_id", text, "a transaction's hash: 64 hex digits, with or without 0x")
    transaction_hash = bytes.fromhex(text.removeprefix("0x"))
    located = await gateway.chain.located(transaction_hash)
    if located is None:
        return answer(_not_final(gateway, transaction_hash))
    block, position = located
    receipt, _ = receipt_at(block, position)
    validators = gateway.follower.validators_at(block.header.number)
    signed_by = sealers(block.certificate, gateway.domain)
    return answer(
        {
            "valid": True,
            "final": True,
            "reason": None,
            "transaction_id": "0x" + transaction_hash.hex(),
            "succeeded": receipt.succeeded,
            "block_number": block.header.number,
            "block_hash": "0x" + block.header.hash.hex(),
            "transaction_index": position,
            "timestamp": shown_time(block.header.timestamp),
            "confirmations": max(gateway.follower.head.header.number - block.header.number + 1, 1),
            "certificate": {
                "round": block.certificate.round,
                "validators": ["0x" + address.hex() for address in signed_by],
                "quorum": quorum(len(validators)),
            },
        }
    )


def _not_final(gateway: Gateway, transaction_hash: bytes) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("succeeded", "block_number", "block_hash", "transaction_index", "timestamp", "certificate"), None
    )
    return {
        "valid": False,
        "final": False,
        "reason": "A quorum of validators knows no final block with this transaction.",
        "transaction_id": "0x" + transaction_hash.hex(),
        "confirmations": 0,
        **nothing,
    }


_RUNNING: dict[str, Any] = {
    "status": "running",
    "valid": None,
    "checks": {},
    "blocks_checked": 640,
    "progress": 0.5302,
    "ballots_counted": 0,
    "results": [],
    "block_hash": None,
}

OPERATIONS = (
    Operation(
        "POST",
        "/api/votes/verify-blockchain",
        verify_chain,
        "read",
        "votes",
        {
            200: Reply(answers.ChainCheck, "What the check found."),
            202: Reply(answers.ChainCheck, "It goes on: see `progress_url`.", _RUNNING),
        },
        (400, 404, 408, 413, 422, 503),
        VerifyChainBody,
        {"election_id": 1},
        waits=True,
    ),
    Operation(
        "GET",
        "/api/votes/verify-blockchain/{job_id}",
        verify_chain_progress,
        "read",
        "votes",
        {200: Reply(answers.ChainCheck, "How far it is.", _RUNNING)},
        (404,),
        parameters=(
            Parameter(
                "job_id",
                {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[0-9a-zA-Z-]+$"},
                "0f8e7d6c-5b4a-4f3e-8d2c-1b0a9f8e7d6c",
                "the check",
                required=True,
                where="path",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/verify/{batch_id}",
        verify_anchor,
        "read",
        "anchors",
        {200: Reply(answers.AnchorVerification, "What was checked, and whether it holds.")},
        (404, 422, 503),
        parameters=(
            BATCH_PATH,
            Parameter(
                "merkle_root",
                {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
                answers.ROOT,
                "a root to compare with the one on the chain",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/verify/transaction/{tx_id}",
        verify_transaction,
        "read",
        "anchors",
        {200: Reply(answers.TransactionVerification, "Whether it is final, and where.")},
        (422, 503),
        parameters=(
            Parameter(
                "tx_id",
                {"type": "string", "pattern": "^0x[0-9a-f]{64}$"},
                answers.HASH,
                "the transaction's hash",
                required=True,
                where="path",
            ),
        ),
    ),
)
