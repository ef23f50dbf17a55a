"""Times the hashing structures, as in the table of costs in the design: `python -m bench.bench_merkle`."""

import random
import time
from collections.abc import Callable

from merkle import log, patricia
from merkle.keccak import keccak256

LEAVES = 2_000
ROUNDS = 9


def best_us(work: Callable[[], object]) -> float:
    """The shortest of several runs, in microseconds: the machine's other work only ever adds."""
    shortest = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest * 1e6


def measure() -> list[tuple[str, float]]:
    """(what, microseconds) of each measurement."""
    source = random.Random(1)
    values = [source.randbytes(120) for _ in range(LEAVES)]
    accounts = {source.randbytes(32): source.randbytes(70) for _ in range(10 * LEAVES)}
    root, stored = patricia.update(lambda _: None, patricia.EMPTY_ROOT, accounts)
    changed = {key: source.randbytes(70) for key in source.sample(sorted(accounts), LEAVES)}
    few = dict(list(changed.items())[:50])
    hashes = [log.leaf_hash(value) for value in values]
    nodes = {(0, index): digest for index, digest in enumerate(hashes)}
    for level, first, row in log.Frontier().extend(hashes):
        nodes |= {(level, index): digest for index, digest in enumerate(row, first)}
    proof = log.inclusion_proof(LEAVES // 3, LEAVES, lambda level, index: nodes[level, index])
    log_root = log.root(hashes)

    def verify() -> None:
        log.verify_inclusion(index=LEAVES // 3, size=LEAVES, leaf_hash=hashes[LEAVES // 3], proof=proof, root=log_root)

    return [
        ("keccak-256 of 120 bytes", best_us(lambda: [keccak256(value) for value in values]) / LEAVES),
        (f"trie: root of a list of {LEAVES} values", best_us(lambda: patricia.ordered_root(values))),
        (
            f"trie: change {LEAVES} of {len(accounts)} accounts",
            best_us(lambda: patricia.update(stored.get, root, changed)),
        ),
        (
            f"trie: change {len(few)} of {len(accounts)} accounts",
            best_us(lambda: patricia.update(stored.get, root, few)),
        ),
        (
            f"trie: read one of {len(accounts)} accounts",
            best_us(lambda: [patricia.get(stored.get, root, key) for key in few]) / len(few),
        ),
        (f"log: root of {LEAVES} leaves", best_us(lambda: log.root(map(log.leaf_hash, values)))),
        (f"log: verify one of {LEAVES} leaves", best_us(verify)),
    ]


if __name__ == "__main__":
    for what, duration_us in measure():
        print(f"{what:44}{duration_us:12,.1f} µs")
