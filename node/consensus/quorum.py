"""How many validators decide, and whose turn it is (QBFT, arXiv 2002.03613, section 2 and Algorithm 1)."""

from collections.abc import Sequence


def quorum(count: int) -> int:
    """ceil(2n/3): any two quorums of n validators share one more than the faulty ones tolerated.

    3 validators survive 1 crash and 0 Byzantine ones; 4 survive 1 Byzantine; 6, not 5, survive 2 crashes.
    """
    return -(-2 * count // 3)


def tolerance(count: int) -> int:
    """f, the Byzantine validators that n tolerate: floor((n - 1) / 3)."""
    return max(0, (count - 1) // 3)


def crash_tolerance(count: int) -> int:
    """How many of n validators may be down while the chain still goes on."""
    return count - quorum(count)


def proposer(validators: Sequence[bytes], height: int, round_: int) -> bytes:
    """Who proposes at (height, round): round-robin over the sorted validators of that height."""
    return validators[(height + round_) % len(validators)]


def proposed_by_round(validators: Sequence[bytes], miner: bytes, height: int, round_: int) -> bool:
    """Whether `miner` was the proposer of some round r' ≤ `round_` of this height.

    A block that was prepared in an early round is proposed again unchanged in a later one, so its miner is that of the
    round in which it was first proposed, not of the round in which it becomes final.
    """
    if miner not in validators:
        return False
    return (validators.index(miner) - height) % len(validators) <= round_
