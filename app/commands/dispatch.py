"""Reads the command line and hands over to one command; a command's own packages are imported only when it runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from app.commands.bootstrap import ROOT
from app.exit_codes import EXIT_OK
from app.options import CARD_FAILED, FIELDS, HUNG_OFTEN, EngineName, Field, Quality
from app.presets import PresetName
from app.queue.names import QueueName

Command = Callable[[argparse.Namespace], int]
# Options of the cloud backend, which the command line does not offer.
_CLOUD_ONLY = frozenset({"backend", "fallback", "prompt", "num_inference_steps", "guidance_scale", "seed"})


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Run one command from the project's folder and return its exit code; no command means `serve`.

    Paths that the user typed are made absolute first, since settings name folders relative to the project's own.
    """
    words = list(arguments)
    if words[:1] == ["test"]:  # everything after it is pytest's business
        from app.commands import check

        os.chdir(root)
        return check.run(words[1:])
    asked = make_parser().parse_args(words or ["serve"])
    command: Command = asked.command
    os.chdir(root)
    return command(asked)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    about = "Turns small, noisy, old photos into clean, large ones."
    parser = argparse.ArgumentParser(prog="run.py", description=about)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands.add_parser("serve", help="start the API and the dashboard (the default)"))
    _add_api(commands.add_parser("api", help="serve HTTP only; workers restore (needs PostgreSQL and Redis)"))
    _add_worker(commands.add_parser("worker", help="restore what API servers accept (needs PostgreSQL and Redis)"))
    _add_status(commands.add_parser("status", help="show the workers and the queue of several machines"))
    _add_restore(commands.add_parser("restore", help="restore files or folders without a server"))
    _add_models(commands.add_parser("models", help="list, download, verify or convert the weight files"))
    _add_estimate(commands.add_parser("estimate", help="measure this machine and say what a photo costs on it"))
    _add_database(commands.add_parser("database", help="take the jobs of an SQLite file over to PostgreSQL"))
    _add_owners(commands.add_parser("owners", help="show what each owner has, hand it over, or let it expire"))
    doctor = commands.add_parser("doctor", help="check this machine and say what to do")
    doctor.set_defaults(command=_doctor)
    commands.add_parser("test", help="run all checks and tests; further words go to pytest", add_help=False)
    ready = commands.add_parser("setup", help="only make the virtual environment and install the packages")
    ready.set_defaults(command=_setup)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-download", action="store_true", help="start without fetching missing weights")
    _add_child_options(parser)
    parser.set_defaults(command=_serve, restores=True)


def _add_api(parser: argparse.ArgumentParser) -> None:
    _add_child_options(parser)
    parser.set_defaults(command=_serve, restores=False, no_download=True)


def _add_worker(parser: argparse.ArgumentParser) -> None:
    hint = "gpu, cloud or both with a comma (default: gpu, and cloud where SILICONFLOW_API_KEY is set)"
    parser.add_argument("--queues", type=_queues, default=[], metavar="NAMES", help=hint)
    parser.add_argument("--no-download", action="store_true", help="start without fetching missing weights")
    _add_child_options(parser)
    parser.set_defaults(command=_worker)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--any-host", action="store_true", help="exit with 0 when any host has a living worker")
    parser.set_defaults(command=_status)


def _add_child_options(parser: argparse.ArgumentParser) -> None:
    """What a supervisor tells its child."""
    parser.add_argument("--child-of", type=int, default=None, metavar="PID", help=argparse.SUPPRESS)
    parser.add_argument("--after-death", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--instead-of-card", choices=(CARD_FAILED, HUNG_OFTEN), help=argparse.SUPPRESS)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="list", choices=("list", "download", "verify", "convert"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="files or models; default, faces or all for a set")
    parser.set_defaults(command=_models)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("copy",), help="copy all rows into the empty database of DATABASE_URL")
    hint = "the SQLite file of a stopped service (default: data/jobs.sqlite3)"
    parser.add_argument("file", nargs="?", type=absolute_path, default=Path("data/jobs.sqlite3"), help=hint)
    parser.set_defaults(command=_database)


