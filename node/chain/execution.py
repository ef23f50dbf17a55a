"""The ledger's rules for whole blocks: build one, check one, and call contracts without one."""

from collections.abc import Iterable, Sequence

from merkle.patricia import ordered_root
from node.chain.block import DIFFICULTY, EMPTY_UNCLES_HASH, MIX_HASH, NONCE, Block, Header
from node.chain.contracts import registry
from node.chain.contracts import validators as validators_contract
from node.chain.contracts.context import BlockContext
from node.chain.contracts.members import is_closed
from node.chain.domain import Domain
from node.chain.errors import InvalidBlock, InvalidTransaction, PeerError
from node.chain.gas import AccessList, intrinsic_gas_of, usable_gas
from node.chain.genesis import Genesis, validators_hash
from node.chain.outcome import Built, CallResult, Executed
from node.chain.processing import CREATION_REFUSED, BlockRun, run_message, run_transaction
from node.chain.receipt import BLOOM_BYTES, Receipt
from node.chain.state import Reader, State, Values
from node.chain.stored import block_key, pack_stored
from node.chain.transaction import Transaction

__all__ = [
    "Built",
    "CallRefused",
    "CallResult",
    "Executed",
    "apply_block",
    "build_block",
    "call",
    "check_header",
    "estimate_gas",
]

# Reasons for which a transaction cannot follow here and now, and may well later: it is not dropped.
_LATER = ("nonce too high", "gas limit reached")
HEADER_BYTES_MAX = 700  # sixteen fields at their longest take less
_MISFITS_MAX = 64


class CallRefused(PeerError):
    """A contract refused the call whose gas was to be estimated; `output` is the revert data, empty for want of gas."""

    def __init__(self, output: bytes) -> None:
        super().__init__("execution reverted")
        self.output = output


def check_header(parent: Header, header: Header, validators: Sequence[bytes]) -> None:
    """Check everything about a header that needs neither state nor transactions. Raises InvalidBlock."""
    expected: tuple[tuple[str, object, object], ...] = (
        ("parentHash", header.parent_hash, parent.hash),
        ("number", header.number, parent.number + 1),
        ("gasLimit", header.gas_limit, parent.gas_limit),
        ("sha3Uncles", header.uncles_hash, EMPTY_UNCLES_HASH),
        ("difficulty", header.difficulty, DIFFICULTY),
        ("nonce", header.nonce, NONCE),
        ("mixHash", header.mix_hash, MIX_HASH),
        ("baseFeePerGas", header.base_fee_per_gas, 0),
    )
    for name, value, right in expected:
        if value != right:
            raise _mismatch(header, name, value, right)
    if header.timestamp < parent.timestamp:
        raise InvalidBlock(
            f"block {header.number}: timestamp is {header.timestamp}, expected at least its parent's {parent.timestamp}"
        )
    if header.gas_used > usable_gas(header.gas_limit):
        raise InvalidBlock(
            f"block {header.number}: gasUsed is {header.gas_used}, expected at most half of {header.gas_limit}"
        )
    if header.miner not in validators:
        raise InvalidBlock(f"block {header.number}: miner is 0x{header.miner.hex()}, expected one of the validators")


def apply_block(
    reader: Reader,
    parent: Header,
    block: Block,
    *,
    genesis: Genesis,
    domain: Domain,
    validators: Sequence[bytes],
    override: Sequence[bytes] | None = None,
    known: Values | None = None,
) -> Executed:
    """Execute a block on its parent, the head of what `reader` holds, and check everything but its certificate.

    `validators` decide this height. Which of them may propose it depends on the certificate's round, and is for
    consensus to check. `override` names the same set where the parent does not: then the block puts it in place, and
    must be empty. `known`: as `State` takes it, after the parent.
    Raises InvalidBlock; InvalidTransaction never leaves this function.
    """
    header = block.header
    check_header(parent, header, validators)
    if override is not None and block.transactions:
        raise InvalidBlock(f"block {header.number}: has transactions, expected none where an override is put in place")
    if block.bytes_count > genesis.block_bytes_max:
        raise InvalidBlock(
            f"block {header.number}: {block.bytes_count} bytes, expected at most {genesis.block_bytes_max}"
        )
    state = State(reader, parent.state_root, known)
    run = _start(state, parent, header.timestamp, header.miner, domain, override)
    for position, transaction in enumerate(block.transactions):
        try:
            run_transaction(run, transaction)
        except InvalidTransaction as error:
            raise InvalidBlock(f"block {header.number}: transaction {position}: {error}") from None
    right, executed = _finish(run, parent, block.transactions_root, header.timestamp)
    if right.hash != header.hash:
        for name in ("state_root", "transactions_root", "receipts_root", "logs_bloom", "gas_used", "extra_data"):
            if getattr(right, name) != getattr(header, name):
                raise _mismatch(header, name, getattr(header, name), getattr(right, name))
        raise InvalidBlock(f"block {header.number}: its header is not the one that its transactions make")
    return _executed(block, executed)


