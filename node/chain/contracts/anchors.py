"""The Anchors contract: Merkle roots of batches, each recorded once, in one RFC 6962 log.

Storage, in Solidity's layout (both written once a block):

    slot 0  uint256 size of the log
    slot 1  bytes32 root of the log

The anchors themselves are entries of the log (see `flatlog`), by batch id. Body: block number (6) ‖ Merkle root (32) ‖
leaf count (8) ‖ length of the algorithm (1) ‖ algorithm, filled up with zeros (64).
"""

from hashlib import sha256

from merkle.log import EMPTY_ROOT
from node.chain.contracts import flatlog, validators
from node.chain.contracts.addresses import ANCHORS
from node.chain.contracts.context import Appended, BlockContext, Call
from node.chain.contracts.contract import NativeContract, load_abi
from node.chain.contracts.flatlog import ANCHORS_LOG
from node.chain.contracts.layout import Slots
from node.chain.domain import Domain
from node.chain.receipt import EventLog
from node.chain.state import State

SIZE_SLOT = 0
ROOT_SLOT = 1
ALGORITHM_BYTES_MAX = 64
UNSPECIFIED = b"unspecified"
PAGE_MAX = 1024
_ANCHOR_GAS = 40_000
_VIEW_GAS = 5_000
_ITEM_GAS = 2_000
_ARGUMENTS = 4
_OFFSET = (96).to_bytes(32, "big")  # of the algorithm in the event's data, behind three words
_BY_BATCH_ID = flatlog.id_prefix(ANCHORS_LOG)

ABI = load_abi("Anchors")
_TOPIC = ABI.events["Anchored"].id

Anchor = tuple[int, bytes, bytes, int, str, int]  # as the ABI's struct
NO_ANCHOR: Anchor = (0, bytes(32), bytes(32), 0, "", 0)


def initialise(state: Slots) -> None:
    """Write the storage of block 0: an empty log."""
    state.set_storage(ANCHORS, ROOT_SLOT, int.from_bytes(EMPTY_ROOT, "big"))


def leaf_prefix(domain: Domain) -> bytes:
    """What stands before the record in every leaf of the log of anchors: version, network, kind of log."""
    return b"\x01" + domain.chain_id.to_bytes(8, "big") + domain.genesis_hash + b"\x02"


def leaf(domain: Domain, batch_id: bytes, merkle_root: bytes, leaf_count: int, algorithm: bytes) -> bytes:
    """The data of an anchor's leaf in the log; its hash is `merkle.log.leaf_hash` of it."""
    tail = leaf_count.to_bytes(8, "big") + len(algorithm).to_bytes(4, "big") + algorithm
    return leaf_prefix(domain) + batch_id + merkle_root + tail


def end_block(block: BlockContext) -> None:
    """Write the log's nodes and root for the anchors of this block."""
    appended = block.appended.get(ANCHORS_LOG)
    if appended is not None:
        root = flatlog.append(block.state, ANCHORS_LOG, appended)
        block.state.set_storage(ANCHORS, ROOT_SLOT, int.from_bytes(root, "big"))


def anchor_of(state: State, batch_id: bytes) -> Anchor | None:
    """The anchor of a batch at this state's height."""
    index = flatlog.index_of(state, ANCHORS_LOG, batch_id, state.storage(ANCHORS, SIZE_SLOT))
    return None if index is None else anchor_at(state, index)


def anchor_at(state: State, index: int) -> Anchor:
    """The anchor at an index below the log's size. Raises LedgerError when it is missing."""
    entry = flatlog.entry_at(state, ANCHORS_LOG, index)
    number, leaf_count = int.from_bytes(entry[32:38], "big"), int.from_bytes(entry[70:78], "big")
    return index, entry[:32], entry[38:70], leaf_count, entry[79 : 79 + entry[78]].decode(), number


def _anchor(call: Call) -> bytes:
    call.charge(_ANCHOR_GAS)
    block, data = call.block, call.data
    state = block.state
    begin, end = ABI.tail_bytes(data, _ARGUMENTS)
    if not validators.is_gateway(state, call.sender):
        raise ABI.revert("NotGateway", call.sender)
    batch_id, merkle_root = data[4:36], data[36:68]
    leaf_count = int.from_bytes(data[68:100], "big")
    algorithm = data[begin:end] or UNSPECIFIED
    if leaf_count >= 1 << 64:
        raise ABI.revert("InvalidAnchor", "leafCount does not fit 64 bits")
    if len(algorithm) > ALGORITHM_BYTES_MAX or not algorithm.isascii():
        raise ABI.revert("InvalidAnchor", f"algorithm is ASCII of at most {ALGORITHM_BYTES_MAX} bytes")
    index = state.storage(ANCHORS, SIZE_SLOT)
    appended = block.appended.get(ANCHORS_LOG) or Appended(index)
    standing = flatlog.index_of(state, ANCHORS_LOG, batch_id, index)
    if standing is not None:
        here = standing - appended.first_index
        entry = appended.entries[here] if here >= 0 else flatlog.entry_at(state, ANCHORS_LOG, standing)
        raise ABI.revert("AnchorExists", batch_id, entry[38:70])
    state.set_record(_BY_BATCH_ID + batch_id, index.to_bytes(flatlog.INDEX_BYTES, "big"))
    state.set_storage(ANCHORS, SIZE_SLOT, index + 1)
    words = data[36:100] + _OFFSET + len(algorithm).to_bytes(32, "big")
    padded = algorithm.ljust((len(algorithm) + 31) // 32 * 32, b"\0")
    call.event_logs.append(EventLog(ANCHORS, (_TOPIC, batch_id, index.to_bytes(32, "big")), words + padded))
    block.appended[ANCHORS_LOG] = appended
    body = block.number.to_bytes(6, "big") + merkle_root + leaf_count.to_bytes(8, "big") + bytes((len(algorithm),))
    appended.entries.append((batch_id + body + algorithm).ljust(flatlog.ANCHOR_ENTRY_BYTES, b"\0"))
    record = leaf(block.domain, batch_id, merkle_root, leaf_count, algorithm)
    appended.leaf_hashes.append(sha256(b"\0" + record).digest())
    return b""


def _anchor_of(call: Call, batch_id: bytes) -> tuple[object, ...]:
    anchor = anchor_of(call.block.state, batch_id)
    return anchor is not None, anchor or NO_ANCHOR


def _anchors(call: Call, first: int, count: int) -> tuple[object, ...]:
    state = call.block.state
    size = state.storage(ANCHORS, SIZE_SLOT)
    end = min(size, first + min(count, PAGE_MAX))
    page = []
    for index in range(first, end):
        call.charge(_ITEM_GAS)
        page.append(anchor_at(state, index))
    return (page,)


def _log(call: Call) -> tuple[object, ...]:
    state = call.block.state
    return state.storage(ANCHORS, SIZE_SLOT), state.storage(ANCHORS, ROOT_SLOT).to_bytes(32, "big")


CONTRACT = NativeContract(
    ABI,
    ANCHORS,
    {
        "anchor": _anchor,
        "anchorOf": ABI.bind("anchorOf", _VIEW_GAS, _anchor_of),
        "anchors": ABI.bind("anchors", _VIEW_GAS, _anchors),
        "log": ABI.bind("log", _VIEW_GAS, _log),
    },
)
