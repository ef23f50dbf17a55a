"""The arithmetic of a benchmark, pure: percentiles, rates and gaps in a series of what was final when."""

import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, TypeGuard

Series = Sequence[tuple[float, int]]  # (when in seconds, records that are final by then), both growing
PERCENTILES = (50, 90, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of `ordered`, which is sorted and not empty, do not exceed."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def latencies_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """Percentiles, mean and worst in milliseconds; None where nothing was measured."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    shown = {f"p{percent}": round(percentile(ordered, percent) * 1e3, 2) for percent in PERCENTILES}
    mean, worst = statistics.fmean(ordered), ordered[-1]
    return shown | {"mean": round(mean * 1e3, 2), "max": round(worst * 1e3, 2)}


def final_at(series: Series, at_s: float) -> int:
    """How many records were final at a moment."""
    place = bisect_right(series, at_s, key=lambda point: point[0])
    return series[place - 1][1] if place else 0


def reached_s(series: Series, records: int) -> float:
    """When so many records were final; infinity where that never happened."""
    place = bisect_right(series, records - 1, key=lambda point: point[1])
    return series[place][0] if place < len(series) else float("inf")


def longest_gap_s(series: Series, begins_s: float, ends_s: float) -> float:
    """The longest time between two moments at which something became final, ends included."""
    moments = [begins_s, *(at_s for at_s, _ in series if begins_s < at_s < ends_s), ends_s]
    return max((after - before for before, after in pairwise(moments)), default=0.0)


def per_second(series: Series, begins_s: float, ends_s: float) -> float:
    """Records that became final in a span, by the second; 0 for an empty span."""
    if ends_s <= begins_s:
        return 0.0
    return (final_at(series, ends_s) - final_at(series, begins_s)) / (ends_s - begins_s)


def around_death(series: Series, begins_s: float, killed_s: float, ends_s: float, settle_s: float) -> dict[str, float]:
    """Before and after a validator was killed: rates, their ratio, and the longest times without a final record.

    `ratio` leaves out the first `settle_s` seconds after the death, `ratio_with_settling` does not.
    """
    before = per_second(series, begins_s, killed_s)
    settled_s = min(killed_s + settle_s, ends_s)
    after, whole = per_second(series, settled_s, ends_s), per_second(series, killed_s, ends_s)
    return {
        "killed_after_s": killed_s - begins_s,
        "per_second_before": before,
        "per_second_after": after,
        "ratio": after / before if before else 0.0,
        "ratio_with_settling": whole / before if before else 0.0,
        "longest_gap_s": longest_gap_s(series, killed_s, ends_s),
        "longest_gap_settled_s": longest_gap_s(series, settled_s, ends_s),
    }


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of the shape of `runs`, each number the median of theirs; what is no number is of the first run.

    Documents in lists of one length, as a large election's chunks, are merged one by one.
    """
    merged: dict[str, Any] = {}
    for name, value in runs[0].items():
        values = [run.get(name) for run in runs]
        if isinstance(value, Mapping):
            merged[name] = medians([each for each in values if isinstance(each, Mapping)])
        elif _documents(value) and all(_documents(each) and len(each) == len(value) for each in values):
            merged[name] = [medians(group) for group in zip(*values, strict=True)]
        elif isinstance(value, bool):
            merged[name] = any(values) if name == "generator_was_limit" else all(values)
        elif isinstance(value, (int, float)):
            merged[name] = statistics.median(each for each in values if isinstance(each, (int, float)))
        else:
            merged[name] = value
    return merged


def _documents(value: object) -> TypeGuard[list[Mapping[str, Any]]]:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)
