"""`run.py restore IN OUT`: restores files or whole folders on this machine, without a server.

It finds the photos, skips what is done, shows progress and time left, and says at the end what failed. A result gets
its name only when it is whole; the restoration itself belongs to the local backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError
from rich.markup import escape
from rich.progress import Progress, TaskID

from app.atomic_files import part_beside, publish
from app.backends.local import LocalBackend
from app.backends.pages import has_pages, restore_pages
from app.commands.configure import describe_mistakes, read_settings
from app.commands.console import complain, say, work_bar
from app.commands.earlier_results import EarlierResults, PhotoVersion
from app.commands.photos import RestoreTask, find_tasks
from app.commands.restore_report import Tally, report, report_left_out
from app.errors import Cancelled, DeviceLost, RestoreError, Unprocessable
from app.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from app.images import (
    Decoder,
    Header,
    ImageLimits,
    PagesEncoder,
    Picture,
    check_format,
    check_pages,
    check_picture,
    choose_format,
    encode,
    read_header,
)
from app.images.formats import FORMATS
from app.main.local_backend import open_backend
from app.notices import Notice
from app.options import Pages, Partial, RestoreOptions, check_output
from app.presets import DECIDED, find_preset
from app.results import RestorationResult
from app.settings import Settings
from app.stages import OnProgress, Stage
from app.time_estimate import Pace, estimate, machine_of

_PIXELS_PER_MEGAPIXEL = 1_000_000


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the command line says of the machine; None leaves it to the settings."""

    device: str | None = None
    precision: str | None = None
    tile: int | None = None
    engine: str | None = None


def run(
    source: Path,
    target: Path,
    fields: Mapping[str, object],
    machine: Machine,
    *,
    overwrite: bool,
    into_folder: bool = False,
) -> int:
    """Restore a photo or a folder into `target`; returns one of the codes of `app.exit_codes`.

    `fields` are options, and maybe `preset`; `into_folder` says that `target` is a folder, whatever it looks like.
    """
    settings = read_settings()
    limits = _limits(settings)
    try:
        backend = None
        if fields.get("preset") is not None:
            backend = open_loaded_backend(settings, machine)
            fields = _with_preset(fields, backend.describe())
        options = RestoreOptions.from_fields(fields)
        found = find_tasks(source, target, options, limits, into_folder=into_folder)
        if not found.tasks:
            complain("No photos found there (jpg, png, webp, tiff, bmp, avif; heic with the optional package).")
            report_left_out(found.left_out)
            return EXIT_FAILED
        earlier = EarlierResults(overwrite=overwrite)
        waiting = [task for task in found.tasks if not task.is_done(earlier)]
        tally = Tally(skipped=len(found.tasks) - len(waiting))
        if waiting:
            backend = backend or open_loaded_backend(settings, machine)
            Restoration(settings, options, backend, tally, earlier).run(waiting)
    except RestoreError as error:  # the options, the folders or the machine; a photo's own failure is in the tally
        complain(error.detail)
        return EXIT_USAGE
    report_left_out(found.left_out)
    report(tally)
    if tally.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if tally.failed else EXIT_OK


def _with_preset(fields: Mapping[str, object], described: Mapping[str, Any]) -> dict[str, object]:
    """The options of a run with those of its preset, and says what it sets and what would serve it better."""
    given = {name: value for name, value in fields.items() if name != "preset"}
    preset = find_preset(fields["preset"], described)
    filled = preset.fields(given)
    options, usual = RestoreOptions.from_fields(filled), RestoreOptions()
    changed = [f"{name} {getattr(options, name)}" for name in DECIDED if getattr(options, name) != getattr(usual, name)]
    say(f"Preset {preset.name}: {', '.join(changed) or 'nothing but the defaults'}.")
    for lack in preset.missing:
        say(f"It would serve better with {lack.install}: python3 run.py models download {lack.install}")
    return filled


