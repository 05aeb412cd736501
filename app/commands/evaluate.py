"""`evaluate.py`: reads its command line, opens the backends as the service does, and shows and writes the report.

What is measured and how belongs to `app.evaluation`; here is only what a person types and sees.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.markup import escape
from rich.table import Table

from app.backends.protocol import Backend
from app.commands import restore
from app.commands.bootstrap import ROOT
from app.commands.configure import read_settings
from app.commands.console import complain, console, say, work_bar
from app.commands.dispatch import absolute_path, add_machine_options
from app.errors import BadRequest, Conflict, NotFound, RestoreError, file_error
from app.evaluation import figures, naturalness, report_html, report_tables
from app.evaluation.columns import INPUTS_FOLDER, Asked, Column, make_columns
from app.evaluation.evaluation import Degradation, Evaluation, Task, as_json
from app.evaluation.inputs import find_photos
from app.evaluation.machine import describe_machine
from app.evaluation.records import Report, worst_first
from app.evaluation.report_files import make_report_folder, write_report_files
from app.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from app.images import Decoder, ImageLimits, read_header
from app.main.limits import limits_of, result_limits_of
from app.options import FIELDS, BackendName
from app.settings import Settings

_MOST_TABLE_FIGURES = 7


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Evaluate and return one of the codes of `app.exit_codes`."""
    parser = make_parser()
    asked = parser.parse_args(arguments)
    os.chdir(root)  # settings name folders relative to the project's own
    try:
        return run(asked)
    except KeyboardInterrupt:
        complain("Interrupted; there is no report of this run.")
        return EXIT_INTERRUPTED
    except NotFound as error:
        complain(error.detail)
        return EXIT_FAILED
    except RestoreError as error:
        complain(error.detail)
        return EXIT_USAGE
    except OSError as error:
        complain(file_error(error).detail)
        return EXIT_FAILED


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    about = (
        "Restores photos through the same backends as the service, measures the results, and writes them with "
        "report.json, report.csv and report.html. Name several models, qualities, backends or faces to compare them: "
        "each becomes a column."
    )
    parser = argparse.ArgumentParser(prog="evaluate.py", description=about)
    parser.add_argument("inputs", nargs="?", type=absolute_path, help="folder with photos (default: test_inputs)")
    parser.add_argument("--output", type=absolute_path, help="folder for results and report (default: test_results)")
    truth = parser.add_argument_group("measuring against what the result should be").add_mutually_exclusive_group()
    truth.add_argument(
        "--reference", type=absolute_path, metavar="FOLDER", help="references, of the results' size and names"
    )
    truth.add_argument("--degrade", action="store_true", help="make the inputs smaller (by --scale) and restore them")
    truth.add_argument("--damage", action="store_true", help="draw scratches and the like on the inputs, repair them")
    drawn = parser.add_argument_group("what belongs to --damage")
    drawn.add_argument("--damage-samples", type=int, default=12, metavar="N", help="damaged pictures of each kind (12)")
    made = parser.add_argument_group("what --degrade does besides MATLAB's bicubic")
    made.add_argument("--noise", type=float, default=0.0, metavar="SIGMA", help="Gaussian noise, 0 to 100 of 255")
    made.add_argument("--jpeg", type=int, metavar="QUALITY", help="JPEG, 1 to 100")
    made.add_argument("--seed", type=int, default=0, help="of the noise; equal seeds give equal reports")
    ways = parser.add_argument_group("ways of restoring, several at once")
    ways.add_argument("--model", nargs="+", default=[], metavar="NAME", help="models by name")
    ways.add_argument("--quality", nargs="+", default=[], choices=FIELDS["quality"].choices)
    ways.add_argument("--backend", nargs="+", default=[BackendName.LOCAL], choices=FIELDS["backend"].choices)
    ways.add_argument("--faces", nargs="+", default=["on"], choices=("on", "off"), help="restore faces or not")
    _add_shared(parser.add_argument_group("for all ways"))
    add_machine_options(parser)
    return parser


def _add_shared(group: argparse._ArgumentGroup) -> None:
    for name in ("scale", "face_strength", "denoise", "repair", "prompt", "output_quality"):
        group.add_argument(f"--{name.replace('_', '-')}", help=FIELDS[name].help)
    group.add_argument("--output-format", default="png", help="png (default), tiff, webp, jpg, avif, or auto")


