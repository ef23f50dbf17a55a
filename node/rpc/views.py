"""Blocks, transactions, receipts and event logs as the execution API specification and geth show them."""

from typing import Any

from merkle import rlp
from node.chain.block import Block, Header
from node.chain.receipt import EventLog
from node.chain.transaction import Transaction
from node.rpc.blocks import LoadedBlock
from node.rpc.hexes import data, quantity

View = dict[str, Any]


def header_view(header: Header) -> View:
    """London's sixteen fields and the hash."""
    return {
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "sha3Uncles": data(header.uncles_hash),
        "miner": data(header.miner),
        "stateRoot": data(header.state_root),
        "transactionsRoot": data(header.transactions_root),
        "receiptsRoot": data(header.receipts_root),
        "logsBloom": data(header.logs_bloom),
        "difficulty": quantity(header.difficulty),
        "number": quantity(header.number),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "extraData": data(header.extra_data),
        "mixHash": data(header.mix_hash),
        "nonce": data(header.nonce),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
    }


def block_view(block: Block, transactions: list[Any]) -> View:
    """A block; `transactions` are the hashes, or the views, of its transactions."""
    view = header_view(block.header)
    view["size"] = quantity(len(encode_block(block)))
    view["transactions"] = transactions
    view["uncles"] = []
    return view


def transaction_view(transaction: Transaction, header: Header | None = None, index: int = 0) -> View:
    """A transaction in the block of `header` at `index`, or, without a header, one that waits in the mempool."""
    base_fee = header.base_fee_per_gas if header else 0
    price = base_fee + transaction.effective_tip(base_fee) if header else transaction.max_fee_per_gas
    parity = transaction.signature[64]
    view: View = {
        "blockHash": data(header.hash) if header else None,
        "blockNumber": quantity(header.number) if header else None,
        "transactionIndex": quantity(index) if header else None,
        "hash": data(transaction.hash),
        "type": quantity(transaction.type),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "nonce": quantity(transaction.nonce),
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas_limit),
        "gasPrice": quantity(price),
        "input": data(transaction.data),
        "chainId": quantity(transaction.chain_id),
        "v": quantity(parity if transaction.type else 35 + 2 * transaction.chain_id + parity),
        "r": quantity(int.from_bytes(transaction.signature[:32], "big")),
        "s": quantity(int.from_bytes(transaction.signature[32:64], "big")),
    }
    if transaction.type:
        view["yParity"] = quantity(parity)
        view["accessList"] = [
            {"address": data(address), "storageKeys": [data(slot) for slot in slots]}
            for address, slots in transaction.access_list
        ]
    if transaction.type == 2:
        view["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        view["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
    return view


def receipt_view(loaded: LoadedBlock, index: int) -> View:
    """The receipt of transaction `index` of a block."""
    header, transaction = loaded.block.header, loaded.block.transactions[index]
    receipt = loaded.receipts[index]
    base_fee = header.base_fee_per_gas
    return {
        "transactionHash": data(transaction.hash),
        "transactionIndex": quantity(index),
        "blockHash": data(header.hash),
        "blockNumber": quantity(header.number),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "type": quantity(receipt.type),
        "status": quantity(int(receipt.succeeded)),
        "cumulativeGasUsed": quantity(receipt.cumulative_gas_used),
        "gasUsed": quantity(loaded.gas_used(index)),
        "effectiveGasPrice": quantity(base_fee + transaction.effective_tip(base_fee)),
        "contractAddress": None,
        "logsBloom": data(receipt.bloom),
        "logs": [
            log_view(log, header, transaction.hash, index, loaded.first_log[index] + position)
            for position, log in enumerate(receipt.event_logs)
        ],
    }


def log_view(log: EventLog, header: Header, transaction_hash: bytes, index: int, log_index: int) -> View:
    """An event log of transaction `index`; `log_index` counts within the block. `removed` is never true here."""
    return {
        "address": data(log.address),
        "topics": [data(topic) for topic in log.topics],
        "data": data(log.data),
        "blockNumber": quantity(header.number),
        "blockHash": data(header.hash),
        "blockTimestamp": quantity(header.timestamp),
        "transactionHash": data(transaction_hash),
        "transactionIndex": quantity(index),
        "logIndex": quantity(log_index),
        "removed": False,
    }


def encode_block(block: Block) -> bytes:
    """The block as Ethereum's block body encoding has it: RLP of header, transactions and (no) uncles."""
    # A legacy transaction is a list inside the list; a typed one is a byte string (EIP-2718).
    transactions = [transaction.raw if transaction.type == 0 else rlp.encode(transaction.raw)
                    for transaction in block.transactions]  # fmt: skip
    return rlp.encode_list([block.header.encoded, rlp.encode_list(transactions), rlp.encode([])])