def build_block(
    reader: Reader,
    parent: Header,
    transactions: Iterable[Transaction],
    *,
    miner: bytes,
    timestamp: int,
    genesis: Genesis,
    domain: Domain,
    override: Sequence[bytes] | None = None,
    known: Values | None = None,
) -> Built:
    """Build a block of those of `transactions` that can follow each other on `parent`, the head of `reader`, and fit.

    `timestamp` is in seconds; the parent's is taken where that is later. Signatures that are not recovered yet are
    recovered here. With `override`, as in `apply_block`, the block is empty and nothing is dropped. `known` as there.
    """
    state = State(reader, parent.state_root, known)
    run = _start(state, parent, max(timestamp, parent.timestamp), miner, domain, override)
    if override is not None:
        transactions = ()
    taken: list[Transaction] = []
    dropped: list[tuple[Transaction, InvalidTransaction]] = []
    bytes_left = genesis.block_bytes_max - HEADER_BYTES_MAX
    misfits = 0
    for transaction in transactions:
        if len(transaction.raw) > bytes_left:
            misfits += 1
        else:
            try:
                run_transaction(run, transaction)
            except InvalidTransaction as error:
                if error.reason not in _LATER:
                    dropped.append((transaction, error))
                elif error.reason != "nonce too high":
                    misfits += 1
            else:
                taken.append(transaction)
                bytes_left -= len(transaction.raw)
        if misfits > _MISFITS_MAX:
            break
    transactions_root = ordered_root([transaction.raw for transaction in taken])
    header, executed = _finish(run, parent, transactions_root, run.context.timestamp)
    return Built(_executed(Block(header, tuple(taken)), executed), dropped)


def call(
    reader: Reader,
    header: Header,
    *,
    sender: bytes,
    to: bytes,
    data: bytes,
    value: int = 0,
    gas: int,
    genesis: Genesis,
    domain: Domain,
) -> CallResult:
    """Run a message on the state after `header`'s block, as if inside that block, and forget what it changed.

    Raises InvalidTransaction when it cannot start: no recipient, too little gas, value that the sender does not own.
    """
    return _simulate(reader, header, sender, to, data, value, gas, intrinsic_gas_of(data), domain, False)


def estimate_gas(
    reader: Reader,
    header: Header,
    *,
    sender: bytes,
    to: bytes,
    data: bytes,
    value: int = 0,
    gas: int | None = None,
    access_list: AccessList = (),
    genesis: Genesis,
    domain: Domain,
) -> int:
    """The least gas limit with which a transaction would succeed on this state; exact, since there are no refunds.

    `gas` bounds it; a block's usable gas by default. Raises CallRefused, or InvalidTransaction as `call` does.
    """
    gas_max = usable_gas(header.gas_limit)
    limit = gas_max if gas is None else min(gas, gas_max)
    intrinsic = intrinsic_gas_of(data, access_list)
    result = _simulate(reader, header, sender, to, data, value, limit, intrinsic, domain, True)
    if not result.succeeded:
        raise CallRefused(result.output)
    return result.gas_used


def _simulate(
    reader: Reader,
    header: Header,
    sender: bytes,
    to: bytes,
    data: bytes,
    value: int,
    gas: int,
    intrinsic: int,
    domain: Domain,
    in_transaction: bool,
) -> CallResult:
    if not to:
        raise InvalidTransaction(CREATION_REFUSED, "this chain runs native contracts and has no EVM")
    if gas < intrinsic:
        raise InvalidTransaction("intrinsic gas too low", f"gas {gas}, minimum needed {intrinsic}")
    state = State(reader, header.state_root)
    if value and state.balance(sender) < value:
        raise InvalidTransaction("insufficient funds for transfer", f"balance {state.balance(sender)}, value {value}")
    outcome = run_message(
        BlockContext(state, header.number, header.timestamp, domain),
        sender=sender,
        to=to,
        value=value,
        data=data,
        gas_limit=gas,
        intrinsic_gas=intrinsic,
        in_transaction=in_transaction,
    )
    return CallResult(outcome.succeeded, outcome.output, outcome.gas_used)


def _start(
    state: State, parent: Header, timestamp: int, miner: bytes, domain: Domain, override: Sequence[bytes] | None
) -> BlockRun:
    context = BlockContext(state, parent.number + 1, timestamp, domain)
    registry.begin_block(context, override)
    return BlockRun(context, miner, usable_gas(parent.gas_limit), is_closed(state))


_Consequences = tuple[tuple[Receipt, ...], tuple[bytes, ...], dict[bytes, bytes], tuple[bytes, ...], Values]


def _finish(run: BlockRun, parent: Header, transactions_root: bytes, timestamp: int) -> tuple[Header, _Consequences]:
    """End the block: its header, and the rest of `Executed` in the order of its fields."""
    context = run.context
    registry.end_block(context)
    next_validators = validators_contract.next_validators(context.state)
    state_root, writes = context.state.commit()
    header = Header(
        parent_hash=parent.hash,
        miner=run.miner,
        state_root=state_root,
        transactions_root=transactions_root,
        receipts_root=ordered_root(run.encoded_receipts),
        logs_bloom=run.bloom_bits.to_bytes(BLOOM_BYTES, "big"),
        number=context.number,
        gas_limit=parent.gas_limit,
        gas_used=run.gas_used,
        timestamp=timestamp,
        extra_data=validators_hash(next_validators),
    )
    receipts, encoded_receipts = tuple(run.receipts), tuple(run.encoded_receipts)
    return header, (receipts, encoded_receipts, writes, next_validators, context.state.changed)


def _executed(block: Block, consequences: _Consequences) -> Executed:
    """The whole of it, the block's own place in the database among it: ballots are read from there."""
    receipts, encoded_receipts, writes, next_validators, changed = consequences
    writes[block_key(block.number)] = pack_stored(block.header.encoded, block.transactions)
    return Executed(block, receipts, encoded_receipts, writes, next_validators, changed)


def _mismatch(header: Header, name: str, value: object, right: object) -> InvalidBlock:
    shown, expected = (f"0x{item.hex():.64}" if isinstance(item, bytes) else item for item in (value, right))
    return InvalidBlock(f"block {header.number}: {name} is {shown}, expected {expected}")