def run(asked: argparse.Namespace) -> int:
    """One evaluation from the folders to the written report."""
    if asked.damage:
        from app.commands import evaluate_damage  # what draws damage, which no other run needs

        return evaluate_damage.run(asked, make_parser().parse_args([]))
    settings = read_settings()
    task, left_out = make_task(asked, settings)
    make_report_folder(task.output)
    machine = restore.Machine(asked.device, asked.precision, asked.tile, asked.engine)
    limits = limits_of(settings)
    decoder = Decoder(limits.image, follow_links=True)
    references = Decoder(result_limits_of(limits), follow_links=True)  # as large as results
    try:
        backends, device = open_backends(settings, task.columns, machine, decoder)
        evaluation = _evaluate(task, backends, (decoder, references), limits.image)
    finally:
        decoder.close()
        references.close()
    report = Report(
        mode=_mode(asked),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(device),
        columns={column.name: dataclasses.asdict(column.options) for column in task.columns},
        figures=task.figures,
        border=task.border,
        degradation=as_json(task.degradation),
        left_out=left_out,
        photos=worst_first(evaluation.rows, task.figures[0]),
        interrupted=evaluation.stopped,
    )
    show(report)  # first, so that a disk that is full by now takes no figures along
    files = write_report_files(
        task.output,
        as_json=report_tables.as_json(report),
        as_csv=report_tables.as_csv(report),
        as_html=report_html.as_html(report),
    )
    say(f"Written to {task.output}: {', '.join(file.name for file in files)} and the results.")
    if evaluation.stopped:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if report.failures else EXIT_OK


def make_task(asked: argparse.Namespace, settings: Settings) -> tuple[Task, tuple[str, ...]]:
    """What the command line asks for, and sentences about figures that cannot be measured here.

    Raises:
        RestoreError: a folder is missing, no photo is there, or an option is out of its bounds.
    """
    inputs = asked.inputs or Path("test_inputs").absolute()
    output = asked.output or Path("test_results").absolute()
    names = ("scale", "face_strength", "denoise", "repair", "prompt", "output_quality", "output_format")
    shared = {name: getattr(asked, name) for name in names}
    columns = make_columns(Asked(asked.model, asked.quality, asked.backend, asked.faces), shared)
    made = _degradation(asked, columns[0].options.scale)
    _refuse_sharing(output, columns, [inputs, *([asked.reference] if asked.reference else [])])
    photos = find_photos(inputs, apart_from=output, reference=asked.reference)
    referenced = asked.reference is not None or made is not None
    lpips, no_lpips = naturalness.find_lpips() if referenced else (None, None)
    no_niqe = naturalness.niqe_refusal()
    chosen = figures.table(with_reference=referenced, with_niqe=no_niqe is None, with_lpips=lpips is not None)
    task = Task(
        photos=tuple(photos),
        columns=columns,
        output=output,
        figures=chosen,
        degradation=made,
        referenced=referenced,
        lpips=lpips,
        max_output_megapixels=settings.max_output_megapixels,
    )
    return task, tuple(sentence for sentence in (no_niqe, no_lpips) if sentence)


def _refuse_sharing(output: Path, columns: Sequence[Column], read: Sequence[Path]) -> None:
    """No folder that is read may be one that results are written to; it may lie beside these."""
    written = [output / name for name in (INPUTS_FOLDER, *(column.folder for column in columns))]
    if read[0] == output or any(one.is_relative_to(folder) for one in read for folder in written):
        raise BadRequest("same_folder", "Photos and results cannot share a folder; choose another --output.")


def _degradation(asked: argparse.Namespace, scale: float) -> Degradation | None:
    if not asked.degrade:
        if asked.noise or asked.jpeg is not None:
            raise BadRequest("needs_degrade", "--noise and --jpeg belong to --degrade; add it or leave them out.")
        return None
    if scale != int(scale) or scale < 2:
        raise BadRequest("whole_scale", "--degrade needs a whole --scale of at least 2.")
    if not 0 <= asked.noise <= 100 or not (asked.jpeg is None or 1 <= asked.jpeg <= 100):
        raise BadRequest("out_of_bounds", "--noise must be between 0 and 100, --jpeg between 1 and 100.")
    if asked.seed < 0:
        raise BadRequest("out_of_bounds", "--seed must not be negative.")
    return Degradation(int(scale), asked.noise, asked.jpeg, asked.seed)


def _mode(asked: argparse.Namespace) -> str:
    return "degrade" if asked.degrade else "reference" if asked.reference else "fidelity"


