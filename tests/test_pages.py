"""A TIFF of several pages: `pages=all` restores every one into one TIFF, page by page."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from app.errors import RestoreError, Unavailable
from app.images import Decoder, ImageLimits, PagesEncoder, Picture, check_pages, read_header
from app.images.decode import DecodeOptions, decode_file
from app.notices import Notice
from app.options import RestoreOptions
from app.stages import Stage
from app.store import Attempt, AttemptStatus
from tests import picture_factory as make
from tests.harness import Harness, result_file
from tests.http_service import Service, running
from tests.tiff_writer import TiffWriter

SIZES = ((40, 30), (30, 40), (36, 20))
ALL = '{"scale": 2, "pages": "all"}'


def album(*, broken: int | None = None, sizes: tuple[tuple[int, int], ...] = SIZES) -> bytes:
    """A TIFF of pages, of which one may have lost its pixels."""
    writer = TiffWriter()
    for number, size in enumerate(sizes):
        tags = {
            285: ("A", f"Page {number + 1}\0".encode()),
            282: ("R", (300 + number, 1)),
            283: ("R", (300 + number, 1)),
        }
        lost = {273: ("I", [1 << 31])} if number == broken else {}
        writer.page(make.photo(*size), 2, 8, tags={**tags, **lost})
    return writer.content()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("pages"), max_output_megapixels=8.0) as found:
        yield found


@pytest.fixture
def harness(tmp_path: Path, decoder: Decoder) -> Iterator[Harness]:
    ticks = itertools.count()
    made = Harness(tmp_path, decoder=decoder, clock=lambda: float(next(ticks)))
    made.open()
    yield made
    made.store.close()


def run(harness: Harness, content: bytes, options: str = ALL) -> Attempt:
    job = harness.submit(content, options=options)
    harness.runner.run_attempt(job.attempts[0].id)
    return harness.attempts(job)[0]


def test_every_page_is_restored_into_one_tiff(harness: Harness) -> None:
    attempt = run(harness, album())
    assert (attempt.status, attempt.error_code) == (AttemptStatus.COMPLETED, None)
    assert (attempt.result_mime, attempt.result_width, attempt.result_height) == ("image/tiff", 80, 60)
    assert attempt.params["pages"] == 3
    assert "only the first" not in str(attempt.warnings)
    assert attempt.result_name is not None
    path = result_file(harness.storage, attempt.result_name)
    assert attempt.result_bytes == path.stat().st_size
    expected = [(2 * width, 2 * height) for width, height in SIZES]
    with Image.open(path, formats=("TIFF",)) as image:
        seen = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            seen.append(image.size)
    assert seen == expected
    with tifffile.TiffFile(path) as container:
        assert [page.shape[1::-1] for page in container.pages] == expected
        for page, size in zip(container.pages, SIZES, strict=True):
            small = np.asarray(Image.fromarray(page.asarray()).resize(size, Image.Resampling.BOX))
            assert np.abs(small.astype(int) - make.photo(*size)).mean() < 8
    assert harness.scratch_files() == []


def test_the_progress_covers_all_pages(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    report = harness.store.report_progress

    def noting(attempt_id: str, token: str, fraction: float, stage: Stage, worked: float | None = None) -> bool:
        told.append(fraction)
        return report(attempt_id, token, fraction, stage, worked)

    monkeypatch.setattr(harness.store, "report_progress", noting)
    run(harness, album())
    assert told == sorted(told)
    assert any(0 < fraction < 1 / 3 for fraction in told)
    assert any(2 / 3 < fraction < 1 for fraction in told)


def test_no_page_is_kept_in_memory_after_it_was_written(harness: Harness) -> None:
    """The second page is decoded only when the first one's result is in the file."""
    order: list[str] = []
    restore, decode = harness.backend.restore, harness.decoder.decode

    class Noting:
        def decode(self, path: Path, *, page: int | None, keep_partial: bool, rotate: int) -> Picture:
            order.append(f"decode {page}")
            picture: Picture = decode(path, page=page, keep_partial=keep_partial, rotate=rotate)
            return picture

    def restoring(picture: Picture, *rest: object) -> object:
        order.append(f"restore {picture.width}")
        return restore(picture, *rest)

    harness.decoder, harness.backend.restore = Noting(), restoring
    assert run(harness, album()).status is AttemptStatus.COMPLETED
    assert order == ["decode 0", "restore 40", "decode 1", "restore 30", "decode 2", "restore 36"]


def test_a_broken_page_is_named_and_leaves_nothing(harness: Harness) -> None:
    attempt = run(harness, album(broken=1))
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "undecodable_image")
    assert (attempt.error_message or "").startswith("Page 2: ")
    assert harness.scratch_files() == []
    assert harness.result_files() == []


def test_a_run_that_is_stopped_on_the_way_leaves_nothing(harness: Harness) -> None:
    job = harness.submit(album(), options=ALL)
    prepared = harness.runner.prepare(job.attempts[0].id, "f" * 32, 1.0)
    assert prepared is not None
    beats = iter(range(10_000))
    assert harness.runner.restore(prepared, stop_requested=lambda: next(beats) > 4) is None
    assert harness.states(job) == ["queued"]
    assert harness.scratch_files() == []


def test_a_result_that_is_given_up_after_its_restoration_leaves_nothing(harness: Harness) -> None:
    job = harness.submit(album(), options=ALL)
    prepared = harness.runner.prepare(job.attempts[0].id, "f" * 32, 1.0)
    assert prepared is not None
    finished = harness.runner.restore(prepared)
    assert len(harness.scratch_files()) == 1
    del finished
    assert harness.scratch_files() == []