class Restoration:
    """One run over many photos: a decoder child, a backend, a progress display and a tally."""

    def __init__(
        self,
        settings: Settings,
        options: RestoreOptions,
        backend: LocalBackend,
        tally: Tally,
        earlier: EarlierResults,
    ) -> None:
        self._settings, self._options, self._tally, self._earlier = settings, options, tally, earlier
        self._limits = _limits(settings)
        self._backend = backend
        self._stopping = False
        self._lost = False  # the card; no other photo would fare better in this process

    def run(self, tasks: Sequence[RestoreTask]) -> None:
        """Restore one photo after another until all are done, Ctrl-C was pressed or the card failed."""
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        decoder = Decoder(self._limits, follow_links=True)
        try:
            pace = _Pacing(self._backend.describe_pace(self._options), self._options)
            sizes = [self._seconds(task, pace) for task in tasks]
            if pace.is_known:
                say(f"{len(tasks)} photo{'s' if len(tasks) > 1 else ''}, about {_spoken(sum(sizes))}.")
            with work_bar() as bar:
                overall = bar.add_task(f"0 of {len(tasks)} photos", total=sum(sizes) or 1.0)
                current = bar.add_task("", total=1.0)
                for number, (task, size) in enumerate(zip(tasks, sizes, strict=True)):
                    self._one(task, decoder, _Display(bar, overall, current, size, sum(sizes[:number])))
                    if self._stopping or self._lost:
                        break
                    bar.update(overall, completed=sum(sizes[: number + 1]), description=f"{number + 1} of {len(tasks)}")
        finally:
            self._tally.interrupted = self._stopping
            decoder.close()
            signal.signal(signal.SIGINT, before)

    def _one(self, task: RestoreTask, decoder: Decoder, display: _Display) -> None:
        try:
            notices = self._restore(task, decoder, display)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - one bad photo never stops the run
            self._lost = isinstance(error, DeviceLost)
            if not (self._stopping and isinstance(error, RestoreError)):  # Ctrl-C reaches the decoder too: no news
                self._tally.fail(task.label, error)
        else:
            self._tally.done += 1
            self._tally.notices.update(notices)

    def _restore(self, task: RestoreTask, decoder: Decoder, display: _Display) -> list[str]:
        """Decode, restore, write beside the result's place, rename; returns the warnings."""
        photo = PhotoVersion.of(task.source)
        self._check_result(task, read_header(task.source, self._limits))
        picture = _decode_page(decoder, task.source, self._options, 0 if self._options.pages == Pages.ALL else None)
        check_picture(picture, task.output_format, self._options.scale)
        expected = "tiff" if has_pages(picture, self._options) else choose_format(picture, task.output_format)
        self._earlier.check(task.result(FORMATS[expected].extension), photo)

        def on_progress(fraction: float, stage: Stage) -> bool:
            display.show(task.label, fraction, stage)
            return not self._stopping

        if has_pages(picture, self._options):
            return self._restore_pages(task, photo, decoder, picture, on_progress)
        restored = self._backend.restore(picture, self._options, on_progress)
        if self._stopping:
            raise Cancelled
        notes = self._write(task, photo, restored)
        return [notice.message for notice in (*picture.notes, *restored.warnings, *notes)]

    def _check_result(self, task: RestoreTask, header: Header) -> None:
        """Refuse what could not be kept after all the work: too many pixels for us, or for the format."""
        sizes = header.page_sizes[:1]
        if self._options.pages == Pages.ALL:
            check_pages(header, self._limits)
            sizes = header.page_sizes
        for width, height in sizes:
            check_output(width * height, self._options.scale, self._settings.max_output_megapixels)
            check_format(task.output_format, width, height, self._options.scale)

    def _restore_pages(
        self, task: RestoreTask, photo: PhotoVersion, decoder: Decoder, first: Picture, on_progress: OnProgress
    ) -> list[str]:
        """All pages of a TIFF into one TIFF; returns the warnings."""
        if task.output_format not in ("auto", "tiff"):
            raise Unprocessable("invalid_option", "Several pages make a TIFF; let OUT end in .tif, or take one page.")
        with part_beside(task.folder / task.stem) as part:
            with contextlib.closing(PagesEncoder(part, first.pages, self._options.metadata)) as encoder:
                decode_page = functools.partial(_decode_page, decoder, task.source, self._options)
                restored, encoded = restore_pages(
                    self._backend, first, decode_page, self._options, encoder, on_progress
                )
            self._publish(part, task.result(encoded.extension), photo)
        return [notice.message for notice in (*restored.warnings, *encoded.notes)]

    def _write(self, task: RestoreTask, photo: PhotoVersion, restored: RestorationResult) -> Sequence[Notice]:
        options = self._options
        with part_beside(task.folder / task.stem) as part:
            encoded = encode(restored.picture, part, task.output_format, options.output_quality, options.metadata)
            self._publish(part, task.result(encoded.extension), photo)
        return encoded.notes

    def _publish(self, part: Path, place: Path, photo: PhotoVersion) -> None:
        """Only now the format is certain, and a file may have come meanwhile."""
        self._earlier.check(place, photo)
        self._earlier.record(part, place, photo)
        publish(part, place)

    def _seconds(self, task: RestoreTask, pace: _Pacing) -> float:
        """What the photo will take, its share of the overall bar; a file that cannot be read is nothing, and fails."""
        try:
            header = read_header(task.source, self._limits)
        except Exception:  # noqa: BLE001 - restoring it meets the same, and says so
            return 0.0
        return pace.seconds(header.width, header.height)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        complain("Stopping soon; press Ctrl-C again to stop at once.")


