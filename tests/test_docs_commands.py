"""The commands that the documentation names: each is read by the parser it is meant for; those that restore are run.

Nothing here starts a container or asks the network: the names in Docker's commands are held against the files.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.commands import dispatch, evaluate
from app.options import FIELDS
from app.restoration.models.weights import EMBEDDED
from app.settings import Settings
from tests.documentation import FILES, PAGES, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TEXTS = [path.read_text(encoding="utf-8") for path in FILES]


def shell_lines() -> list[str]:
    """Every command of the `sh` examples, and every command of ours in running text or a table."""
    text = "\n".join(TEXTS)
    fenced = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)).replace("\\\n", " ")
    inline = re.findall(r"`(python3? (?:run\.py|evaluate\.py|-m [\w.]+)[^`]*)`", text)
    return sorted({line.strip() for line in [*fenced.splitlines(), *inline] if line.strip()})


def read_run(words: Sequence[str]) -> None:
    if words[:1] == ["test"]:  # pytest reads the rest; files must exist
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    else:
        parse(dispatch.make_parser(), words or ["serve"])


def read_evaluate(words: Sequence[str]) -> None:
    parse(evaluate.make_parser(), words)


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Raises SystemExit for a mistyped call; `--help` exits too, with 0."""
    try:
        parser.parse_args(words)
    except SystemExit as end:
        if end.code != 0:
            raise


def read_module(words: Sequence[str]) -> None:
    """`-m MODULE --flags`: the module exists, and its command line has the flags."""
    place = ROOT / Path(*words[0].split("."))
    source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def read_pip(words: Sequence[str]) -> None:
    """`pip install -r FILE`: the file is there."""
    assert list(words[:2]) == ["install", "-r"]
    assert (ROOT / words[2]).is_file()


def read_curl(words: Sequence[str]) -> None:
    """`curl -F name=value ... "$API/route"`: the form has these fields, and the page of the API the route."""
    fields = {words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "-F"}
    assert fields <= {"file", "files", "webhook_url", "photo_options", *FIELDS}
    assert f"{words[-1].removeprefix('$API')}`" in PAGES["api.md"]


def read_docker(words: Sequence[str]) -> None:
    yaml: Any = importlib.import_module("yaml")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    match list(words):
        case ["compose", "up", "-d", *names]:
            assert set(names) <= set(services)
        case ["compose", "exec", service, "python", *rest]:
            assert service in services
            assert rest[:2] == ["-m", "app.commands"]
            read_run(rest[2:])
        case ["compose", "cp", _, target]:
            assert target.partition(":")[0] in services
            assert target.partition(":")[2].rstrip("/") in ("/weights",)
        case ["build", *rest]:
            asked = [rest[place + 1].partition("=")[0] for place, word in enumerate(rest) if word == "--build-arg"]
            assert asked
            assert all(re.search(rf"^ARG {name}\b", DOCKERFILE, re.M) for name in asked)
        case ["buildx", "imagetools", "inspect", image, "--format", _]:
            assert re.search(rf"^ARG BASE_IMAGE={re.escape(image)}$", DOCKERFILE, re.M)
        case ["run", *rest]:
            ports = [rest[place + 1].rsplit(":", 1)[1] for place, word in enumerate(rest) if word == "-p"]
            assert f"EXPOSE {' '.join(ports)}" in DOCKERFILE
            assert "WEIGHTS_FOLDER=/weights" in DOCKERFILE
            assert "weights:/weights" in rest
        case _:
            raise AssertionError(f"nothing here can judge: docker {' '.join(words)}")


def read_modal(words: Sequence[str]) -> None:
    """`modal ...`: the app and its functions are there; `setup` and `secret` are Modal's own."""
    match list(words):
        case ["setup"] | ["secret", "create", "neural-image-restore", "--from-dotenv", _]:
            pass
        case ["deploy" | "run", target]:
            file, _, function = target.partition("::")
            source = (ROOT / file).read_text(encoding="utf-8")
            assert not function or f"\ndef {function}(" in source
        case _:
            raise AssertionError(f"nothing here can judge: modal {' '.join(words)}")


