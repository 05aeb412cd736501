"""The killable child: it decodes, it is killed when it must be, it leaves nothing behind, and the next photo works."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import Internal, RestoreError, Unavailable
from app.images import Decoder, ImageLimits, read_header
from app.images.child import _answer
from app.images.child_answers import ChildDied, read_picture
from app.images.decode import decode_file
from tests import picture_factory as make
from tests.harness import photo_bytes, until
from tests.hostile_files import HOSTILE, scan_bomb

LIMITS = ImageLimits()
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(LIMITS)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG that takes several seconds to decode."""
    return written(tmp_path_factory.mktemp("bomb"), scan_bomb(15_000, 1800, 1360))


def written(folder: Path, data: bytes, name: str = "upload") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def process_facts(pid: int) -> list[str]:
    """What Linux says of a process, from its state on; a zombie that nobody reaps counts as ended, like none."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if facts[0] == "Z" else facts


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    until(lambda: not process_facts(pid), seconds)


def wait_until_at_work(pid: int) -> None:
    """Wait until an idle process has computed for a tenth of a second."""

    def ticks() -> int:
        return sum(int(number) for number in process_facts(pid)[11:13])  # in user and kernel mode

    idle = ticks()
    until(lambda: ticks() >= idle + os.sysconf("SC_CLK_TCK") / 10)


@pytest.mark.parametrize("kind", make.KINDS)
def test_the_child_gives_exactly_what_the_decoding_code_gives(kind: str, decoder: Decoder, tmp_path: Path) -> None:
    path = written(tmp_path, make.KINDS[kind]())
    ours, childs = decode_file(path, LIMITS), decoder.decode(path)
    np.testing.assert_array_equal(childs.rgb, ours.rgb)
    np.testing.assert_array_equal(childs.alpha, ours.alpha)
    for name in ("grey", "icc_profile", "exif", "xmp", "dpi", "source_format", "notes"):
        assert getattr(childs, name) == getattr(ours, name)


@pytest.mark.parametrize("kind", ["png16 rgba", "jpeg grey"])
def test_the_childs_answer_and_file_make_the_same_picture(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, make.KINDS[kind]())
    with (tmp_path / "pixels").open("w+b", buffering=0) as file:
        answer = _answer({"do": "decode", "options": {}}, [path], file.fileno(), LIMITS)
        picture = read_picture(answer, file, LIMITS)
    np.testing.assert_array_equal(picture.rgb, decode_file(path, LIMITS).rgb)
    request = {"do": "preview", "max_side": 8, "max_megapixels": None, "rotate": 0}
    with (tmp_path / "pixels").open("w+b", buffering=0) as file:
        sizes = _answer(request, [path], file.fileno(), LIMITS)["sizes"]
        assert (tmp_path / "pixels").stat().st_size == sizes[0]


def test_a_full_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = written(tmp_path, make.jpeg())
    monkeypatch.setattr(os, "pwrite", full)
    answer = _answer({"do": "decode", "options": {}}, [path], 0, LIMITS)
    assert (answer["error"]["status"], answer["error"]["code"]) == (503, "no_space")


def test_a_missing_file_is_not_called_damaged(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(RestoreError) as caught:
        decoder.decode(tmp_path / "nothing")
    assert (caught.value.status, caught.value.code) == (404, "file_missing")


def test_metadata_and_profile_cross_the_border(decoder: Decoder, tmp_path: Path) -> None:
    block = b"Exif\0\0" + make.exif_block(gps=True)
    extra = make.iptc_segment({120: "At the lake"})
    photo = make.jpeg(exif=block, xmp=make.XMP, dpi=(300, 300), icc_profile=make.srgb(), extra=extra, comment="Box 7")
    picture = decoder.decode(written(tmp_path, photo))
    assert picture.exif
    assert b"Grandmother" in (picture.xmp or b"")
    assert b"At the lake" in (picture.iptc or b"")
    assert picture.texts == (("Comment", "Box 7"),)
    assert picture.icc_profile == make.srgb()
    assert picture.dpi == (300, 300)


def test_previews_come_from_the_child(decoder: Decoder, tmp_path: Path) -> None:
    path = written(tmp_path, make.KINDS["png rgba"]())
    assert decoder.preview(path, 10).startswith(b"\xff\xd8")


def test_results_larger_than_an_upload_can_be_previewed(tmp_path: Path) -> None:
    small = Decoder(ImageLimits(max_input_megapixels=0.0001, max_side_pixels=10))
    path = written(tmp_path, make.jpeg())
    try:
        with pytest.raises(RestoreError, match="megapixels"):
            small.preview(path)
        assert small.preview(path, max_megapixels=1)
    finally:
        small.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_keep_their_codes_through_the_child(name: str, decoder: Decoder, tmp_path: Path) -> None:
    case = HOSTILE[name]
    child = decoder.child_pid
    with pytest.raises(RestoreError) as caught:
        decoder.decode(written(tmp_path, case.bytes()))
    assert (caught.value.status, caught.value.code) == (case.status, case.code)
    assert decoder.child_pid == child


def test_mutated_files_decode_or_are_refused_and_the_child_lives(decoder: Decoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    seeds = [maker() for maker in make.KINDS.values()]
    child, refused = decoder.child_pid, []
    for number in range(300):
        data = bytearray(seeds[number % len(seeds)])
        for position in rng.integers(0, len(data), rng.integers(1, 12)):
            data[position] = rng.integers(0, 256)
        path = written(tmp_path, bytes(data))
        try:
            read_header(path, LIMITS)
            decoder.decode(path)
        except RestoreError as error:
            refused.append(error.status)
    assert 50 < len(refused) < 290
    assert set(refused) <= {413, 415, 422}
    assert decoder.child_pid == child


def test_a_photo_that_takes_too_long_is_killed_and_the_next_one_works(bomb: Path, tmp_path: Path) -> None:
    good = written(tmp_path, make.jpeg(), "good")
    decoder = Decoder(ImageLimits(decode_timeout_seconds=0.7, max_jpeg_scans=1_000_000))
    try:
        decoder.start()
        child = decoder.child_pid
        assert child
        started = time.monotonic()
        with pytest.raises(RestoreError) as caught:
            decoder.decode(bomb)
        assert caught.value.code == "decode_timeout"
        assert time.monotonic() - started < 2.5
        wait_until_gone(child)
        assert decoder.decode(good).width == make.WIDTH
    finally:
        decoder.close()


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGB", "PNG", {"compress_level": 1}),
        ("CMYK", "JPEG", {"progressive": True}),
        ("RGB", "WEBP", {"method": 0, "quality": 5}),
        ("RGBA", "AVIF", {"speed": 10, "quality": 5}),
    ],
)
def test_a_photo_that_needs_too_much_memory_is_refused_and_the_next_one_works(
    mode: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the codec says of the memory that it did not get: the photo is neither damaged nor cut off."""
    large = written(tmp_path, make.saved(Image.new(mode, (4000, 3500)), name, **options), "large")
    good = written(tmp_path, make.jpeg(), "good")
    decoder = Decoder(ImageLimits(decode_memory_mb=64))
    try:
        for keep_partial in (False, True):
            with pytest.raises(RestoreError) as caught:
                decoder.decode(large, keep_partial=keep_partial)
            assert (caught.value.status, caught.value.code) == (422, "decode_memory")
        assert decoder.decode(good).width == make.WIDTH
    finally:
        decoder.close()


