"""A machine's clocks: a monotonic one that may run fast or slow, and a wall clock that may be wrong and may jump."""

from tests.sim.scheduler import Scheduler

WALL_START_S = 1_800_000_000


class Clock:
    """`rate` is how fast the monotonic clock runs; `skew_s` how far the wall clock is off."""

    def __init__(self, scheduler: Scheduler, *, rate: float, skew_s: float) -> None:
        self._scheduler = scheduler
        self._rate = rate
        self.skew_s = skew_s

    def now_ms(self) -> int:
        """Monotonic milliseconds."""
        return int(self._scheduler.now_us * self._rate) // 1000

    def wall_s(self) -> int:
        """Unix time in whole seconds."""
        return int(WALL_START_S + self._scheduler.now_us / 1e6 + self.skew_s)

    def until_us(self, deadline_ms: int) -> int:
        """How long it takes in real time until `now_ms` reaches `deadline_ms`."""
        return int((deadline_ms * 1000 - self._scheduler.now_us * self._rate) / self._rate) + 2
