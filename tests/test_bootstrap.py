"""run.py sets itself up: against a tiny project with wheels of its own, so no packet leaves the machine."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest
from packaging.requirements import Requirement

from app.commands import bootstrap, platform_check, torch_build
from app.commands.torch_build import TorchBuild

ROOT = Path(__file__).resolve().parents[1]
# Stands in for the commands: says where it runs and with which words.
_DISPATCH = """
import sys
def main(words):
    import probe, late
    print("READY", sys.prefix, *words)
    return 7
"""


def make_wheel(folder: Path, name: str, version: str = "1.0") -> str:
    """A wheel with one empty module, as a requirement line that needs no index."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    return f"{name} @ {path.as_uri()}"


def lock(root: Path, name: str, *requirements: str) -> None:
    """A lock of wheels that `make_wheel` made, each with its hash."""
    (root / "locks").mkdir(exist_ok=True)
    lines = []
    for requirement in requirements:
        wheel = Path(url2pathname(requirement.partition("file://")[2]))
        lines.append(f"{requirement} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    (root / "locks" / f"{name}.txt").write_text("".join(lines))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in small: the real run.py and bootstrap, requirement files that name two tiny wheels."""
    root = tmp_path_factory.mktemp("clone")
    (root / "app" / "commands").mkdir(parents=True)
    shutil.copy(ROOT / "run.py", root)
    for name in ("bootstrap", "platform_check", "torch_build"):
        shutil.copy(ROOT / "app" / "commands" / f"{name}.py", root / "app" / "commands")
    for package in ("app", "app/commands"):
        (root / package / "__init__.py").touch()
    (root / "app" / "commands" / "dispatch.py").write_text(_DISPATCH)
    probe, late, checker = (make_wheel(root, name) for name in ("probe", "late", "checker"))
    (root / "requirements.txt").write_text(f"{probe}\n{late}\n")
    for name, wheels in (("requirements", [probe]), ("models", [late]), ("dev", [checker]), ("torch", [])):
        lock(root, name, *wheels)
    for name in bootstrap.DEV_REQUIREMENT_FILES:
        (root / name).touch()
    (root / "requirements-dev.txt").write_text(f"{checker}\n")
    (root / "constraints.txt").touch()
    return root


def start(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "HOME": str(project)}
    command = [sys.executable, str(project / "run.py"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_first_start_installs_and_the_next_start_does_not(project: Path) -> None:
    first = start(project, "restore", "a b")
    assert first.returncode == 7, first.stderr
    assert "Making a virtual environment" in first.stdout
    assert f"READY {project / '.venv'} restore a b" in first.stdout

    second = start(project)
    assert second.returncode == 7
    assert "Making" not in second.stdout
    assert "Installing" not in second.stdout

    # A changed requirement file installs again, into the same environment.
    (project / "constraints.txt").write_text("# changed\n")
    third = start(project)
    assert third.returncode == 7
    assert "Installing" in third.stdout
    assert "Making" not in third.stdout

    # An installation that broke off has no stamp: the next start does it again.
    (project / ".venv" / "requirements.sha256").unlink()
    assert "Installing" in start(project).stdout

    # What only checks comes with the test command, and the service is not installed again for it.
    assert not list((project / ".venv").rglob("checker.py"))
    tested = start(project, "test", "-x")
    assert f"READY {project / '.venv'} test -x" in tested.stdout
    assert "Installing packages" not in tested.stdout
    assert list((project / ".venv").rglob("checker.py"))
    assert "checker" not in start(project, "test").stdout

    # An environment whose Python went away (an upgrade of the system) is made again.
    for python in (project / ".venv" / "bin").glob("python*"):
        python.unlink()
    fifth = start(project)
    assert "Making a virtual environment" in fifth.stdout
    assert fifth.returncode == 7


def test_enter_starts_again_inside_and_stays_when_it_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VENV_FOLDER", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (project / ".venv" / "requirements.sha256").unlink(missing_ok=True)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: started.append([path, *words]))
    bootstrap.enter(["models", "list"], project)
    python = str(project / ".venv" / "bin" / "python")
    assert started == [[python, python, str(project / "run.py"), "models", "list"]]
    assert "Installing" in capfd.readouterr().out

    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    bootstrap.enter(["models", "list"], project)
    assert len(started) == 1
    assert "Installing" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (subprocess.CalledProcessError(1, ["python", "-m", "venv"]), "python3-venv"),
        (subprocess.CalledProcessError(1, ["python", "-m", "pip"]), "pip's last lines above say why"),
        (PermissionError(13, "Permission denied"), "Check the folder's permissions"),
        (KeyboardInterrupt(), "goes on where it stopped"),
    ],
)
def test_a_setup_that_fails_ends_with_a_sentence(
    error: BaseException, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, root: Path, *, checks: bool) -> None:
        raise error

    monkeypatch.setattr(bootstrap, "make_ready", fail)
    with pytest.raises(SystemExit) as left:
        bootstrap.enter([], ROOT)
    assert sentence in str(left.value.code)


@pytest.mark.parametrize("fault", ["missing", "exchanged"])
def test_a_failed_installation_leaves_no_stamp_and_says_what_to_do(fault: str, project: Path, tmp_path: Path) -> None:
    """A package that is not there, and one whose file is another than the one that was locked."""
    root = tmp_path / "clone"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".venv*"))
    zeros = f" --hash=sha256:{'0' * 64}\n"
    requirement = "no-such-package-anywhere==1.0" if fault == "missing" else make_wheel(tmp_path, "late")
    (root / "locks" / "models.txt").write_text(requirement + zeros)
    failed = start(root)
    assert failed.returncode == 1
    assert ("DO NOT MATCH THE HASHES" in failed.stderr) == (fault == "exchanged")
    assert "Check the network and the free disk space" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (root / ".venv" / "requirements.sha256").exists()