def test_one_page_and_other_formats_stay_what_they_are(harness: Harness) -> None:
    attempt = run(harness, album(sizes=SIZES[:1]))
    assert (attempt.status, "pages" in attempt.params) == (AttemptStatus.COMPLETED, False)
    assert run(harness, make.jpeg()).result_mime == "image/jpeg"


def test_the_first_page_alone_says_how_many_there_are(harness: Harness) -> None:
    attempt = run(harness, album(), '{"scale": 2}')
    note = Notice("photo_changed", "The file has 3 pages; only the first was restored.")
    assert note in attempt.warnings


@pytest.mark.parametrize(
    "fields", [{"output_format": "png"}, {"output_format": "jpg"}, {"backend": "siliconflow"}], ids=str
)
def test_all_pages_go_with_tiff_on_this_machine_only(fields: dict[str, str]) -> None:
    with pytest.raises(RestoreError, match="Option 'pages'"):
        RestoreOptions.from_fields({"pages": "all", **fields})


# Limits.


def header_of(folder: Path, content: bytes, limits: ImageLimits) -> None:
    path = folder / "album.tif"
    path.write_bytes(content)
    check_pages(read_header(path, limits), limits)


def test_there_may_be_so_many_pages(tmp_path: Path) -> None:
    limits = ImageLimits(max_pages=2)
    header_of(tmp_path, album(sizes=SIZES[:2]), limits)
    with pytest.raises(RestoreError) as caught:
        header_of(tmp_path, album(), limits)
    assert (caught.value.status, caught.value.code) == (413, "too_many_pages")
    with pytest.raises(RestoreError, match="3 pages"):  # also in the decoder, where nobody asked before
        decode_file(tmp_path / "album.tif", limits, DecodeOptions(page=0))
    assert decode_file(tmp_path / "album.tif", limits).pages == 3


def test_every_page_is_within_the_limits_of_a_photo(tmp_path: Path) -> None:
    limits = ImageLimits(max_side_pixels=45)
    content = album(sizes=((40, 30), (50, 30)))
    with pytest.raises(RestoreError) as caught:
        header_of(tmp_path, content, limits)
    assert caught.value.code == "image_side_too_large"
    with pytest.raises(RestoreError, match="50 x 30"):
        decode_file(tmp_path / "album.tif", limits, DecodeOptions(page=1))


def test_a_page_whose_result_would_be_too_large_is_refused_at_submit(service: Service) -> None:
    files = {"file": ("album.tif", album(sizes=((40, 30), (400, 350))))}
    answer = service.client.post("/api/v1/enhance", files=files, data={"scale": "8", "pages": "all"})
    assert (answer.status_code, answer.json()["code"]) == (413, "output_too_large")
    kept = service.client.post("/api/v1/photos", files=files).json()["id"]
    again = service.client.post(f"/api/v1/photos/{kept}/restore", json={"scale": 8, "pages": "all"})
    assert (again.status_code, again.json()["code"]) == (413, "output_too_large")


def test_pages_are_an_option_of_the_form(service: Service) -> None:
    job = service.submit(album(), "album.tif", scale="2", pages="all")
    assert service.finish(job)["status"] == "completed"
    content = service.client.get(f"/api/v1/jobs/{job}/result").content
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert service.client.get(f"/api/v1/jobs/{job}/preview").status_code == 200


# The file itself.


def test_pages_of_all_kinds_stand_in_one_file(tmp_path: Path) -> None:
    rgb = make.photo(20, 16)
    alpha = np.linspace(0, 255, 20).astype(np.uint8)[None].repeat(16, 0)
    deep = make.deep(rgb)
    pictures = [
        Picture(rgb, dpi=(72, 72), exif=make.exif_block()),
        Picture(deep, dpi=(300, 200), exif=make.exif_block()),
        Picture(rgb, alpha=alpha),
        Picture(rgb[..., :1].repeat(3, 2), grey=True),
        Picture(deep[..., :1].repeat(3, 2), alpha=alpha.astype(np.uint16) * 257, grey=True),
    ]
    path = tmp_path / "all.tif"
    encoder = PagesEncoder(path, len(pictures), "keep")
    for picture in pictures:
        encoder.add(picture)
    encoded = encoder.finish()
    assert (encoded.width, encoded.height, encoded.bytes_written) == (20, 16, path.stat().st_size)
    with Image.open(path, formats=("TIFF",)) as image:
        for number in range(len(pictures)):
            image.seek(number)
            image.load()
    for number, picture in enumerate(pictures):
        again = decode_file(path, ImageLimits(), DecodeOptions(page=number))
        np.testing.assert_array_equal(again.rgb[alpha > 0], picture.rgb[alpha > 0])
        assert (again.alpha is None) == (picture.alpha is None)
        assert (again.pages, again.dpi) == (len(pictures), picture.dpi)


def test_the_disk_may_be_full(tmp_path: Path) -> None:
    """The encoder's file is closed whatever happens, so that the caller can remove it."""
    encoder = PagesEncoder(tmp_path / "a.tif", 2, "strip")
    encoder.close()
    with pytest.raises(ValueError, match="closed"):
        encoder.add(Picture(make.photo()))


def test_a_decoder_that_is_closed_between_two_pages_gives_the_attempt_back(harness: Harness) -> None:
    decode = harness.decoder.decode

    class Closing:
        def decode(self, path: Path, *, page: int | None, keep_partial: bool, rotate: int) -> Picture:
            if page:
                raise Unavailable("shutting_down", "The service is shutting down.")
            picture: Picture = decode(path, page=page, keep_partial=keep_partial, rotate=rotate)
            return picture

    harness.decoder = Closing()
    assert run(harness, album()).status is AttemptStatus.QUEUED
    assert harness.scratch_files() == []
