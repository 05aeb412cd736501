"""Previews: a patch equals the whole result at its place, goes ahead of waiting photos, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from PIL import Image

from app.api.connections import Connections
from app.api.dependencies import MOST_PREVIEWS
from app.backends.local import LocalBackend, open_local_backend
from app.errors import Cancelled
from app.images import Decoder, ImageLimits, Overview, Picture
from app.images.damage_layer import DamageLayer
from app.images.decode import decode_file
from app.images.patches import Box, detailed_place, patch_at
from app.jobs.previewing import ChosenBy, Previewer
from app.main import create_app
from app.options import Quality, RestoreOptions
from app.restoration.pipeline import Restorer
from app.stages import IsWanted, OnProgress, Stage
from tests.command_line import MODEL
from tests.harness import until
from tests.http_service import Service, assert_problem, running, settings_for

INSTALLED = [{"quality": quality, "model": "m", "stands_in_for": None} for quality in ("fast", "balanced")]


def textured(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: soft shapes with some grain, different everywhere."""
    rows, columns = np.mgrid[0:height, 0:width]
    soft = 127 + 90 * np.sin(rows / 9.0)[..., None] * np.sin(columns / 7.0)[..., None] * np.array([1.0, 0.7, 0.4])
    grain = np.random.default_rng(seed).normal(0, 5, (height, width, 3))
    pixels: np.ndarray = (soft + grain).clip(0, 255).astype(np.uint8)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


@pytest.fixture(scope="module")
def backend(fast_weights: Path) -> LocalBackend:
    return open_local_backend(fast_weights, device="cpu", precision="fp32", allow_unverified=True)


def previewer_of(backend: Any, decoder: Decoder) -> Previewer:
    return Previewer(decoder, {"local": backend}, lambda: INSTALLED)


# The same as the whole result.


@pytest.mark.parametrize(("scale", "place"), [(1.0, (0, 0)), (2.5, (190, 150)), (4.0, (999, 999))])
def test_a_patch_equals_the_whole_result_at_its_place(
    scale: float, place: tuple[int, int], backend: LocalBackend, decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(textured(420, 300)))
    options = RestoreOptions(model=MODEL.removesuffix(".pth"), scale=scale, face_enhance=False)
    prepared = previewer_of(backend, decoder).prepare(path, options, place)
    part = backend.restore_patch(prepared.patch, options, 1).picture.rgb
    whole = backend.restore(decode_file(path, ImageLimits()), options, lambda fraction, stage: True).picture.rgb
    top, left = round(prepared.at.top * scale), round(prepared.at.left * scale)
    there = whole[top : top + part.shape[0], left : left + part.shape[1]]
    assert part.shape == there.shape
    assert np.abs(part.astype(int) - there).max() <= 1  # rounding of another tiling


def test_the_correction_of_faded_colours_is_that_of_the_whole_photo(
    backend: LocalBackend, decoder: Decoder, tmp_path: Path
) -> None:
    faded = (textured(420, 300) * np.array([0.45, 0.3, 0.2]) + np.array([120, 110, 80])).clip(0, 255).astype(np.uint8)
    path = tmp_path / "photo.png"
    path.write_bytes(png(faded))
    options = RestoreOptions(model=MODEL.removesuffix(".pth"), scale=1, face_enhance=False, color_correction="auto")
    prepared = previewer_of(backend, decoder).prepare(path, options, (0, 0))
    part = backend.restore_patch(prepared.patch, options, 1).picture.rgb
    result = backend.restore(decode_file(path, ImageLimits()), options, lambda fraction, stage: True)
    assert result.params["color_correction"]["faded"]
    assert np.abs(part.astype(int) - result.picture.rgb[:256, :256]).max() <= 1


# Where.


def test_the_most_detail_is_found_and_not_the_grain_or_the_hard_edge() -> None:
    photo = np.full((600, 900, 3), 128, np.uint8)
    photo[:, 440:] = 90  # one hard edge
    photo[310:560, 600:850] = textured(250, 250)
    photo[20:290, 20:290] += np.random.default_rng(0).integers(0, 4, (270, 270, 3), dtype=np.uint8)
    x, y = detailed_place(Overview(Picture(photo), 900, 600, False))
    assert abs(x - 725) < 40
    assert abs(y - 435) < 40


@pytest.mark.parametrize(
    ("place", "size", "expected"),
    [
        ((0, 0), (900, 600), Box(0, 0, 256, 256)),
        ((450, 300), (900, 600), Box(320, 172, 576, 428)),
        ((5000, 5000), (900, 600), Box(644, 344, 900, 600)),
        ((10, 10), (100, 40), Box(0, 0, 100, 40)),
    ],
)
def test_a_patch_lies_inside_the_photo(place: tuple[int, int], size: tuple[int, int], expected: Box) -> None:
    assert patch_at(*place, *size) == expected


