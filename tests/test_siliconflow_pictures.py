"""What leaves the machine and what comes back: colours, sizes, transparency, depth, metadata, and the record of it."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.backends.siliconflow.preparation import MAX_SIDE_PIXELS, prepare
from app.backends.siliconflow.request import DEFAULT_PROMPT
from app.images import Decoder, Picture
from app.options import RestoreOptions
from app.results import RestorationResult
from tests import picture_factory as make
from tests.provider_stand_in import MODEL, TRACE, StandIn, Wire


def gradient(width: int = 60, height: int = 40, dtype: type[Any] = np.uint8) -> Any:
    """(H, W, 3) with a different ramp in each channel."""
    peak = np.iinfo(dtype).max
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.rint(np.stack([x, y, 1 - x], axis=2) * peak).astype(dtype)


def restore(provider: StandIn, decoder: Decoder, picture: Picture, **options: Any) -> RestorationResult:
    return provider.backend(decoder.decode).restore(picture, RestoreOptions(**options), lambda *_: True)


def sent(picture: Picture) -> Image.Image:
    """The JPEG that would be sent."""
    return Image.open(io.BytesIO(prepare(picture).jpeg), formats=("JPEG",))


def answer_with(provider: StandIn, image: Image.Image) -> None:
    """The provider answers every photo with this picture."""

    def play(wire: Wire) -> None:
        wire.json(200, provider.made(image))

    provider.api = play


def test_what_is_sent_is_a_plain_jpeg_without_any_metadata() -> None:
    unprofiled = Picture(
        gradient(),
        exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        xmp=b"<x:xmpmeta>GPS 52.1</x:xmpmeta>",
        dpi=(300, 300),
        source_format="PNG",
    )
    with_all = make.tagged(unprofiled, make.srgb())
    submission = prepare(with_all)
    image = sent(with_all)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert image.info["jfif_density"] == (1, 1)
    for marker in (b"Exif", b"xmpmeta", b"ICC_PROFILE", b"GPS"):
        assert marker not in submission.jpeg
    assert image.getexif() == {}
    tables = image.quantization  # type: ignore[attr-defined]
    assert tables[0][0] == 2  # the standard table at quality 95
    assert image.layer[0][1:3] == (1, 1)  # type: ignore[attr-defined] # no chroma subsampling
    assert np.abs(np.asarray(image).astype(int) - with_all.rgb).mean() < 2


@pytest.mark.parametrize(
    ("size", "small"),
    [((3584, 20), (3584, 20)), ((3585, 20), (3584, 20)), ((7168, 100), (3584, 50)), ((10, 9000), (4, 3584))],
)
def test_a_side_has_at_most_3584_pixels(size: tuple[int, int], small: tuple[int, int]) -> None:
    submission = prepare(Picture(gradient(*size), source_format="TIFF"))
    image = Image.open(io.BytesIO(submission.jpeg), formats=("JPEG",))
    assert image.size == small
    assert max(image.size) <= MAX_SIDE_PIXELS
    assert submission.facts == {
        "resized": size != small,
        "original_dimensions": list(size),
        "submitted_dimensions": list(small),
        "format_converted": True,
        "original_format": "TIFF",
    }


def test_a_larger_photo_is_made_smaller_with_lanczos() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (64, 7168, 3), dtype=np.uint8)
    expected = io.BytesIO()
    small = Image.fromarray(noise).resize((3584, 32), Image.Resampling.LANCZOS)
    small.save(expected, "JPEG", quality=95, subsampling="4:4:4")
    assert prepare(Picture(noise)).jpeg == expected.getvalue()


def test_16_bits_are_rounded_to_8() -> None:
    deep = Picture(gradient(dtype=np.uint16))
    assert np.abs(np.asarray(sent(deep)).astype(int) - gradient()).max() < 12


def test_what_transparency_hides_stays_at_home() -> None:
    colours = np.full((40, 60, 3), (30, 160, 60), np.uint8)
    colours[:, :30] = np.random.default_rng(1).integers(0, 256, (40, 30, 3))  # a cut-out background, still in the file
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30] = 0
    image = np.asarray(sent(Picture(colours, alpha=alpha))).astype(int)
    assert np.abs(image - (30, 160, 60)).max() < 6
    assert (colours[:, :30] != (30, 160, 60)).any()  # the picture itself is left as it was


def test_a_profile_that_is_none_and_a_grey_photo_do_no_harm() -> None:
    assert np.abs(np.asarray(sent(make.tagged(Picture(gradient()), b"no profile"))).astype(int) - gradient()).mean() < 2
    greys = np.repeat(gradient()[..., :1], 3, axis=2)
    assert np.ptp(np.asarray(sent(Picture(greys, grey=True))).astype(int), axis=2).max() <= 2


def test_colours_of_another_space_are_sent_as_srgb() -> None:
    """A profile with red and green swapped shows that the profile is applied before it is dropped."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for entry in range(132, 132 + 12 * count, 12):
        name = bytes(profile[entry : entry + 4])
        profile[entry : entry + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
    image = np.asarray(sent(make.tagged(Picture(gradient()), bytes(profile)))).astype(int)
    assert np.abs(image[..., [1, 0, 2]] - gradient()).mean() < 3


@pytest.mark.parametrize("scale", [1.0, 2.5, 4.0, 8.0])
def test_the_result_has_the_asked_size_and_says_what_the_provider_gave(
    scale: float, provider: StandIn, decoder: Decoder
) -> None:
    answer_with(provider, Image.fromarray(255 - gradient(96, 64)))
    restored = restore(provider, decoder, Picture(gradient(), source_format="JPEG"), scale=scale)
    assert (restored.picture.width, restored.picture.height) == (round(60 * scale), round(40 * scale))
    assert [notice.code for notice in restored.warnings] == ["provider_size"]
    assert "96 x 64" in restored.warnings[0].message
    assert restored.params["provider_dimensions"] == [96, 64]
    expected = Image.fromarray(255 - gradient(96, 64)).resize(
        (restored.picture.width, restored.picture.height), Image.Resampling.LANCZOS
    )
    assert np.array_equal(restored.picture.rgb, np.asarray(expected))


def test_an_answer_of_the_asked_size_is_not_touched(provider: StandIn, decoder: Decoder) -> None:
    answer_with(provider, Image.fromarray(gradient(120, 80)))
    restored = restore(provider, decoder, Picture(gradient()), scale=2)
    assert np.array_equal(restored.picture.rgb, gradient(120, 80))
    assert restored.warnings == ()


def test_alpha_metadata_and_format_travel_and_depth_and_profile_do_not(provider: StandIn, decoder: Decoder) -> None:
    alpha = np.zeros((40, 60), np.uint16)
    alpha[10:30, 20:40] = 65535
    photo = Picture(
        gradient(dtype=np.uint16),
        alpha=alpha,
        icc_profile=b"x" * 200,
        exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        xmp=b"<x/>",
        dpi=(300, 300),
        source_format="TIFF",
    )
    restored = restore(provider, decoder, photo, scale=2)
    result = restored.picture
    assert result.alpha is not None
    assert (result.rgb.dtype.itemsize, result.alpha.dtype.itemsize) == (1, 1)
    assert result.alpha.shape == (80, 120)
    assert (result.alpha[24:56, 44:76] > 250).all()
    assert (result.alpha[:16] < 5).all()
    assert (result.exif, result.xmp, result.dpi, result.source_format) == (photo.exif, photo.xmp, photo.dpi, "TIFF")
    assert result.icc_profile is None
    assert "provider_depth" in [notice.code for notice in restored.warnings]


def test_a_grey_photo_stays_grey_up_to_a_tint_and_keeps_colours_that_were_asked_for(
    provider: StandIn, decoder: Decoder
) -> None:
    greys = np.repeat(gradient()[..., :1], 3, axis=2)
    photo = Picture(greys, grey=True, source_format="JPEG")
    greys = np.repeat(gradient(96, 64)[..., :1], 3, axis=2).astype(int)
    tinted = np.clip(greys + np.array((5, 0, -5)), 0, 255)
    answer_with(provider, Image.fromarray(tinted.astype(np.uint8)))
    result = restore(provider, decoder, photo, scale=1).picture
    assert result.grey
    assert np.ptp(result.rgb.astype(int), axis=2).max() == 0
    answer_with(provider, Image.fromarray(gradient(96, 64)))
    coloured = restore(provider, decoder, photo, scale=1, prompt="colour it")
    assert not coloured.picture.grey
    assert np.ptp(coloured.picture.rgb.astype(int), axis=2).max() > 50
    assert "provider_colour" in [notice.code for notice in coloured.warnings]


def test_the_attempts_record_says_all_that_was_asked(provider: StandIn, decoder: Decoder) -> None:
    photo = Picture(gradient(), source_format="PNG")
    options = {"prompt": "Make it shine", "num_inference_steps": 31, "guidance_scale": 3.5, "seed": 99}
    restored = restore(provider, decoder, photo, **options)
    assert restored.model == MODEL
    assert restored.seconds > 0
    assert restored.params == {
        "provider": "siliconflow",
        "model": MODEL,
        "prompt": "Make it shine",
        "num_inference_steps": 31,
        "guidance_scale": 3.5,
        "inference_time_seconds": 12.345,
        "seed": 4242,
        "preprocessed": {
            "resized": False,
            "original_dimensions": [60, 40],
            "submitted_dimensions": [60, 40],
            "format_converted": True,
            "original_format": "PNG",
        },
        "provider_dimensions": [90, 60],
        "trace_id": TRACE,
    }
    (asked,) = provider.asked("api")
    fields = asked.fields
    assert fields.pop("image").startswith("data:image/jpeg;base64,/9j/")
    assert fields == {"model": MODEL, **options}
    assert asked.headers["content-type"] == "application/json"


def test_without_wishes_the_defaults_are_sent_and_no_seed(provider: StandIn, decoder: Decoder) -> None:
    answer = {"images": [{"url": ""}]}

    def play(wire: Wire) -> None:
        answer["images"][0]["url"] = provider.put(_png(gradient()))
        wire.json(200, answer)

    provider.api = play
    restored = restore(provider, decoder, Picture(gradient()))
    fields = provider.asked("api")[0].fields
    del fields["image"]
    assert fields == {
        "model": MODEL,
        "prompt": DEFAULT_PROMPT,
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
    }
    assert restored.params["seed"] is None
    assert 0 <= restored.params["inference_time_seconds"] < 5  # the provider named no time, so the wait was measured


def test_choices_that_only_the_local_backend_knows_are_not_dropped_in_silence(
    provider: StandIn, decoder: Decoder
) -> None:
    restored = restore(provider, decoder, Picture(gradient()), quality="best", denoise=0.5)
    ignored = [notice.message for notice in restored.warnings if notice.code == "options_ignored"]
    assert ignored == ["The provider knows nothing of quality, denoise; it was not used."]


def test_a_picture_with_a_profile_of_its_own_comes_back_as_srgb(provider: StandIn, decoder: Decoder) -> None:
    image = Image.fromarray(gradient())
    target = io.BytesIO()
    image.save(target, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())

    def play(wire: Wire) -> None:
        wire.json(200, {"images": [{"url": provider.put(target.getvalue())}]})

    provider.api = play
    restored = restore(provider, decoder, Picture(gradient()), scale=1)
    assert restored.picture.icc_profile is None
    assert np.abs(restored.picture.rgb.astype(int) - gradient()).max() <= 2
    assert dataclasses.replace(restored.picture).notes == ()


def _png(pixels: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()