def test_two_starts_at_once_install_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in bootstrap.REQUIREMENT_FILES:
        (tmp_path / name).touch()
    folder = tmp_path / "venv"
    program = (
        "import sys, time; from pathlib import Path; from app.commands import bootstrap as b\n"
        "root, folder = Path(sys.argv[1]), Path(sys.argv[1]) / 'venv'\n"
        "b._has_pip = lambda folder: True\n"
        "def install(folder, root, wanted):\n"
        "    with (root / 'log').open('a') as log: log.write('installed\\n')\n"
        "    (folder / 'bin').mkdir(parents=True, exist_ok=True); b.python_of(folder).touch(); time.sleep(0.3)\n"
        "    return wanted\n"
        "b._install = install\n"
        "b.make_ready(folder, root)\n"
    )
    folder.mkdir()
    command = [sys.executable, "-c", program, str(tmp_path)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0, 0, 0]
    assert (tmp_path / "log").read_text() == "installed\n"


def test_a_killed_start_leaves_the_folder_to_its_pip_until_that_is_done(tmp_path: Path) -> None:
    """Two pips in one folder spoil it; the second once read what the first had half written."""
    for name in bootstrap.REQUIREMENT_FILES:
        (tmp_path / name).touch()
    (tmp_path / "venv").mkdir()
    program = (
        "import sys; from pathlib import Path; from app.commands import bootstrap as b\n"
        "root, folder = Path(sys.argv[1]), Path(sys.argv[1]) / 'venv'\n"
        "b._has_pip = lambda folder: True\n"
        "def install(folder, root, wanted):\n"
        "    b._run([sys.executable, '-c', sys.argv[2], sys.argv[1]]); return wanted\n"
        "b._install = install\n"
        "b.make_ready(folder, root)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    note = "import sys; from pathlib import Path; root = Path(sys.argv[1]); (root / 'log').open('a').write(%r)\n"
    slow = f"{note % 'begun '}print('begun', flush=True); sys.stdin.read(); {note % 'done '}"
    killed = subprocess.Popen([*command, slow], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdin is not None
    assert killed.stdout is not None
    assert killed.stdout.readline() == "begun\n"
    killed.kill()
    killed.wait(timeout=60)
    second = subprocess.Popen([*command, note % "second "], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert "Waiting for another start" in second.stdout.readline()
    killed.stdin.close()  # its pip, which has inherited the other end, goes on
    assert second.wait(timeout=60) == 0
    assert (tmp_path / "log").read_text() == "begun done second "


def test_the_environment_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VENV_FOLDER", str(tmp_path / "elsewhere"))
    assert bootstrap.venv_folder(ROOT) == tmp_path / "elsewhere"
    monkeypatch.delenv("VENV_FOLDER")
    assert bootstrap.venv_folder(ROOT) == ROOT / ".venv"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the set-up would run; the index of CPU builds answers."""
    run: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "_run", run.append)
    monkeypatch.setattr(torch_build, "index_answers", lambda: True)
    return run


def test_python_313_is_told_once_what_it_goes_without(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, told in (("3.12.9", False), ("3.13.0", True), ("3.14.1", True)):
        (tmp_path / "pyvenv.cfg").write_text(f"home = somewhere\nversion = {version}\n")
        bootstrap._install(tmp_path, ROOT, TorchBuild.PLAIN)
        assert ("ENGINE=reference are left out" in capsys.readouterr().out) is told
    first, models = commands[:2]
    assert [Path(word).name for word in first if word.endswith(".txt")] == ["torch.txt", "requirements.txt"]
    assert [Path(word).name for word in models if word.endswith(".txt")] == ["models.txt"]
    assert "--no-build-isolation" in models
    for command in (first, models):
        assert {"--no-deps", "--require-hashes"} <= set(command)


def test_the_model_packages_leave_out_what_cannot_be_built() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-c"))]

    def names(version: str) -> set[str]:
        found = {r.name for r in wanted if r.marker is None or r.marker.evaluate({"python_version": version})}
        return found & set(bootstrap.MODEL_PACKAGES)

    assert names("3.11") == names("3.12") == {"facexlib", "basicsr", "gfpgan", "realesrgan"}
    assert names("3.13") == names("3.14") == {"facexlib"}


def test_what_checks_is_apart_from_what_runs() -> None:
    def names(file: str) -> set[str]:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        return {Requirement(line).name.lower() for line in lines if line and not line.startswith(("#", "-c", "-r"))}

    runs, checks = names("requirements.txt"), names("requirements-dev.txt")
    fixed = {"fastapi", "uvicorn", "torch", "torchvision", "basicsr", "realesrgan", "gfpgan", "facexlib", "pillow"}
    assert fixed | {"python-multipart", "python-dotenv", "scikit-image"} <= runs
    assert {"pytest", "hypothesis", "coverage", "mypy", "ruff", "playwright"} <= checks
    assert not runs & checks
    assert names("requirements-heic.txt") <= checks - runs  # its tests run, and a first start does not install it


# Which build of torch.


def put_torch(folder: Path, version: str) -> None:
    """The metadata that pip leaves of an installed torch."""
    info = folder / "lib" / "python3.12" / "site-packages" / f"torch-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n", encoding="utf-8")


def test_the_cpu_build_comes_from_its_own_index(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyvenv.cfg").write_text("version = 3.12.1\n")
    assert bootstrap._install(tmp_path, ROOT, TorchBuild.CPU) is TorchBuild.CPU
    first, rest = commands[:2]
    assert first[-4:-2] == ["--index-url", torch_build.CPU_INDEX_URL]
    assert [pin.partition("==")[0] for pin in first[-2:]] == ["torch", "torchvision"]
    assert not any(word.endswith("torch.txt") for word in rest)  # those four gigabytes are what it saves
    assert "CPU build was installed" in capsys.readouterr().out


@pytest.mark.parametrize(("local", "build"), [("+cpu", TorchBuild.CPU), ("", TorchBuild.PLAIN)])
def test_an_interrupted_setup_keeps_the_build_that_is_there_and_stamps_that_one(
    local: str, build: TorchBuild, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> bool:
        raise AssertionError("the index was asked")

    monkeypatch.setattr(torch_build, "index_answers", ask)
    (pin,) = (pin for pin in torch_build.pins(ROOT) if pin.startswith("torch=="))
    put_torch(tmp_path, pin.removeprefix("torch==") + local)
    assert bootstrap.install_torch(tmp_path, ROOT, TorchBuild.CPU) is build
    assert commands == []


def test_an_older_torch_is_replaced_by_the_cpu_build_of_the_pinned_one(
    commands: list[list[str]], tmp_path: Path
) -> None:
    put_torch(tmp_path, "2.0.0")
    assert bootstrap.install_torch(tmp_path, ROOT, TorchBuild.CPU) is TorchBuild.CPU
    assert torch_build.CPU_INDEX_URL in commands[0]


def test_the_cpu_build_is_exchanged_only_once_the_other_is_downloaded(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pip itself: wheels of the two builds in a folder, no index."""
    assert start(project).returncode == 7
    folder, wheels = project / ".venv", tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "requirements.txt").write_text("torch==2.0.0\ntorchvision==0.1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    for name, version in (("torch", "2.0.0+cpu"), ("torchvision", "0.1.0+cpu")):
        make_wheel(wheels, name, version)
    pip = [str(bootstrap.python_of(folder)), "-m", "pip", "install", *torch_build.pins(tmp_path)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    assert torch_build.installed_version(folder) == "2.0.0+cpu"
    for wheel in wheels.iterdir():
        wheel.unlink()

    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "torch.txt").write_text(f"torch==2.0.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(subprocess.CalledProcessError):
        bootstrap.install_torch(folder, tmp_path, TorchBuild.PLAIN)
    assert torch_build.installed_version(folder) == "2.0.0+cpu"  # without a network it still runs

    new = [make_wheel(wheels, name, version) for name, version in (("torch", "2.0.0"), ("torchvision", "0.1.0"))]
    lock(tmp_path, "torch", *new)
    assert bootstrap.install_torch(folder, tmp_path, TorchBuild.PLAIN) is TorchBuild.PLAIN
    assert torch_build.installed_version(folder) == "2.0.0"


@pytest.mark.parametrize("trouble", ["no answer", "no wheel"])
def test_without_that_index_the_plain_wheels_come_and_one_line_says_so(
    trouble: str,
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(command: list[str]) -> None:
        if "--index-url" in command:
            raise subprocess.CalledProcessError(1, command)
        commands.append(command)

    monkeypatch.setattr(torch_build, "index_answers", lambda: trouble == "no wheel")
    monkeypatch.setattr(bootstrap, "_run", refuse)
    (tmp_path / "pyvenv.cfg").write_text("version = 3.12.1\n")
    assert bootstrap._install(tmp_path, ROOT, TorchBuild.CPU) is TorchBuild.PLAIN
    assert capsys.readouterr().out.count("so the plain wheels come") == 1
    assert len(commands) == 2


@pytest.mark.parametrize("cards", [0, 1])
def test_only_a_cpu_build_with_device_cuda_is_installed_again(
    cards: int, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_build, "_nvml_count", lambda: cards)
    monkeypatch.setattr(bootstrap, "_has_pip", lambda folder: True)
    folder = tmp_path / "venv"
    bootstrap.python_of(folder).parent.mkdir(parents=True)
    bootstrap.python_of(folder).touch()
    (folder / "pyvenv.cfg").write_text("version = 3.12.1\n")
    for build, device, ready in (
        (TorchBuild.PLAIN, "auto", True),
        (TorchBuild.PLAIN, "cpu", True),
        (TorchBuild.PLAIN, "cuda", True),
        (TorchBuild.CPU, "auto", True),  # also with a card that came later: no start without a network may fail
        (TorchBuild.CPU, "cpu", True),
        (TorchBuild.CPU, "cuda:1", False),
        ("", "auto", False),  # a stamp of an older revision
    ):
        monkeypatch.setenv("DEVICE", device)
        (folder / "requirements.sha256").write_text(f"{bootstrap.fingerprint(ROOT)} {build}\n", encoding="ascii")
        bootstrap.make_ready(folder, ROOT)
        assert (commands == []) is ready, (build, device)
        commands.clear()


@pytest.mark.parametrize(
    ("build", "device", "cards", "told"),
    [
        (TorchBuild.CPU, "auto", 1, True),
        (TorchBuild.CPU, "", 1, True),
        (TorchBuild.CPU, "cpu", 1, False),
        (TorchBuild.CPU, "auto", 0, False),
        (TorchBuild.PLAIN, "auto", 1, False),
    ],
)
def test_a_card_that_came_later_is_told_of_in_one_line(
    build: TorchBuild,
    device: str,
    cards: int,
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "venv"
    bootstrap.python_of(folder).parent.mkdir(parents=True)
    bootstrap.python_of(folder).touch()
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).touch()
    (folder / "requirements.sha256").write_text(f"{bootstrap.fingerprint(tmp_path)} {build}\n", encoding="ascii")
    monkeypatch.setenv("VENV_FOLDER", str(folder))
    monkeypatch.setenv("DEVICE", device)
    monkeypatch.setattr(torch_build, "has_nvidia_card", lambda: cards > 0)
    started: list[str] = []
    monkeypatch.setattr(os, "execv", lambda path, words: started.append(path))
    bootstrap.enter([], tmp_path)
    assert len(started) == 1
    assert capsys.readouterr().err == ""  # the process that starts again leaves it to the one that it starts

    monkeypatch.setattr(sys, "prefix", str(folder))
    bootstrap.enter([], tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == int(told)
    assert ("delete the folder venv" in said) is told


@pytest.fixture
def no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a card, and a project that needs torch; gives its folder of device files."""
    monkeypatch.setattr(torch_build, "_nvml_count", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DEVICE", raising=False)
    (tmp_path / "requirements.txt").write_text("numpy==1.0\ntorch==2.0.0\ntorchvision==0.1.0\n")
    devices = tmp_path / "dev"
    devices.mkdir()
    return devices


def test_a_card_or_a_wish_for_one_brings_the_plain_build(
    no_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch_build.pins(tmp_path) == ["torch==2.0.0", "torchvision==0.1.0"]
    assert torch_build.wanted_build(tmp_path, no_card) is TorchBuild.CPU
    (no_card / "nvidia0").touch()
    assert torch_build.wanted_build(tmp_path, no_card) is TorchBuild.PLAIN
    (no_card / "nvidia0").unlink()
    monkeypatch.setattr(torch_build, "_nvml_count", lambda: 1)  # WSL2 has no such device file
    assert torch_build.wanted_build(tmp_path, no_card) is TorchBuild.PLAIN
    monkeypatch.setattr(torch_build, "_nvml_count", lambda: 0)
    for text, build in (
        ("DEVICE=cuda:1\n", TorchBuild.PLAIN),
        ("#DEVICE=cuda\nDEVICE = cpu\n", TorchBuild.CPU),
        ("MY_DEVICE=cuda\n", TorchBuild.CPU),
        ('export DEVICE="cuda"\n', TorchBuild.PLAIN),
        ("device=cuda\n", TorchBuild.PLAIN),  # the settings read names in any case
    ):
        (tmp_path / ".env").write_text(text)
        assert torch_build.wanted_build(tmp_path, no_card) is build, text
    monkeypatch.setenv("DEVICE", "cpu")  # the environment wins
    assert torch_build.wanted_build(tmp_path, no_card) is TorchBuild.CPU


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64"), ("linux", "armv7l")])
def test_where_no_cpu_index_is_needed_the_plain_build_comes(
    system: str, machine: str, no_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert torch_build.wanted_build(tmp_path, no_card) is TorchBuild.PLAIN


def test_a_project_without_torch_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy==1.0\n")
    assert torch_build.wanted_build(tmp_path, tmp_path) is TorchBuild.PLAIN


def test_the_index_is_asked_once_and_given_up_in_time() -> None:
    asked: list[tuple[str, float]] = []
    released = threading.Event()

    def answer(url: str, timeout: float) -> contextlib.AbstractContextManager[None]:
        asked.append((url, timeout))
        return contextlib.nullcontext()

    def refuse(url: str, timeout: float) -> contextlib.AbstractContextManager[None]:
        raise OSError("no such name")

    def hang(url: str, timeout: float) -> contextlib.AbstractContextManager[None]:
        released.wait(60)  # a name server that says nothing knows no timeout
        return contextlib.nullcontext()

    assert torch_build.index_answers(answer)
    assert asked == [(f"{torch_build.CPU_INDEX_URL}/torch/", 5.0)]
    assert not torch_build.index_answers(refuse)
    assert not torch_build.index_answers(hang, seconds=0.05)
    released.set()


def test_an_index_that_hangs_does_not_keep_the_process_alive() -> None:
    program = (
        "import time\n"
        "from app.commands import torch_build\n"
        "print(torch_build.index_answers(lambda url, timeout: time.sleep(600), seconds=0.05))\n"
    )
    asked = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert asked.stdout == "False\n", asked.stderr


@pytest.mark.parametrize(
    ("present", "seen"), [("", False), ("libnvidia-ml.so.1", True), ("/usr/lib/wsl/lib/libnvidia-ml.so.1", True)]
)
def test_nvml_is_asked_by_name_and_in_the_folder_of_wsl(
    present: str, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's own name
            return 0

        def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802 - NVML's own name
            ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 2
            return 0

    def load(name: str) -> Library:
        if name != present:
            raise OSError("no such library")
        return Library()

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert torch_build.has_nvidia_card(tmp_path) is seen


# Native Windows.


@pytest.mark.parametrize("script", ["run.py", "evaluate.py", "-m app.commands"])
def test_native_windows_is_sent_to_wsl_or_docker_with_a_sentence(script: str) -> None:
    program = (
        "import runpy, sys\n"
        "sys.platform = 'win32'\n"
        "sys.modules['fcntl'] = None\n"  # does not exist there
        + (
            "runpy.run_module('app.commands', run_name='__main__')"
            if script.startswith("-m")
            else f"runpy.run_path({script!r}, run_name='__main__')"
        )
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert told.stderr.strip() == platform_check.WINDOWS
    assert "WSL2" in told.stderr
    assert "Traceback" not in told.stderr


def test_every_requirement_is_pinned_exactly_and_constrained() -> None:
    pins: dict[str, str] = {}
    for file in ROOT.glob("requirements*.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-c", "-r")):
                found = Requirement(line)
                assert re.fullmatch(r"==[0-9a-z.]+", str(found.specifier)), line
                assert pins.setdefault(found.name.lower(), str(found.specifier)) == str(found.specifier)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = [Requirement(line) for line in lines if not line.startswith("#")]
    known = {found.name.lower(): str(found.specifier) for found in constraints}
    own = {name: pin for name, pin in pins.items() if name in known}
    assert own == {name: known[name] for name in own}
    assert {"torch", "fastapi", "pillow", "numpy", "uvicorn"} <= set(own)
    assert "opencv-python" not in {*known, *pins}  # a second OpenCV breaks the headless one


def test_old_pythons_are_sent_away_with_a_sentence() -> None:
    source = (ROOT / "run.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))  # an old Python must be able to read as far as the sentence
    program = "import sys; sys.version_info = (3, 10, 2, 'final', 0); exec(compile(sys.stdin.read(), 'run.py', 'exec'))"
    told = subprocess.run([sys.executable, "-c", program], input=source, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert told.stderr.startswith("Neural Image Restore needs Python 3.11 or newer, and this is Python 3.10.")