class Faces:
    """A backend that knows of a face, and keeps what it was given."""

    name = "local"

    def __init__(self, *frames: Box) -> None:
        self.frames = list(frames)

    def restore(self, *_: Any) -> Any:
        raise AssertionError

    def restore_patch(self, *_: Any) -> Any:
        raise AssertionError

    def find_faces(self, overview: Overview, options: RestoreOptions, *_: Any) -> list[Box]:
        return self.frames


def test_a_face_is_chosen_and_its_whole_frame_comes_along(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(textured(1200, 900)))
    face = Box(500, 100, 1000, 700)
    prepared = previewer_of(Faces(face), decoder).prepare(path, RestoreOptions(rotate=0), None)
    assert prepared.chosen_by is ChosenBy.FACE
    assert prepared.at == Box(620, 272, 876, 528)
    window = prepared.patch.at
    assert window.joined(face) == window
    with Image.open(io.BytesIO(prepared.original)) as original:
        assert original.size == (256, 256)


@pytest.mark.parametrize(("repair", "margin"), [("off", 64), ("auto", 2 * 224)])
def test_a_patch_to_repair_comes_with_what_the_search_sees(
    repair: str, margin: int, decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(textured(2600, 300)))
    prepared = previewer_of(Faces(), decoder).prepare(path, RestoreOptions(rotate=0, repair=repair), (1300, 150))
    assert prepared.patch.at.width == 256 + 2 * margin


def test_what_comes_along_is_limited_however_large_the_photo(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(np.zeros((300, 12000, 3), np.uint8)))
    prepared = previewer_of(Faces(), decoder).prepare(path, RestoreOptions(rotate=0, repair="auto"), (6000, 150))
    assert prepared.patch.at.width == 2048


def test_a_patch_is_searched_for_damage_as_its_photo_is(
    backend: LocalBackend, decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.restoration.repair import repair

    asked: list[int | None] = []

    def noted(*given: Any, **named: Any) -> Any:
        asked.append(named["reduction"])
        nothing = DamageLayer(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.bool_))
        return repair.RepairedPhoto(given[1], nothing, {}, 0.0)

    monkeypatch.setattr(repair, "repair_photo", noted)
    path = tmp_path / "photo.png"
    path.write_bytes(png(textured(2600, 300)))
    options = RestoreOptions(model=MODEL.removesuffix(".pth"), scale=1.0, face_enhance=False, repair="auto")
    prepared = previewer_of(backend, decoder).prepare(path, options, (1300, 150))
    backend.restore_patch(prepared.patch, options, 1)
    assert asked == [2]


def test_only_what_is_installed_is_shown_and_beside_a_named_model_what_is_asked_for() -> None:
    previewer = Previewer(None, {}, lambda: INSTALLED)  # type: ignore[arg-type]
    assert [quality for quality, _ in previewer.variants(RestoreOptions(), [])] == [Quality.FAST, Quality.BALANCED]
    assert [quality for quality, _ in previewer.variants(RestoreOptions(), [Quality.BEST, Quality.FAST])] == ["fast"]
    named = RestoreOptions(model="mine")
    assert previewer.variants(named, []) == ((None, named),)
    beside = ((None, named), (Quality.FAST, RestoreOptions(quality="fast")))
    assert previewer.variants(named, [Quality.BEST, Quality.FAST]) == beside
    assert previewer.variants(named, [Quality.BEST]) == ((None, named),)  # it is not installed


# The route.


def ask(service: Any, data: bytes, accept: str = "*/*", **fields: str) -> Any:
    files = {"file": ("photo.png", data)}
    return service.client.post("/api/v1/preview", files=files, data=fields, headers={"Accept": accept})


def described(backend: LocalBackend) -> Any:
    return backend.describe


def test_the_route_shows_patches_and_keeps_nothing(backend: LocalBackend, tmp_path: Path) -> None:
    with running(tmp_path, backend=backend, describe=described(backend)) as service:
        answer = ask(service, png(textured(300, 280)), x="10", y="10", scale="2", face_enhance="false", rotate="90")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert [body[name] for name in ("x", "y", "width", "height", "chosen_by")] == [0, 0, 256, 256, "asked"]
        assert (body["photo_width"], body["photo_height"]) == (280, 300)
        assert [patch["quality"] for patch in body["patches"]] == body["qualities"] != []
        for patch in body["patches"]:
            with Image.open(io.BytesIO(base64.b64decode(patch["image"]))) as shown:
                assert shown.size == (patch["width"], patch["height"]) == (512, 512)
        answer = ask(service, png(textured(300, 280)), accept="application/x-ndjson", qualities="fast")
        first, *patches = [json.loads(line) for line in answer.text.splitlines()]
        assert first["chosen_by"] == "detail"
        assert "patches" not in first
        assert [patch["quality"] for patch in patches] == first["qualities"]
        assert service.uploads() == []
        assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
        assert service.client.get("/api/v1/jobs").json()["jobs"] == []
        assert service.client.get("/api/v1/photos").json()["photos"] == []
        assert service.context.previewing.total == 0


