"""Sets up the virtual environment: makes it, installs pinned requirements when they changed, and starts again in it.

Uses the standard library only, since nothing is installed yet. Packages come from `locks/`, checked by their hashes;
only torch's own CPU builds have none there. A stamp that is written last says what is installed (the requirement files
and the build of torch), so an interrupted installation is done again. What only checks is installed for `run.py test`
alone, with a stamp of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.commands import torch_build
from app.commands.torch_build import TorchBuild

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT_FILES = ("requirements.txt", "constraints.txt")
DEV_REQUIREMENT_FILES = (
    "requirements-dev.txt",
    "requirements-cluster.txt",
    "requirements-users.txt",
    "requirements-s3-servers.txt",
    "requirements-modal.txt",
    "constraints.txt",
)
# Their own metadata must not be followed, and basicsr imports torch while it builds; see requirements.txt.
MODEL_PACKAGES = ("facexlib", "basicsr", "gfpgan", "realesrgan")
NO_REFERENCE_FROM = (3, 13)
_STAMP, _DEV_STAMP = "requirements.sha256", "requirements-dev.sha256"
# A lock names everything that its packages need.
_LOCKED = ("--no-deps", "--require-hashes")
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
        make_ready(folder, root, checks=script == "run.py" and arguments[:1] == ["test"])
    except KeyboardInterrupt:
        sys.exit("The setup was interrupted; start again and it goes on where it stopped.")
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(_sentence(error))
    if not is_inside(folder):
        _start_again(folder, root / script, arguments)
        return
    _tell_of_unused_card(folder, root)


def venv_folder(root: Path) -> Path:
    """The folder named in VENV_FOLDER, else `.venv` beside run.py."""
    named = os.environ.get("VENV_FOLDER", "")
    return Path(named).expanduser().absolute() if named else root / ".venv"


def is_inside(folder: Path) -> bool:
    """Whether this process already runs the environment's own Python."""
    return Path(sys.prefix).resolve() == folder.resolve()


