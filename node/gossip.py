"""What peers are told of new transactions, when and how, pure: the shells keep the time and send."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from node import payloads
from node.chain.transaction import Transaction
from node.p2p.kinds import Kind

GOSSIP_AFTER_S = 0.02  # new transactions are gathered this long, then told together; after 5 ms each costs 4 µs more
ANNOUNCE_AFTER_S = 0.05  # at most; most of a gateway's are with every validator by then, and many of them final

Messages = Iterator[tuple[Kind, bytes]]


class Gossip:
    """Transactions that came from clients and that no peer has been told of.

    A client's is sent on after GOSSIP_AFTER_S. A gateway sends its own to every validator, so peers are told only the
    hashes, and only of those that still wait a while later: the bytes would come to each validator once from each of
    the others.
    """

    def __init__(self, mempool: Container[bytes], is_gateway: Callable[[bytes], bool]) -> None:
        """`mempool` says which transactions wait, by hash; `is_gateway`, whose address is that of a gateway."""
        self._mempool = mempool
        self._is_gateway = is_gateway
        self._to_send: list[Transaction] = []
        self._to_announce: list[bytes] = []

    def put(self, transactions: Iterable[Transaction]) -> tuple[bool, bool]:
        """Note new ones; whether `send` is due in GOSSIP_AFTER_S, and `announce` in ANNOUNCE_AFTER_S."""
        nothing_to_send, nothing_to_announce = not self._to_send, not self._to_announce
        for transaction in transactions:
            if self._is_gateway(transaction.sender):
                self._to_announce.append(transaction.hash)
            else:
                self._to_send.append(transaction)
        return nothing_to_send and bool(self._to_send), nothing_to_announce and bool(self._to_announce)

    def send(self) -> Messages:
        """What is to be told now of clients' transactions."""
        transactions, self._to_send = self._to_send, []
        return payloads.pack_gossip(transactions)

    def announce(self) -> Messages:
        """What is to be told now of gateways' transactions."""
        hashes, self._to_announce = self._to_announce, []
        return announcement([digest for digest in hashes if digest in self._mempool])


def announcement(hashes: Sequence[bytes]) -> Messages:
    """The messages that tell of waiting transactions by their hashes; who lacks one asks for it."""
    for start in range(0, len(hashes), payloads.HASHES_MAX):
        yield Kind.TRANSACTION_HASHES, payloads.pack_hashes(hashes[start : start + payloads.HASHES_MAX])
