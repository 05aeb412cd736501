"""Tiles of large results: cut beside the encoding, there when the photo is done, and never at the cost of a photo."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.api.pyramids import Pyramids
from app.errors import Unavailable
from app.images import Decoder, ImageLimits, Picture, Pyramid, cut_picture
from app.images.pyramid import ENTRY
from app.jobs import memory_need
from app.jobs.memory_need import (
    PROCESS_BYTES,
    cutting_bytes,
    has_room_for_tiles,
    must_be_alone,
    need_bytes,
    tiles_bytes,
)
from app.jobs.tile_cutting import TileCutter
from app.store import Attempt
from tests.harness import Harness
from tests.http_service import Service, assert_problem, photo, running

PLENTY = 1 << 40


@pytest.fixture(autouse=True)
def _every_result_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.tile_cutting.LARGE_PIXELS", 1000)
    monkeypatch.setattr(memory_need, "LARGE_PIXELS", 1000)


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    harness = Harness(tmp_path)
    harness.open()
    (found,) = harness.attempts(harness.submit())
    yield dataclasses.replace(found, photo_width=200, photo_height=100, photo_mime="image/png")
    harness.close()


def result_name(service: Service, job_id: str) -> str:
    name: str | None = service.context.store.job("local", job_id).attempts[0].result_name
    assert name is not None
    return name


def picture() -> Picture:
    return Picture(np.zeros((100, 200, 3), np.uint8))


def finished(service: Service) -> str:
    job_id = service.submit(photo(600, 300), scale="2", face_enhance="false")
    assert service.finish(job_id)["status"] == "completed"
    return job_id


# Of a service.


def test_whoever_opens_a_fresh_result_finds_its_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the file was read")

    with running(tmp_path) as service:
        monkeypatch.setattr(service.context.pyramids.decoder, "pyramid", refused)
        monkeypatch.setattr(service.context.inspectors, "preview", refused)
        job_id = finished(service)
        tile = service.client.get(f"/api/v1/jobs/{job_id}/tile?x=1")
        assert (tile.status_code, tile.headers["content-type"]) == (200, "image/jpeg")
        preview = service.client.get(f"/api/v1/jobs/{job_id}/preview")
        assert preview.status_code == 200
        assert service.client.get(f"/api/v1/jobs/{job_id}/preview?size=1100").status_code == 200


def test_without_tiles_kept_the_file_is_read(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        job_id = finished(service)
        kept = service.context.pyramids.kept(result_name(service, job_id))
        kept.close()  # as if others had taken the room in this moment
        assert service.client.get(f"/api/v1/jobs/{job_id}/preview").status_code == 200


@pytest.mark.parametrize("fault", [Unavailable("no_tiles", "none"), OSError("full"), ValueError("odd")])
def test_a_photo_is_restored_although_it_cannot_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> Pyramid:
        raise fault

    monkeypatch.setattr("app.jobs.tile_cutting.cut_picture", fail)
    with running(tmp_path) as service:
        job_id = finished(service)
        assert service.context.pyramids.kept(result_name(service, job_id)) is None
        assert service.client.get(f"/api/v1/jobs/{job_id}/tile").status_code == 200  # cut for the first look


def test_the_first_look_waits_while_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.tile_cutting.LARGE_PIXELS", 10**9)
    with running(tmp_path) as service:
        job_id = finished(service)
        for of, size, in_bands in (("result", (1200, 600), True), ("original", (600, 300), False)):
            need = cutting_bytes(*size, in_bands=in_bands)
            address = f"/api/v1/jobs/{job_id}/tile?of={of}"
            monkeypatch.setattr("app.api.routes.tiles.available_bytes", lambda need=need: need - 1)
            answer = service.client.get(address)
            assert_problem(answer, 503, "out_of_memory")
            assert int(answer.headers["retry-after"]) > 0
            monkeypatch.setattr("app.api.routes.tiles.available_bytes", lambda need=need: need)
            assert service.client.get(address).status_code == 200
            monkeypatch.setattr("app.api.routes.tiles.available_bytes", lambda: 0)
            assert service.client.get(address).status_code == 200  # it stands already


def test_tiles_do_not_spend_what_a_user_may_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.auth.rate_limits.TILES_PER_MINUTE", 200)
    with running(tmp_path, rate_limit="200/minute") as service:
        job_id = finished(service)

        def left(path: str) -> int:
            return int(service.client.get(path).headers["ratelimit-remaining"])

        before = left(f"/api/v1/jobs/{job_id}")
        assert [left(f"/api/v1/jobs/{job_id}/tile") for _ in range(200)] == list(range(199, -1, -1))
        assert_problem(service.client.get(f"/api/v1/jobs/{job_id}/tile"), 429, "rate_limited")
        assert left(f"/api/v1/jobs/{job_id}") == before - 1


# Of the cutter.


def test_tiles_of_a_result_that_is_not_published_go(
    tmp_path: Path, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Pyramid] = []

    def cut(picture: Picture, folder: Path) -> Pyramid:
        made.append(cut_picture(picture, folder))
        return made[-1]

    monkeypatch.setattr("app.jobs.tile_cutting.cut_picture", cut)
    handed: dict[str, Pyramid] = {}
    cutter = TileCutter(tmp_path, handed.__setitem__, lambda: True, PLENTY)
    with pytest.raises(OSError, match="full"), cutter.beside(attempt, picture(), 1.0):
        raise OSError("full")
    with pytest.raises(Exception, match="not there"):
        made[0].tile(0, 0, 0)
    with cutter.beside(attempt, picture(), 1.0) as keep:
        keep("name")
    assert handed["name"].tile(0, 0, 0)
    handed["name"].close()


def test_only_large_results_with_room_are_cut(tmp_path: Path, attempt: Attempt) -> None:
    handed: list[str] = []

    def count(*, disk: bool = True, memory_bytes: int = PLENTY, large: bool = True, wide: bool = False) -> int:
        handed.clear()
        cutter = TileCutter(tmp_path, lambda name, _: handed.append(name), lambda: disk, memory_bytes)
        shown = picture() if large else Picture(np.zeros((10, 10, 3), np.uint8))
        shown = dataclasses.replace(shown, srgb_table=np.zeros((52, 52, 52, 3), np.uint8) if wide else None)
        with cutter.beside(attempt, shown, 1.0) as keep:
            keep("name")
        return len(handed)

    assert count() == 1
    assert count(large=False) == 0
    assert count(disk=False) == 0
    assert count(wide=True) == 0  # its colours are not those of a screen
    enough = PROCESS_BYTES + need_bytes(200 * 100, 1.0, "image/png") + tiles_bytes(200, 100)
    assert count(memory_bytes=enough) == 1
    assert count(memory_bytes=enough - 1) == 0


def test_the_memory_of_tiles_is_counted_where_photos_are_admitted(attempt: Attempt) -> None:
    tall = dataclasses.replace(attempt, photo_width=100, photo_height=200, options_json='{"scale": 2, "rotate": 90}')
    need = need_bytes(100 * 200, 2.0, "image/png") + tiles_bytes(400, 200)
    assert has_room_for_tiles(tall, 2.0, PROCESS_BYTES + need)
    assert not has_room_for_tiles(tall, 2.0, PROCESS_BYTES + need - 1)
    assert not must_be_alone(tall, PROCESS_BYTES + 3 * need)
    assert must_be_alone(tall, PROCESS_BYTES + 3 * need - 1)
    small = dataclasses.replace(attempt, photo_width=10, photo_height=10)
    assert not must_be_alone(small, PROCESS_BYTES + 3 * need_bytes(100, 2.0, "image/png"))


def test_what_is_handed_over_is_kept_from_the_start_to_the_stop() -> None:
    def made() -> Pyramid:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the pyramid closes it
        file.write(bytes(1) + ENTRY.pack(0, 1))
        file.flush()
        return Pyramid(file, 8, 8, 1)

    def is_open(pyramid: Pyramid) -> bool:
        try:
            return pyramid.tile(0, 0, 0) == b"\0"
        except Exception:
            return False

    async def script() -> None:
        kept = Pyramids(Decoder(ImageLimits()))
        early, first, second, late = (made() for _ in range(4))
        kept.hand_over("one", early)
        assert not is_open(early)
        kept.start()
        await asyncio.to_thread(kept.hand_over, "one", first)
        await asyncio.to_thread(int)  # gives what was handed over its turn
        assert kept.kept("one") is first
        assert kept.kept("other") is None
        kept.hand_over("one", second)
        await asyncio.to_thread(int)  # gives what was handed over its turn
        assert kept.kept("one") is second
        assert not is_open(first)
        kept.hand_over("two", late)  # it is on its way while all is closed
        await kept.close()
        await asyncio.to_thread(int)  # gives what was handed over its turn
        assert not is_open(second)
        assert not is_open(late)

    asyncio.run(script())