def test_a_child_killed_between_two_photos_is_replaced(decoder: Decoder, tmp_path: Path) -> None:
    path = written(tmp_path, make.jpeg())
    child = decoder.child_pid
    assert child
    os.kill(child, signal.SIGKILL)
    wait_until_gone(child)
    assert decoder.decode(path).width == make.WIDTH
    assert decoder.child_pid != child


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGKILL, (503, "decoder_out_of_memory")),  # as the kernel ends it when memory runs out
        (signal.SIGSEGV, (422, "undecodable_image")),
        (signal.SIGXCPU, (422, "undecodable_image")),
    ],
)
def test_a_child_killed_at_work_costs_its_photo_only(
    bomb: Path, tmp_path: Path, number: signal.Signals, error: tuple[int, str]
) -> None:
    decoder = Decoder(ImageLimits(decode_timeout_seconds=20, max_jpeg_scans=1_000_000))
    decoder.start()
    child = decoder.child_pid
    assert child
    timer = threading.Timer(0.3, os.kill, (child, number))
    timer.start()
    try:
        with pytest.raises(RestoreError) as caught:
            decoder.decode(bomb)
        assert (caught.value.status, caught.value.code) == error
        assert decoder.decode(written(tmp_path, make.jpeg())).width == make.WIDTH
    finally:
        decoder.close()


def test_closing_ends_a_decode_and_the_child(bomb: Path) -> None:
    decoder = Decoder(ImageLimits(max_jpeg_scans=1_000_000))
    decoder.start()
    child = decoder.child_pid
    assert child
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(decoder.decode, bomb)
        wait_until_at_work(child)
        decoder.close()
        with pytest.raises(Unavailable):
            running.result(timeout=5)
    wait_until_gone(child)
    with pytest.raises(Unavailable):
        decoder.decode(bomb)
    decoder.close()


def test_many_threads_get_their_own_photos(decoder: Decoder, tmp_path: Path) -> None:
    paths = [written(tmp_path, make.saved(Image.new("RGB", (8, 8), (n, 0, 0)), "PNG"), str(n)) for n in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(decoder.decode, paths))
    assert [int(picture.rgb[0, 0, 0]) for picture in pictures] == list(range(40))


