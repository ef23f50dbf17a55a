"""`eth_` methods that read state, at the head or at any kept height: accounts, storage, proofs, calls, fees."""

from typing import Any

from node.chain.block import Header
from node.chain.contracts.registry import CONTRACTS
from node.chain.errors import InvalidTransaction
from node.chain.execution import CallRefused, call, estimate_gas
from node.chain.state import State, prove_account
from node.rpc.blocks import Blocks
from node.rpc.hexes import data, quantity
from node.rpc.jsonrpc import REVERTED, SERVER_ERROR, RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Kind, Param, optional, rpc
from node.rpc.pacing import Pace
from node.rpc.params import (
    ADDRESS,
    BLOCK,
    BLOCK_NUMBER,
    CALL,
    COUNT,
    DATA,
    HASH,
    LATEST,
    OVERRIDES,
    PERCENTILES,
    QUANTITY,
    SLOT,
    BlockRef,
    CallRequest,
    Slot,
    array_of,
)
from node.rpc.ports import NodePort
from node.rpc.results import list_of, record
from node.rpc.reverts import describe_revert
from node.rpc.views import View

PROOF_SLOTS_MAX = 1_024

_ADDRESS = Param("address", ADDRESS, "The account.")
_BLOCK = optional("block", BLOCK, "The block after which to look; the head when left out.", LATEST)
_CALL = Param("transaction", CALL, "The call.")
_OVERRIDES = optional("stateOverride", OVERRIDES, "Not supported; an empty object is accepted.")

_SLOT_PROOF = record("storage proof", key=SLOT, value=QUANTITY, proof=list_of(DATA))
_PROOF = record(
    "account proof",
    address=ADDRESS,
    balance=QUANTITY,
    nonce=QUANTITY,
    codeHash=HASH,
    storageHash=HASH,
    accountProof=list_of(DATA),
    storageProof=list_of(_SLOT_PROOF),
)
_FEES = record(
    "fee history",
    oldestBlock=QUANTITY,
    baseFeePerGas=list_of(QUANTITY),
    gasUsedRatio=Kind({"type": "array", "items": {"type": "number"}}),
)


