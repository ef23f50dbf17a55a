"""Routes of the logs: heads, proofs and leaves for monitors, and receipts for those whose records they hold."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway.api.anchors import batch_in
from gateway.api.common import GATEWAY, answer, election_id_of
from gateway.chain import Standing
from gateway.faults import not_valid
from gateway.logs import LEAVES_MAX, Logs, OutOfRange, UnknownBlock, UnknownLog
from gateway.models import show_batch_id, show_election_id
from gateway.nullifier import InvalidId
from gateway.problems import Problem, key_mismatch
from gateway.receipt import Receipt, head_document, receipt_document, without_record
from gateway.records import Ballot
from gateway.service import Gateway
from node.chain.contracts.elections import KIND_OPEN

LOGS: web.AppKey[Logs] = web.AppKey("logs", Logs)

_HASH = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
_NUMBER = re.compile(r"\d{1,16}", re.ASCII)

Handler = Callable[[web.Request], Awaitable[web.Response]]


def setup(app: web.Application, gateway: Gateway) -> None:
    """Add the routes, and what they ask, to an application."""
    app[LOGS] = Logs(gateway.pool, gateway.follower, gateway.chain, gateway.domain)
    app.add_routes(
        [
            web.get("/log/{log}/head", _named(head)),
            web.get("/log/{log}/proof/inclusion", _named(inclusion)),
            web.get("/log/{log}/proof/consistency", _named(consistency)),
            web.get("/log/{log}/leaves", _named(leaves)),
            web.get("/api/votes/receipt", _named(ballot_receipt)),
            web.get("/v1/anchor/{batch_id}/receipt", _named(anchor_receipt)),
        ]
    )


def _named(handler: Handler) -> Handler:
    """What the logs refuse, as problem documents."""

    async def named(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except UnknownLog:
            raise Problem(404, "unknown-log", "There is no such log: it is 'anchors' or an election's id.") from None
        except UnknownBlock:
            raise Problem(404, "unknown-block", "The checkpoint is the hash of no final block.") from None
        except OutOfRange as error:
            raise Problem(422, "out-of-range", f"{error}.") from None

    return named


async def head(request: web.Request) -> web.Response:
    """The log's size and root, with everything that proves them: a document that `psephos verify` takes."""
    found = await request.app[LOGS].head(_election(request))
    return answer(head_document(found))


async def inclusion(request: web.Request) -> web.Response:
    """That an entry is in the log of some size (RFC 9162, 2.1.3)."""
    index, size = _number(request, "index"), _optional_number(request, "size")
    found = await request.app[LOGS].inclusion(_election(request), index, size)
    return answer(
        {
            "log": request.match_info["log"],
            "index": found.index,
            "size": found.size,
            "leaf_hash": _hex(found.leaf_hash),
            "proof": [_hex(part) for part in found.proof],
            "root": _hex(found.root),
        }
    )


async def consistency(request: web.Request) -> web.Response:
    """That the log only grew from one size to another (RFC 9162, 2.1.4)."""
    old_size, new_size = _number(request, "from"), _optional_number(request, "to")
    found = await request.app[LOGS].consistency(_election(request), old_size, new_size)
    return answer(
        {
            "log": request.match_info["log"],
            "from": found.old_size,
            "to": found.new_size,
            "proof": [_hex(part) for part in found.proof],
            "from_root": _hex(found.old_root),
            "to_root": _hex(found.new_root),
        }
    )


async def leaves(request: web.Request) -> web.Response:
    """The data of the log's leaves, from one on. Their hashes give the root that the head proves."""
    first, count = _number(request, "from"), _optional_number(request, "count")
    size, found = await request.app[LOGS].leaves(_election(request), first, LEAVES_MAX if count is None else count)
    shown = [{"index": leaf.index, "block_number": leaf.block_number, "leaf": _hex(leaf.data)} for leaf in found]
    return answer({"log": request.match_info["log"], "size": size, "leaves": shown})


async def ballot_receipt(request: web.Request) -> web.Response:
    """The receipt of a ballot. An open choice is in it only for who names it: see docs/adr/0003."""
    gateway = request.app[GATEWAY]
    election = election_id_of(request.query.get("election_id"))
    checkpoint = _checkpoint(request)
    place = _hash(request, "transaction_hash"), _optional_number(request, "ballot_index")
    if "transaction_id" in request.query:
        standing = await _by_transaction_id(request, gateway, election)
    else:
        standing = await _by_place(request, election, *place)
    if isinstance(standing, web.Response):
        return standing
    receipt = await request.app[LOGS].receipt(standing, checkpoint=checkpoint)
    return answer(receipt_document(await _shown(request, gateway, receipt)))