class _Pacing:
    """What this machine takes for a photo, from the run of its default model at the start."""

    def __init__(self, described: Mapping[str, Any], options: RestoreOptions) -> None:
        self._machine, self._options = machine_of(described), options
        self._pace = Pace(self._machine, [])
        self.is_known = estimate(self._machine, self._pace, 1, 1, options) is not None

    def seconds(self, width: int, height: int) -> float:
        """Seconds for a photo of this size; its megapixels where nothing is known, for then only shares count."""
        planned = estimate(self._machine, self._pace, width, height, self._options)
        return width * height / _PIXELS_PER_MEGAPIXEL if planned is None else planned.seconds


def _spoken(seconds: float) -> str:
    """A time span as people say it."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _decode_page(decoder: Decoder, source: Path, options: RestoreOptions, page: int | None) -> Picture:
    keep_partial = options.partial == Partial.KEEP
    return decoder.decode(source, page=page, keep_partial=keep_partial, rotate=options.rotate)


@dataclasses.dataclass(frozen=True)
class _Display:
    """The two bars, and where this photo begins on the overall one (in seconds)."""

    bar: Progress
    overall: TaskID
    current: TaskID
    size: float
    before: float

    def show(self, label: str, fraction: float, stage: Stage) -> None:
        """Put the photo's bar at a fraction of 0 to 1, and the whole run's bar by the photo's share."""
        self.bar.update(self.current, completed=fraction, description=f"{escape(label)}: {stage}")
        self.bar.update(self.overall, completed=self.before + self.size * fraction)


def _limits(settings: Settings) -> ImageLimits:
    return ImageLimits(
        max_input_megapixels=settings.max_input_megapixels,
        decode_timeout_seconds=settings.decode_timeout_seconds,
        decode_memory_mb=settings.decode_memory_mb,
    )


def open_loaded_backend(settings: Settings, machine: Machine) -> LocalBackend:
    """The local backend as the settings and the command line ask; the process is tuned and the default model loaded.

    Raises:
        RestoreError: of `settings_for`, or the backend cannot be opened.
    """
    backend = open_backend(settings_for(settings, machine))
    backend.load()
    return backend


def settings_for(settings: Settings, machine: Machine) -> Settings:
    """The settings with what the command line says of the machine, which is held to the same bounds.

    Raises:
        Unprocessable: `invalid_option`, with the setting that a word was meant for.
    """
    named = {
        "device": machine.device,
        "precision": machine.precision,
        "tile_size": machine.tile,
        "engine": machine.engine,
    }
    asked: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    try:
        checked = Settings(**asked)
    except ValidationError as error:
        raise Unprocessable("invalid_option", "; ".join(describe_mistakes(error))) from None
    return settings.model_copy(update={name: getattr(checked, name) for name in asked})