def open_backends(
    settings: Settings, columns: Sequence[Column], machine: restore.Machine, decoder: Decoder
) -> tuple[dict[str, Backend], str]:
    """The backends that the columns need, opened as the service opens them, and the device of the local one.

    Raises:
        Conflict: `backend_unavailable` when one needs a key that is not set.
    """
    wanted = {column.options.backend for column in columns}
    opened: dict[str, Backend] = {}
    device = "cpu"
    if BackendName.LOCAL in wanted:
        local = restore.open_loaded_backend(settings, machine)
        opened[BackendName.LOCAL], device = local, str(local.describe()["device"])
    if BackendName.SILICONFLOW in wanted:
        opened[BackendName.SILICONFLOW] = _open_siliconflow(settings, decoder)
    return opened, device


def _open_siliconflow(settings: Settings, decoder: Decoder) -> Backend:
    key = settings.siliconflow_api_key.get_secret_value()
    if not key:
        raise Conflict(
            "backend_unavailable", "siliconflow needs SILICONFLOW_API_KEY; set it, or leave this backend out."
        )
    from app.backends.siliconflow.backend import open_siliconflow_backend  # an HTTP client, which few runs need

    say("The photos of the column siliconflow are sent to SiliconFlow, which charges your account for each.")
    return open_siliconflow_backend(
        api_key=key,
        api_url=settings.siliconflow_api_url,
        model=settings.siliconflow_model,
        timeout_seconds=settings.siliconflow_timeout,
        result_hosts=settings.siliconflow_result_hosts,
        decode=decoder.decode,
    )


def _evaluate(
    task: Task, backends: Mapping[str, Backend], decoders: tuple[Decoder, Decoder], limits: ImageLimits
) -> Evaluation:
    """Run under a progress bar whose length is the photos' pixels; Ctrl-C stops after the running tile."""
    stopping = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        complain("Stopping soon; press Ctrl-C again to stop at once.")

    sizes = [_megapixels(photo.path, limits) for photo in task.photos]
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with work_bar() as bar:
            work = bar.add_task("", total=sum(sizes))

            def on_step(number: int, share: float, words: str) -> bool:
                place = f"{number + 1} of {len(sizes)}, {task.photos[number].label}: {words}"
                bar.update(work, completed=sum(sizes[:number]) + sizes[number] * share, description=escape(place))
                return not stopping

            evaluation = Evaluation(task, backends, decoders, on_step)
            evaluation.run()
            if not evaluation.stopped:
                bar.update(work, completed=sum(sizes), description=f"{len(sizes)} photos")
            return evaluation
    finally:
        signal.signal(signal.SIGINT, before)


def _megapixels(path: Path, limits: ImageLimits) -> float:
    """The photo's share of the bar; a little for one that cannot be read."""
    try:
        header = read_header(path, limits)
    except (RestoreError, OSError):
        return 0.001
    return header.width * header.height / 1e6


def show(report: Report) -> None:
    """The tables for people: every photo, the means, what was noted and what went wrong."""
    chosen = report.figures[:_MOST_TABLE_FIGURES]
    table = Table(box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    table.add_column("column", overflow="fold")
    for heading in [*(f"{figure.title} {figure.unit}".strip() for figure in chosen), "s"]:
        table.add_column(heading, justify="right")
    for photo in report.photos:
        if not photo.cells:
            table.add_row(escape(photo.label), "failed")
        for number, cell in enumerate(photo.cells):
            values = [figures.shown(figure, cell.figures.get(figure.key)) for figure in chosen]
            name = photo.label if number == 0 else ""
            table.add_row(escape(name), escape(cell.column), *values, f"{cell.seconds:.2f}" if cell.backend else "")
    for number, name in enumerate(report.column_names):
        values = [figures.shown(figure, report.mean(name, figure.key)) for figure in chosen]
        table.add_row("mean" if number == 0 else "", escape(name), *values, "", style="bold")
    console().print(table)
    for figure in chosen:
        say(f"{figure.title} ({'more' if figure.more_is_better else 'less'} is better): {figure.meaning}")
    for sentence in report.left_out:
        say(sentence)
    warnings = Counter(text for photo in report.photos for cell in photo.cells for text in cell.warnings)
    for sentence, count in warnings.items():
        say(f"Note ({count} result{'s' * (count != 1)}): {sentence}")
    for label, column, trouble in report.failures:
        complain(f"Failed: {label}{f' ({column})' if column else ''}: {trouble.message} [{trouble.code}]")