def test_what_a_job_is_refused_for_a_preview_is_too(backend: LocalBackend, tmp_path: Path) -> None:
    with running(tmp_path, backend=backend, describe=described(backend)) as service:
        data = png(textured(40, 30))
        for fields, status, code in (
            ({"scale": "9"}, 422, "invalid_option"),
            ({"nonsense": "1"}, 422, "unknown_option"),
            ({"x": "4"}, 422, "invalid_option"),
            ({"qualities": "finest"}, 422, "invalid_option"),
            ({"model": "absent"}, 422, "unknown_model"),
        ):
            assert_problem(ask(service, data, **fields), status, code)
        assert_problem(ask(service, b"no photo"), 415, "unsupported_format")
        assert service.uploads() == []
        service.forget_rates()
        codes = [ask(service, b"no photo").json()["code"] for _ in range(21)]
        assert codes == ["unsupported_format"] * 20 + ["rate_limited"]


def test_a_second_preview_at_once_is_refused_and_the_next_is_made(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, make = threading.Event(), threading.Event(), backend.restore_patch

    def held(*asked: Any) -> Any:
        if not begun.is_set():  # the first one only: another would be made at once, were it not refused
            begun.set()
            assert go_on.wait(60)
        return make(*asked)

    with running(tmp_path, backend=backend, describe=described(backend)) as service:
        monkeypatch.setattr(backend, "restore_patch", held)
        data, answers = png(textured(300, 280)), []
        asker = threading.Thread(target=lambda: answers.append(ask(service, data, qualities="fast")))
        asker.start()
        assert begun.wait(60)
        refused = ask(service, data, qualities="fast")
        go_on.set()
        asker.join(60)
        assert refused.status_code == 429
        assert_problem(refused, 429, "too_many_previews")
        assert int(refused.headers["retry-after"]) > 0
        assert [answer.status_code for answer in answers] == [200]
        assert ask(service, data, qualities="fast").status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/preview", "/api/v1/damage"])
def test_a_photo_that_comes_slowly_takes_no_place(path: str, backend: LocalBackend, tmp_path: Path) -> None:
    with running(tmp_path, backend=backend, describe=described(backend)) as service:
        service.context.previewing, data = Connections(most=1, most_of_one=1), png(textured(300, 280))
        with slow_upload(service, path, data) as slow:
            assert service.context.previewing.total == 0
            assert ask(service, data, qualities="fast").status_code == 200
            with service.context.previewing.acquire("somebody else"):  # while the photo is on its way
                slow.go_on.set()
                slow.thread.join(20)
        start, body = slow.sent[0], json.loads(slow.sent[1]["body"])
        assert (start["status"], body["code"]) == (503, "previews_full")
        assert service.uploads() == []
        assert service.context.previewing.total == 0


@pytest.mark.parametrize("path", ["/api/v1/preview", "/api/v1/damage"])
def test_where_others_have_all_places_nobody_is_told_of_a_preview_of_theirs(
    path: str, backend: LocalBackend, tmp_path: Path
) -> None:
    with running(tmp_path, backend=backend, describe=described(backend)) as service:
        files = {"file": ("photo.png", png(textured(300, 280)))}
        with contextlib.ExitStack() as places:
            for number in range(MOST_PREVIEWS):
                assert places.enter_context(service.context.previewing.acquire(f"owner {number}"))
            refused = service.client.post(path, files=files)
            assert "yours" not in assert_problem(refused, 503, "previews_full")["detail"]
            assert int(refused.headers["retry-after"]) > 0
        with service.context.previewing.acquire("local"):
            assert "yours" in assert_problem(service.client.post(path, files=files), 429, "too_many_previews")["detail"]


@dataclasses.dataclass
class SlowUpload:
    """A photo on its way: its last byte comes once `go_on` is set. `sent` is what the service answers."""

    thread: threading.Thread
    go_on: threading.Event
    sent: list[Any]


@contextlib.contextmanager
def slow_upload(service: Service, path: str, data: bytes) -> Iterator[SlowUpload]:
    """Over ASGI, since there the parts of a body can be held; the block runs while all but a byte has been received."""
    asked = service.client.build_request("POST", path, files={"file": ("photo.png", data)})
    body, go_on, sent = asked.read(), threading.Event(), list[Any]()
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.lower(), value) for name, value in asked.headers.raw], "client": ("127.0.0.1", 1),
        "server": ("localhost", 8001), "scheme": "http", "http_version": "1.1", "root_path": "",
        "asgi": {"version": "3.0"},
    }  # fmt: skip

    async def scenario() -> None:
        parts = iter([(body[:-1], True), (body[-1:], False)])

        async def receive() -> dict[str, Any]:
            part, more = next(parts, (b"", None))
            if not more:
                await asyncio.to_thread(go_on.wait, 20)
            return {"type": "http.disconnect" if more is None else "http.request", "body": part, "more_body": more}

        async def send(message: Any) -> None:
            sent.append(message)

        await service.app(scope, receive, send)

    thread = threading.Thread(target=service.client.portal.call, args=(scenario,))  # type: ignore[union-attr]
    thread.start()
    try:
        until(lambda: service.context.uploads.total == 1)
        yield SlowUpload(thread, go_on, sent)
    finally:
        go_on.set()
        thread.join(20)