async def anchor_receipt(request: web.Request) -> web.Response:
    """The receipt of an anchor."""
    gateway = request.app[GATEWAY]
    batch_id = batch_in(request, "batch_id")
    checkpoint = _checkpoint(request)
    item = gateway.book.anchor(batch_id)
    if item is not None and item.durable and item.pending:
        return _pending({"batch_id": show_batch_id(batch_id)})
    standing = await gateway.chain.anchor(batch_id, sure=True)
    if standing is None:
        raise Problem(404, "unknown-anchor", f"There is no anchor of batch {show_batch_id(batch_id)}.")
    return answer(receipt_document(await request.app[LOGS].receipt(standing, checkpoint=checkpoint)))


async def _by_transaction_id(request: web.Request, gateway: Gateway, election: int) -> Standing | web.Response:
    transaction_id = request.query["transaction_id"]
    try:
        record_id = gateway.elections.key(election).record_id(transaction_id)
    except InvalidId as error:
        raise Problem(422, "not-valid", f"{error}.") from None
    item = gateway.book.by_alias(record_id)
    if item is not None and item.durable and isinstance(item.record, Ballot) and item.record.election == election:
        if item.pending:
            return _pending({"transaction_id": transaction_id, "election_id": show_election_id(election)})
        if item.place is not None:  # it may stand under the record id of an equal ballot
            standing = await gateway.chain.ballot(election, nullifier=item.record.nullifier, sure=True)
            if standing is not None:
                return standing
    else:
        definition = await gateway.elections.get(election)
        if definition is not None and not gateway.elections.key_fits(definition):
            raise key_mismatch()
    standing = await gateway.chain.ballot(election, record_id=record_id, sure=True)
    if standing is None:
        raise Problem(404, "unknown-ballot", "No ballot of this election has this transaction_id.")
    return standing


async def _by_place(request: web.Request, election: int, transaction_hash: bytes | None, index: int | None) -> Standing:
    if transaction_hash is None or index is None:
        detail = "Give 'transaction_id', or 'transaction_hash' and 'ballot_index'."
        raise Problem(400, "missing-parameter", detail)
    standing = await request.app[LOGS].ballot_at(election, transaction_hash, index)
    if standing is None:
        raise Problem(404, "unknown-ballot", "No final transaction with this hash cast this ballot.")
    return standing


async def _shown(request: web.Request, gateway: Gateway, receipt: Receipt) -> Receipt:
    """The receipt as this caller may see it. Raises Problem 409 for who names another choice than the one that stands.

    A sealed ballot hides itself; an open one is shown to who knows it already.
    """
    record = receipt.record
    if not isinstance(record, Ballot) or record.kind != KIND_OPEN:
        return receipt
    choice = request.query.get("choice")
    if choice is None:
        return without_record(receipt)
    election = await gateway.elections.get(record.election)
    names = () if election is None else election.options
    number = names.index(choice) if choice in names else int(choice) if _NUMBER.fullmatch(choice) else -1
    if "transaction_id" not in request.query or record.content != bytes((number,) if 0 <= number < 256 else ()):
        raise Problem(409, "not-that-ballot", "This transaction_id and choice are not those of one ballot.")
    return receipt


def _pending(names: dict[str, Any]) -> web.Response:
    return answer({"status": "pending", **names}, 202, {"Retry-After": "1"})


def _election(request: web.Request) -> int | None:
    name = request.match_info["log"]
    return None if name == "anchors" else election_id_of(name)


def _number(request: web.Request, name: str) -> int:
    number = _optional_number(request, name)
    if number is None:
        raise Problem(400, "missing-parameter", f"The query parameter '{name}' is missing.")
    return number


def _optional_number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise not_valid(name, text, "a whole number from 0 on")
    return int(text)


def _checkpoint(request: web.Request) -> bytes | None:
    return _hash(request, "checkpoint")


def _hash(request: web.Request, name: str) -> bytes | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not _HASH.fullmatch(text):
        raise not_valid(name, text, "64 hex digits")
    return bytes.fromhex(text.removeprefix("0x"))


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
