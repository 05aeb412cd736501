"""The memory that control groups leave a process: both versions, groups above it, and a real group of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import memory_limit
from app.errors import TooLarge
from app.jobs.memory_need import (
    DEEP,
    EIGHT_BITS,
    PROCESS_BYTES,
    REPAIR_BYTES_PER_PIXEL,
    check_memory,
    must_be_alone,
    need_bytes,
)
from app.memory_limit import limit_bytes, limit_left_bytes
from app.restoration import device_memory
from tests.harness import Harness
from tests.http_service import assert_problem, photo, running

MEGABYTE = 1024 * 1024
JPEG, PNG = "image/jpeg", "image/png"
NO_LIMIT = "9223372036854771712"
REAL = Path("/sys/fs/cgroup/memory")


def group(folder: Path, version: int, limit: str, used: int, droppable: int = 0) -> None:
    """The files of one control group; numbers in megabytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    key = "total_inactive_file" if version == 1 else "inactive_file"
    (folder / names[0]).write_text(limit if not limit.isdecimal() or len(limit) > 9 else str(int(limit) * MEGABYTE))
    (folder / names[1]).write_text(str(used * MEGABYTE))
    (folder / "memory.stat").write_text(f"anon 1\n{key} {droppable * MEGABYTE}\n")


def left_mb(folder: Path, lines: str) -> float | None:
    own = folder / "own"
    own.write_text(lines)
    left = limit_left_bytes(folder, own)
    return None if left is None else left / MEGABYTE


def test_version_2_with_file_cache_that_can_be_dropped(tmp_path: Path) -> None:
    group(tmp_path / "box", 2, "2048", 1000, 300)
    assert left_mb(tmp_path, "0::/box\n") == 2048 - 700


def test_version_1_among_other_controllers(tmp_path: Path) -> None:
    group(tmp_path / "memory" / "docker" / "id", 1, "2048", 1000, 300)
    assert left_mb(tmp_path, "5:devices:/x\n4:memory:/docker/id\n0::/\n") == 2048 - 700


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    group(tmp_path / "slice", 2, "1024", 900)
    group(tmp_path / "slice" / "box", 2, "4096", 100)
    assert left_mb(tmp_path, "0::/slice/box\n") == 124
    assert limit_bytes(tmp_path, tmp_path / "own") == 1024 * MEGABYTE


@pytest.mark.parametrize(("version", "lines", "limit"), [(2, "0::/\n", "max"), (1, "4:memory:/\n", NO_LIMIT)])
def test_no_limit_is_none(tmp_path: Path, version: int, lines: str, limit: str) -> None:
    group(tmp_path / ("memory" if version == 1 else ""), version, limit, 100)
    assert left_mb(tmp_path, lines) is None
    assert limit_bytes(tmp_path, tmp_path / "own") is None


def test_inside_a_container_the_path_is_the_hosts_and_the_root_counts(tmp_path: Path) -> None:
    group(tmp_path / "memory", 1, "512", 100)
    assert left_mb(tmp_path, "4:memory:/docker/of-the-host\n") == 412


def test_more_in_use_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    group(tmp_path, 2, "100", 150)
    assert left_mb(tmp_path, "0::/\n") == 0


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert limit_left_bytes(tmp_path, tmp_path / "absent") is None


def test_free_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = device_memory.free_memory_bytes("cpu")
    monkeypatch.setattr(memory_limit, "limit_left_bytes", lambda: 5 * MEGABYTE)
    assert device_memory.free_memory_bytes("cpu") == 5 * MEGABYTE
    monkeypatch.setattr(memory_limit, "limit_left_bytes", lambda: 1 << 50)
    assert device_memory.free_memory_bytes("cpu") > machine // 4


