"""What a training leaves while it runs: a CSV of figures and a curve drawn from it. It knows nothing of networks."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path


def append(path: Path, row: Mapping[str, float]) -> None:
    """One line more; the first call writes the header from the row's names."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, tuple(row))
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.5g}" for name, value in row.items()})


def draw(path: Path, picture: Path, panels: Mapping[str, Sequence[str]]) -> bool:
    """Draw the curves of a log over its steps: one panel for each label, with the columns named there.

    Returns:
        False when matplotlib is not installed (it comes along with filterpy).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(8, 3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            axis.plot(steps, [row[name] for row in rows], label=name.removesuffix("_gain_db").replace("_", " "))
        axis.set_ylabel(label)
        axis.legend()
    axes[-1].set_xlabel("step")
    figure.savefig(picture, dpi=110)
    return True
