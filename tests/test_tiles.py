"""Tiles: pyramids of results and photos at their true pixels, their route, and how long they are kept."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from app.api.pyramids import Pyramids
from app.errors import NotFound, RestoreError
from app.images import TILE_PIXELS, Decoder, ImageLimits, Picture, Pyramid, cut_picture, encode, encode_preview
from app.images.formats import FORMATS
from app.images.pyramid import ENTRY, level_sizes, tile_counts
from tests import picture_factory as make
from tests.harness import until
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running

KINDS = [
    (name, grey, alpha, deep)
    for name, grey, alpha, deep in itertools.product(FORMATS, (False, True), (False, True), (False, True))
    if FORMATS[name].deep or not deep
]
LIMITS = ImageLimits(max_input_megapixels=400, max_side_pixels=1 << 20)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(LIMITS)
    yield made
    made.close()


def ramps(width: int, height: int, *, grey: bool = False, alpha: bool = False, deep: bool = False) -> Picture:
    dtype: Any = np.uint16 if deep else np.uint8
    peak = np.iinfo(dtype).max
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width] * 3 if grey else [x / width, y / height, 1 - x / width]
    return Picture(
        (np.stack(planes, axis=2) * peak).astype(dtype), (y / height * peak).astype(dtype) if alpha else None, grey=grey
    )


def seen(jpeg: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def level(pyramid: Pyramid, number: int) -> np.ndarray[Any, Any]:
    """All tiles of a level put together."""
    columns, rows = tile_counts(pyramid.width, pyramid.height)[number]
    return np.concatenate(
        [np.concatenate([seen(pyramid.tile(number, x, y)) for x in range(columns)], axis=1) for y in range(rows)]
    )


@pytest.mark.parametrize(("name", "grey", "alpha", "deep"), KINDS)
def test_tiles_are_the_pixels_of_the_result(
    name: str, grey: bool, alpha: bool, deep: bool, tmp_path: Path, decoder: Decoder
) -> None:
    source = ramps(1100, 90, grey=grey, alpha=alpha, deep=deep)
    encode(source, tmp_path / "result", name, 95, "keep")
    pyramid = decoder.pyramid(tmp_path / "result", of_result=True)
    expected = seen(encode_preview(source, 4096))
    np.testing.assert_allclose(level(pyramid, 0), expected, atol=14)
    half = cv2.resize(expected.astype(np.uint8), (550, 45), interpolation=cv2.INTER_AREA).astype(int)
    np.testing.assert_allclose(level(pyramid, 1), half, atol=16)
    pyramid.close()
    in_hand = cut_picture(source, tmp_path)
    np.testing.assert_allclose(level(in_hand, 0), expected, atol=14)
    np.testing.assert_allclose(level(in_hand, 1), half, atol=16)
    in_hand.close()


@pytest.mark.parametrize("name", FORMATS)
def test_tiles_have_the_colours_of_the_profile(name: str, tmp_path: Path, decoder: Decoder) -> None:
    source = make.tagged(ramps(60, 40), make.display_p3())
    encode(source, tmp_path / "result", name, 100, "keep")
    pyramid = decoder.pyramid(tmp_path / "result", of_result=True)
    expected, untagged = (
        seen(encode_preview(picture, 60)) for picture in (source, dataclasses.replace(source, srgb_table=None))
    )
    assert np.abs(level(pyramid, 0) - expected).mean() < 3
    assert np.abs(untagged - expected).mean() > 6
    pyramid.close()


@pytest.mark.parametrize("size", [(1, 1), (1025, 1), (1, 4097), (2049, 1023), (3001, 1777)])
def test_odd_sizes_have_all_their_tiles(size: tuple[int, int], tmp_path: Path, decoder: Decoder) -> None:
    encode(ramps(*size), tmp_path / "result", "png", 95, "keep")
    pyramid = decoder.pyramid(tmp_path / "result", of_result=True)
    for number, (width, height) in enumerate(level_sizes(*size)):
        assert level(pyramid, number).shape == (height, width, 3)
    assert max(level_sizes(*size)[-1]) <= TILE_PIXELS
    pyramid.close()


def test_a_photo_is_upright_and_on_white(tmp_path: Path, decoder: Decoder) -> None:
    turned = Image.fromarray(ramps(300, 200).rgb.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=98, subsampling=0)
    pyramid = decoder.pyramid(tmp_path / "turned.jpg", of_result=False)
    np.testing.assert_allclose(level(pyramid, 0), np.rot90(np.asarray(turned), -1), atol=14)
    half_clear = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    half_clear.paste((0, 0, 0, 255), (16, 0, 32, 16))
    half_clear.save(tmp_path / "clear.png")
    found = level(decoder.pyramid(tmp_path / "clear.png", of_result=False), 0)
    assert found[:, :8].min() > 250
    assert found[:, 24:].max() < 5


def test_what_is_no_picture_is_refused_and_the_next_one_served(tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "broken").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for of_result in (True, False):
        with pytest.raises(RestoreError) as caught:
            decoder.pyramid(tmp_path / "broken", of_result=of_result)
        assert caught.value.code == "undecodable_image"
    (tmp_path / "photo.png").write_bytes(photo())
    assert decoder.pyramid(tmp_path / "photo.png", of_result=False).width == 40


@pytest.mark.parametrize("size", [(3000, 1700), (90, 60), (5000, 40)])
def test_previews_come_from_the_tiles(size: tuple[int, int], tmp_path: Path, decoder: Decoder) -> None:
    source = ramps(*size)
    pyramid = cut_picture(source, tmp_path)
    for side in (60, 400, 1100):
        expected, found = seen(encode_preview(source, side)), seen(decoder.tile_preview(pyramid, side))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=16)
    pyramid.close()
    with pytest.raises(NotFound):
        decoder.tile_preview(pyramid, 400)


def test_an_index_that_lies_is_refused() -> None:
    for entry, cut in ((ENTRY.pack(0, 10), 1), (ENTRY.pack(1 << 40, 10), 0), (ENTRY.pack(0, 1 << 30), 0)):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        file.write(bytes(10) + entry[: len(entry) - cut])
        file.flush()
        with pytest.raises(ValueError, match="the index"):
            Pyramid(file, 8, 8, 10)
        file.close()


# Keeping.


def made(size: int) -> Pyramid:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the pyramid closes it
    file.write(bytes(size) + ENTRY.pack(0, 1))
    file.flush()
    return Pyramid(file, 8, 8, size)


def test_pyramids_of_removed_files_are_closed_and_no_others() -> None:
    async def script() -> None:
        kept, gone, other = Pyramids(Decoder(LIMITS)), "a" * 32, "b" * 32
        kept.start()
        held = {key: made(90) for key in (f"{gone}.png", (gone, 90), f"{other}.png")}
        for key, pyramid in held.items():
            kept.hand_over(key, pyramid)
        await asyncio.to_thread(int)
        kept.forget({gone})
        assert [key for key in held if kept.kept(key) is not None] == [f"{other}.png"]
        with pytest.raises(NotFound):
            held[f"{gone}.png"].tile(0, 0, 0)
        await kept.close()

    asyncio.run(script())


def test_pyramids_are_made_once_and_one_at_a_time_and_dropped_oldest_first_or_idle() -> None:
    async def script() -> None:
        now, count, most = [0.0], [0, 0], [0]
        kept = Pyramids(Decoder(LIMITS), most_bytes=250, idle_seconds=60, clock=lambda: now[0])

        async def make() -> Pyramid:
            count[0] += 1
            count[1] += 1
            most[0] = max(most[0], count[1])
            await asyncio.to_thread(int)  # gives the others their turn
            count[1] -= 1
            return made(90)

        one, same, other = await asyncio.gather(*(kept.get("a", key, make) for key in ("one", "one", "other")))
        assert one is same
        assert (count[0], most[0]) == (2, 1)
        assert await kept.get("a", "one", make) is one
        await kept.get("a", "third", make)
        with pytest.raises(NotFound):
            other.tile(0, 0, 0)  # used the longest ago
        assert one.tile(0, 0, 0) == b"\0"
        now[0] = 59.0
        await kept.get("a", "third", make)
        now[0] = 61.0
        kept.drop_idle()
        with pytest.raises(NotFound):
            one.tile(0, 0, 0)
        third = await kept.get("a", "third", make)
        assert count[0] == 3
        await kept.close()
        with pytest.raises(NotFound):
            third.tile(0, 0, 0)

    asyncio.run(script())


def test_what_was_handed_over_meanwhile_is_not_made_again() -> None:
    async def script() -> None:
        kept, gate, handed, count = Pyramids(Decoder(LIMITS)), asyncio.Event(), made(1), [0]

        async def make() -> Pyramid:
            count[0] += 1
            await gate.wait()
            return made(1)

        kept.start()
        first, second = (asyncio.create_task(kept.get("a", key, make)) for key in ("one", "two"))
        await asyncio.to_thread(int)  # lets both ask
        await asyncio.to_thread(kept.hand_over, "two", handed)
        await asyncio.to_thread(int)  # gives what was handed over its turn
        gate.set()
        await first
        assert await second is handed
        assert handed.tile(0, 0, 0) == b"\0"
        assert count[0] == 1
        await kept.close()

    asyncio.run(script())


# The route.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("tiles")) as found:
        yield found


def test_the_route_serves_tiles_of_both(service: Service) -> None:
    job_id = service.submit(photo(600, 300), scale="2")
    job = service.finish(job_id)
    address = f"/api/v1/jobs/{job_id}/tile"
    answer = service.client.get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert seen(answer.content).shape == (600, 1024, 3)
    assert seen(service.client.get(f"{address}?x=1").content).shape == (600, 176, 3)
    assert seen(service.client.get(f"{address}?level=1").content).shape == (300, 600, 3)
    assert seen(service.client.get(f"{address}?of=original").content).shape == (300, 600, 3)
    for place in ("x=2", "y=1", "level=2", "level=1&x=1", "of=original&level=1"):
        assert_problem(service.client.get(f"{address}?{place}"), 404, "tile_not_found")
    assert_problem(service.client.get(f"{address}?x=-1"), 422, "invalid_parameter")
    assert_problem(service.client.get(f"{address}?attempt={'0' * 32}"), 404, "attempt_not_found")
    assert job["status"] == "completed"
    service.client.delete(f"/api/v1/jobs/{job_id}")
    for of in ("result", "original"):
        assert_problem(service.client.get(f"{address}?of={of}"), 404, "job_not_found")


def test_tiles_are_for_their_owner_and_of_what_is_finished(tmp_path: Path) -> None:
    keys = "one key of many letters", "another key of many letters"
    with running(tmp_path, key=",".join(keys)) as service:  # the client sends the first key
        service.backend.gate.clear()
        job_id = service.submit()
        address = f"/api/v1/jobs/{job_id}/tile"
        assert_problem(service.client.get(address, headers={"X-API-KEY": "a wrong key"}), 401, "wrong_key")
        assert_problem(service.client.get(address), 409, "not_finished")
        assert service.client.get(f"{address}?of=original").status_code == 200
        service.backend.gate.set()
        service.finish(job_id)
        assert service.client.get(address).status_code == 200
        for of in ("result", "original"):
            answer = service.client.get(f"{address}?of={of}", headers={"X-API-KEY": keys[1]})
            assert_problem(answer, 404, "job_not_found")


def test_one_owner_opens_pictures_without_end_and_another_waits_for_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the first one leaves again is not cut up at all."""
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}") as service, ThreadPoolExecutor(8) as pool:
        cut, go, decoder = list[int](), threading.Event(), service.context.pyramids.decoder
        make: Callable[..., Pyramid] = decoder.pyramid
        widths = [60 + number for number in range(5)]
        mine = [service.submit(photo(width, 40), scale="1") for width in widths]
        for job_id in mine:
            service.finish(job_id)
        other = {"X-API-KEY": OTHER_KEY}
        answer = service.client.post("/api/v1/photos", files={"file": photo(99, 40)}, headers=other)
        restored = service.client.post(f"/api/v1/photos/{answer.json()['id']}/restore", headers=other).json()["job_id"]

        def held(path: Path, **more: Any) -> Pyramid:
            with Image.open(path) as image:
                cut.append(image.width)
            assert go.wait(20)
            return make(path, **more)

        monkeypatch.setattr(decoder, "pyramid", held)
        waiting = list[str]()
        get: Callable[..., Awaitable[Pyramid]] = service.context.pyramids.get

        async def counted(owner: str, *asked: Any) -> Pyramid:
            waiting.append(owner)
            try:
                return await get(owner, *asked)
            finally:
                waiting.remove(owner)

        monkeypatch.setattr(service.context.pyramids, "get", counted)
        hang_ups = [threading.Event() for _ in mine]
        asked = []
        for number, (job_id, hang_up) in enumerate(zip(mine, hang_ups, strict=True)):
            asked.append(pool.submit(ask_and_hang_up, service, job_id, hang_up))
            until(lambda number=number: len(waiting) == number + 1)  # type: ignore[misc]
        theirs = pool.submit(service.client.get, f"/api/v1/jobs/{restored}/tile?of=original", headers=other)
        until(lambda: len(waiting) == len(mine) + 1)
        for hang_up in hang_ups[2:]:
            hang_up.set()
        until(lambda: len(waiting) == 3)
        go.set()
        assert theirs.result(20).status_code == 200
        until(lambda: not waiting)
        assert cut == [widths[0], widths[1], 99]
        for hang_up in hang_ups:
            hang_up.set()


def ask_and_hang_up(service: Service, job_id: str, hang_up: threading.Event) -> None:
    """Ask for a tile over ASGI, and leave when told to."""
    path = f"/api/v1/jobs/{job_id}/tile"

    async def scenario() -> None:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            message = next(messages, None)
            if message is None:
                await asyncio.to_thread(hang_up.wait, 20)
            return message or {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"of=original",
            "headers": [(b"host", b"localhost:8001"), (b"x-api-key", KEY.encode())], "client": ("127.0.0.1", 1),
            "server": ("localhost", 8001), "scheme": "http", "http_version": "1.1", "root_path": "",
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        await service.app(scope, receive, send)

    service.client.portal.call(scenario)  # type: ignore[union-attr]
