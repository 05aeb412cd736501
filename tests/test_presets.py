"""Presets: what each sets with what is installed, how given options win, and where API and command take them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors import Unprocessable
from app.main import create_app
from app.options import FIELDS, RestoreOptions
from app.presets import (
    DECIDED,
    DENOISE_PARTNER,
    DENOISING_MODEL,
    DRAWING_MODELS,
    LEFT_ALONE,
    Missing,
    PresetName,
    find_preset,
    presets_of,
)
from app.restoration.models.table import QUALITY_MODELS, TABLE, find_installed
from app.restoration.models.weights import find_rows
from tests.command_line import put_photo, run, size_of
from tests.http_service import BASE_URL, Service, assert_problem, photo, running, settings_for
from tests.http_service import describe as describe_lanczos

DRAWING, SMALL_DRAWING = DRAWING_MODELS
LARGE, EMBEDDED = "RealESRGAN_x4plus", "nir-embedded-x4"
EVERYTHING = (EMBEDDED, DENOISING_MODEL, LARGE, DRAWING, SMALL_DRAWING)


def described(
    *installed: str, partner: bool = True, faces: bool = True, repair: bool = True, quality: str = "fast"
) -> dict[str, Any]:
    """What the local backend says of itself with these models."""
    runs = {name: find_installed(wanted, (), installed.__contains__) for name, wanted in QUALITY_MODELS.items()}
    return {
        "default_quality": quality,
        "models": [{"name": row.name, "file": row.file, "installed": row.name in installed} for row in TABLE],
        "partner_models": [{"name": DENOISE_PARTNER, "installed": partner}],
        "faces": {"model": "GFPGANv1.3" if faces else None},
        "repair": {"available": repair},
        "qualities": [
            {
                "quality": name,
                "model": model,
                "stands_in_for": None if model == QUALITY_MODELS[name] else QUALITY_MODELS[name],
            }
            for name, model in runs.items()
        ],
    }


def machines() -> Iterator[dict[str, Any]]:
    """Every combination of what can be installed."""
    for chosen in itertools.product((False, True), repeat=len(EVERYTHING)):
        installed = [name for name, there in zip(EVERYTHING, chosen, strict=True) if there]
        for partner, faces, quality in itertools.product((False, True), (False, True), QUALITY_MODELS):
            yield described(*installed, partner=partner, faces=faces, quality=quality)


def test_a_preset_decides_or_leaves_alone_every_option_that_there_is() -> None:
    """An option that is added must be thought of here."""
    assert sorted((*DECIDED, *LEFT_ALONE)) == sorted(FIELDS)


def test_the_names_of_models_are_those_of_the_table() -> None:
    rows = {row.name: row for row in TABLE}
    assert {*DRAWING_MODELS, DENOISING_MODEL} <= set(rows)
    assert rows[DENOISING_MODEL].denoise_partner == f"{DENOISE_PARTNER}.pth"


def test_no_preset_asks_for_what_is_not_installed() -> None:
    seen = 0
    for machine in machines():
        installed = {row["name"] for row in machine["models"] if row["installed"]}
        presets = presets_of(machine)
        assert [preset.name for preset in presets] == (list(PresetName) if installed else [])
        for preset in presets:
            options = RestoreOptions.from_fields(preset.options)
            assert set(preset.options) == set(DECIDED)
            assert options.model is None or options.model in installed
            assert machine["faces"]["model"] or not options.face_enhance
            if options.denoise is not None:
                runs = {row["quality"]: row["model"] for row in machine["qualities"]}
                assert (runs[options.quality], machine["partner_models"][0]["installed"]) == (DENOISING_MODEL, True)
            for lack in preset.missing:
                assert lack.option in DECIDED
                assert find_rows(lack.install), "it can be installed under this name"
                assert lack.install not in installed
                seen += 1
    assert seen > 100


def test_what_each_preset_sets_where_everything_is_installed() -> None:
    found = {preset.name: preset for preset in presets_of(described(*EVERYTHING))}
    assert not any(preset.missing for preset in found.values())
    defaults = {**vars(RestoreOptions()), "quality": "fast"}
    assert {
        name.value: {option: value for option, value in preset.options.items() if value != defaults[option]}
        for name, preset in found.items()
    } == {
        "old_scan": {"quality": "best", "scale": 2.0, "repair": "auto", "color_correction": "auto"},
        "phone_photo": {"scale": 2.0, "face_strength": 0.5, "denoise": 0.5},
        "drawing": {"quality": None, "model": DRAWING, "face_enhance": False},
        "clean": {"scale": 1.0, "face_enhance": False},
    }


def test_old_scans_are_repaired_only_where_something_finds_damage() -> None:
    assert find_preset("old_scan", described(EMBEDDED)).options["repair"] == "auto"
    silent = described(EMBEDDED)
    del silent["repair"]
    for machine in (described(EMBEDDED, repair=False), silent):
        preset = find_preset("old_scan", machine)
        assert preset.options["repair"] == "off"
        assert "repair" not in {lack.option for lack in preset.missing}


def test_what_is_missing_is_named_and_something_else_takes_its_place() -> None:
    first_start = described(EMBEDDED, partner=False, faces=False)
    drawing = find_preset("drawing", first_start)
    assert (drawing.options["model"], drawing.options["quality"]) == (None, "fast")
    assert drawing.missing == (Missing("model", DRAWING),)
    assert find_preset("old_scan", first_start).missing == (Missing("quality", LARGE), Missing("face_enhance", "faces"))
    small = find_preset("drawing", described(EMBEDDED, SMALL_DRAWING))
    assert (small.options["model"], small.missing) == (SMALL_DRAWING, (Missing("model", DRAWING),))
    phone = find_preset("phone_photo", described(*EVERYTHING, partner=False))
    assert (phone.options["denoise"], phone.missing) == (None, (Missing("denoise", DENOISE_PARTNER),))


def test_a_given_option_wins_and_drops_what_it_overrules() -> None:
    machine = described(*EVERYTHING)
    drawing, phone = find_preset("drawing", machine), find_preset("phone_photo", machine)
    assert drawing.fields({"scale": "2", "model": "", "face_enhance": None})["scale"] == "2"
    assert RestoreOptions.from_fields(drawing.fields({"model": " "})).model == DRAWING
    assert RestoreOptions.from_fields(drawing.fields({"quality": "best"})).model is None
    assert RestoreOptions.from_fields(phone.fields({"quality": "best"})).denoise is None
    assert RestoreOptions.from_fields(phone.fields({"face_enhance": False})).face_enhance is False
    assert RestoreOptions.from_fields(phone.fields({"output_format": "png"})).output_format == "png"


@pytest.mark.parametrize("name", ["", "sepia", 5, ["drawing"]])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: object) -> None:
    with pytest.raises(Unprocessable, match="old_scan, phone_photo, drawing, clean"):
        find_preset(name, described(EMBEDDED))


# Over HTTP.


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The Lanczos service, with a table to which a test may add models."""
    table = describe_lanczos()
    with running(tmp_path, describe=lambda: table) as made:
        made.table = table  # type: ignore[attr-defined]
        yield made


