"""Sets up the virtual environment: makes it, installs pinned requirements when they changed, and starts again in it.

Uses the standard library only, since nothing is installed yet; it knows nothing of what the commands do. A stamp that
is written last says which requirement files are installed, so an interrupted installation is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if sys.platform != "win32":
    import fcntl

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT_FILES = ("requirements.txt", "constraints.txt", "requirements-models.txt")
NO_REFERENCE_FROM = (3, 13)
_STAMP = "requirements.sha256"
_WITHOUT_REFERENCE = (
    "Python 3.13 and newer cannot build basicsr, so it, gfpgan, realesrgan and ENGINE=reference are left out; "
    "everything else works."
)


def enter(arguments: Sequence[str], root: Path = ROOT, script: str = "run.py") -> None:
    """Return when this process runs in the ready environment; otherwise make it ready and start `script` again in it.

    Exits with a plain sentence when the environment cannot be made or the packages cannot be installed.
    """
    folder = venv_folder(root)
    try:
        make_ready(folder, root)
    except KeyboardInterrupt:
        sys.exit("The setup was interrupted; start again and it goes on where it stopped.")
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(_sentence(error))
    if not is_inside(folder):
        _start_again(folder, root / script, arguments)


def venv_folder(root: Path) -> Path:
    """The folder named in VENV_FOLDER, else `.venv` beside run.py."""
    named = os.environ.get("VENV_FOLDER", "")
    return Path(named).expanduser().absolute() if named else root / ".venv"


def is_inside(folder: Path) -> bool:
    """Whether this process already runs the environment's own Python."""
    return Path(sys.prefix).resolve() == folder.resolve()


def fingerprint(root: Path) -> str:
    """Hex digest over the requirement files; equal texts give equal digests."""
    digest = hashlib.sha256()
    for name in REQUIREMENT_FILES:
        content = (root / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def make_ready(folder: Path, root: Path) -> None:
    """Create the environment and install what the requirement files name, unless the stamp says it is all there.

    Two starts at once wait for each other: the second finds the work done.
    """
    wanted = fingerprint(root)
    if _stamp_of(folder) == wanted and python_of(folder).exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock")):
        if _stamp_of(folder) == wanted and python_of(folder).exists():
            return
        (folder / _STAMP).unlink(missing_ok=True)
        if not _has_pip(folder):
            _say(f"Making a virtual environment in {folder.name} ...")
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _install(folder, root)
        _write_stamp(folder, wanted)


def python_of(folder: Path) -> Path:
    """The environment's interpreter."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _install(folder: Path, root: Path) -> None:
    """Install the packages; the model packages come second and without their own metadata's wishes."""
    _say("Installing packages; the first time this takes minutes and several gigabytes ...")
    pip = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
    _run([*pip, "-r", str(root / "requirements.txt")])
    if _version_of(folder) >= NO_REFERENCE_FROM:
        _say(_WITHOUT_REFERENCE)
    _run([*pip, "--no-deps", "--no-build-isolation", "-r", str(root / "requirements-models.txt")])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter, no shell


def _has_pip(folder: Path) -> bool:
    """Whether the environment is whole enough to install into (a broken or half-made one is made anew)."""
    if not python_of(folder).exists():
        return False
    try:
        command = [str(python_of(folder)), "-c", "import pip"]
        asked = subprocess.run(command, capture_output=True, timeout=60)  # noqa: S603 - our own interpreter
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _version_of(folder: Path) -> tuple[int, ...]:
    """(major, minor) of the environment's Python, which may differ from the one that runs this."""
    for line in (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() in ("version", "version_info"):
            return tuple(int(part) for part in value.strip().split(".")[:2])
    return sys.version_info[:2]


def _stamp_of(folder: Path) -> str:
    try:
        return (folder / _STAMP).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _write_stamp(folder: Path, digest: str) -> None:
    fresh = folder / f"{_STAMP}.new"
    fresh.write_text(f"{digest}\n", encoding="ascii")
    fresh.replace(folder / _STAMP)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (the kernel frees it if this process dies); no lock on Windows."""
    with path.open("a") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("Waiting for another start that is installing packages ...")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start_again(folder: Path, script: Path, arguments: Sequence[str]) -> None:
    command = [str(python_of(folder)), str(script), *arguments]
    sys.stdout.flush()
    if sys.platform == "win32":  # exec there returns to the shell at once and leaves the terminal in a muddle
        sys.exit(subprocess.call(command))  # noqa: S603 - as below
    os.execv(command[0], command)  # noqa: S606 - our own interpreter and script, no shell


def _sentence(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError) and "venv" in error.cmd:
        return (
            "The virtual environment could not be made. On Debian or Ubuntu install the package python3-venv, "
            "then start again."
        )
    if isinstance(error, subprocess.CalledProcessError):
        return (
            "Some packages could not be installed; pip's last lines above say why. "
            "Check the network and the free disk space, then start again: it goes on where it stopped."
        )
    return f"The setup could not write its files ({error}). Check the folder's permissions and the free disk space."
