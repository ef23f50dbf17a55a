"""One transaction against the state: whether a block may hold it at all, and what it does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from merkle import rlp
from node.chain.contracts import registry
from node.chain.contracts.context import BlockContext, Call, OutOfGas, Revert
from node.chain.contracts.contract import NativeContract
from node.chain.contracts.layout import StorageReader
from node.chain.contracts.members import may_send
from node.chain.errors import InvalidTransaction
from node.chain.receipt import BLOOM_BYTES, EMPTY_BLOOM, EventLog, Receipt, logs_bits
from node.chain.state import Account, State
from node.chain.transaction import Transaction

CREATION_REFUSED = "contract creation is not supported"
NONCE_MAX = (1 << 64) - 2  # EIP-2681
_NO_LOGS: Sequence[EventLog] = ()
_BLOOM_PREFIX = b"\xb9\x01\x00"
_EMPTY_TAIL = _BLOOM_PREFIX + EMPTY_BLOOM + b"\xc0"
_BYTES = [bytes((value,)) for value in range(64)]
_LENGTHS = [bytes((0x80 + size,)) for size in range(33)]  # what stands before a number of so many bytes
# What stands before so many topics, with the prefix of the first one.
_TOPICS_HEADS = [b"\xc0"] + [rlp.encode([bytes(32)] * count)[: 1 - 33 * count] for count in range(1, 5)]


class Outcome(NamedTuple):
    """What a message did. `gas_used` includes the intrinsic gas."""

    succeeded: bool
    output: bytes
    gas_used: int
    event_logs: Sequence[EventLog]


@dataclass(slots=True)
class BlockRun:
    """A block while its transactions run: what is used so far, their receipts with their encodings, and its bloom."""

    context: BlockContext
    miner: bytes
    gas_max: int
    is_closed: bool  # whether the network asks who sends: genesis says it, once and for all
    gas_used: int = 0
    bloom_bits: int = 0
    receipts: list[Receipt] = field(default_factory=list)
    encoded_receipts: list[bytes] = field(default_factory=list)


def check_static(transaction: Transaction, *, chain_id: int, gas_max: int) -> int:
    """Check what no state can change, save the signature. Returns the intrinsic gas.

    `gas_max` is what a block may use. Raises InvalidTransaction, worded as geth does.
    """
    if transaction.chain_id != chain_id:
        raise InvalidTransaction("invalid chain id for signer", f"have {transaction.chain_id} want {chain_id}")
    if not transaction.to:
        raise InvalidTransaction(CREATION_REFUSED, "this chain runs native contracts and has no EVM")
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise InvalidTransaction(
            "max priority fee per gas higher than max fee per gas",
            f"maxPriorityFeePerGas: {transaction.max_priority_fee_per_gas}, "
            f"maxFeePerGas: {transaction.max_fee_per_gas}",
        )
    if transaction.nonce > NONCE_MAX:
        raise InvalidTransaction("nonce has max value", f"tx nonce {transaction.nonce}")
    if transaction.gas_limit > gas_max:
        raise InvalidTransaction("exceeds block gas limit", f"tx gas {transaction.gas_limit}, at most {gas_max}")
    gas = transaction.intrinsic_gas
    if gas > transaction.gas_limit:
        raise InvalidTransaction("intrinsic gas too low", f"gas {transaction.gas_limit}, minimum needed {gas}")
    return gas


def check_sender(state: StorageReader, sender: bytes) -> None:
    """Raise InvalidTransaction, worded as Besu does, when a closed network does not know the sender."""
    if not may_send(state, sender):
        raise InvalidTransaction(
            "sender account not authorized to send transactions",
            f"genesis lists 'accounts', and 0x{sender.hex()} is none of them, no validator and no gateway",
        )


def cost_max(transaction: Transaction) -> int:
    """Wei that the sender must own: value, and the whole gas limit at the highest price."""
    return transaction.gas_limit * transaction.max_fee_per_gas + transaction.value


def run_transaction(run: BlockRun, transaction: Transaction) -> None:
    """Execute a transaction as the next of the block.

    Raises InvalidTransaction, with nothing changed, when the block may not hold it here. "nonce too high" and "gas
    limit reached" mean that it may later.
    """
    context = run.context
    state = context.state
    gas_limit = transaction.gas_limit
    gas = check_static(transaction, chain_id=context.domain.chain_id, gas_max=run.gas_max)
    if gas_limit > run.gas_max - run.gas_used:
        raise InvalidTransaction("gas limit reached", f"tx gas {gas_limit}, left {run.gas_max - run.gas_used}")
    sender = transaction.sender
    if run.is_closed:
        check_sender(state, sender)
    account = state.account(sender)
    nonce = account.nonce
    if transaction.nonce != nonce:
        reason = "nonce too low" if transaction.nonce < nonce else "nonce too high"
        raise InvalidTransaction(reason, f"next nonce {nonce}, tx nonce {transaction.nonce}")
    if transaction.max_fee_per_gas or transaction.value:
        cost = cost_max(transaction)
        if cost > account.balance:
            raise InvalidTransaction(
                "insufficient funds for gas * price + value", f"balance {account.balance}, tx cost {cost}"
            )
    to, value = transaction.to, transaction.value
    succeeded, event_logs = True, _NO_LOGS
    contract = registry.CONTRACTS.get(to)
    paid = 0 if contract is not None or to == sender else value
    state.set_account(sender, Account(nonce + 1, account.balance - paid, account.storage_root, account.code_hash))
    if contract is not None:
        context.position = len(run.receipts)
        call = Call(context, sender, value, transaction.data, gas_limit, True, gas)
        succeeded, _, gas, event_logs = _answer(contract, call)
    elif paid:
        state.add_balance(to, paid)
    if transaction.max_priority_fee_per_gas and (tip := transaction.effective_tip(0)):
        fee = tip * gas
        state.set_balance(sender, state.balance(sender) - fee)
        state.set_balance(run.miner, state.balance(run.miner) + fee)
    run.gas_used += gas
    if event_logs:
        bits = logs_bits(event_logs)
        run.bloom_bits |= bits
        bloom = bits.to_bytes(BLOOM_BYTES, "big")
        receipt = Receipt(transaction.type, succeeded, run.gas_used, tuple(event_logs), bloom)
    else:
        receipt = Receipt(transaction.type, succeeded, run.gas_used)
    run.receipts.append(receipt)
    run.encoded_receipts.append(encode_receipt(receipt))


def run_message(
    context: BlockContext,
    *,
    sender: bytes,
    to: bytes,
    value: int,
    data: bytes,
    gas_limit: int,
    intrinsic_gas: int,
    in_transaction: bool,
) -> Outcome:
    """Transfer `value` and call `to`. The sender must own `value`, and `gas_limit` cover `intrinsic_gas`."""
    contract = registry.CONTRACTS.get(to)
    if contract is not None:
        return _answer(contract, Call(context, sender, value, data, gas_limit, in_transaction, intrinsic_gas))
    if value:
        _transfer(context.state, sender, to, value)
    return Outcome(True, b"", intrinsic_gas, _NO_LOGS)


def _answer(contract: NativeContract, call: Call) -> Outcome:
    """Transfer the call's value and run it; what it did to the state is undone where the contract refuses."""
    state = call.block.state
    snapshot = state.snapshot()
    if call.value:
        _transfer(state, call.sender, contract.address, call.value)
    try:
        return Outcome(True, contract.call(call), call.gas_used, call.event_logs)
    except Revert as refusal:
        state.revert(snapshot)
        return Outcome(False, refusal.data, call.gas_used, _NO_LOGS)
    except OutOfGas:
        state.revert(snapshot)
        return Outcome(False, b"", call.gas_limit, _NO_LOGS)