def test_what_can_never_fit_is_refused_with_the_scale_that_does() -> None:
    check_memory(10_000_000, 2.0, JPEG, 2048 * MEGABYTE)
    with pytest.raises(TooLarge) as raised:
        check_memory(10_000_000, 4.0, JPEG, 2048 * MEGABYTE)
    assert raised.value.code == "memory_too_small"
    assert "the largest scale that fits is 2.5" in raised.value.detail
    check_memory(10_000_000, 2.5, JPEG, 2048 * MEGABYTE)
    with pytest.raises(TooLarge, match=r"the largest scale that fits is 1\.9"):
        check_memory(10_000_000, 2.0, "image/png", 2048 * MEGABYTE)
    with pytest.raises(TooLarge, match="make the photo smaller first"):
        check_memory(30_000_000, 1.0, JPEG, 2048 * MEGABYTE)


def test_a_photo_that_may_have_alpha_or_16_bits_needs_more() -> None:
    assert need_bytes(100, 2.0, JPEG) == 100 * (EIGHT_BITS.photo + 4 * EIGHT_BITS.result)
    for mime in ("image/png", "image/tiff", "image/avif", "image/heic", "image/webp", "something/new"):
        assert need_bytes(100, 2.0, mime) == 100 * (DEEP.photo + 4 * DEEP.result)


def test_a_photo_that_is_repaired_needs_more() -> None:
    assert need_bytes(100, 2.0, JPEG, repaired=True) - need_bytes(100, 2.0, JPEG) == 100 * REPAIR_BYTES_PER_PIXEL
    check_memory(10_000_000, 2.5, JPEG, 2048 * MEGABYTE)
    with pytest.raises(TooLarge, match=r"the largest scale that fits is 2\.3"):
        check_memory(10_000_000, 2.5, JPEG, 2048 * MEGABYTE, repaired=True)


def test_the_largest_photo_fits_a_usual_machine() -> None:
    check_memory(25_000_000, 4.0, JPEG, 8000 * MEGABYTE)  # MAX_OUTPUT_MEGAPIXELS is 400


def test_a_submit_is_judged_by_the_memory_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.restoring.budget_bytes", lambda: PROCESS_BYTES + need_bytes(1200, 4.0, PNG))
    with running(tmp_path) as service:
        service.submit(photo(40, 30))
        answer = service.client.post("/api/v1/enhance", files={"file": ("a.png", photo(41, 30))})
        assert_problem(answer, 413, "memory_too_small")


def test_a_photo_that_was_accepted_while_nobody_knew_the_memory_fails_before_it_is_decoded(tmp_path: Path) -> None:
    budget = PROCESS_BYTES + need_bytes(40 * 30, 4.0, PNG)
    with running(tmp_path) as service:
        service.app.state.service.restoring.runner._memory_bytes = budget
        fits, too_large = (service.finish(service.submit(photo(width, 30))) for width in (40, 41))
    assert fits["status"] == "completed"
    assert too_large["attempts"][0]["error"]["code"] == "memory_too_small"


def test_photos_that_do_not_fit_together_are_restored_alone(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.open()
    try:
        (attempt,) = harness.attempts(harness.submit(options='{"scale": 2}'))
        need = need_bytes(attempt.photo_width * attempt.photo_height, 2, attempt.photo_mime)
        assert must_be_alone(attempt, PROCESS_BYTES + 3 * need - 1)
        assert not must_be_alone(attempt, PROCESS_BYTES + 3 * need)
    finally:
        harness.close()


@contextlib.contextmanager
def real_group(limit_mb: int) -> Iterator[Path]:
    """A control group of this machine (version 1), which goes at the end of the block."""
    folder = REAL / f"memory-limit-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit_mb * MEGABYTE))
    except OSError:
        pytest.skip("control groups (version 1) cannot be made here, so no real one is tested")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_real_group_is_seen_from_inside() -> None:
    code = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "from app.memory_limit import limit_bytes, limit_left_bytes\n"
        "print(limit_bytes(), limit_left_bytes())"
    )
    with real_group(300) as folder:
        command = [sys.executable, "-c", code, str(folder / "cgroup.procs")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(said[0]) == 300 * MEGABYTE
    assert 100 * MEGABYTE < int(said[1]) < 300 * MEGABYTE
