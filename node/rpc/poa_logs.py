"""`poa_` methods that serve the RFC 6962 logs of ballots and anchors, and the changes of the validator set.

They are all that a receipt or a monitor needs beside `eth_getProof`: sizes, roots, proofs and leaves after any block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from merkle.log import consistency_proof, inclusion_proof
from node.chain.block import Header
from node.chain.contracts import anchors, ballots, elections, flatlog
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.state import State
from node.rpc.blocks import Blocks
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import SERVER_ERROR, RpcError
from node.rpc.methods import BadValue, Kind, Param, optional, rpc, shown
from node.rpc.pacing import Pace
from node.rpc.params import BLOCK, COUNT, DATA, HASH, LATEST, QUANTITY, BlockRef, array_of
from node.rpc.ports import NodePort
from node.rpc.results import STRING, list_of, nullable, record
from node.rpc.views import View

LEAVES_MAX = 1_024
IDS_MAX = 1_024
LEAVES_BYTES_MAX = 4 << 20
CHANGES_MAX = 256
ANCHORS_NAME: Final = "anchors"


class LogName(NamedTuple):
    """A log as a caller names it: that of the anchors (None), or that of an election."""

    election: int | None


def _log(value: object) -> LogName:
    if value == ANCHORS_NAME:
        return LogName(None)
    try:
        return LogName(COUNT.parse(value) if isinstance(value, int) else QUANTITY.parse(value))
    except ValueError as error:
        raise BadValue(f"{error}; expected '{ANCHORS_NAME}' or an election's id, not {shown(value)}") from None


_LOG_KIND = Kind({"anyOf": [{"const": ANCHORS_NAME}, QUANTITY.schema, {"type": "integer", "minimum": 0}]}, _log)
_LOG = Param("log", _LOG_KIND, "The log: 'anchors', or the id of an election.")
_BLOCK = optional("block", BLOCK, "The block after which to look; the head when left out.", LATEST)

_HEAD = record("log head", log=STRING, size=QUANTITY, root=HASH, blockNumber=QUANTITY, blockHash=HASH)
_INCLUSION = record("inclusion proof", index=QUANTITY, size=QUANTITY, leafHash=HASH, proof=list_of(HASH))
_CONSISTENCY = record("consistency proof", **{"from": QUANTITY, "to": QUANTITY}, proof=list_of(HASH))
_LEAF = record("leaf", index=QUANTITY, blockNumber=QUANTITY, leaf=DATA)
_SEALED = record("seals of a block", height=QUANTITY, round=QUANTITY, blockHash=HASH, seals=list_of(DATA))
_CHANGE = record("change of the validators", header=DATA, certificate=_SEALED, validators=list_of(DATA))


@dataclass(frozen=True, slots=True)
class OpenLog:
    """One log after one block. `number` is its own in the database; `leaf(index)` is block number and leaf data."""

    number: int
    size: int
    root: bytes
    header: Header
    state: State
    leaf: Callable[[int], tuple[int, bytes]]


class ProofMethods:
    """Logs after any block; what is asked for beyond a log's size then is refused."""

    def __init__(self, node: NodePort, blocks: Blocks) -> None:
        self._chain = node.chain
        self._blocks = blocks

    @rpc("poa_getLog", _LOG, _BLOCK, result=_HEAD)
    def head(self, name: LogName, ref: BlockRef) -> View:
        """Size and root of a log after a block; `eth_getProof` proves both."""
        log = self._open(name, ref)
        return {
            "log": ANCHORS_NAME if name.election is None else quantity(name.election),
            "size": quantity(log.size),
            "root": data(log.root),
            "blockNumber": quantity(log.header.number),
            "blockHash": data(log.header.hash),
        }

    @rpc(
        "poa_getLogProof",
        _LOG,
        Param("index", COUNT, "The leaf."),
        optional("size", COUNT, "The size of the log to prove it in; that after the block when left out."),
        _BLOCK,
        result=_INCLUSION,
    )
    def inclusion(self, name: LogName, index: int, size: int | None, ref: BlockRef) -> View:
        """The proof that a leaf is in a log of some size (RFC 9162, 2.1.3)."""
        log = self._open(name, ref)
        size = _bounded("size", log.size if size is None else size, log.size)
        if index >= size:
            raise RpcError(SERVER_ERROR, f"leaf {index} is not in a log of {size} leaves")
        get_node = flatlog.node_reader(log.state, log.number)
        return {
            "index": quantity(index),
            "size": quantity(size),
            "leafHash": data(get_node(0, index)),
            "proof": [data(part) for part in inclusion_proof(index, size, get_node)],
        }

    @rpc(
        "poa_getLogConsistency",
        _LOG,
        Param("from", COUNT, "The old size."),
        optional("to", COUNT, "The new size; that after the block when left out."),
        _BLOCK,
        result=_CONSISTENCY,
    )
    def consistency(self, name: LogName, old_size: int, new_size: int | None, ref: BlockRef) -> View:
        """The proof that a log of the new size begins with that of the old one (RFC 9162, 2.1.4)."""
        log = self._open(name, ref)
        new_size = _bounded("to", log.size if new_size is None else new_size, log.size)
        _bounded("from", old_size, new_size)
        proof = consistency_proof(old_size, new_size, flatlog.node_reader(log.state, log.number))
        return {"from": quantity(old_size), "to": quantity(new_size), "proof": [data(part) for part in proof]}

    @rpc(
        "poa_getLogLeaves",
        _LOG,
        Param("from", COUNT, "The first leaf."),
        Param("count", COUNT, "How many at most."),
        _BLOCK,
        result=list_of(_LEAF),
    )
    async def leaves(self, name: LogName, first: int, count: int, ref: BlockRef) -> list[View]:
        """The data of a log's leaves, capped in number and bytes; ask again behind the last."""
        log = self._open(name, ref)
        pace = Pace()
        page: list[View] = []
        bytes_count = 0
        for index in range(first, min(log.size, first + min(count, LEAVES_MAX))):
            number, leaf = log.leaf(index)
            bytes_count += len(leaf)
            if page and bytes_count > LEAVES_BYTES_MAX:
                break
            page.append({"index": quantity(index), "blockNumber": quantity(number), "leaf": data(leaf)})
            await pace.breathe()
        return page

    @rpc(
        "poa_getLogIndexes",
        _LOG,
        Param("ids", array_of(HASH, IDS_MAX), "Nullifiers of an election; batch ids of anchors."),
        _BLOCK,
        result=list_of(nullable(QUANTITY)),
    )
    async def indexes(self, name: LogName, ids: list[bytes], ref: BlockRef) -> list[str | None]:
        """Where entries stand in a log, in the order of their ids; null for those that it does not hold."""
        log = self._open(name, ref)
        pace = Pace()
        found: list[str | None] = []
        for id_ in ids:
            index = flatlog.index_of(log.state, log.number, id_, log.size)
            found.append(None if index is None else quantity(index))
            await pace.breathe()
        return found

    @rpc(
        "poa_getValidatorChanges",
        Param("from", COUNT, "The first height."),
        optional("block", BLOCK, "The last block; the head when left out.", LATEST),
        result=list_of(_CHANGE),
    )
    def validator_changes(self, first: int, ref: BlockRef) -> list[View]:
        """Blocks that name other validators for the next height, with these; capped: ask again behind the last."""
        last = self._blocks.known_header(ref).number
        heights = self._chain.validator_changes(max(first, 1), last)[:CHANGES_MAX]
        return [self._change(height) for height in heights]

    def _change(self, height: int) -> View:
        header, certificate = self._blocks.known_header(BlockRef(height=height)), self._chain.certificate(height)
        if certificate is None:
            raise RpcError(SERVER_ERROR, f"the certificate of block {height} is not kept")
        sealed: dict[str, Any] = {
            "height": quantity(certificate.height),
            "round": quantity(certificate.round),
            "blockHash": data(certificate.block_hash),
            "seals": [data(seal) for seal in certificate.seals],
        }
        validators = [data(address) for address in self._chain.validators(height + 1)]
        return {"header": data(header.encoded), "certificate": sealed, "validators": validators}

    def _open(self, name: LogName, ref: BlockRef) -> OpenLog:
        header = self._blocks.state_header(ref)
        state = State(self._chain, header.state_root)
        domain = self._chain.domain
        if name.election is None:
            root = state.storage(ANCHORS, anchors.ROOT_SLOT).to_bytes(32, "big")

            def anchor(index: int) -> tuple[int, bytes]:
                _, batch_id, merkle_root, count, algorithm, number = anchors.anchor_at(state, index)
                return number, anchors.leaf(domain, batch_id, merkle_root, count, algorithm.encode())

            size = state.storage(ANCHORS, anchors.SIZE_SLOT)
            return OpenLog(flatlog.ANCHORS_LOG, size, root, header, state, anchor)
        election = elections.read_election(state, name.election)
        if election is None:
            raise RpcError(SERVER_ERROR, f"there is no election {name.election} after block {header.number}")

        def ballot(index: int) -> tuple[int, bytes]:
            _, nullifier, record_id, kind, content, number = ballots.ballot_at(state, election, index)
            packed = ballots.pack_record(nullifier, record_id, kind, content)
            return number, ballots.leaf(domain, election.id, packed)

        size_slot, root_slot = elections.log_slots(election.id)
        size, root = state.storage(ELECTIONS, size_slot), state.storage(ELECTIONS, root_slot).to_bytes(32, "big")
        return OpenLog(election.number, size, root, header, state, ballot)


def _bounded(name: str, value: int, most: int) -> int:
    if value > most:
        raise RpcError(SERVER_ERROR, f"'{name}' is {value}, and at most {most} here")
    return value
