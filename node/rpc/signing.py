"""Methods that sign for the caller with a development network's accounts; elsewhere there are none to sign with."""

import asyncio
from dataclasses import dataclass
from typing import Any

from merkle import rlp
from merkle.keccak import keccak256
from node.chain.errors import InvalidTransaction
from node.chain.signing import SigningKey
from node.chain.state import State
from node.chain.transaction import Transaction, decode_transaction, sign_transaction
from node.rpc.dev_accounts import DevAccounts
from node.rpc.eth_state import StateMethods
from node.rpc.hexes import data
from node.rpc.jsonrpc import SERVER_ERROR, RpcError, invalid_params
from node.rpc.methods import Kind, Param, rpc
from node.rpc.params import ADDRESS, CALL, DATA, HASH, LATEST, QUANTITY, CallRequest, read_field
from node.rpc.ports import NodePort
from node.rpc.results import TRANSACTION, list_of, record
from node.rpc.typed_data import TYPED_DATA, TypedData
from node.rpc.views import View, transaction_view


@dataclass(frozen=True, slots=True)
class TransactionRequest:
    """A transaction as a caller describes it; what is None is for the node to fill in. Amounts in wei."""

    call: CallRequest
    nonce: int | None
    chain_id: int | None
    gas_price: int | None
    fee_cap: int | None
    tip: int | None


def _parse(value: object) -> TransactionRequest:
    call: CallRequest = CALL.parse(value)
    assert isinstance(value, dict)  # else it is no call either

    def quantity(name: str) -> int | None:
        number: int | None = read_field(value, name, QUANTITY.parse, None)
        return number

    return TransactionRequest(
        call=call,
        nonce=quantity("nonce"),
        chain_id=quantity("chainId"),
        gas_price=quantity("gasPrice"),
        fee_cap=quantity("maxFeePerGas"),
        tip=quantity("maxPriorityFeePerGas"),
    )


_REQUEST_SCHEMA = {
    **CALL.schema,
    "required": ["from"],
    "properties": {**CALL.schema["properties"], "nonce": QUANTITY.schema, "chainId": QUANTITY.schema},
}
_REQUEST = Param("transaction", Kind(_REQUEST_SCHEMA, _parse), "What to sign; what is left out is filled in.")
_ADDRESS = Param("address", ADDRESS, "One of eth_accounts.")
_SIGNED = record("signed transaction", raw=DATA, tx=TRANSACTION)


class SigningMethods:
    """What backends expect of a development node that holds their accounts, as ganache, hardhat and anvil do."""

    def __init__(self, node: NodePort, accounts: DevAccounts, state: StateMethods) -> None:
        self._node = node
        self._accounts = accounts
        self._state = state
        self._turn = asyncio.Lock()  # one nonce at a time

    @rpc("eth_accounts", result=list_of(ADDRESS))
    def accounts(self) -> list[str]:
        """The accounts that this node signs for: the mnemonic's on a development network on loopback, else none."""
        return [data(address) for address in self._accounts]

    @rpc("eth_sendTransaction", _REQUEST, result=HASH)
    async def send(self, request: TransactionRequest) -> str:
        """Sign a transaction with one of the node's accounts and take it into the mempool; the answer is its hash."""
        async with self._turn:
            transaction = self._sign(request)
            (outcome,) = await self._node.submit([transaction.raw])
        if isinstance(outcome, InvalidTransaction):
            raise outcome
        return data(outcome)

    @rpc("eth_signTransaction", _REQUEST, result=_SIGNED)
    def sign_transaction(self, request: TransactionRequest) -> View:
        """Sign a transaction with one of the node's accounts and do not send it."""
        transaction = self._sign(request)
        return {"raw": data(transaction.raw), "tx": transaction_view(transaction)}

    @rpc("eth_sign", _ADDRESS, Param("message", DATA, "The message."), result=DATA)
    def sign_message(self, address: bytes, message: bytes) -> str:
        """Sign a message with one of the node's accounts (EIP-191, version 0x45), so that it can be no transaction."""
        text = b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message
        return self._signature(address, keccak256(text))

    @rpc("personal_sign", Param("message", DATA, "The message."), _ADDRESS, result=DATA)
    def personal_sign(self, message: bytes, address: bytes) -> str:
        """Sign a message with one of the node's accounts, as eth_sign does; wallets name the account second."""
        return self.sign_message(address, message)

    @rpc("eth_signTypedData", _ADDRESS, Param("typedData", TYPED_DATA, "Types, domain and message."), result=DATA)
    def sign_typed_data(self, address: bytes, typed_data: TypedData) -> str:
        """Sign structured data with one of the node's accounts (EIP-712)."""
        return self._signature(address, typed_data.digest)

    @rpc("eth_signTypedData_v4", _ADDRESS, Param("typedData", TYPED_DATA, "The same, or its JSON text."), result=DATA)
    def sign_typed_data_v4(self, address: bytes, typed_data: TypedData) -> str:
        """Sign structured data with one of the node's accounts (EIP-712), under the name that wallets use."""
        return self._signature(address, typed_data.digest)

    def _signature(self, address: bytes, digest: bytes) -> str:
        signature = self._key(address).sign(digest)
        return data(signature[:64] + bytes([27 + signature[64]]))

    def _key(self, address: bytes) -> SigningKey:
        key = self._accounts.get(address)
        if key is None:
            raise RpcError(SERVER_ERROR, "unknown account")
        return key

    def _sign(self, request: TransactionRequest) -> Transaction:
        call = request.call
        key = self._key(call.sender)
        chain = self._node.chain
        chain_id = chain.domain.chain_id
        if request.chain_id not in (None, chain_id):
            wanted = f"chainId does not match node's (have={request.chain_id}, want={chain_id})"
            raise invalid_params(f"invalid argument 0 (transaction): field 'chainId': {wanted}")
        nonce = request.nonce
        if nonce is None:
            account_nonce = State(chain, chain.head.state_root).nonce(key.address)
            nonce = self._node.mempool.pending_nonce(key.address, account_nonce)
        gas = call.gas if call.gas is not None else int(self._state.estimate_gas(call, LATEST, None), 16)
        fields: dict[str, Any] = {"nonce": nonce, "to": call.to, "gas_limit": gas, "data": call.data}
        fields |= {"value": call.value, "chain_id": chain_id}
        if request.gas_price is not None and not call.access_list:
            return _sign_legacy(key, gas_price=request.gas_price, **fields)
        tip = request.tip if request.tip is not None else request.gas_price or 0
        fee_cap = request.fee_cap if request.fee_cap is not None else max(tip, request.gas_price or 0)
        return sign_transaction(
            key, **fields, max_fee_per_gas=fee_cap, max_priority_fee_per_gas=tip, access_list=call.access_list
        )


def _sign_legacy(
    key: SigningKey, *, chain_id: int, nonce: int, gas_price: int, gas_limit: int, to: bytes, value: int, data: bytes
) -> Transaction:
    """A transaction as before EIP-2718, bound to the chain by EIP-155."""
    fields: list[rlp.Item] = [*map(rlp.encode_int, (nonce, gas_price, gas_limit)), to, rlp.encode_int(value), data]
    signature = key.sign(keccak256(rlp.encode([*fields, rlp.encode_int(chain_id), b"", b""])))
    numbers = (35 + 2 * chain_id + signature[64], signature[:32], signature[32:64])
    v, r, s = (number if isinstance(number, int) else int.from_bytes(number, "big") for number in numbers)
    return decode_transaction(rlp.encode([*fields, *map(rlp.encode_int, (v, r, s))]))