def test_the_child_outlives_the_thread_that_asked_first(tmp_path: Path) -> None:
    path = written(tmp_path, make.jpeg())
    decoder = Decoder(LIMITS)
    first = threading.Thread(target=decoder.decode, args=(path,))
    first.start()
    first.join()
    child = decoder.child_pid
    try:
        assert child is not None
        decoder.decode(path)
        assert decoder.child_pid == child
    finally:
        decoder.close()


_PARENT = """
import sys, time
from pathlib import Path
from app.images import Decoder, ImageLimits
if __name__ == "__main__":
    decoder = Decoder(ImageLimits(max_jpeg_scans=1_000_000), Path(sys.argv[2]))
    decoder.start()
    print(decoder.child_pid, flush=True)
    if sys.argv[1]:
        decoder.decode(Path(sys.argv[1]))
    time.sleep(60)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_parent_leaves_neither_child_nor_files(busy: bool, bomb: Path, tmp_path: Path) -> None:
    script = written(tmp_path, _PARENT.encode(), "parent.py")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(bomb) if busy else "", str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if busy:
            wait_until_at_work(child)
        parent.kill()
    wait_until_gone(child, seconds=2)  # the bomb alone would keep it for far longer
    assert list(scratch.iterdir()) == []


def test_the_child_sees_no_secrets_and_imports_no_torch(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "a secret of the service")
    fresh = Decoder(LIMITS)
    try:
        fresh.start()
        environment = Path(f"/proc/{fresh.child_pid}/environ").read_bytes()
        assert b"a secret" not in environment
        assert b"torch" not in Path(f"/proc/{fresh.child_pid}/maps").read_bytes()
    finally:
        fresh.close()


def test_a_child_that_cannot_start_is_our_fault_and_not_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(LIMITS)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    try:
        with pytest.raises(Internal) as caught:
            decoder.decode(written(tmp_path, make.jpeg()))
        assert caught.value.code == "decoder_unavailable"
        monkeypatch.undo()
        assert decoder.decode(tmp_path / "upload").width == make.WIDTH
    finally:
        decoder.close()


@pytest.mark.parametrize(
    "lie",
    [
        {},  # honest, yet beyond the limits
        {"width": 10, "height": 9},
        {"width": 1, "height": 1, "deep": True},
        {"sizes": [1152, 7, 0, 0, 0, 0, 0, 0]},
        {"width": 1, "height": 1, "sizes": [3, 0, 0, 0, 1 << 40, 0, 0, 0]},
        {"width": 1, "height": 1, "sizes": [3, 0, 0, 0, -1, 0, 0, 0]},
        {"width": 1, "height": 1, "sizes": [3, 0, 0], "source_format": "JPEG"},
        {"width": 1, "height": 1, "sizes": [3, 0, 0, 0, 0, 0, 0, 0], "source_format": "../../x"},
        {"width": 1, "height": 1, "sizes": [3, 0, 0, 0, 0, 0, 9, 0]},  # texts that are none
        {"width": 1, "height": 1, "sizes": [3, 0, 0, 0, 0, 0, 0, 9]},  # a table that is none
    ],
)
def test_an_answer_that_lies_about_its_pixels_is_not_believed(lie: dict[str, object], tmp_path: Path) -> None:
    honest = {
        "width": make.WIDTH,
        "height": make.HEIGHT,
        "sizes": [1152, 0, 0, 0, 0, 0, 0, 0],
        "deep": False,
        "grey": False,
    }
    honest |= {"dpi": None, "source_format": "PNG", "notes": [], "pages": 1}
    with written(tmp_path, bytes(10_000)).open("rb", buffering=0) as file:
        assert read_picture(honest, file, LIMITS).width == make.WIDTH
        with pytest.raises((ChildDied, ValueError)):
            read_picture({**honest, **lie}, file, ImageLimits(max_input_megapixels=0.0001))


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads the limits from /proc")
def test_the_child_has_a_limit_of_processor_time_and_a_group_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(photo_bytes())
    decoder = Decoder(ImageLimits(decode_timeout_seconds=7))
    try:
        decoder.decode(path)
        pid = decoder.child_pid
        assert pid is not None
        assert os.getpgid(pid) == pid
        line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "cpu time" in line)
        assert 14 <= int(line.split()[3]) <= 60
    finally:
        decoder.close()


def test_the_header_of_very_many_pages_comes_through_the_child(decoder: Decoder, tmp_path: Path) -> None:
    pages = [Image.new("L", (3, 2)) for _ in range(1500)]
    pages[0].save(tmp_path / "album.tif", save_all=True, append_images=pages[1:])
    header = decoder.read_header(tmp_path / "album.tif")
    assert (header.width, header.height) == (3, 2)
    assert set(header.page_sizes) == {(3, 2)}
    assert len(header.page_sizes) == 1000
