"""What one validator is still to be told: what was never sent to it, and what is not final long after it was; pure."""

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

RESEND_S_MAX = 30.0
_NONCE = attrgetter("transaction.nonce")


class _Signed(Protocol):
    @property
    def nonce(self) -> int: ...
    @property
    def hash(self) -> bytes: ...
    @property
    def raw(self) -> bytes: ...


class Flying(Protocol):
    """A signed transaction that is not final."""

    @property
    def transaction(self) -> _Signed: ...


F = TypeVar("F", bound=Flying)


class Lane(Generic[F]):
    """Taking out what is due costs as much as there is due, however much is in flight."""

    def __init__(self, resend_s: float) -> None:
        """`resend_s`: seconds after which the same transaction is sent again, for the first time."""
        self._resend_s = resend_s
        self._fresh: dict[F, None] = {}  # in the order in which they were signed
        # Nonces and hashes by when to send them again: the bytes of what is final by then are not to be kept.
        self._again: dict[float, list[tuple[int, bytes]]] = {}
        self._times_s: list[float] = []  # the keys, a heap: there are few, since most of a post have one
        self._intervals_s: dict[bytes, float] = {}  # of those that are sent again, by hash: there are few

    def put(self, sent: F) -> None:
        """One more to be sent."""
        self._fresh[sent] = None

    def forget(self, sent: F) -> None:
        """It is not in flight any more."""
        self._fresh.pop(sent, None)
        if self._intervals_s:
            self._intervals_s.pop(sent.transaction.hash, None)

    def restart(self, in_flight: Iterable[F]) -> None:
        """The validator may have lost whatever it held: all that is in flight is to be sent once more."""
        self._fresh = dict.fromkeys(in_flight)
        self._again.clear()
        self._times_s.clear()
        self._intervals_s.clear()

    def due(self, in_flight: Mapping[int, F], now_s: float, *, count_max: int, bytes_max: int) -> list[F]:
        """Take out what is to be sent now, in the order of nonces, in a portion; at least one where anything is due.

        Each has to come back by `sent_at`, or with the others by `restart`.
        """
        while self._times_s and self._times_s[0] <= now_s:
            for nonce, hash_ in self._again.pop(heappop(self._times_s)):
                sent = in_flight.get(nonce)
                if sent is not None and sent.transaction.hash == hash_:
                    self._fresh[sent] = None
                    interval_s = self._intervals_s.get(hash_, self._resend_s)
                    self._intervals_s[hash_] = min(interval_s * 2, RESEND_S_MAX)
        portion: list[F] = []
        size = 0
        for sent in self._fresh:
            size += len(sent.transaction.raw)
            if portion and (size > bytes_max or len(portion) >= count_max):
                break
            portion.append(sent)
        for sent in portion:
            del self._fresh[sent]
        portion.sort(key=_NONCE)
        return portion

    def sent_at(self, group: Iterable[F], now_s: float, pause_s: float | None = None) -> None:
        """The validator has answered: send these again after `pause_s`, or after twice as long as the last time."""
        for sent in group:
            transaction, interval_s = sent.transaction, pause_s
            if interval_s is None:
                interval_s = self._intervals_s.get(transaction.hash, self._resend_s)
            at_s = now_s + interval_s
            again = self._again.get(at_s)
            if again is None:
                again = self._again[at_s] = []
                heappush(self._times_s, at_s)
            again.append((transaction.nonce, transaction.hash))

    def next_s(self, now_s: float) -> float:
        """When something is due, unless something new comes first."""
        if self._fresh:
            return now_s
        return self._times_s[0] if self._times_s else now_s + 60
