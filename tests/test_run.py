"""The commands as a user types them: restore, models, doctor, test and the words of serve.

Networks are seeded random files in the official shape, or the real ones when NIR_TEST_WEIGHTS is set; downloads go to a
server on loopback.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from app.backends.local import open_local_backend
from app.commands import check, dispatch, doctor, doctor_machine, golden, models, serve, torch_build
from app.commands.doctor_machine import BAD, FINE, WARNING
from app.error_codes import PASSING_AT_START
from app.errors import Conflict, Internal, RestoreError, Unavailable
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_CARD_LOST, EXIT_FAILED, EXIT_HUNG, EXIT_OK
from app.options import CARD_FAILED, FIELDS, HUNG_OFTEN, RestoreOptions
from app.restoration.models import weights
from app.restoration.models.weights import WeightFile
from app.settings import Settings
from tests.command_line import MODEL, files_below, put_photo, run, size_of
from tests.databases import needs_postgres
from tests.harness import until
from tests.http_service import free_port
from tests.postgres_server import shared_server

ROOT = Path(__file__).resolve().parents[1]


def test_a_folder_is_restored_in_depth_and_a_broken_photo_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "in" / "a.png")
    put_photo(project / "in" / "deep" / "b.jpg")
    put_photo(project / "in" / ".hidden" / "c.png")
    (project / "in" / "notes.txt").write_text("no photo")
    (project / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert run(project, "restore", "in", "out", "--scale", "2") == 1
    assert files_below(project / "out") == {"a.png", "deep/b.jpg"}
    assert size_of(project / "out" / "a.png") == (48, 32)
    said = capsys.readouterr().out
    assert "broken.png" in said
    assert "undecodable_image" in said
    assert "2 restored, 0 already done, 1 failed." in said


def test_what_is_done_is_skipped_until_the_photo_changes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = put_photo(project / "in" / "a.png")
    assert run(project, "restore", "in", "out") == 0
    result = project / "out" / "a.png"
    first = result.stat().st_mtime_ns
    assert run(project, "restore", "in", "out") == 0
    assert "0 restored, 1 already done, 0 failed." in capsys.readouterr().out
    assert result.stat().st_mtime_ns == first

    assert run(project, "restore", "in", "out", "--overwrite") == 0
    second = result.stat().st_mtime_ns
    assert second > first

    capsys.readouterr()
    os.utime(photo, ns=(second + 10**9, second + 10**9))
    assert run(project, "restore", "in", "out") == 0
    assert "1 restored, 0 already done" in capsys.readouterr().out


def test_a_named_result_gets_the_format_of_its_ending(project: Path) -> None:
    put_photo(project / "a.png")
    assert run(project, "restore", "a.png", "new/b.webp") == 0
    with Image.open(project / "new" / "b.webp", formats=("WEBP",)) as image:
        assert image.size == (96, 64)
    assert run(project, "restore", "a.png", "new", "--output-format", "tiff") == 0
    assert files_below(project / "new") == {"b.webp", "a.tif"}


def test_all_pages_of_a_tiff_become_one_tiff(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in noise]
    pages[0].save(project / "album.tif", save_all=True, append_images=pages[1:])
    assert run(project, "restore", "album.tif", "all", "--scale", "2", "--pages", "all") == 0
    with Image.open(project / "all" / "album.tif", formats=("TIFF",)) as image:
        assert (getattr(image, "n_frames", 1), image.size) == (3, (48, 32))
    assert "first" not in capsys.readouterr().out
    assert run(project, "restore", "album.tif", "first", "--scale", "2") == 0
    assert "The file has 3 pages; only the first was restored." in capsys.readouterr().out
    assert run(project, "restore", "album.tif", "all.png", "--pages", "all") == 1
    assert "Several pages make a TIFF" in " ".join(capsys.readouterr().out.split())
    assert not (project / "all.png").exists()


def test_photos_that_share_a_name_do_not_share_a_result(project: Path) -> None:
    put_photo(project / "in" / "a.png")
    put_photo(project / "in" / "a.jpg")
    assert run(project, "restore", "in", "out", "--output-format", "png") == 0
    assert files_below(project / "out") == {"a_png.png", "a_jpg.png"}


def test_results_inside_the_searched_folder_are_not_restored_again(project: Path) -> None:
    put_photo(project / "in" / "a.png")
    assert run(project, "restore", "in", "in/out") == 0
    assert run(project, "restore", "in", "in/out", "--overwrite") == 0
    assert files_below(project / "in") == {"a.png", "out/a.png"}


def test_a_photo_is_never_overwritten_by_its_result(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = put_photo(project / "in" / "a.png").read_bytes()
    for target in ("in", "in/a.png"):
        assert run(project, "restore", "in/a.png", target) == 2
        assert "choose another OUT" in capsys.readouterr().err
    assert run(project, "restore", "in", "in") == 2
    assert (project / "in" / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a.png", "out", "--scale", "9"), "Option 'scale' must be between 1 and 8"),
        (("a.png", "out", "--quality", "great"), "Option 'quality' must be one of fast, balanced, best"),
        (("a.png", "out.jpg", "--output-format", "png"), "leave one of them out"),
        (("nowhere.png", "out"), "There is no file or folder"),
        (("folder", "a.png"), "OUT must be a folder too"),
    ],
)
def test_a_mistyped_call_is_told_and_ends_with_2(
    words: tuple[str, ...], sentence: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "a.png")
    put_photo(project / "folder" / "a.png")
    assert run(project, "restore", *words) == 2
    assert sentence in capsys.readouterr().err


def test_an_empty_folder_is_no_success(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "in").mkdir()
    assert run(project, "restore", "in", "out") == 1
    assert "No photos found" in capsys.readouterr().err


def test_a_result_over_the_limit_is_refused_before_the_work(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_OUTPUT_MEGAPIXELS", "0.001")
    put_photo(project / "a.png")
    assert run(project, "restore", "a.png", "out") == 1
    assert "output_too_large" in capsys.readouterr().out


def test_a_result_that_cannot_take_its_name_leaves_no_half_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "a.png")
    (project / "out" / "a.png" / "in the way").mkdir(parents=True)
    assert run(project, "restore", "a.png", "out") == 1
    assert "file_error" in capsys.readouterr().out
    assert files_below(project / "out") == set()


def test_every_local_option_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dispatch.make_parser().parse_args(["restore", "--help"])
    text = capsys.readouterr().out
    cloud = {"backend", "fallback", "prompt", "num_inference_steps", "guidance_scale", "seed"}
    for name in FIELDS:
        assert (f"--{name.replace('_', '-')}" in text) is (name not in cloud), name


def test_ctrl_c_stops_within_a_tile_and_leaves_no_half_file(project: Path) -> None:
    put_photo(project / "in" / "a.png")
    put_photo(project / "in" / "b.png", 900, 900)  # seconds of work in many tiles
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "app.commands",
        "restore",
        str(project / "in"),
        str(project / "out"),
        "--tile",
        "64",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until((project / "out" / "a.png").exists, 60)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    assert files_below(project / "out") == {"a.png"}
    assert "Interrupted; start again to go on." in said.decode()


class _Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on loopback and the folder that it serves."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(_Mirror):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def two_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """A manifest of two small files in place of the official hundreds of megabytes, and an empty weights folder."""
    contents = (os.urandom(70_000), os.urandom(50_000))
    rows = tuple(
        WeightFile(name, f"http://127.0.0.1:9/{name}", len(data), hashlib.sha256(data).hexdigest(), "MIT", "x", default)
        for name, data, default in (("first.pth", contents[0], True), ("second.pth", contents[1], False))
    )
    monkeypatch.setattr(weights, "MANIFEST", rows)
    monkeypatch.setattr(models, "MANIFEST", rows)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(project / "weights"))
    return contents


@pytest.mark.parametrize("script", ["run.py", "evaluate.py"])
def test_ctrl_c_while_packages_load_ends_with_a_word_and_no_trace(script: str) -> None:
    interrupted = f"""