class StateMethods:
    """Accounts, storage and calls after a block; `pending` is the head, but for the nonce, which counts the mempool."""

    def __init__(self, node: NodePort, blocks: Blocks, limits: Limits) -> None:
        self._node = node
        self._chain = node.chain
        self._blocks = blocks
        self._limits = limits

    @rpc("eth_getBalance", _ADDRESS, _BLOCK, result=QUANTITY)
    def balance(self, address: bytes, ref: BlockRef) -> str:
        """The balance of an account, in wei."""
        return quantity(self._state(ref).balance(address))

    @rpc("eth_getTransactionCount", _ADDRESS, _BLOCK, result=QUANTITY)
    def transaction_count(self, address: bytes, ref: BlockRef) -> str:
        """The nonce that the next transaction of an account has; with `pending`, after those in the mempool."""
        nonce = self._state(ref).nonce(address)
        return quantity(self._node.mempool.pending_nonce(address, nonce) if ref.tag == "pending" else nonce)

    @rpc("eth_getCode", _ADDRESS, _BLOCK, result=DATA)
    def code(self, address: bytes, ref: BlockRef) -> str:
        """The code of an account; a native contract's names it and begins with EVM's INVALID."""
        return data(self._state(ref).code(address))

    @rpc("eth_getStorageAt", _ADDRESS, Param("slot", SLOT, "The storage slot."), _BLOCK, result=DATA)
    def storage_at(self, address: bytes, slot: Slot, ref: BlockRef) -> str:
        """The 32 bytes in a storage slot of a contract."""
        return data(self._state(ref).storage(address, slot.number).to_bytes(32, "big"))

    @rpc(
        "eth_getProof",
        _ADDRESS,
        Param("slots", array_of(SLOT, PROOF_SLOTS_MAX), "The storage slots to prove."),
        _BLOCK,
        result=_PROOF,
    )
    def proof(self, address: bytes, slots: list[Slot], ref: BlockRef) -> View:
        """An account and some of its storage slots, present or absent, with Merkle proofs (EIP-1186)."""
        header = self._blocks.state_header(ref)
        proved = prove_account(self._chain, header.state_root, address, [slot.number for slot in slots])
        return {
            "address": data(address),
            "balance": quantity(proved.account.balance),
            "nonce": quantity(proved.account.nonce),
            "codeHash": data(proved.account.code_hash),
            "storageHash": data(proved.account.storage_root),
            "accountProof": [data(node) for node in proved.proof],
            "storageProof": [
                {"key": slot.key, "value": quantity(entry.value), "proof": [data(node) for node in entry.proof]}
                for slot, entry in zip(slots, proved.storage, strict=True)
            ],
        }

    @rpc("eth_call", _CALL, _BLOCK, _OVERRIDES, result=DATA)
    def call(self, request: CallRequest, ref: BlockRef, _overrides: None) -> str:
        """Call a contract without changing anything. A refusal is error 3, with the ABI-encoded error as its data."""
        header = self._blocks.state_header(ref)
        gas = header.gas_limit if request.gas is None else min(request.gas, header.gas_limit)
        self._check_funds(header, request, request.gas or 0)
        result = call(self._chain, header, **self._message(request), gas=gas)
        if not result.succeeded:
            raise _refusal(request.to, result.output)
        return data(result.output)

    @rpc("eth_estimateGas", _CALL, _BLOCK, _OVERRIDES, result=QUANTITY)
    def estimate_gas(self, request: CallRequest, ref: BlockRef, _overrides: None) -> str:
        """The least gas limit with which a transaction succeeds, exactly."""
        header = self._blocks.state_header(ref)
        access_list = request.access_list
        try:
            gas = estimate_gas(
                self._chain, header, **self._message(request), gas=request.gas or None, access_list=access_list
            )
        except CallRefused as refusal:
            raise _refusal(request.to, refusal.output) from None
        self._check_funds(header, request, gas)
        return quantity(gas)

    def _check_funds(self, header: Header, request: CallRequest, gas: int) -> None:
        """A price that the caller names is one that the sender can pay, as in a transaction."""
        if request.gas_price == 0:
            return
        balance = State(self._chain, header.state_root).balance(request.sender)
        cost = gas * request.gas_price + request.value
        if cost > balance:
            raise InvalidTransaction("insufficient funds for gas * price + value", f"balance {balance}, tx cost {cost}")

    def _message(self, request: CallRequest) -> dict[str, Any]:
        return {
            "sender": request.sender,
            "to": request.to,
            "data": request.data,
            "value": request.value,
            "genesis": self._chain.genesis,
            "domain": self._chain.domain,
        }

    @rpc("eth_gasPrice", result=QUANTITY)
    def gas_price(self) -> str:
        """The suggested price of gas, in wei: 0, since the base fee stays 0 and no tip is needed."""
        return quantity(0)

    @rpc("eth_maxPriorityFeePerGas", result=QUANTITY)
    def priority_fee(self) -> str:
        """The suggested tip per gas, in wei: 0."""
        return quantity(0)

    @rpc("eth_blobBaseFee", result=QUANTITY)
    def blob_base_fee(self) -> str:
        """The price of blob gas, in wei: 0, since blocks here carry no blobs."""
        return quantity(0)

    @rpc(
        "eth_feeHistory",
        Param("blockCount", COUNT, "How many blocks."),
        Param("newestBlock", BLOCK_NUMBER, "The last of them."),
        optional("rewardPercentiles", PERCENTILES, "Percentiles of the tips paid, by gas used."),
        result=_FEES,
    )
    async def fee_history(self, count: int, newest: BlockRef, percentiles: list[float] | None) -> View:
        """Base fees, shares of the gas limit used, and tips of a range of blocks."""
        last = self._blocks.height_of(newest)
        if last is None:
            raise RpcError(
                SERVER_ERROR, f"request beyond head block: requested {newest}, head {self._chain.head.number}"
            )
        first = last + 1 - min(count, last + 1, self._limits.fee_history_blocks_max)
        headers = [self._header(height) for height in range(first, last + 1)]
        history: View = {
            "oldestBlock": quantity(first),
            # One more than blocks: the base fee of the block after the last.
            "baseFeePerGas": [quantity(header.base_fee_per_gas) for header in headers] + ["0x0"] * bool(headers),
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
        }
        if percentiles is not None:
            pace = Pace()
            history["reward"] = rewards = []
            for height in range(first, last + 1):
                rewards.append(await self._rewards(height, percentiles))
                await pace.breathe()
        return history

    async def _rewards(self, height: int, percentiles: list[float]) -> list[str]:
        """The tip at each percentile of the block's gas, cheapest first."""
        loaded = await self._blocks.load(height)
        header = loaded.block.header
        tips = sorted(
            (transaction.effective_tip(header.base_fee_per_gas), loaded.gas_used(index))
            for index, transaction in enumerate(loaded.block.transactions)
        )
        rewards, position, gas = [], 0, tips[0][1] if tips else 0
        for percentile in percentiles:
            while position + 1 < len(tips) and gas < header.gas_used * percentile / 100:
                position += 1
                gas += tips[position][1]
            rewards.append(quantity(tips[position][0]) if tips else "0x0")
        return rewards

    def _header(self, height: int) -> Header:
        return self._blocks.known_header(BlockRef(height=height))

    def _state(self, ref: BlockRef) -> State:
        return State(self._chain, self._blocks.state_header(ref).state_root)


def _refusal(to: bytes, output: bytes) -> RpcError:
    contract = CONTRACTS.get(to)
    return RpcError(REVERTED, describe_revert(output, contract.abi if contract else None), data(output))
