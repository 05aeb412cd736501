"""Rows as a plain table for people: one column per figure, its unit in the heading. It needs no package."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.request import Row

_UNITS = {
    "_ms": "ms",
    "_mb": "MB",
    "_db": "dB",
    "_seconds": "s",
    "_per_s": "/s",
}


def as_table(rows: Sequence[Row]) -> str:
    """The rows of one part, columns aligned, figures that a row lacks left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [["", *map(heading, names)]]
    lines += [[row.what, *(_shown(name, row.figures.get(name)) for name in names)] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names) + 1)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def heading(name: str) -> str:
    """`median_ms` as `median ms`, `gflop_per_s` as `gflop /s`, `share_of_product` as `share of product`."""
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return f"{name.removesuffix(ending).replace('_', ' ')} {unit}"
    return name.replace("_", " ")


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if name.startswith("share"):
            return f"{value:.0%}"
        return f"{value:.0f}" if abs(value) >= 1000 or name.endswith("_mb") else f"{value:.2f}"
    return str(value)
