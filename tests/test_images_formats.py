"""What each format of a result holds: said before the work, helped by `auto`, and opened by readers at the corners."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.errors import RestoreError
from app.images import Picture, check_format, choose_format, encode
from app.images.formats import FORMATS, fitting_format
from tests.http_service import Service, assert_problem, running
from tests.second_reader import needs_vips, read_with_vips

LONGEST = {"jpg": 65_500, "webp": 16_383, "avif": 32_768}
# Sides that subsampled colours, tiles and blocks of a codec could trip over.
SMALL = ((1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (17, 33))


def picture(width: int, height: int, *, grey: bool = False, alpha: bool = False, deep: bool = False) -> Picture:
    """Slow ramps, so that lossy formats stay near; nothing is the same in two of the channels."""
    steps = 65_535 if deep else 255
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [x, x, x] if grey else [x, y, 1 - x]
    dtype: Any = np.uint16 if deep else np.uint8
    rgb = (np.stack(planes, axis=2) * steps).astype(dtype)
    return Picture(rgb, ((0.9 - y / 2) * steps).astype(dtype) if alpha else None, grey=grey)


def stored(source: Picture) -> NDArray[Any]:
    """(H, W, 1 to 4) as a file holds it that keeps everything."""
    colour = source.rgb[..., :1] if source.grey else source.rgb
    return colour if source.alpha is None else np.dstack([colour, source.alpha])


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_side_is_held_and_one_more_is_not(name: str) -> None:
    assert FORMATS[name].holds(LONGEST[name], 1)
    assert FORMATS[name].holds(1, LONGEST[name])
    assert not FORMATS[name].holds(LONGEST[name] + 1, 1)
    assert not FORMATS[name].holds(1, LONGEST[name] + 1)


def test_areas_and_bytes_are_limits_too() -> None:
    assert FORMATS["avif"].holds(16_384, 16_384)
    assert not FORMATS["avif"].holds(16_384, 16_385)
    assert FORMATS["tiff"].holds(30_000, 20_000, 6)
    assert not FORMATS["tiff"].holds(30_000, 20_000, 8)
    assert FORMATS["png"].holds(100_000, 100_000, 8)


def refusal(*words: Any) -> str:
    with pytest.raises(RestoreError) as caught:
        check_format(*words)
    assert (caught.value.code, caught.value.status) == ("too_large_for_format", 422)
    return caught.value.detail


def test_a_refusal_names_the_limit_the_scale_the_size_and_the_formats_that_fit() -> None:
    assert refusal("webp", 4200, 8, 4.0) == (
        "The result would have 16800 x 32 pixels and WebP holds at most 16383 pixels a side; "
        "the largest scale that fits is 3.9 (16380 x 31), or choose jpg or png or tiff or avif."
    )
    assert "65500 pixels a side; the largest scale that fits is 3.9 (63898 x 4), or choose png" in refusal(
        "jpg", 16_384, 1, 4.0
    )
    assert "268 megapixels; the largest scale that fits is 2.5 (" in refusal("avif", 8000, 5000, 3.0)
    assert "4 gibibytes of pixels; the largest scale that fits is 3.6 (" in refusal("tiff", 8000, 5000, 4.0, 8)


def test_no_scale_is_named_where_none_fits() -> None:
    assert "scale that fits" not in refusal("webp", 16_384, 1, 1.0)


def test_the_named_scale_is_the_largest_that_passes() -> None:
    for name, (width, height) in itertools.product(LONGEST, ((5001, 7), (8191, 8191), (3, 9999), (16_383, 40))):
        for tenths in range(10, 81):
            if FORMATS[name].holds(round(width * tenths / 10), round(height * tenths / 10)):
                check_format(name, width, height, tenths / 10)
            elif tenths > 10:
                words = refusal(name, width, height, tenths / 10)
                largest = float(words.split("scale that fits is ")[1].split(" ")[0])
                check_format(name, width, height, largest)
                assert largest < tenths / 10
                refusal(name, width, height, largest + 0.1)


def test_auto_is_never_refused() -> None:
    check_format("auto", 16_384, 16_384, 8.0, 8)


@pytest.mark.parametrize(
    ("own", "size", "alpha", "deep", "chosen"),
    [
        ("webp", (16_383, 2), False, False, "webp"),
        ("webp", (16_384, 2), False, False, "jpg"),
        ("webp", (16_384, 2), True, False, "png"),
        ("webp", (65_501, 2), False, False, "png"),
        ("jpg", (65_501, 2), False, False, "png"),
        ("avif", (32_769, 2), False, False, "jpg"),
        ("avif", (32_769, 2), False, True, "png"),
        ("tiff", (60_000, 30_000), False, False, "png"),
    ],
)
def test_auto_takes_the_nearest_format_that_holds_the_result(
    own: str, size: tuple[int, int], alpha: bool, deep: bool, chosen: str
) -> None:
    assert fitting_format(own, *size, 3, alpha=alpha, deep=deep) == chosen


def test_auto_says_that_it_took_another_format(tmp_path: Path) -> None:
    source = Picture(np.zeros((2, 16_384, 3), np.uint8), source_format="WEBP")
    assert choose_format(source, "auto") == "jpg"
    encoded = encode(source, tmp_path / "result", "auto", 95, "keep")
    assert (encoded.extension, encoded.mime) == ("jpg", "image/jpeg")
    assert [note.message for note in encoded.notes] == [
        "WebP holds at most 16383 pixels a side; the result is larger and became JPEG."
    ]
    with Image.open(tmp_path / "result") as image:
        assert (image.format, image.size) == ("JPEG", (16_384, 2))


# The corners, in two readers.


def corners() -> Iterator[tuple[str, tuple[int, int], bool, bool, bool]]:
    kinds = itertools.product(("avif", "webp", "tiff", "png"), SMALL, (False, True), (False, True))
    for name, size, grey, alpha in kinds:
        for deep in (False, True) if FORMATS[name].deep else (False,):
            yield name, size, grey, alpha, deep
    for name, longest in (("webp", 16_383), ("avif", 32_768), ("tiff", 131_072), ("png", 131_072)):
        for size in ((longest, 1), (1, longest), (longest, 3)):
            yield name, size, False, True, False
    for size in ((65_500, 1), (1, 65_500), *SMALL):
        yield "jpg", size, size[0] == 1, False, False


@needs_vips
@pytest.mark.parametrize(("name", "size", "grey", "alpha", "deep"), list(corners()))
def test_results_open_in_two_readers(
    name: str, size: tuple[int, int], grey: bool, alpha: bool, deep: bool, tmp_path: Path
) -> None:
    source, file = picture(*size, grey=grey, alpha=alpha, deep=deep), tmp_path / f"result.{name}"
    encode(source, file, name, 100, "keep")
    seen = read_with_vips(file, "[unlimited]" if name == "avif" else "")
    wanted = stored(source)
    if seen.shape[2] != wanted.shape[2]:  # WebP and AVIF give greys, and grey with alpha, as colours
        wanted = np.dstack([source.rgb, *([] if source.alpha is None else [source.alpha])])
    assert seen.shape == wanted.shape
    assert seen.dtype == wanted.dtype
    off = np.abs(seen.astype(int) - wanted.astype(int))
    assert off.max() <= (0 if FORMATS[name].deep else 6)
    with Image.open(file) as image:
        image.load()
        assert image.size == size
    by_opencv: Any = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_opencv.shape[:2] == size[::-1]


# Over HTTP.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("formats")) as found:
        yield found


def pano(width: int, height: int, name: str = "PNG", orientation: int = 1) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture(width, height).rgb).save(buffer, name, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_the_asked_format_cannot_hold_is_refused_at_submit(service: Service, orientation: int) -> None:
    sent = {"file": ("pano.png", pano(4200, 8, orientation=orientation))}
    answer = service.client.post("/api/v1/enhance", files=sent, data={"output_format": "webp"})
    size = "16800 x 32" if orientation == 1 else "32 x 16800"
    assert size in assert_problem(answer, 422, "too_large_for_format")["detail"]
    assert service.uploads() == []


def test_a_batch_names_each_photo_that_the_format_cannot_hold(service: Service) -> None:
    files = [("files", ("ok.png", pano(40, 8))), ("files", ("long.png", pano(4200, 8)))]
    answer = service.client.post("/api/v1/enhance/batch", files=files, data={"output_format": "webp"})
    found = assert_problem(answer, 422, "too_large_for_format")
    assert [row["original_filename"] for row in found["errors"]] == ["long.png"]
    assert service.uploads() == []


def test_a_kept_photo_is_judged_too(service: Service) -> None:
    photo = service.client.post("/api/v1/photos", files={"file": ("long.png", pano(4200, 8))}).json()
    url = f"/api/v1/photos/{photo['id']}/restore"
    assert_problem(service.client.post(url, json={"output_format": "webp"}), 422, "too_large_for_format")


def test_auto_finds_a_format_and_says_so(service: Service) -> None:
    state = service.finish(service.submit(pano(4200, 8, "WEBP"), "pano.webp"), 30)
    result = state["attempts"][0]["result"]
    assert (result["width"], result["height"]) == (16_800, 32), json.dumps(state)
    assert any("became JPEG" in warning["message"] for warning in result["warnings"])
    assert service.client.get(f"/api/v1/jobs/{state['job_id']}/result").headers["content-type"] == "image/jpeg"
