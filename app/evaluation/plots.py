"""Plots as inline SVG: one dot per photo and column, and before against after. No script, no font, no library.

Colours come from the page's classes (`c0` to `c5`), so that a plot reads in dark and in light. It gets names and
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

COLOURS = 6
_WIDTH, _NAMES_WIDTH, _RIGHT = 720, 190, 20
_ROW, _TOP, _BOTTOM, _RADIUS = 20, 8, 30, 4.5
_MOST_NAME_CHARACTERS = 28
_TICKS = 7

Series = tuple[str, Sequence[float | None]]  # a column's name, and its value for each photo


def dot_plot(title: str, names: Sequence[str], series: Sequence[Series], decimals: int) -> str:
    """One line per photo, one dot per column; dots of a photo are joined, so that their distance shows.

    Args:
        title: what is measured, with its unit; read aloud by screen readers.
        names: of the photos, from top to bottom.
        series: columns, each with as many values as there are names; None and infinite ones get no dot.
        decimals: of the values that a dot tells when pointed at.
    """
    finite = [v for _, values in series for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return ""
    ticks = nice_ticks(min(finite), max(finite))
    height = _TOP + _ROW * len(names) + _BOTTOM
    parts = [_head(title, height), _axis(ticks, height)]
    for row, name in enumerate(names):
        y = _TOP + _ROW * (row + 0.5)
        short = name if len(name) <= _MOST_NAME_CHARACTERS else f"…{name[1 - _MOST_NAME_CHARACTERS :]}"
        parts.append(f'<text class="name" x="{_NAMES_WIDTH - 10}" y="{y + 4:g}">{escape(short)}</text>')
        places = [(number, values[row]) for number, (_, values) in enumerate(series)]
        dots = [(number, v) for number, v in places if v is not None and math.isfinite(v)]
        if dots:
            left, right = (_x(end(v for _, v in dots), ticks) for end in (min, max))
            parts.append(f'<line class="join" x1="{left:.1f}" x2="{right:.1f}" y1="{y:g}" y2="{y:g}"/>')
        for number, v in dots:
            said = escape(f"{name}, {series[number][0]}: {v:.{decimals}f}")
            dot = f'<circle class="c{number % COLOURS}" cx="{_x(v, ticks):.1f}" cy="{y:g}" r="{_RADIUS}">'
            parts.append(f"{dot}<title>{said}</title></circle>")
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float) -> list[float]:
    """About seven round numbers from below `low` to above `high`."""
    span = max(high - low, 1e-6 * max(1.0, abs(high)), 1e-9)
    rough = span / (_TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _x(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return _NAMES_WIDTH + share * (_WIDTH - _NAMES_WIDTH - _RIGHT)


def _head(title: str, height: int) -> str:
    box = f'viewBox="0 0 {_WIDTH} {height}"'
    return f'<svg class="plot" {box} role="img" aria-label="{escape(title, quote=True)}">'


def _axis(ticks: Sequence[float], height: int) -> str:
    bottom = height - _BOTTOM
    step = ticks[1] - ticks[0]
    decimals = next(d for d in range(7) if d == 6 or abs(round(step, d) - step) < step * 1e-6)
    lines = []
    for tick in ticks:
        x = _x(tick, ticks)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        lines.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}">{tick:.{decimals}f}</text>')
    return "".join(lines)
