"""`run.py models`: lists the weight files, downloads them with a progress bar, verifies and converts them.

No network is loaded, so it starts without torch; only `convert` reads tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from app.commands.configure import read_settings
from app.commands.console import complain, console, download_bar, say
from app.errors import RestoreError
from app.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from app.model_downloads import fetch_weights
from app.restoration.models import weights
from app.restoration.models.weights import EMBEDDED, MANIFEST, REPAIR_FILES, Verdict, WeightFile
from app.settings import MEGABYTE, Settings

_WORDS = {
    Verdict.MISSING: "no",
    Verdict.VERIFIED: "yes, verified",
    Verdict.WRONG_SIZE: "yes, but not the official file",
    Verdict.WRONG_HASH: "yes, but not the official file",
    Verdict.UNKNOWN: "yes, your own file",
    Verdict.UNREADABLE: "yes, but it cannot be read",
    Verdict.CONVERTED: "yes, as safetensors",
}
_UNREADABLE_WORDS = "cannot be read; let the user that runs the service read it"
_VERIFIED_WORDS = {
    Verdict.VERIFIED: "verified",
    Verdict.CONVERTED: "verified, as safetensors",
    Verdict.UNREADABLE: _UNREADABLE_WORDS,
}
_WRONG = (Verdict.WRONG_SIZE, Verdict.WRONG_HASH, Verdict.UNREADABLE)
_INSTALLED = (Verdict.VERIFIED, Verdict.CONVERTED)


def run(action: str, names: Sequence[str]) -> int:
    """`list`, `download`, `verify` or `convert`; returns the exit code."""
    settings = read_settings()
    folder = settings.weights_folder
    if action == "list":
        _show(folder)
        return EXIT_OK
    if action == "verify":
        return _verify(folder)
    if action == "convert":
        return _convert(folder, names, allow_unverified=settings.allow_unverified_weights)
    if settings.offline:
        complain("OFFLINE is true, so nothing is downloaded; set OFFLINE=false to download.")
        return EXIT_FAILED
    try:
        rows = choose(names or ["default"])
    except KeyError as error:
        known = ", ".join(row.file for row in MANIFEST)
        complain(f"There is no weight file '{error.args[0]}'. Known are default, faces, all, {known}.")
        return EXIT_USAGE
    wanted = [row for row in rows if weights.verify_installed(folder / row.file) not in _INSTALLED]
    for row in rows:
        if row not in wanted:
            say(f"{row.file} is already there.")
    return EXIT_OK if fetch(wanted, settings) else EXIT_FAILED


def choose(names: Iterable[str]) -> list[WeightFile]:
    """Manifest rows for file names, model names (without the ending), `default`, `faces` and `all`, each once.

    Raises:
        KeyError: with the first name that nobody knows.
    """
    chosen: dict[str, WeightFile] = {}
    for name in names:
        rows = weights.find_rows(name)
        if not rows:
            raise KeyError(name)
        chosen.update({row.file: row for row in rows})
    return list(chosen.values())


def missing_defaults(folder: Path) -> list[WeightFile]:
    """The files of the first start that are not there, converted neither.

    One that is there but wrong is left for the user to judge.
    """
    absent = [row for row in MANIFEST if row.default and not (folder / row.file).exists()]
    return [row for row in absent if weights.find_conversion(folder / row.file) is None]


def fetch(rows: Sequence[WeightFile], settings: Settings) -> bool:
    """Download `rows` one after another with a progress bar; True when all arrived.

    Stops at the first file that cannot be reached: with no network the others would only cost time.
    """
    whole = True
    for row in rows:
        try:
            _fetch_one(row, settings)
        except RestoreError as error:
            whole = False
            complain(error.detail)
            if error.code != "download_corrupt":
                break
    return whole


def how_to_get(folder: Path) -> list[str]:
    """What a user can do when downloads do not work, a line each."""
    return [
        "  python3 run.py models download        when there is a network again",
        "  WEIGHTS_BASE_URL=https://...          a mirror that holds the files under their own names",
        f"  copy the files into {folder}/   from another machine (python3 run.py models verify checks them)",
    ]


def _fetch_one(row: WeightFile, settings: Settings) -> None:
    with download_bar() as bar:
        task = bar.add_task(row.file, total=row.bytes)

        def on_bytes(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        fetch_weights(row, settings.weights_folder, settings.weights_base_url, on_bytes)


def _show(folder: Path) -> None:
    table = Table("file", "MB", "installed", "fetched first", "for", "licence", box=None, pad_edge=False)
    for row in (*MANIFEST, EMBEDDED):
        verdict = _WORDS[weights.verify_installed(weights.path_of(folder, row.file))]
        size = f"{row.bytes / MEGABYTE:.1f}"
        table.add_row(row.file, size, verdict, "yes" if row.default else "", row.purpose, escape(row.licence))
    for file, purpose in zip(REPAIR_FILES, ("finds damage", "fills wide damage"), strict=True):
        path = weights.path_of(folder, file)
        size, there = (f"{path.stat().st_size / MEGABYTE:.1f}", "yes") if path.is_file() else ("", "no")
        table.add_row(file, size, there, "", f"{purpose}, ships with the project", EMBEDDED.licence)
    for path in _own_files(folder):
        size = f"{path.stat().st_size / MEGABYTE:.1f}"
        table.add_row(escape(path.name), size, _WORDS[Verdict.UNKNOWN], "", "your own file", "unknown")
    console().print(table)


def _verify(folder: Path) -> int:
    """Hash every file that is there; `EXIT_FAILED` when an official name holds something else, or nothing is there."""
    places = [weights.path_of(folder, row.file) for row in (*MANIFEST, EMBEDDED)]
    found = [(path, weights.verify_installed(path)) for path in places]
    present = [(path, verdict) for path, verdict in found if verdict is not Verdict.MISSING]
    for path, verdict in present:
        say(f"{path.name}: {_VERIFIED_WORDS.get(verdict, f'not the official file ({verdict})')}")
    for path in _own_files(folder):
        say(f"{path.name}: your own file, {_digest_words(path)}")
    if all(path.name == EMBEDDED.file for path, _ in present):
        complain("None of the official files is installed; get them with: python3 run.py models download")
        return EXIT_FAILED
    return EXIT_FAILED if any(verdict in _WRONG for _, verdict in present) else EXIT_OK


def _digest_words(path: Path) -> str:
    try:
        return f"sha256 {weights.sha256(path)}"
    except OSError:
        return _UNREADABLE_WORDS


def _convert(folder: Path, names: Sequence[str], *, allow_unverified: bool) -> int:
    """Make safetensors of the named `.pth` and `.pt` files (all that are there without a name), which stay."""
    from app.restoration.models.registry import read_file  # with it comes torch
    from app.restoration.models.tensor_files import convert

    found = [path for path in sorted(folder.glob("*.pt*")) if path.suffix in (".pth", ".pt")]
    wanted = [path for path in found if not names or path.name in names or path.stem in names]
    for name in names:
        if not any(name in (path.name, path.stem) for path in wanted):
            complain(f"There is no file {name} (.pth or .pt) in {folder}.")
            return EXIT_USAGE
    code = EXIT_OK
    for path in wanted:
        try:
            refused = weights.load_error(path, allow_unverified=allow_unverified)
            if refused is None:
                read_file(path)
                say(f"{path.name}: converted to {convert(path).name}")
        except RestoreError as error:
            refused = error.detail
        except OSError as error:
            refused = f"{path.name} could not be converted: {error.strerror}"
        if refused is not None:
            complain(refused)
            code = EXIT_FAILED
    return code


def _own_files(folder: Path) -> list[Path]:
    """What is neither an official file nor the conversion of one."""
    known = {*REPAIR_FILES, *(row.file for row in (*MANIFEST, EMBEDDED))}
    known |= {found.name for row in MANIFEST if (found := weights.find_conversion(folder / row.file))}
    return [path for path in weights.files_in(folder) if path.name not in known]