def _add_owners(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="list", choices=("list", "hand-over", "let-go"))
    parser.add_argument("names", nargs="*", metavar="OWNER", help="an owner of the list, or the name of a key")
    parser.set_defaults(command=_owners)


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=absolute_path, help="a photo or a folder (searched in depth)")
    parser.add_argument("target", metavar="OUT", type=_output, help="a file for one photo, or a folder")
    parser.add_argument("--overwrite", action="store_true", help="restore again, and replace whatever is already there")
    hint = "a kind of photo, which fills in the options that are not given; says what it sets"
    parser.add_argument("--preset", choices=[name.value for name in PresetName], help=hint)
    for name, field in FIELDS.items():
        if name not in _CLOUD_ONLY:
            add_option(parser, name, field)
    add_machine_options(parser)
    parser.set_defaults(command=_restore)


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dollars-per-hour", type=positive, required=True, help="what this machine costs")
    parser.add_argument("--quality", action="append", choices=tuple(Quality), help="may be repeated; all without it")
    parser.add_argument("--megapixels", type=positive, default=1.0, help="size of the photo (default 1)")
    parser.add_argument("--scale", type=positive, default=4.0, help="as of a restoration (default 4)")
    parser.add_argument("--photo", type=absolute_path, metavar="FILE", help="a photo of yours instead of a made one")
    parser.add_argument("--record", type=absolute_path, metavar="FILE", help="add to this table, and show all of it")
    parser.set_defaults(command=_estimate)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """What decides how this machine computes, of `restore` and of `evaluate.py`; a flag left out is the setting's."""
    machine = parser.add_argument_group("this machine (default: the settings)")
    machine.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"))
    machine.add_argument("--tile", type=int, metavar="PIXELS", help="side of a tile, 32 to 4096; 0: chosen")
    machine.add_argument("--engine", choices=tuple(EngineName))


def add_option(parser: argparse.ArgumentParser, name: str, field: Field) -> None:
    """One restoration option as a flag; the value stays a text, `RestoreOptions.from_fields` checks it."""
    flag = f"--{name.replace('_', '-')}"
    hint = f"{field.help} ({field.low:g} to {field.high:g})" if field.low is not None else field.help
    if field.kind is bool:
        parser.add_argument(flag, default=None, action=argparse.BooleanOptionalAction, help=hint)
    else:
        metavar = "|".join(field.choices) if field.choices else field.kind.__name__.upper()
        parser.add_argument(flag, default=None, metavar=metavar, help=hint)


def absolute_path(text: str) -> Path:
    """A path as it was typed, made absolute before the working folder changes."""
    return Path(text).expanduser().absolute()


def positive(text: str) -> float:
    """A number above zero."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def _queues(text: str) -> list[QueueName]:
    """Names of queues with commas between them."""
    return [QueueName(word.strip()) for word in text.split(",")]


def _output(text: str) -> tuple[Path, bool]:
    """OUT, and whether it was typed as a folder, with a slash at its end; a `Path` forgets that."""
    return absolute_path(text), text.endswith(("/", os.sep))


def _serve(asked: argparse.Namespace) -> int:
    from app.commands import serve

    if asked.child_of is not None:
        return serve.run_child(
            asked.child_of, after_death=asked.after_death, no_card=asked.instead_of_card, restores=asked.restores
        )
    return serve.run(download=not asked.no_download, restores=asked.restores)


def _worker(asked: argparse.Namespace) -> int:
    from app.commands import worker

    if asked.child_of is not None:
        return worker.run_child(
            asked.queues, asked.child_of, after_death=asked.after_death, no_card=asked.instead_of_card
        )
    return worker.run(asked.queues, download=not asked.no_download)


def _status(asked: argparse.Namespace) -> int:
    from app.commands import status

    return status.run(any_host=asked.any_host)


def _restore(asked: argparse.Namespace) -> int:
    from app.commands import restore

    options = {name: getattr(asked, name) for name in FIELDS if name not in _CLOUD_ONLY}
    machine = restore.Machine(asked.device, asked.precision, asked.tile, asked.engine)
    target, into_folder = asked.target
    if asked.preset is not None:
        options["preset"] = asked.preset
    return restore.run(asked.source, target, options, machine, overwrite=asked.overwrite, into_folder=into_folder)


def _models(asked: argparse.Namespace) -> int:
    from app.commands import models

    return models.run(asked.action, asked.names)


def _estimate(asked: argparse.Namespace) -> int:
    from app.commands import estimate

    return estimate.run(
        asked.dollars_per_hour,
        asked.quality or tuple(Quality),
        megapixels=asked.megapixels,
        scale=asked.scale,
        photo=asked.photo,
        record=asked.record,
    )


def _database(asked: argparse.Namespace) -> int:
    from app.commands import database

    return database.copy(asked.file)


def _owners(asked: argparse.Namespace) -> int:
    from app.commands import owners

    return owners.run(asked.action, asked.names)


def _doctor(asked: argparse.Namespace) -> int:
    from app.commands import doctor

    return doctor.run()


def _setup(asked: argparse.Namespace) -> int:
    from app.commands.console import say

    say("Everything is installed. Start with: python3 run.py")
    return EXIT_OK
