"""Histograms for one event loop: noting a value costs a binary search and two additions."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of buckets, in seconds, for what should be quick."""


class Distribution:
    """A histogram: how many values lay at or below each bound, and their sum. For one thread or event loop."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float] = FAST_S) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Note a value, `times` over."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values were noted."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus's cumulative buckets: the upper bound as text, and how many values lay at or below it."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return [(name, float(count)) for name, count in zip(names, accumulate(self._counts), strict=True)]


class Distributions:
    """A `Distribution` for each value of one label, made on first use. Whoever observes keeps the values few."""

    def __init__(self, bounds: Sequence[float] = FAST_S) -> None:
        self._bounds = bounds
        self._by_label: dict[str, Distribution] = {}

    def observe(self, label: str, value: float) -> None:
        """Note a value under a label."""
        one = self._by_label.get(label)
        if one is None:
            one = self._by_label[label] = Distribution(self._bounds)
        one.observe(value)

    def __iter__(self) -> Iterator[tuple[str, Distribution]]:
        return iter(sorted(self._by_label.items()))


class Calls:
    """How long calls took and how many failed, by what was called."""

    def __init__(self) -> None:
        self.seconds = Distributions()
        self.failed: Counter[str] = Counter()

    def note(self, name: str, seconds: float, *, failures: int = 0) -> None:
        """Note one call, or one that answered many together. The caller sees to it that names are few."""
        self.seconds.observe(name, seconds)
        if failures:
            self.failed[name] += failures
