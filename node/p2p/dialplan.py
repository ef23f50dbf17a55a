"""When to dial which peer at which of its endpoints, pure: back-off that doubles to a cap, with jitter."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DialPolicy:
    """Waiting times between attempts at one peer."""

    first_ms: int = 100
    """After the first failure, or after a session ended."""
    cap_ms: int = 5_000
    """Never longer than this, since a network of few members needs each of them."""
    steady_ms: int = 5_000
    """A session that lived this long wipes out the failures before it."""


@dataclass(slots=True)
class _Target:
    due_ms: int
    failures: int = 0
    attempts: int = 0
    busy: bool = False


class DialPlan:
    """Which peers are wanted, being dialled, or connected. Times are monotonic; `jitter` is from [0, 1)."""

    def __init__(self, policy: DialPolicy) -> None:
        self._policy = policy
        self._targets: dict[bytes, _Target] = {}
        self._opened_ms: dict[bytes, int] = {}  # also of peers that dialled us before we wanted them

    def want(self, peers: set[bytes], *, now_ms: int) -> None:
        """Exactly these peers are to be connected; new ones are due at once."""
        for peer in peers - self._targets.keys():
            self._targets[peer] = _Target(due_ms=now_ms)
        for peer in self._targets.keys() - peers:
            del self._targets[peer]

    def hurry(self, peer: bytes, *, now_ms: int) -> None:
        """Something new is known of the peer (an endpoint): forget the failures."""
        target = self._targets.get(peer)
        if target is not None:
            target.failures = 0
            target.due_ms = min(target.due_ms, now_ms)

    def take_due(self, *, now_ms: int) -> list[tuple[bytes, int]]:
        """Peers to dial now, each with the number of the attempt, by which its endpoints take turns.

        They count as busy until `failed` or `opened`.
        """
        due: list[tuple[bytes, int]] = []
        for peer, target in self._targets.items():
            if target.busy or peer in self._opened_ms or target.due_ms > now_ms:
                continue
            target.busy = True
            due.append((peer, target.attempts))
            target.attempts += 1
        return due

    def failed(self, peer: bytes, *, now_ms: int, jitter: float) -> None:
        """An attempt ended without a session."""
        target = self._targets.get(peer)
        if target is not None:
            target.busy = False
            target.failures += 1
            target.due_ms = now_ms + self._delay_ms(target.failures, jitter)

    def opened(self, peer: bytes, *, now_ms: int) -> None:
        """A session is open, whoever dialled; nothing is due until it closes."""
        self._opened_ms[peer] = now_ms

    def closed(self, peer: bytes, *, now_ms: int, jitter: float) -> None:
        """The session ended."""
        opened_ms = self._opened_ms.pop(peer, None)
        target = self._targets.get(peer)
        if target is None or opened_ms is None:
            return
        steady = now_ms - opened_ms >= self._policy.steady_ms
        target.failures = 1 if steady else target.failures + 1
        target.due_ms = now_ms + self._delay_ms(target.failures, jitter)

    def ended(self, peer: bytes) -> None:
        """The attempt that opened a session, or lost to one, is over."""
        target = self._targets.get(peer)
        if target is not None:
            target.busy = False

    def _delay_ms(self, failures: int, jitter: float) -> int:
        full_ms = min(self._policy.cap_ms, self._policy.first_ms << min(failures - 1, 16))
        return int(full_ms * (0.5 + 0.5 * jitter))