def encode_receipt(receipt: Receipt) -> bytes:
    """The same bytes as `Receipt.encoded`, in a third of the time: the lengths of most parts are known."""
    type_, succeeded, gas, event_logs, bloom = receipt
    size = (gas.bit_length() + 7) >> 3
    number = gas.to_bytes(size, "big")
    if not 0 < gas < 0x80:
        number = _LENGTHS[size] + number
    status = b"\x01" if succeeded else b"\x80"
    if event_logs:
        logs = rlp.encode_list([_encode_log(log) for log in event_logs])
        encoded = rlp.encode_list((status, number, _BLOOM_PREFIX, bloom, logs))
    else:  # 261 bytes and the number: two bytes for the length, the first of them 1
        encoded = b"\xf9\x01" + _BYTES[len(number) + 5] + status + number + _EMPTY_TAIL
    return _BYTES[type_] + encoded if type_ else encoded


def _encode_log(log: EventLog) -> bytes:
    address, topics, data = log
    return rlp.encode_list((b"\x94", address, _TOPICS_HEADS[len(topics)], b"\xa0".join(topics), rlp.encode(data)))


def _transfer(state: State, sender: bytes, to: bytes, value: int) -> None:
    state.set_balance(sender, state.balance(sender) - value)
    state.set_balance(to, state.balance(to) + value)