def install_drawing(service: Service) -> None:
    table = service.table  # type: ignore[attr-defined]
    table["models"] = [*table["models"], {**table["models"][0], "name": DRAWING}]
    service.context.catalog.look_again()


def test_config_tells_what_each_preset_sets_and_follows_what_is_installed(service: Service) -> None:
    before = service.client.get("/api/v1/config").json()
    assert [row["name"] for row in before["presets"]] == list(PresetName)
    assert before["presets"][2]["options"]["model"] is None
    assert before["presets"][2]["missing"] == [{"option": "model", "install": DRAWING}]
    install_drawing(service)
    after = service.client.get("/api/v1/config").json()
    assert after["presets"][2]["options"]["model"] == DRAWING
    assert after["models_revision"] != before["models_revision"]


def test_config_offers_no_preset_where_no_network_restores(service: Service) -> None:
    row = service.context.catalog._backends[0]
    row["available"] = False
    assert service.client.get("/api/v1/config").json()["presets"] == []


def options_of_job(service: Service, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/api/v1/jobs/{job_id}").json()["options"]
    return found


def test_every_way_in_takes_a_preset_by_its_name(service: Service) -> None:
    client = service.client
    job = service.submit(preset="old_scan", output_format="webp")
    stored = options_of_job(service, job)
    assert (stored["quality"], stored["scale"], stored["color_correction"]) == ("best", 2.0, "auto")
    assert (stored["output_format"], "preset" in stored) == ("webp", False)
    assert service.finish(job)["results"][0]["width"] == 80
    simple = client.post("/enhance", files={"files": photo()}, data={"preset": "clean", "scale": "3"}).json()["job_id"]
    assert (options_of_job(service, simple)["scale"], options_of_job(service, simple)["face_enhance"]) == (3.0, False)
    service.finish(simple)
    photo_id = client.get(f"/api/v1/jobs/{job}").json()["attempts"][0]["photo_id"]
    again = client.post(f"/api/v1/photos/{photo_id}/restore", json={"preset": "clean"})
    assert again.status_code == 202, again.text
    assert options_of_job(service, again.json()["job_id"])["scale"] == 1.0
    dry = client.get("/api/v1/estimate", params={"size": "40x30", "preset": "clean"}).json()
    assert (dry["results"][0]["width"], dry["results"][0]["height"]) == (40, 30)
    plain = client.post(f"/api/v1/photos/{photo_id}/restore", json={"preset": None})
    assert plain.status_code in (202, 409), plain.text


def test_a_preset_that_there_is_not_is_refused_everywhere(service: Service) -> None:
    for answer in (
        service.client.post("/enhance", files={"files": photo()}, data={"preset": "sepia"}),
        service.client.get("/api/v1/estimate", params={"size": "40x30", "preset": "sepia"}),
        service.client.post(f"/api/v1/photos/{'0' * 32}/restore", json={"preset": ["clean"]}),
    ):
        problem = assert_problem(answer, 422, "invalid_option")
        assert "old_scan" in problem["detail"]


def test_a_repeated_request_is_the_same_one_although_more_is_installed_since(service: Service) -> None:
    headers = {"Idempotency-Key": "once"}
    photo_id = service.client.post("/api/v1/photos", files={"file": photo()}).json()["id"]
    first = service.client.post(f"/api/v1/photos/{photo_id}/restore", json={"preset": "drawing"}, headers=headers)
    install_drawing(service)
    again = service.client.post(f"/api/v1/photos/{photo_id}/restore", json={"preset": "drawing"}, headers=headers)
    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    other = service.client.post(f"/api/v1/photos/{photo_id}/restore", json={"preset": "clean"}, headers=headers)
    assert_problem(other, 422, "idempotency_key_reused")


def test_while_nothing_is_known_of_the_models_a_preset_has_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = threading.Event()
    monkeypatch.setattr("app.main.restoring.Restoring._open_local", lambda self: loading.wait(20) and None)
    app = create_app(settings_for(tmp_path), describe=describe_lanczos)
    with TestClient(app, base_url=BASE_URL) as client:
        assert client.get("/api/v1/config").json()["presets"] == []
        assert_problem(client.post("/enhance", files={"file": photo()}, data={"preset": "clean"}), 503, "starting")
        assert client.post("/enhance", files={"file": photo()}).status_code == 202
        loading.set()


def test_the_page_of_the_api_describes_the_field_wherever_options_are_taken(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    bodies = [
        paths[path]["post"]["requestBody"]["content"][kind]["schema"]["properties"]
        for path, kind in [
            ("/enhance", "multipart/form-data"),
            ("/api/v1/enhance/batch", "multipart/form-data"),
            ("/api/v1/preview", "multipart/form-data"),
            ("/api/v1/photos/{photo_id}/restore", "application/json"),
        ]
    ]
    bodies.append({row["name"]: row["schema"] for row in paths["/api/v1/estimate"]["get"]["parameters"]})
    for properties in bodies:
        assert {*PresetName} <= set(properties["preset"]["enum"])


# On the command line.


def test_the_command_restores_by_a_preset_and_says_what_it_sets(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "old.png")
    assert run(project, "restore", "old.png", "drawn.png", "--preset", "drawing", "--scale", "2") == 0
    assert size_of(project / "drawn.png") == (48, 32)
    said = " ".join(capsys.readouterr().out.split())
    assert "Preset drawing: quality fast, scale 2.0, face_enhance False." in said
    assert f"python3 run.py models download {DRAWING}" in said
    with pytest.raises(SystemExit):
        run(project, "restore", "old.png", "x.png", "--preset", "sepia")