import runpy
from app.commands import bootstrap

def enter(*words, **names):
    raise KeyboardInterrupt

bootstrap.enter = enter
runpy.run_path({script!r}, run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", interrupted], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.strip()) == (130, "Interrupted.")


def test_models_are_downloaded_verified_and_listed(
    project: Path,
    two_files: tuple[bytes, bytes],
    mirror: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, folder = mirror
    monkeypatch.setenv("WEIGHTS_BASE_URL", address)
    (folder / "first.pth").write_bytes(two_files[0])
    (folder / "second.pth").write_bytes(two_files[1])
    assert run(project, "models", "verify") == 1
    assert "None of the official files is installed" in capsys.readouterr().err
    assert run(project, "models", "download") == 0
    assert files_below(project / "weights") == {"first.pth"}
    assert run(project, "models", "download", "second", "first.pth") == 0
    assert "first.pth is already there." in capsys.readouterr().out
    assert (project / "weights" / "second.pth").read_bytes() == two_files[1]
    assert run(project, "models", "verify") == 0
    (project / "weights" / "mine.pth").write_bytes(b"own")
    (project / "weights" / "second.pth").write_bytes(two_files[1][:-1] + b"?")
    assert run(project, "models") == 0
    said = capsys.readouterr().out
    assert "yes, verified" in said
    assert "yes, but not the official file" in said
    assert "yes, your own file" in said
    assert run(project, "models", "verify") == 1
    assert "second.pth: not the official file" in capsys.readouterr().out


def test_a_weight_file_is_converted_and_a_program_is_not(
    project: Path, capsys: pytest.CaptureFixture[str], random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "own_weights"
    folder.mkdir()
    monkeypatch.setenv("WEIGHTS_FOLDER", str(folder))
    shutil.copy(random_weights / "realesr-animevideov3.pth", folder / "own.pth")
    (folder / "odd.pt").write_bytes(b"no weights")
    assert run(project, "models", "convert", "own") == 0
    assert "own.pth: converted to own.safetensors" in capsys.readouterr().out
    assert files_below(folder) == {"own.pth", "own.safetensors", "odd.pt"}
    assert run(project, "models", "convert") == 1
    assert "odd.pt is no ESRGAN or compact network" in capsys.readouterr().err
    assert run(project, "models", "convert", "unknown") == 2
    assert "There is no file unknown" in capsys.readouterr().err


def test_a_damaged_download_is_told_and_the_rest_goes_on(
    project: Path,
    two_files: tuple[bytes, bytes],
    mirror: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, folder = mirror
    monkeypatch.setenv("WEIGHTS_BASE_URL", address)
    (folder / "first.pth").write_bytes(bytes(len(two_files[0])))
    (folder / "second.pth").write_bytes(two_files[1])
    assert run(project, "models", "download", "all") == 1
    assert "first.pth arrived damaged" in capsys.readouterr().err
    assert files_below(project / "weights") == {"second.pth"}


def test_unknown_names_and_offline_are_refused(
    project: Path, two_files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, "models", "download", "third") == 2
    assert "There is no weight file 'third'" in capsys.readouterr().err
    monkeypatch.setenv("OFFLINE", "true")
    assert run(project, "models", "download") == 1
    assert "OFFLINE is true" in capsys.readouterr().err


def test_a_start_without_network_says_what_is_missing_and_goes_on(
    project: Path, two_files: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    serve.provide_weights(Settings(), download=True)  # the addresses lead to a closed port of this machine
    assert time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert "first.pth could not be downloaded" in said
    assert "Missing weights: first.pth" in said
    for remedy in ("python3 run.py models download", "WEIGHTS_BASE_URL", "copy the files into"):
        assert remedy in said


def test_a_start_fetches_what_is_missing(
    project: Path, two_files: tuple[bytes, bytes], mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = mirror
    monkeypatch.setenv("WEIGHTS_BASE_URL", address)
    (folder / "first.pth").write_bytes(two_files[0])
    serve.provide_weights(Settings(), download=True)
    assert (project / "weights" / "first.pth").read_bytes() == two_files[0]


def test_serve_says_which_port_is_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("DASHBOARD_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("PORT", str(free_port()))
        assert run(project, "serve", "--no-download") == 1
    assert "choose another DASHBOARD_PORT" in capsys.readouterr().err


def test_a_child_whose_card_failed_restores_on_the_cpu_whatever_device_says(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Settings] = []
    words = serve._words_without_card()
    monkeypatch.setenv("DEVICE", "cuda:0")
    monkeypatch.setattr(serve, "die_with", lambda pid: None)
    monkeypatch.setattr("app.main.serve", lambda settings, banner, after_death, role: served.append(settings))
    assert dispatch.main(["serve", "--child-of", "1"], project) == EXIT_OK
    assert dispatch.main(["serve", "--child-of", "1", *words[EXIT_CARD_LOST]], project) == EXIT_OK
    assert dispatch.main(["serve", "--child-of", "1", *words[EXIT_HUNG]], project) == EXIT_OK
    assert [settings.device for settings in served] == ["cuda:0", CARD_FAILED, HUNG_OFTEN]


def test_bad_settings_end_a_start_with_their_own_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "no")
    with pytest.raises(SystemExit) as left:
        run(project, "serve")
    assert left.value.code == EXIT_BAD_SETTINGS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *(
            (Unavailable(code, "Not now."), EXIT_FAILED) for code in sorted(PASSING_AT_START)
        ),  # the supervisor tries again
        (Unavailable("device_unavailable", "Not there."), EXIT_BAD_SETTINGS),
        (Internal("database_refused", "Not this user."), EXIT_BAD_SETTINGS),
        (Conflict("already_running", "Another process has it."), EXIT_BAD_SETTINGS),
    ],
)
def test_a_start_that_may_succeed_later_is_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: RestoreError, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("app.main.serve", fail)
    monkeypatch.setattr(serve, "die_with", lambda _: None)
    assert serve.run_child(0) == code


def test_the_banner_says_where_on_what_and_why(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    facts = {
        "device": "cuda:0",
        "device_reason": "a card found",
        "precision": "bf16",
        "precision_reason": "fast here",
        "default_quality": "balanced",
        "default_model": None,
        "models": [{"name": "one", "installed": True}, {"name": "two", "installed": False}],
        "problems": ["Something is missing."],
    }
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("API_KEY", "k" * 16)
    text = "\n".join(serve.banner(Settings(), facts))
    assert "http://127.0.0.1:8001" in text
    assert "http://127.0.0.1:8091" in text
    assert "cuda:0 (a card found)" in text
    assert "bf16 (fast here)" in text
    assert "Not here    two" in text
    assert "Something is missing." in text
    assert "needed (X-API-KEY)" in text


def test_the_doctor_finds_a_network_that_restores_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", str(free_port()))
    monkeypatch.setenv("DASHBOARD_PORT", str(free_port()))
    shrunk = os.environ["WEIGHTS_FOLDER"]
    put_noise(Path(shrunk), project / "noise")
    monkeypatch.setenv("WEIGHTS_FOLDER", str(project / "noise"))
    assert run(project, "doctor") == 1
    rows = capsys.readouterr().out.splitlines()
    failed = [row for row in rows if row.startswith("FAILED")]
    assert len(failed) == 1, "\n".join(rows)
    assert "golden image" in failed[0]
    assert "python3 run.py models verify" in failed[0]


def put_noise(source: Path, folder: Path) -> None:
    """A network whose last layer is noise: loads like any other, and answers nonsense."""
    import torch

    folder.mkdir()
    state = torch.load(source / f"{MODEL}.pth", weights_only=True)
    last = max((key for key in state["params"] if key.endswith("weight")), key=lambda key: int(key.split(".")[1]))
    state["params"][last] = torch.randn(state["params"][last].shape, generator=torch.Generator().manual_seed(0)) * 5
    torch.save(state, folder / f"{MODEL}.pth")


def test_the_doctor_is_content_with_real_weights(
    project: Path, real_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIGHTS_FOLDER", str(real_weights))
    monkeypatch.setenv("PORT", str(free_port()))
    monkeypatch.setenv("DASHBOARD_PORT", str(free_port()))
    assert run(project, "doctor") == 0
    said = capsys.readouterr().out
    for what in ("python", "packages", "weights", "device", "precision", "golden image", "disk", "database", "ports"):
        assert what in said
    assert files_below(project) == set()  # it leaves nothing behind


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("MIN_FREE_DISK_MB", str(10**9), "make room"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL cannot be read"),
        ("DATABASE_URL", "mysql://somewhere/db", "must name an SQLite file"),
        pytest.param("DATABASE_URL", "postgresql://127.0.0.1:1/jobs", "cannot be reached", marks=needs_postgres),
        ("DEVICE", "cuda:7", "DEVICE=cuda:7 was asked for but is not there"),
    ],
)
def test_the_doctor_names_what_is_wrong(
    name: str, value: str, what: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    settings = Settings()
    checks: list[doctor.Check] = [doctor_machine.check_disk, doctor_machine.check_database]
    if name == "DEVICE":
        checks = [doctor.check_restoration]
    texts = [finding.text for check in checks for finding in check(settings) if finding.word == BAD]
    assert any(what in text for text in texts), texts


@needs_postgres
def test_doctor_and_log_say_that_bf16_is_slow_on_this_cpu(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PRECISION", "bf16")
    for flags, word in ((frozenset({"avx2"}), WARNING), (frozenset({"avx512_bf16"}), FINE)):
        monkeypatch.setattr("app.restoration.device.cpu_flags", lambda flags=flags: flags)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            precision = next(found for found in doctor.check_restoration(Settings()) if found.what == "precision")
        assert precision.word == word
        assert ("PRECISION=auto" in precision.text) == (word == WARNING)
        (line,) = [record for record in caplog.records if record.message.startswith("precision bf16")]
        assert line.levelno == (logging.WARNING if word == WARNING else logging.INFO)


def test_the_doctor_asks_a_postgresql_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = shared_server().new_database()
    monkeypatch.setenv("DATABASE_URL", url)
    (found,) = doctor_machine.check_database(Settings())
    assert (found.word, found.text.partition(" ")[0]) == (FINE, "PostgreSQL")
    with create_engine(url).connect() as connection:  # it changed nothing
        assert (
            connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")).scalar() == 0
        )


def test_the_doctor_tells_our_own_service_from_a_strange_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("DASHBOARD_PORT", str(free_port()))
        monkeypatch.setattr("app.commands.doctor_machine._ASK_TIMEOUT_SECONDS", 0.2)
        first, second = doctor_machine.check_ports(Settings())
    assert first.word == BAD
    assert "taken by another program" in first.text
    assert second.word == FINE


def test_the_doctor_sees_packages_that_are_missing_or_other(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# comment\npytest==0.0.1\n")
    (finding,) = doctor.check_packages(Settings(), file)
    assert finding.word == WARNING
    assert "instead of 0.0.1" in finding.text
    file.write_text("no-such-package==1.0\nuvicorn[standard]==0.54.0\n")
    (finding,) = doctor.check_packages(Settings(), file)
    assert finding.word == BAD
    assert "missing: no-such-package; run: python3 run.py setup" in finding.text


@pytest.mark.parametrize(
    ("version", "cards", "device", "told"),
    [
        ("2.15.0+cpu", True, "auto", True),
        ("2.15.0+cpu", True, "cuda", True),
        ("2.15.0+cpu", True, "cpu", False),
        ("2.15.0+cpu", False, "auto", False),
        ("2.15.0", True, "auto", False),
    ],
)
def test_the_doctor_sees_a_card_that_the_installed_torch_cannot_use(
    version: str, cards: bool, device: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_build, "installed_version", lambda folder: version)
    monkeypatch.setattr(torch_build, "has_nvidia_card", lambda: cards)
    monkeypatch.setenv("DEVICE", device)
    found = list(doctor.check_torch_build(Settings()))
    assert [finding.word for finding in found] == [WARNING] * told
    assert all("delete the folder of the virtual environment" in finding.text for finding in found)


def test_the_golden_image_passes_real_networks_and_no_spoiled_result(real_weights: Path) -> None:
    picture = golden.make_golden()
    for name in (MODEL, "realesr-animevideov3"):
        backend = open_local_backend(real_weights, device="cpu", allow_unverified=True)
        options = RestoreOptions(model=name, face_enhance=False)
        result = backend.restore(picture, options, lambda fraction, stage: True).picture
        assert golden.compare(result, picture).passed
        swapped = dataclasses.replace(result, rgb=result.rgb[:, :, ::-1].astype(np.uint8))
        moved = dataclasses.replace(result, rgb=np.roll(result.rgb, 8, axis=1).astype(np.uint8))
        flat = dataclasses.replace(result, rgb=np.full(result.rgb.shape, 128, np.uint8))
        for spoiled in (swapped, moved, flat, picture.__class__(result.rgb[:-1])):
            assert not golden.compare(spoiled, picture).passed


def test_the_check_runs_every_step_and_fails_with_any(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "TESTS", ("platform",))
    monkeypatch.setattr(check, "CHECKS", (("broken", ("no_such_module_at_all",)), ("fine", ("platform",))))
    assert check.run([]) == 1
    said = capfd.readouterr().out
    assert "--- broken: FAILED" in said
    assert "--- fine: passed" in said
    assert "Failed: broken." in said
    monkeypatch.setattr(check, "CHECKS", (("fine", ("platform",)),))
    assert check.run([]) == 0


@pytest.mark.parametrize(("first", "again", "code"), [(1, 0, 0), (1, 1, 1), (2, 0, 1), (3, 0, 1)])
def test_only_tests_that_failed_have_a_second_run(
    first: int,
    again: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, exit_code in (("first", first), ("again", again)):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit({exit_code})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(check, "CHECKS", ())
    monkeypatch.setattr(check, "TESTS", ("first",))
    monkeypatch.setattr(check, "AGAIN", ("again",))
    assert check.run([]) == code
    assert ("one at a time" in capfd.readouterr().out) == (first == 1)


def test_coverage_is_measured_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []

    def call(command: tuple[str, ...]) -> int:
        called.append(command)
        return 0

    monkeypatch.setattr(check, "_call", call)
    assert check.run([]) == 0
    assert called == [*(command for _, command in check.CHECKS), check.TESTS]
    called.clear()
    assert check.run([check.COVERAGE]) == 0
    assert ("coverage", "run", "-m", *check.TESTS) in called
    assert called[-1][:2] == ("coverage", "report")


def test_words_after_test_go_to_pytest(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(project, "test", "--version") == 0
    assert "pytest" in "".join(capfd.readouterr())
