"""Transactions by their raw bytes, so that one which comes by several ways is decoded, hashed and recovered once."""

from collections import OrderedDict

from node.chain.transaction import Transaction, decode_transaction

COUNT_MAX = 65_536  # more than may wait by default
BYTES_MAX = 12 << 20  # in memory it is twice that, since calldata is cut out; what waits is held by the mempool as well


class KnownTransactions:
    """The transactions decoded last, by their bytes; the oldest give way.

    A client's call, gossip, a proposal and a block that is served later all bring the same bytes. Looking them up costs
    a fifth of a microsecond; decoding and recovering them again would cost fifty.
    """

    def __init__(self, *, count_max: int = COUNT_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Keep `count_max` transactions and `bytes_max` bytes of them; the newest is kept however long it is."""
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._by_raw: OrderedDict[bytes, Transaction] = OrderedDict()
        self._bytes_count = 0

    def __len__(self) -> int:
        return len(self._by_raw)

    def decode(self, raw: bytes) -> Transaction:
        """The one object for these bytes. Raises InvalidTransaction, as `decode_transaction` does."""
        known = self._by_raw.get(raw)
        if known is not None:
            return known
        transaction = decode_transaction(raw)
        self._by_raw[raw] = transaction
        self._bytes_count += len(raw)
        while len(self._by_raw) > 1 and (len(self._by_raw) > self._count_max or self._bytes_count > self._bytes_max):
            oldest, _ = self._by_raw.popitem(last=False)
            self._bytes_count -= len(oldest)
        return transaction
