"""`poa_` methods: validators, certificates, the native contracts, this node's state, and blocks for who follows."""

from typing import Any

from node.chain.contracts import validators as validators_contract
from node.chain.contracts.registry import CONTRACTS
from node.chain.state import State
from node.rpc.blocks import Blocks
from node.rpc.counts import RecordCounts
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Kind, Param, optional, rpc
from node.rpc.misc import NodeMethods
from node.rpc.pacing import Pace
from node.rpc.params import ADDRESS, BLOCK, BOOLEAN, COUNT, DATA, HASH, LATEST, QUANTITY, BlockRef
from node.rpc.ports import NodePort
from node.rpc.results import STRING, list_of, nullable, record
from node.rpc.views import View

_VALIDATORS = record(
    "validators",
    height=QUANTITY,
    validators=list_of(ADDRESS),
    quorum=QUANTITY,
    next=list_of(ADDRESS),
    gateways=list_of(ADDRESS),
)
_CERTIFICATE = record(
    "certificate",
    height=QUANTITY,
    round=QUANTITY,
    blockHash=HASH,
    seals=list_of(record("seal", validator=ADDRESS, signature=DATA)),
)
_ABI = Kind({"type": "array", "title": "Solidity's JSON ABI", "items": {"type": "object"}})
_CONTRACTS = Kind({"type": "object", "additionalProperties": record("contract", address=ADDRESS, abi=_ABI).schema})
_STATUS = record(
    "status",
    name=STRING,
    address=ADDRESS,
    clientVersion=STRING,
    chainId=QUANTITY,
    genesisHash=HASH,
    height=QUANTITY,
    blockHash=HASH,
    round=QUANTITY,
    peers=list_of(record("peer", address=ADDRESS, name=STRING, endpoint=STRING, height=nullable(QUANTITY))),
    peerCount=QUANTITY,
    mempool=QUANTITY,
    ballots=QUANTITY,
    anchors=QUANTITY,
    syncing=Kind({"oneOf": [{"const": False}, {"type": "object"}]}),
    validator=BOOLEAN,
)
_ENCODED_BLOCK = record(
    "encoded block",
    header=DATA,
    transactions=list_of(DATA),
    receipts=list_of(DATA),
    certificate=nullable(
        record("encoded certificate", height=QUANTITY, round=QUANTITY, blockHash=HASH, seals=list_of(DATA))
    ),
)


class PoaMethods:
    """What Ethereum has no method for."""

    def __init__(self, node: NodePort, blocks: Blocks, limits: Limits) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks
        self._limits = limits
        self._counts = RecordCounts(node.chain)
        self._waiting = 0

    @rpc(
        "poa_getValidators", optional("block", BLOCK, "The block; the head when left out.", LATEST), result=_VALIDATORS
    )
    def validators(self, ref: BlockRef) -> View:
        """The validators that decided a block, their quorum, who decides the next one, and the gateways after it."""
        header = self._blocks.state_header(ref)
        gateways = validators_contract.gateways(State(self._chain, header.state_root))
        return {
            "height": quantity(header.number),
            "validators": [data(address) for address in self._chain.validators(header.number)],
            "quorum": quantity(self._chain.quorum(header.number)),
            "next": [data(address) for address in self._chain.validators(header.number + 1)],
            "gateways": [data(address) for address in gateways],
        }

    @rpc("poa_getCertificate", Param("block", BLOCK, "The block."), result=nullable(_CERTIFICATE))
    def certificate(self, ref: BlockRef) -> View | None:
        """Why a block is final: the seals of a quorum in one round. Genesis has none."""
        height = self._blocks.height_of(ref)
        certificate = None if height is None else self._chain.certificate(height)
        if certificate is None or height is None:
            return None
        return {
            "height": quantity(certificate.height),
            "round": quantity(certificate.round),
            "blockHash": data(certificate.block_hash),
            "seals": [
                {"validator": data(seal.validator), "signature": data(seal.signature)}
                for seal in self._chain.seals(height)
            ],
        }

    @rpc("poa_getContracts", result=_CONTRACTS)
    def contracts(self) -> View:
        """Addresses and ABIs of the native contracts, by name."""
        return {
            contract.name: {"address": data(address), "abi": contract.abi.json}
            for address, contract in CONTRACTS.items()
        }

    @rpc("poa_status", result=_STATUS)
    async def status(self) -> View:
        """This node at a glance."""
        ballots = await self._counts.ballots()
        chain, head = self._chain, self._chain.head
        peers, consensus = self._node.peers(), self._node.consensus()
        return {
            "name": self._node.name,
            "address": data(self._node.address),
            "clientVersion": self._node.client_version,
            "chainId": quantity(chain.domain.chain_id),
            "genesisHash": data(chain.domain.genesis_hash),
            "height": quantity(head.number),
            "blockHash": data(head.hash),
            "round": quantity(consensus.round),
            "peers": [
                {
                    "address": data(peer.address),
                    "name": peer.name,
                    "endpoint": peer.endpoint,
                    "height": quantity(consensus.heads[peer.address]) if peer.address in consensus.heads else None,
                }
                for peer in peers
            ],
            "peerCount": quantity(len(peers)),
            "mempool": quantity(len(self._node.mempool)),
            "ballots": quantity(ballots),
            "anchors": quantity(self._counts.anchors()),
            "syncing": NodeMethods(self._node).syncing(),
            "validator": self._node.address in chain.validators(head.number + 1),
        }

    @rpc(
        "poa_getBlocks",
        Param("fromHeight", COUNT, "The first height."),
        Param("count", COUNT, "How many blocks at most."),
        optional("waitMs", COUNT, "How long to wait, in milliseconds, for the first of them to be final.", 0),
        result=list_of(_ENCODED_BLOCK),
    )
    async def encoded_blocks(self, first: int, count: int, wait_ms: int) -> list[View]:
        """Final blocks with receipts and certificates, encoded to be verified; waits for the next one if asked to."""
        if self._chain.head.number < first and wait_ms:
            await self._wait(first, min(wait_ms, self._limits.poll_wait_ms_max))
        pace = Pace()
        blocks: list[View] = []
        size = 0
        stop = min(first + min(count, self._limits.poll_blocks_max), self._chain.head.number + 1)
        for height in range(first, stop):
            view, view_bytes = self._encoded_block(height)
            size += view_bytes
            if blocks and size > self._limits.poll_bytes_max:
                break
            blocks.append(view)
            await pace.breathe()
        return blocks

    async def _wait(self, height: int, wait_ms: int) -> None:
        if self._waiting >= self._limits.polls_waiting_max:
            return  # answered at once instead: whoever polls in a loop gets by, and nobody piles up
        self._waiting += 1
        try:
            await self._node.wait_for_height(height, wait_ms / 1000)
        finally:
            self._waiting -= 1

    def _encoded_block(self, height: int) -> tuple[View, int]:
        block, receipts = self._chain.encoded_block(height), self._chain.encoded_receipts(height)
        if block is None or receipts is None:
            raise RpcError(SERVER_ERROR, f"block {height} is not kept")
        header, transactions = block
        view: dict[str, Any] = {
            "header": data(header),
            "transactions": [data(raw) for raw in transactions],
            "receipts": [data(receipt) for receipt in receipts],
            "certificate": None,
        }
        certificate = self._chain.certificate(height)
        if certificate is not None:
            view["certificate"] = {
                "height": quantity(certificate.height),
                "round": quantity(certificate.round),
                "blockHash": data(certificate.block_hash),
                "seals": [data(seal) for seal in certificate.seals],
            }
        return view, len(header) + sum(map(len, transactions)) + sum(map(len, receipts))