def read_setting(line: str) -> None:
    """`echo "NAME=value" >> .env`: the service refuses a file with an unknown name."""
    found = re.fullmatch(r'echo "([A-Z_]+)=.*" >> \.env', line)
    assert found, line
    assert found[1] in {str(field.alias or name).upper() for name, field in Settings.model_fields.items()}


READERS: tuple[tuple[str, Callable[[Sequence[str]], None]], ...] = (
    ("python3 run.py", read_run),
    ("python3 evaluate.py", read_evaluate),
    ("python -m pip", read_pip),
    ("python -m", read_module),
    ("docker", read_docker),
    ("modal", read_modal),
    ("curl", read_curl),
)


def read(line: str) -> None:
    """Give a command to whoever can judge it. Raises for one that nobody can, or that is wrong."""
    if line.startswith("echo "):
        return read_setting(line)
    if re.fullmatch(r"export (API|API_KEY)=\S+", line):
        return None
    words = shlex.split(line, comments=True)
    for start, reader in READERS:
        if words[: len(start.split())] == start.split():
            return reader(words[len(start.split()) :])
    elsewhere = re.fullmatch(r"\.venv/bin/python -m pip install -r requirements[a-z-]*\.txt", line)
    assert elsewhere, f"nothing here can judge: {line}"
    return None


@pytest.mark.parametrize("line", shell_lines())
def test_a_command_is_one_that_its_program_takes(line: str) -> None:
    read(line)


@pytest.mark.parametrize(
    "line",
    [
        "python3 run.py restore old.jpg new.png --colour",
        "python3 run.py fly",
        "python3 run.py test tests/test_readme.py",
        "python3 evaluate.py photos/ --quality finest",
        "python -m benchmarks --parts upscale --speed",
        "docker compose up -d restore-tpu",
        "modal run modal_app.py::no_such_function",
        "docker build -t name --build-arg WEIGHTS=1 .",
        'echo "FORWARDED_ALLOW=10.0.0.1" >> .env',
        "make install",
        "python -m pip install -r requirements-none.txt",
        'curl -F photo=@a.jpg "$API/api/v1/enhance"',
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((SystemExit, AssertionError)):
        read(line)


def test_there_are_commands_of_every_kind() -> None:
    for start in (*(start for start, _ in READERS), "echo", "export"):
        assert any(line.startswith(start) for line in shell_lines()), start


def restoring_lines() -> list[str]:
    """The lines of the example of `restore`."""
    example = re.search(r"^```sh\n(python3 run\.py restore .*?)^```$", PAGES["command-line.md"], re.M | re.S)
    assert example is not None
    return example[1].splitlines()


RESTORED = (  # by each line of the example, from photos of 24x16
    {"new.png": (96, 64)},
    {"restored/one.jpg": (96, 64), "restored/below/two.png": (96, 64)},
    {"restored/one.jpg": (48, 32), "restored/below/two.png": (48, 32)},
    {"restored/one.jpg": (48, 32), "restored/below/two.png": (48, 32)},
)


@pytest.mark.parametrize(("line", "results"), list(zip(restoring_lines(), RESTORED, strict=True)))
def test_a_command_that_restores_does_so_with_the_model_that_ships(
    line: str, results: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    (tmp_path / "photos" / "below").mkdir(parents=True)
    weights.mkdir()
    shutil.copy(ROOT / "weights" / EMBEDDED.file, weights)
    for name in ("old.jpg", "photos/one.jpg", "photos/below/two.png"):
        Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEIGHTS_FOLDER": str(weights), "OFFLINE": "true"}
    # The same as run.py, without the set-up of an environment, which this process already runs in.
    words = shlex.split(line, comments=True)
    command = [sys.executable, "-m", "app.commands", *words[2:], "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, size in results.items():
        with Image.open(tmp_path / name, formats=("JPEG", "PNG")) as image:
            assert image.size == size
