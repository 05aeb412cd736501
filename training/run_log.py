"""What a training leaves while it runs: a CSV of figures and a curve drawn from it. It knows nothing of networks."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ("step", "hours", "loss", "clean_gain_db", "jpeg50_gain_db", "noise10_jpeg60_gain_db")


def append(path: Path, row: dict[str, float]) -> None:
    """One line more; the first call writes the header."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{row[name]:.5g}" for name in COLUMNS})


def draw(path: Path, picture: Path) -> bool:
    """Draw the curves of a log; False when matplotlib is not installed (it comes along with filterpy)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss, gain = figure.subplots(2, 1, sharex=True)
    loss.plot(steps, [row["loss"] for row in rows], label="training loss")
    loss.set_ylabel("root of the mean square + spectrum")
    for name in COLUMNS[3:]:
        gain.plot(steps, [row[name] for row in rows], label=name.removesuffix("_gain_db").replace("_", " "))
    gain.set_ylabel("dB over bicubic, held-out photos")
    gain.set_xlabel("step")
    gain.legend()
    figure.savefig(picture, dpi=110)
    return True
