"""`run.py estimate`: what a photo costs on this machine, from seconds that are measured here and a price by the hour.

Each run measures the machine it is on and may add its rows to a file, so that the table compares cards that were rented
one after the other. Only the time of the networks is counted, not starts and idle minutes.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from app.backends.protocol import Backend
from app.commands.configure import read_settings
from app.commands.console import complain, console, say
from app.errors import BadRequest, RestoreError
from app.evaluation.machine import describe_machine
from app.exit_codes import EXIT_FAILED, EXIT_OK
from app.images import Decoder, ImageLimits, Picture
from app.main.local_backend import open_backend
from app.options import RestoreOptions
from app.stages import Stage

SECONDS_PER_HOUR = 3600
_MEGAPIXEL = 1_000_000
_LONGEST_TEXT_CHARACTERS = 100
_TEXTS = ("machine", "quality", "model", "precision")
_NUMBERS = ("scale", "megapixels", "seconds", "dollars_per_hour")


@dataclasses.dataclass(frozen=True)
class Cost:
    """One measured row. `seconds` are of one photo of `megapixels`; `machine` is the card, or else the processor."""

    machine: str
    quality: str
    model: str
    precision: str
    scale: float
    megapixels: float
    seconds: float
    dollars_per_hour: float

    @property
    def seconds_per_megapixel(self) -> float:
        """Of photo, not of result."""
        return self.seconds / self.megapixels

    @property
    def photos_per_dollar(self) -> float:
        """How many such photos one dollar pays, while the machine is never idle."""
        return SECONDS_PER_HOUR / (self.seconds * self.dollars_per_hour)


def run(
    dollars_per_hour: float,
    qualities: Sequence[str],
    *,
    megapixels: float,
    scale: float,
    photo: Path | None,
    record: Path | None,
) -> int:
    """Measure, show the table, and add the rows to the file; `EXIT_FAILED` with a sentence when that cannot be done."""
    settings = read_settings()
    try:
        known = read_costs(record) if record is not None else []
        picture = make_picture(megapixels) if photo is None else _decoded(photo)
        backend = open_backend(settings)
        backend.load()
        facts = describe_machine(str(backend.describe()["device"]))
        machine = str(facts.get("card") or facts["processor"])
        options = [RestoreOptions(quality=quality, scale=scale) for quality in qualities]
        measured = [measure(backend, picture, each, machine, dollars_per_hour) for each in options]
        if record is not None:
            write_costs(record, measured)
    except RestoreError as error:
        complain(error.detail)
        return EXIT_FAILED
    console().print(table_of([*known, *measured]))
    say("The networks' time alone; starts and idle minutes come on top of it.")
    return EXIT_OK


def measure(
    backend: Backend,
    picture: Picture,
    options: RestoreOptions,
    machine: str,
    dollars_per_hour: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Restore the picture twice and take the second time: the first loads networks and plans. Raises `RestoreError`."""
    backend.restore(picture, options, _go_on)
    began = clock()
    result = backend.restore(picture, options, _go_on)
    return Cost(
        machine=machine,
        quality=str(options.quality),
        model=result.model,
        precision=str(result.params.get("precision", "")),
        scale=options.scale,
        megapixels=picture.width * picture.height / _MEGAPIXEL,
        seconds=clock() - began,
        dollars_per_hour=dollars_per_hour,
    )


def make_picture(megapixels: float) -> Picture:
    """A seeded picture of this size, 3:2, soft shapes with grain: uint8 RGB. It holds no faces."""
    height = max(16, round((megapixels * _MEGAPIXEL / 1.5) ** 0.5))
    width = round(height * 1.5)
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    soft = 127 + 80 * np.sin(rows / 37)[..., None] * np.sin(columns / 53)[..., None] * np.array([1.0, 0.7, 0.4])
    grain = chance.normal(0, 6, (height, width, 3))
    return Picture((soft + grain).clip(0, 255).astype(np.uint8))


def read_costs(file: Path) -> list[Cost]:
    """The rows of earlier runs, one JSON object a line; none without a file. Raises `BadRequest` `bad_record`."""
    if not file.exists():
        return []
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [_cost_of(row) for row in rows]
    except (ValueError, TypeError, KeyError, OSError):
        raise BadRequest("bad_record", f"{file.name} is no file of earlier estimates; name another one.") from None


def write_costs(file: Path, costs: Iterable[Cost]) -> None:
    """Add rows to the file. Raises `BadRequest` `bad_record`."""
    try:
        with file.open("a", encoding="utf-8") as target:
            target.writelines(json.dumps(dataclasses.asdict(cost)) + "\n" for cost in costs)
    except OSError as error:
        raise BadRequest("bad_record", f"{file.name} cannot be written: {error.strerror}.") from None


def table_of(costs: Sequence[Cost]) -> Table:
    """The cheapest row first."""
    table = Table(box=None, pad_edge=False)
    for column in (
        "machine",
        "quality",
        "model",
        "precision",
        "scale",
        "s per megapixel",
        "$ per hour",
        "photos per $",
    ):
        table.add_column(column, justify="right" if " " in column or column == "scale" else "left")
    for cost in sorted(costs, key=lambda cost: -cost.photos_per_dollar):
        table.add_row(
            cost.machine,
            cost.quality,
            cost.model,
            cost.precision,
            f"{cost.scale:g}",
            f"{cost.seconds_per_megapixel:.3g}",
            f"{cost.dollars_per_hour:g}",
            f"{cost.photos_per_dollar:,.0f} of {cost.megapixels:.2g} MP",
        )
    return table


def _cost_of(row: dict[str, object]) -> Cost:
    """One row; every field is there and of its kind, and every number is above zero."""
    machine, quality, model, precision = (str(row[name])[:_LONGEST_TEXT_CHARACTERS] for name in _TEXTS)
    numbers = [float(str(row[name])) for name in _NUMBERS]
    if not all(0 < number < float("inf") for number in numbers):
        raise ValueError
    return Cost(machine, quality, model, precision, *numbers)


def _decoded(photo: Path) -> Picture:
    """A photo of the user's. Raises `RestoreError`."""
    decoder = Decoder(ImageLimits(), follow_links=True)
    try:
        return decoder.decode(photo)
    finally:
        decoder.close()


def _go_on(fraction: float, stage: Stage) -> bool:
    """Nobody follows it, and nobody stops it."""
    return True
