"""`evaluate.py --damage`: draws damage on clean photos, repairs it, and shows and writes how well that went.

What is measured and how belongs to `app.evaluation.damage`; here is only what a person types and sees.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from app.commands.configure import read_settings
from app.commands.console import complain, console, say, work_bar
from app.errors import BadRequest, NotFound, RestoreError
from app.evaluation.damage import page, report
from app.evaluation.damage.measuring import DamageMeasurement, OnStep, Rgb
from app.evaluation.damage.report import DamageReport
from app.evaluation.inputs import Photo, find_photos
from app.evaluation.machine import describe_machine
from app.evaluation.report_files import make_report_folder, write_report_files
from app.evaluation.views import as_rgb
from app.exit_codes import EXIT_FAILED, EXIT_OK
from app.images import Decoder, ImageLimits
from app.restoration.setup import Setup
from app.settings import Settings

_USED = {"inputs", "output", "damage", "damage_samples", "device", "precision"}  # the others belong to restoring


def run(asked: argparse.Namespace, plain: argparse.Namespace) -> int:
    """One measurement from the folder to the written report; returns a code of `app.exit_codes`.

    `plain` is what a command line without any word gives.

    Raises:
        RestoreError: no photos, an option that this measurement does not use, or the network that finds damage is not
            there (`repair_unavailable`).
    """
    refuse_unused(asked, plain)
    settings = read_settings()
    inputs = asked.inputs or Path("test_inputs").absolute()
    output = asked.output or Path("test_results").absolute()
    if asked.damage_samples < 1:
        raise BadRequest("out_of_bounds", "--damage-samples must be at least 1.")
    if inputs == output:
        raise BadRequest("same_folder", "Photos and results cannot share a folder; choose another --output.")
    setup = Setup(
        settings.weights_folder,
        device=asked.device or settings.device,
        precision=asked.precision or settings.precision,
    )
    networks = setup.repair_models.open()
    found = find_photos(inputs, apart_from=output)
    make_report_folder(output)
    photos = read_photos(found, settings)
    measured = _measure(lambda on_step: DamageMeasurement(networks, photos, asked.damage_samples, on_step))
    made = DamageReport(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(setup.device.value),
        photos=len(photos),
        samples=asked.damage_samples,
        has_inpainting_network=networks.inpainting is not None,
        tables=report.make_tables(measured),
        examples=tuple(measured.examples),
    )
    show(made)
    files = write_report_files(
        output, as_json=report.as_json(made), as_csv=report.as_csv(made), as_html=page.as_html(made)
    )
    say(f"Written to {output}: {', '.join(file.name for file in files)}.")
    return EXIT_OK if len(photos) == len(found) else EXIT_FAILED


def refuse_unused(asked: argparse.Namespace, plain: argparse.Namespace) -> None:
    """Refuse what would change nothing.

    Raises:
        BadRequest: `not_with_damage`, naming the options.
    """
    given = [name for name, value in vars(asked).items() if name not in _USED and value != getattr(plain, name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise BadRequest("not_with_damage", f"--damage does not use {flags}; leave it out or measure without --damage.")


def read_photos(photos: Sequence[Photo], settings: Settings) -> dict[str, Rgb]:
    """Photos by label, (H, W, 3) uint8; what cannot be read is said and left out.

    Raises:
        NotFound: `no_photo` when none can be read.
    """
    limits = ImageLimits(
        max_input_megapixels=settings.max_input_megapixels,
        decode_timeout_seconds=settings.decode_timeout_seconds,
        decode_memory_mb=settings.decode_memory_mb,
    )
    decoder, read = Decoder(limits, follow_links=True), {}
    try:
        for photo in photos:
            try:
                read[photo.label] = np.ascontiguousarray(as_rgb(decoder.decode(photo.path)))
            except RestoreError as error:
                complain(f"Left out: {photo.label}: {error.detail} [{error.code}]")
    finally:
        decoder.close()
    if not read:
        raise NotFound("no_photo", "None of the photos can be read; put others in, or name another folder.")
    return read


def _measure(make: Callable[[OnStep], DamageMeasurement]) -> DamageMeasurement:
    """Run under a progress bar; Ctrl-C ends the run at once."""
    with work_bar() as bar:
        work = bar.add_task("", total=1.0)

        def on_step(share: float, words: str) -> bool:
            bar.update(work, completed=share, description=escape(words))
            return True

        measured = make(on_step)
        measured.run()
        bar.update(work, completed=1.0, description="measured")
    return measured


def show(made: DamageReport) -> None:
    """The tables for people."""
    for each in made.tables:
        table = Table(title=each.title, title_justify="left", box=None, pad_edge=False)
        for number, heading in enumerate(each.columns):
            table.add_column(heading.replace("_", " "), justify="left" if number == 0 else "right")
        for row in each.rows:
            table.add_row(*(escape(report.shown(value).replace("_", " ")) for value in row))
        console().print(table)
        say(each.words)
