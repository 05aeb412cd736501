"""What the decoder's child cannot do: open a socket, run a program, touch another process, open what a link names."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.commands import doctor
from app.commands.doctor_machine import FINE, WARNING
from app.errors import NotFound, is_exhaustion
from app.images import Decoder, ImageLimits
from app.images.confinement import Confinement
from app.settings import Settings
from tests.harness import photo_bytes

ROOT = Path(__file__).parents[1]
FILTERED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

# Tries what a hostile photo would want, confined or not, and prints the errno of each; 0 where it worked.
_TRIES = """
import ctypes, dataclasses, json, os, signal, socket, subprocess, sys, threading
from app.images.confinement import confine
from app.images.header import ImageLimits

def tried(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0

def peek():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(2, os.getppid(), 0, 0) == -1:  # without having attached before, which would stop the parent
        raise OSError(ctypes.get_errno(), "ptrace")

def in_another_thread(seen, go):
    go.wait()
    seen.append(tried(lambda: socket.socket()))

seen, go = [], threading.Event()
thread = threading.Thread(target=in_another_thread, args=(seen, go))
thread.start()  # before the filter: it must hold in this thread too
found = dataclasses.asdict(confine(ImageLimits())) if sys.argv[1] == "confined" else {}
go.set()
thread.join()
port = int(sys.argv[2])
answers = {
    "loopback": tried(lambda: socket.create_connection(("127.0.0.1", port), 5).close()),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX).close()),
    "thread": seen[0],
    "program": tried(lambda: subprocess.run(["/bin/true"])),
    "kill": tried(lambda: os.kill(os.getppid(), 0)),
    "peek": tried(peek),
}
print(json.dumps({"found": found, "answers": answers}))
"""


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(ImageLimits())
    yield made
    made.close()


def tries(how: str, port: int) -> dict[str, dict[str, int]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _TRIES, how, str(port)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    answer: dict[str, dict[str, int]] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(not FILTERED, reason="calls are filtered on Linux only")
def test_a_confined_process_reaches_no_network_no_program_and_no_other_process(port: int) -> None:
    confined = tries("confined", port)
    assert set(confined["answers"].values()) == {errno.EACCES}
    assert confined["found"] == {"network_closed": True, "memory_limited": True, "reason": ""}
    free = tries("free", port)["answers"]
    assert free == {**dict.fromkeys(free, 0), "peek": errno.ESRCH}


@pytest.mark.skipif(not FILTERED, reason="calls are filtered on Linux only")
def test_the_decoders_own_child_is_confined(decoder: Decoder) -> None:
    assert decoder.start() == Confinement(network_closed=True, memory_limited=True)
    status = Path(f"/proc/{decoder.child_pid}/status").read_text()
    assert "\nSeccomp:\t2\n" in status
    assert "\nNoNewPrivs:\t1\n" in status


def test_a_link_in_the_place_of_a_photo_is_not_followed(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(photo_bytes())
    (tmp_path / "upload").symlink_to(tmp_path / "secret")
    for ask in (decoder.decode, decoder.read_header, decoder.preview):
        with pytest.raises(NotFound) as caught:
            ask(tmp_path / "upload")
        assert caught.value.code == "file_missing"
    own = Decoder(ImageLimits(), follow_links=True)  # of the one who calls a command
    try:
        assert own.read_header(tmp_path / "upload").format == "JPEG"
    finally:
        own.close()


def test_a_pipe_or_a_folder_in_the_place_of_a_photo_is_not_waited_for(decoder: Decoder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(NotFound):
            decoder.read_header(place)


def test_the_child_reads_the_file_that_was_opened_whatever_its_name_leads_to_now(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is taken away between the opening and the request."""
    path = tmp_path / "upload"
    path.write_bytes(photo_bytes())
    send = socket.send_fds

    def send_later(*words: object) -> int:
        path.unlink()
        return send(*words)  # type: ignore[arg-type]

    decoder.start()
    monkeypatch.setattr(socket, "send_fds", send_later)
    assert decoder.decode(path).source_format == "JPEG"
    assert not path.exists()


def test_no_descriptor_is_left_behind(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(photo_bytes())
    decoder.decode(path)
    folders = [Path(f"/proc/{pid}/fd") for pid in (os.getpid(), decoder.child_pid)]
    if not folders[0].exists():
        pytest.skip("counts descriptors in /proc")
    before = [len(list(folder.iterdir())) for folder in folders]
    for _ in range(20):
        decoder.decode(path)
    assert [len(list(folder.iterdir())) for folder in folders] == before


def test_running_out_of_descriptors_is_not_the_photos_fault(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    decoder.start()
    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(OSError, match="Too many") as caught:
        decoder.decode(tmp_path / "upload")
    assert is_exhaustion(caught.value)


@pytest.mark.parametrize(
    ("found", "words", "texts"),
    [
        (Confinement(True, True), [FINE, FINE], ["limits: 2048 MB", "closed"]),
        (
            Confinement(False, False, "it is an old one"),
            [WARNING, WARNING],
            ["cannot limit its memory", "old one; run"],
        ),
    ],
)
def test_the_doctor_says_what_holds(
    found: Confinement, words: list[str], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoder, "start", lambda _self: found)
    results = list(doctor.check_decoder(Settings()))
    assert [result.word for result in results] == words
    assert all(text in result.text for text, result in zip(texts, results, strict=True))


@pytest.mark.skipif(not FILTERED, reason="calls are filtered on Linux only")
def test_the_doctor_asks_a_real_child() -> None:
    assert [result.word for result in doctor.check_decoder(Settings())] == [FINE, FINE]