def fingerprint(root: Path, names: Sequence[str] = REQUIREMENT_FILES) -> str:
    """Hex digest over requirement files; equal texts give equal digests."""
    digest = hashlib.sha256()
    for name in names:
        content = (root / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def make_ready(folder: Path, root: Path, *, checks: bool = False) -> None:
    """Create the environment and install what the requirement files name, unless the stamps say it is all there.

    Args:
        folder: the environment.
        root: where the requirement files stand.
        checks: also what only checks needs.

    Two starts at once wait for each other: the second finds the work done.
    """
    if _is_ready(folder, root, checks=checks):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock")):
        if _is_ready(folder, root, checks=checks):
            return
        if not _has_pip(folder):
            _say(f"Making a virtual environment in {folder.name} ...")
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        if not _runs_are_ready(folder, root):
            (folder / _STAMP).unlink(missing_ok=True)
            build = _install(folder, root, torch_build.wanted_build(root))
            _write_stamp(folder / _STAMP, f"{fingerprint(root)} {build}")
        if checks and not _checks_are_ready(folder, root):
            (folder / _DEV_STAMP).unlink(missing_ok=True)
            _run([*_pip(folder), *_LOCKED, "-r", _lock_file(root, "dev")])
            _write_stamp(folder / _DEV_STAMP, fingerprint(root, DEV_REQUIREMENT_FILES))


def _is_ready(folder: Path, root: Path, *, checks: bool) -> bool:
    return _runs_are_ready(folder, root) and (not checks or _checks_are_ready(folder, root))


def _runs_are_ready(folder: Path, root: Path) -> bool:
    """Whether what runs is installed, in a build of torch that may stay.

    A card that is found later changes nothing by itself: a service that worked must start without a network too.
    """
    digest, _, build = _stamp_of(folder / _STAMP).partition(" ")
    return digest == fingerprint(root) and torch_build.serves(build, root) and python_of(folder).exists()


def _checks_are_ready(folder: Path, root: Path) -> bool:
    return _stamp_of(folder / _DEV_STAMP) == fingerprint(root, DEV_REQUIREMENT_FILES)


def python_of(folder: Path) -> Path:
    """The environment's interpreter."""
    return folder / "bin/python"


def _install(folder: Path, root: Path, wanted: TorchBuild) -> TorchBuild:
    """Install what runs and give the build of torch that it became; the model packages come second (see above)."""
    _say("Installing packages; the first time this takes minutes and several gigabytes ...")
    build = install_torch(folder, root, wanted)
    plain = ["-r", _lock_file(root, "torch")] if build is TorchBuild.PLAIN else []
    _run([*_pip(folder), *_LOCKED, *plain, "-r", _lock_file(root, "requirements")])
    if _version_of(folder) >= NO_REFERENCE_FROM:
        _say(_WITHOUT_REFERENCE)
    _run([*_pip(folder), *_LOCKED, "--no-build-isolation", "-r", _lock_file(root, "models")])
    return build


def install_torch(folder: Path, root: Path, wanted: TorchBuild) -> TorchBuild:
    """Install torch's own CPU build where it is wanted and can be had; else leave torch to the plain wheels.

    Returns the build that is there in the end. One that is there in the pinned version stays, so nothing is fetched
    for it and no index is asked; only a CPU build gives way when the plain one is wanted.
    """
    pins = torch_build.pins(root)
    installed = torch_build.installed_version(folder)
    if wanted is TorchBuild.PLAIN:
        if torch_build.is_cpu_build(installed):
            # pip takes 2.15.0+cpu for 2.15.0; forced, it removes the old build only once the new one is downloaded
            _run([*_pip(folder), *_LOCKED, "--force-reinstall", "-r", _lock_file(root, "torch")])
        return TorchBuild.PLAIN
    if f"torch=={installed.partition('+')[0]}" in pins:
        return TorchBuild.CPU if torch_build.is_cpu_build(installed) else TorchBuild.PLAIN
    if not torch_build.index_answers():
        _say("Torch's index of CPU builds does not answer, so the plain wheels come, with CUDA: about 4 GB more.")
        return TorchBuild.PLAIN
    try:
        _run([*_pip(folder), "--no-deps", "--index-url", torch_build.CPU_INDEX_URL, *pins])
    except subprocess.CalledProcessError:
        _say("Torch's CPU build could not be installed, so the plain wheels come, with CUDA: about 4 GB more.")
        return TorchBuild.PLAIN
    _say("No NVIDIA card was found, so torch's CPU build was installed; DEVICE=cuda brings the build for a card.")
    return TorchBuild.CPU


def _tell_of_unused_card(folder: Path, root: Path) -> None:
    """One line on stderr when a card has come since the CPU build was installed and DEVICE leaves the choice open."""
    if _stamp_of(folder / _STAMP).partition(" ")[2] != TorchBuild.CPU:
        return
    if torch_build.asked_device(root) in ("", "auto") and torch_build.has_nvidia_card():
        sys.stderr.write(
            f"An NVIDIA card is here, but torch's CPU build is installed: delete the folder {folder.name} and start "
            "again to get the build for the card (about 4 GB more), or set DEVICE=cpu.\n"
        )


def _lock_file(root: Path, name: str) -> str:
    return str(root / "locks" / f"{name}.txt")


def _pip(folder: Path) -> list[str]:
    return [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check"]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(command: list[str]) -> None:
    # The lock is inherited: a pip that outlives a killed start still keeps the next one from the same folder.
    subprocess.run(command, check=True, close_fds=False)  # noqa: S603 - our own interpreter, no shell


def _has_pip(folder: Path) -> bool:
    """Whether the environment is whole enough to install into (a broken or half-made one is made again)."""
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


def _stamp_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _write_stamp(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{text}\n", encoding="ascii")
    fresh.replace(path)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when this process and those that it ran are gone."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Waiting for another start that is installing packages ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), True)
        yield


def _start_again(folder: Path, script: Path, arguments: Sequence[str]) -> None:
    command = [str(python_of(folder)), str(script), *arguments]
    sys.stdout.flush()
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
