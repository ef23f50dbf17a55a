"""`poa_` methods on how the validators did: whose turn it was, what they sealed, what they signed twice."""

import time
from collections import Counter
from typing import Any

from node.rpc.blocks import Blocks
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Kind, Param, optional, rpc
from node.rpc.params import ADDRESS, BLOCK_NUMBER, BOOLEAN, COUNT, DATA, HASH, QUANTITY, BlockRef
from node.rpc.ports import Equivocation, NodePort, Statement
from node.rpc.results import STRING, list_of, nullable, record
from node.rpc.views import View

ROUND_MAX = 2**32 - 1

_FIRST = Param("fromBlock", BLOCK_NUMBER, "The first block.")
_LAST = Param("toBlock", BLOCK_NUMBER, "The last block.")
_OF_VALIDATOR = record(
    "validator's part",
    validator=ADDRESS,
    proposals=QUANTITY,
    seals=QUANTITY,
    turns=QUANTITY,
)
_STATISTICS = record(
    "statistics",
    fromBlock=QUANTITY,
    toBlock=QUANTITY,
    blocks=QUANTITY,
    transactions=QUANTITY,
    rounds=Kind({"type": "object", "additionalProperties": QUANTITY.schema}),
    validators=list_of(_OF_VALIDATOR),
)
_STATEMENT = record(
    "statement", blockHash=nullable(HASH), preparedRound=nullable(QUANTITY), digest=HASH, signature=DATA
)
_EVIDENCE = record(
    "evidence", validator=ADDRESS, height=QUANTITY, round=QUANTITY, step=STRING, first=_STATEMENT, second=_STATEMENT
)
_INTEGER = Kind({"type": "integer"})
_CONSENSUS = record(
    "consensus",
    height=QUANTITY,
    round=QUANTITY,
    step=STRING,
    proposer=ADDRESS,
    preparedRound=nullable(QUANTITY),
    validators=list_of(record("validator heard", address=ADDRESS, heardMsAgo=nullable(_INTEGER))),
    signs=BOOLEAN,
    guardLost=BOOLEAN,
    guardFloor=QUANTITY,
    deadlineMs=nullable(_INTEGER),
)


class HistoryMethods:
    """Agreement, past and present, for whoever studies it."""

    def __init__(self, node: NodePort, blocks: Blocks, limits: Limits) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks
        self._limits = limits

    @rpc(
        "poa_getProposer",
        Param("height", COUNT, "The height: at most the one after the head."),
        optional("round", COUNT, "The round.", 0),
        result=ADDRESS,
    )
    def proposer(self, height: int, round_: int) -> str:
        """Whose turn it is to propose at a height and round."""
        if not 1 <= height <= self._chain.head.number + 1:
            at_most = self._chain.head.number + 1
            raise RpcError(SERVER_ERROR, f"no validators are known for height {height}: expected 1 to {at_most}")
        if round_ > ROUND_MAX:
            raise RpcError(SERVER_ERROR, f"round {round_} does not exist: at most {ROUND_MAX}")
        return data(self._chain.proposer(height, round_))

    @rpc("poa_getStatistics", _FIRST, _LAST, result=_STATISTICS)
    async def statistics(self, first_ref: BlockRef, last_ref: BlockRef) -> View:
        """Each validator's proposals, seals and turns (in round 0) in a range of blocks, and the blocks by round."""
        span = self._span(first_ref, last_ref)
        proposals: Counter[bytes] = Counter()
        seals: Counter[bytes] = Counter()
        turns: Counter[bytes] = Counter()
        rounds: Counter[int] = Counter()
        transactions = 0
        async with self._blocks.turns.taken() as turn:
            for height in span:
                header, encoded = self._blocks.header(BlockRef(height=height)), self._chain.encoded_block(height)
                certificate = self._chain.certificate(height)
                if header is None or encoded is None or certificate is None:
                    continue  # genesis: nobody proposed it
                proposals[header.miner] += 1
                turns[self._chain.proposer(height, 0)] += 1
                seals.update(seal.validator for seal in self._chain.seals(height))
                rounds[certificate.round] += 1
                transactions += len(encoded[1])
                await turn.breathe()
        known = sorted({*proposals, *seals, *turns})
        return {
            "fromBlock": quantity(span.start),
            "toBlock": quantity(span.stop - 1),
            "blocks": quantity(rounds.total()),
            "transactions": quantity(transactions),
            "rounds": {str(number): quantity(count) for number, count in sorted(rounds.items())},
            "validators": [
                {
                    "validator": data(address),
                    "proposals": quantity(proposals[address]),
                    "seals": quantity(seals[address]),
                    "turns": quantity(turns[address]),
                }
                for address in known
            ],
        }

    @rpc("poa_getEvidence", _FIRST, _LAST, result=list_of(_EVIDENCE))
    def evidence(self, first_ref: BlockRef, last_ref: BlockRef) -> list[View]:
        """Equivocations that this node has seen: two different statements that one validator signed at one step."""
        span = self._span(first_ref, last_ref)
        # Evidence may lie above the head: of the height that is being decided.
        last = span.stop if last_ref.tag else span.stop - 1
        return [_evidence_view(evidence) for evidence in self._chain.equivocations(span.start, last)]

    @rpc("poa_consensus", result=_CONSENSUS)
    def consensus(self) -> View:
        """What this node's consensus is doing: height, round and step, whom it has heard, and what its guard allows."""
        status = self._node.consensus()
        now_ms = time.monotonic_ns() // 1_000_000
        view: dict[str, Any] = {
            "height": quantity(status.height),
            "round": quantity(status.round),
            "step": status.step,
            "proposer": data(status.proposer),
            "preparedRound": None if status.prepared_round is None else quantity(status.prepared_round),
            "validators": [
                {
                    "address": data(address),
                    "heardMsAgo": now_ms - status.heard_ms[address] if address in status.heard_ms else None,
                }
                for address in status.validators
            ],
            "signs": status.signs,
            "guardLost": status.guard_lost,
            "guardFloor": quantity(status.guard_floor),
            "deadlineMs": None if status.deadline_ms is None else status.deadline_ms - now_ms,
        }
        return view

    def _span(self, first_ref: BlockRef, last_ref: BlockRef) -> range:
        first, last = self._height(first_ref), min(self._height(last_ref), self._chain.head.number)
        if first > last:
            raise RpcError(SERVER_ERROR, f"no final blocks from {first_ref} to {last_ref}: the head is {last}")
        count, at_most = last - first + 1, self._limits.statistics_blocks_max
        if count > at_most:
            hint = f"try {first:#x} to {first + at_most - 1:#x}"
            raise RpcError(LIMIT_EXCEEDED, f"block range too wide: {count} blocks, at most {at_most}; {hint}")
        return range(first, last + 1)

    def _height(self, ref: BlockRef) -> int:
        height = self._blocks.height_of(ref)
        return ref.height if height is None else height


def _evidence_view(evidence: Equivocation) -> View:
    return {
        "validator": data(evidence.validator),
        "height": quantity(evidence.height),
        "round": quantity(evidence.round),
        "step": evidence.step,
        "first": _statement_view(evidence.first),
        "second": _statement_view(evidence.second),
    }


def _statement_view(statement: Statement) -> View:
    return {
        "blockHash": None if statement.block_hash is None else data(statement.block_hash),
        "preparedRound": None if statement.prepared_round is None else quantity(statement.prepared_round),
        "digest": data(statement.digest),
        "signature": data(statement.signature),
    }