def test_a_server_that_restores_nothing_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.app.state.context = dataclasses.replace(service.context, previewer=None)
        assert_problem(ask(service, png(textured(40, 30))), 409, "preview_unavailable")


def test_whoever_leaves_frees_the_device_at_the_next_step(backend: LocalBackend, tmp_path: Path) -> None:
    """Over a real connection, since only that can be closed; the steps of the network go on until they are stopped."""
    steps, stopped = threading.Event(), threading.Event()

    def endless(restorer: Restorer, patch: Any, options: RestoreOptions, on_progress: OnProgress) -> Any:
        try:
            while on_progress(0.5, Stage.UPSCALING):
                steps.set()
                stopped.wait(0.001)
        finally:
            stopped.set()

    photo = {"file": ("photo.png", png(textured(300, 280)))}
    with served(tmp_path, backend) as url, httpx2.Client(base_url=url, timeout=60) as client:
        for accept in ("application/x-ndjson", "application/json"):
            steps.clear()
            stopped.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Restorer, "restore_patch", endless)
                asker = threading.Thread(target=ask_and_leave, args=(url, photo, accept, steps))
                asker.start()
                asker.join(60)
                assert steps.is_set()
                assert stopped.wait(10), accept
            fields = {"qualities": "fast"}
            while (answer := client.post("/api/v1/preview", files=photo, data=fields)).status_code == 429:
                assert answer.json()["code"] == "too_many_previews"  # its place is given back in this moment
            assert answer.status_code == 200, answer.text


def test_whoever_leaves_stops_a_quick_look_at_damage(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def look(picture: Any, wait_seconds: float, is_wanted: IsWanted) -> float:
        begun.set()
        until(lambda: not is_wanted())
        stopped.set()
        raise Cancelled

    monkeypatch.setattr(backend, "damage_share", look)
    with served(tmp_path, backend) as url:
        ask_and_leave(url, {"file": ("photo.png", png(textured(300, 280)))}, "*/*", begun, "/api/v1/damage")
        assert stopped.wait(10)


def ask_and_leave(url: str, photo: Any, accept: str, begun: threading.Event, path: str = "/api/v1/preview") -> None:
    """Ask for a preview, and hang up as soon as it has begun."""
    host, port = url.removeprefix("http://").split(":")
    data = {"qualities": "fast"} if path.endswith("preview") else {}
    request = httpx2.Request("POST", f"{url}{path}", files=photo, data=data, headers={"Accept": accept})
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        assert begun.wait(60)


@contextlib.contextmanager
def served(folder: Path, backend: LocalBackend) -> Iterator[str]:
    """The service on a port of loopback, in a thread; gives its address."""
    settings = settings_for(folder)
    app = create_app(settings, backends={"local": backend}, describe=backend.describe)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert app.state.service.loaded.wait(60)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


# Ahead of the queue, but never starving it.


def test_a_preview_is_made_while_a_photo_is_in_work(backend: LocalBackend, decoder: Decoder, tmp_path: Path) -> None:
    """The photo stands still in its first steps until the preview is done: so it was made between two of them."""
    path = tmp_path / "photo.png"
    path.write_bytes(png(textured(300, 280)))
    options = RestoreOptions(model=MODEL.removesuffix(".pth"), scale=1, face_enhance=False)
    previewer, done = previewer_of(backend, decoder), threading.Event()
    prepared = previewer.prepare(path, options, None)

    def ask_for_it() -> None:
        previewer.restore(prepared, None, options)
        done.set()

    asker = threading.Thread(target=ask_for_it)
    steps: list[bool] = []

    def on_progress(fraction: float, stage: Stage) -> bool:
        if not steps:
            asker.start()
        steps.append(done.is_set())
        return len(steps) < 500

    photo = Picture(textured(700, 500))
    result = backend.restore(photo, options, on_progress)
    asker.join(30)
    assert done.is_set()
    assert True in steps
    assert result.picture.width == 700
