"""Simulated time: what is to happen, in order of time and then of being asked for. Nothing else moves the clock."""

from collections.abc import Callable
from heapq import heappop, heappush


class Timer:
    """Something that will happen, unless it is cancelled first."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Let it not happen."""
        self.action = None


class Scheduler:
    """The only clock of a simulated world, in microseconds since its beginning."""

    def __init__(self) -> None:
        self.now_us = 0
        self._due: list[tuple[int, int, Timer]] = []
        self._count = 0

    def after(self, delay_us: int, action: Callable[[], None]) -> Timer:
        """Do `action` when `delay_us` have passed."""
        timer = Timer(action)
        self._count += 1
        heappush(self._due, (self.now_us + max(0, delay_us), self._count, timer))
        return timer

    def run_next(self) -> bool:
        """Do the next thing; False when nothing is left to do."""
        while self._due:
            at_us, _, timer = heappop(self._due)
            if timer.action is not None:
                self.now_us = at_us
                timer.action()
                return True
        return False
