"""Draws a run: curves over time in panels, and below them a lane per process with what was done to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.canvas import Canvas, Colour, text_width

WIDTH, PANEL_HEIGHT, LANE_HEIGHT = 1280, 260, 22
LEFT, RIGHT, TOP, GAP = 120, 24, 52, 44
COLOURS: tuple[Colour, ...] = (
    (31, 119, 180),
    (44, 160, 44),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (23, 160, 180),
    (188, 150, 34),
)
GRID: Colour = (225, 225, 225)
INK: Colour = (60, 60, 60)


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over time, as (seconds, value) in order; drawn as steps."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: Colour


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis, which begins at their lowest value."""

    title: str
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Band:
    """What was done to one process, from when to when."""

    lane: str
    begins_s: float
    ends_s: float
    colour: Colour


def draw(
    title: str,
    panels: Sequence[Panel],
    lanes: Sequence[str],
    bands: Sequence[Band],
    legend: Sequence[tuple[str, Colour]],
    ends_s: float,
) -> bytes:
    """The picture as PNG; the time axis runs from 0 to `ends_s` seconds."""
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP) + len(lanes) * LANE_HEIGHT + 72
    canvas = Canvas(WIDTH, height)
    canvas.text(LEFT, 16, title)
    span = max(ends_s, 1.0)

    def x_of(at_s: float) -> int:
        return LEFT + round((WIDTH - LEFT - RIGHT) * min(max(at_s, 0.0), span) / span)

    lanes_top = TOP + len(panels) * (PANEL_HEIGHT + GAP)
    bottom = lanes_top + len(lanes) * LANE_HEIGHT
    for band in bands:  # beneath everything else
        x, width = x_of(band.begins_s), max(x_of(band.ends_s) - x_of(band.begins_s), 2)
        for index in range(len(panels)):
            canvas.box(x, TOP + index * (PANEL_HEIGHT + GAP) + 18, width, PANEL_HEIGHT - 18, band.colour, opacity=0.12)
        if band.lane in lanes:
            canvas.box(x, lanes_top + lanes.index(band.lane) * LANE_HEIGHT + 3, width, LANE_HEIGHT - 6, band.colour)
    for index, panel in enumerate(panels):
        _panel(canvas, panel, TOP + index * (PANEL_HEIGHT + GAP), x_of)
    for index, lane in enumerate(lanes):
        y = lanes_top + index * LANE_HEIGHT
        canvas.text(LEFT - 8 - text_width(lane, 1), y + 7, lane, scale=1)
        canvas.box(LEFT, y + LANE_HEIGHT - 1, WIDTH - LEFT - RIGHT, 1, GRID)
    for tick in _ticks(0.0, span, 12):
        canvas.box(x_of(tick), bottom, 1, 6, INK)
        canvas.text(x_of(tick) - text_width(f"{tick:g} s", 1) // 2, bottom + 10, f"{tick:g} s", scale=1)
    x = LEFT
    for name, colour in legend:
        canvas.box(x, bottom + 34, 12, 12, colour)
        canvas.text(x + 18, bottom + 36, name, scale=1)
        x += 18 + text_width(name, 1) + 24
    return canvas.png()


def _panel(canvas: Canvas, panel: Panel, top: int, x_of: Callable[[float], int]) -> None:
    values = [value for curve in panel.curves for _, value in curve.points] or [0.0]
    low, high = min(values), max(max(values), min(values) + 1)
    inner_top, inner_height = top + 18, PANEL_HEIGHT - 18

    def y_of(value: float) -> int:
        return inner_top + inner_height - 1 - round((inner_height - 8) * (value - low) / (high - low))

    for tick in _ticks(low, high, 6):
        canvas.box(LEFT, y_of(tick), WIDTH - LEFT - RIGHT, 1, GRID)
        canvas.text(LEFT - 8 - text_width(f"{tick:g}", 1), y_of(tick) - 3, f"{tick:g}", scale=1)
    canvas.box(LEFT, inner_top, 1, inner_height, INK)
    canvas.box(LEFT, inner_top + inner_height, WIDTH - LEFT - RIGHT, 1, INK)
    for curve in panel.curves:
        corners: list[tuple[int, int]] = []
        for at_s, value in curve.points:
            x, y = x_of(at_s), y_of(value)
            if corners and corners[-1][1] != y:
                corners.append((x, corners[-1][1]))
            if not corners or corners[-1] != (x, y):
                corners.append((x, y))
        canvas.path(corners, curve.colour)
    canvas.text(LEFT, top, panel.title, scale=1)
    x = LEFT + text_width(panel.title, 1) + 30
    for curve in panel.curves:
        canvas.box(x, top + 2, 14, 3, curve.colour)
        canvas.text(x + 20, top, curve.name, scale=1)
        x += 20 + text_width(curve.name, 1) + 20


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** (len(str(int(rough))) - 1) if rough >= 1 else 1.0
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = -(-low // step) * step
    return [first + step * index for index in range(int((high - first) // step) + 1)]
