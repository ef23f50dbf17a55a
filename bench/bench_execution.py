"""What the ledger's rules cost a validator, in microseconds a record: `python -m bench.bench_execution`.

Signatures are recovered before the clock starts, and the database is a dict: this is CPU time of execution, roots and
the batch of writes, neither cryptography nor disk.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable

from merkle.keccak import keccak256
from node.chain.block import Block
from node.chain.contracts import anchors, ballots
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.elections import ABI as ELECTIONS_ABI
from node.chain.domain import Domain
from node.chain.execution import apply_block, build_block
from node.chain.genesis import Genesis, build_genesis
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction

RUNS = 7
KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 65)]
GENESIS = Genesis(
    chain_id=7770,
    timestamp=1,
    validators=tuple(sorted(key.address for key in KEYS[:3])),
    gateways=(KEYS[0].address,),
    alloc={key.address: 10**24 for key in KEYS},
)


class Bench:
    """A chain on a dict, and the time that a validator needs for each block that it checks."""

    def __init__(self) -> None:
        first = build_genesis(GENESIS)
        self.domain = Domain(GENESIS.chain_id, first.block.hash)
        self.database = dict(first.writes)
        self.head = first.block.header
        self.nonces: dict[bytes, int] = {}

    def sign(self, key: SigningKey, to: bytes, data: bytes = b"", value: int = 0) -> Transaction:
        nonce = self.nonces.get(key.address, 0)
        self.nonces[key.address] = nonce + 1
        return sign_transaction(key, chain_id=7770, nonce=nonce, to=to, gas_limit=20_000_000, data=data, value=value)

    def take(self, transactions: list[Transaction]) -> float:
        """Build the next block, then check and take it. Returns the seconds of the check."""
        miner = GENESIS.validators[0]
        domain, database, head = self.domain, self.database, self.head
        built = build_block(database, head, transactions, miner=miner, timestamp=1, genesis=GENESIS, domain=domain)
        block = built.executed.block
        if len(block.transactions) != len(transactions):
            raise RuntimeError(f"only {len(block.transactions)} of {len(transactions)} transactions fit")
        fresh = Block(block.header, block.transactions)
        gc.collect()
        start = time.process_time()
        executed = apply_block(database, head, fresh, genesis=GENESIS, domain=domain, validators=GENESIS.validators)
        elapsed = time.process_time() - start
        if not all(receipt.succeeded for receipt in executed.receipts):
            raise RuntimeError("a transaction of the benchmark failed")
        database.update(executed.writes)
        self.head = block.header
        return elapsed

    def create_election(self) -> None:
        data = ELECTIONS_ABI.encode_call("create", 1, "Bench", ["a", "b", "c"], 3, 0, 0, 0, [], bytes(32))
        self.take([self.sign(KEYS[0], ELECTIONS, data)])


def median_us(run: Callable[[], float], records: int) -> float:
    """The median, over several runs, of microseconds a record."""
    return statistics.median(run() for _ in range(RUNS)) * 1e6 / records


def batch(size: int, content: bytes) -> bytes:
    records = (
        ballots.pack_record(os.urandom(32), os.urandom(32), 1 if len(content) > 1 else 0, content) for _ in range(size)
    )
    return ELECTIONS_ABI.encode_call("castBatch", 1, b"".join(records))


def hash_many() -> float:
    """Something whose cost is known, so that figures of slow and fast days can be compared."""
    start = time.process_time()
    for _ in range(10_000):
        keccak256(b"x" * 120)
    return time.process_time() - start


def main() -> None:
    """Measure and print one line for each kind of record."""
    rows: list[tuple[str, float]] = [("for comparison: keccak-256 of 120 bytes", median_us(hash_many, 10_000))]
    bench = Bench()
    bench.create_election()
    sealed = b"s" * 150
    for name, size, content in (("sealed, 150 B", 2048, sealed), ("open", 2048, b"\1"), ("sealed, 150 B", 500, sealed)):

        def cast(size: int = size, content: bytes = content) -> float:
            return bench.take([bench.sign(KEYS[0], ELECTIONS, batch(size, content)) for _ in range(4)])

        rows.append((f"ballot in a batch of {size} ({name})", median_us(cast, 4 * size)))

    def cast_one() -> float:
        calls = (ELECTIONS_ABI.encode_call("cast", 1, os.urandom(32), os.urandom(32), 0, b"\1") for _ in range(1000))
        return bench.take([bench.sign(KEYS[0], ELECTIONS, data) for data in calls])

    rows.append(("ballot in a transaction of its own", median_us(cast_one, 1000)))

    def anchor() -> float:
        calls = (
            anchors.ABI.encode_call("anchor", os.urandom(32), os.urandom(32), 7, "rfc6962-sha256") for _ in range(1000)
        )
        return bench.take([bench.sign(KEYS[0], ANCHORS, data) for data in calls])

    rows.append(("anchor", median_us(anchor, 1000)))

    def transfer_known() -> float:
        return bench.take([bench.sign(KEYS[n % 64], KEYS[(n * 7 + 1) % 64].address, value=1) for n in range(2000)])

    rows.append(("transfer among 64 accounts, 2,000 a block", median_us(transfer_known, 2000)))

    def transfer_new() -> float:
        return bench.take([bench.sign(KEYS[n % 64], os.urandom(20), value=1) for n in range(2000)])

    rows.append(("transfer to a new account, 2,000 a block", median_us(transfer_new, 2000)))

    class Rich:
        def nonce(self, address: bytes) -> int:
            return 0

        def balance(self, address: bytes) -> int:
            return 10**24

        def storage(self, address: bytes, slot: int) -> int:
            return 0

    pooled = [
        sign_transaction(KEYS[n % 64], chain_id=7770, nonce=n // 64, to=KEYS[0].address, gas_limit=21_000)
        for n in range(6400)
    ]

    def pool() -> float:
        mempool = Mempool(MempoolLimits(), chain_id=7770, gas_max=10**9)
        state = Rich()
        start = time.process_time()
        for transaction in pooled:
            mempool.add(transaction, state=state)
        chosen = mempool.select(gas_max=10**9, bytes_max=1 << 23, next_nonce=state.nonce)
        mempool.finalised(chosen, lambda _: 100)
        return time.process_time() - start

    rows.append(("mempool: add, select and drop a transaction", median_us(pool, len(pooled))))
    for label, us in rows:
        print(f"{label:<48} {us:7.2f} µs")


if __name__ == "__main__":
    main()
