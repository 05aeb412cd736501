"""Equal jobs get a finished result: when a copy is given, to whom, and what is never given again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.backends.local import open_local_backend
from app.errors import Unavailable
from app.images import Picture
from app.jobs.result_cache import code_version
from app.notices import Notice
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress
from app.store import NewVersion
from tests.http_service import KEY, OTHER_KEY, GatedBackend, Service, photo, running


class RepeatableBackend(GatedBackend):
    """One whose results are decided by `facts`; it may warn, and its facts may change while it works."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, Any] | None = {"files": {"net.pth": "a"}}
        self.facts_after: dict[str, Any] | None = None
        self.warnings: tuple[Notice, ...] = ()
        self.params: dict[str, Any] = {"device": "cpu"}

    def result_facts(self, options: RestoreOptions) -> dict[str, Any] | None:
        return self.facts

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        done = super().restore(picture, options, on_progress)
        self.facts = self.facts_after or self.facts
        return RestorationResult(done.picture, done.model, done.seconds, self.params, warnings=self.warnings)


@pytest.fixture
def backend() -> RepeatableBackend:
    return RepeatableBackend()


@contextlib.contextmanager
def serving(folder: Path, backend: RepeatableBackend, word: str) -> Iterator[Service]:
    with running(folder, backend=backend, result_cache=word, key=f"{KEY},{OTHER_KEY}") as found:
        yield found


@pytest.fixture
def service(tmp_path: Path, backend: RepeatableBackend) -> Iterator[Service]:
    with serving(tmp_path, backend, "owner") as found:
        yield found


def restored(service: Service, data: bytes | None = None, **fields: str) -> dict[str, Any]:
    """One photo through the service; its attempt."""
    job = service.finish(service.submit(data, "cat.png", **fields))
    (attempt,) = job["attempts"]
    assert attempt["status"] == "completed", attempt
    found: dict[str, Any] = attempt["result"]
    return found


def bytes_of(service: Service, result: dict[str, Any]) -> bytes:
    answer = service.client.get(result["url"])
    assert answer.status_code == 200
    return answer.content


def test_an_equal_job_gets_the_same_bytes_and_says_so(service: Service, backend: RepeatableBackend) -> None:
    first, again = restored(service), restored(service)
    assert backend.calls == 1
    assert "cache" not in first["params"]
    assert again["params"] == {**first["params"], "cache": "hit"}
    assert again["url"] != first["url"]
    assert bytes_of(service, again) == bytes_of(service, first)
    assert (again["model"], again["width"], again["warnings"]) == (first["model"], first["width"], first["warnings"])


def test_a_copy_is_free(tmp_path: Path, backend: RepeatableBackend) -> None:
    with running(tmp_path, backend=backend, result_cache="owner", key=KEY, quota_photos_per_day=2) as service:
        for _ in range(3):
            restored(service)
            assert service.client.get("/api/v1/me").json()["photos_today"]["used"] == 1
        restored(service, photo(41))
        assert service.client.post("/enhance", files={"files": ("cat.png", photo())}).status_code == 429


def test_the_copy_outlives_the_first_result(service: Service) -> None:
    first_job = service.submit()
    first = service.finish(first_job)["attempts"][0]["result"]
    kept = bytes_of(service, first)
    again = restored(service)
    assert service.client.delete(f"/api/v1/jobs/{first_job}").json()["status"] == "removed"
    assert service.client.get(first["url"]).status_code == 404
    assert bytes_of(service, again) == kept
    assert restored(service)["params"]["cache"] == "hit"  # a copy is as good


@pytest.mark.parametrize(
    "change",
    [{"scale": "2"}, {"output_quality": "90"}, {"metadata": "strip"}, {"face_enhance": "false"}],
)
def test_other_options_are_another_result(service: Service, backend: RepeatableBackend, change: dict[str, str]) -> None:
    restored(service)
    assert "cache" not in restored(service, None, **change)["params"]
    assert backend.calls == 2


def test_options_that_are_the_defaults_are_the_same(service: Service, backend: RepeatableBackend) -> None:
    restored(service)
    assert restored(service, None, scale="4.0", face_enhance="yes")["params"]["cache"] == "hit"
    assert backend.calls == 1


def test_other_bytes_or_other_networks_are_another_result(service: Service, backend: RepeatableBackend) -> None:
    restored(service)
    assert "cache" not in restored(service, photo(41))["params"]
    backend.facts = {"files": {"net.pth": "b"}}
    assert "cache" not in restored(service)["params"]


def test_a_backend_that_does_not_repeat_itself_is_always_asked(service: Service, backend: RepeatableBackend) -> None:
    backend.facts = None
    restored(service)
    restored(service)
    assert backend.calls == 2


def test_networks_that_changed_while_they_ran_leave_nothing(service: Service, backend: RepeatableBackend) -> None:
    before, backend.facts_after = backend.facts, {"files": {"net.pth": "b"}}
    restored(service)
    backend.facts, backend.facts_after = before, None
    assert "cache" not in restored(service)["params"]


@pytest.mark.parametrize(
    ("warning", "params", "kept"),
    [
        (Notice("faces_not_kept", "There was no room."), {}, False),
        (Notice("of_tomorrow", "A warning that nobody has thought of."), {}, False),
        (Notice("model_fallback", "Another model ran."), {}, True),
        (None, {"out_of_memory_restarts": 1}, False),
        (None, {"out_of_memory_restarts": 0}, True),
    ],
)
def test_results_that_tell_of_the_day_are_not_given_again(
    service: Service, backend: RepeatableBackend, warning: Notice | None, params: dict[str, Any], kept: bool
) -> None:
    backend.warnings, backend.params = (warning,) if warning else (), params
    restored(service)
    assert ("cache" in restored(service)["params"]) is kept


def test_a_result_whose_faces_were_blended_again_is_not_given(service: Service, backend: RepeatableBackend) -> None:
    first = restored(service)
    attempt_id = first["url"].rpartition("/")[2][:32]
    assert service.context.store.new_version(attempt_id, 1, NewVersion(f"{attempt_id}-v2.png", 5, ()))
    assert "cache" not in restored(service)["params"]


def test_a_result_whose_file_is_gone_is_made_again(service: Service, backend: RepeatableBackend) -> None:
    first = restored(service)
    service.context.storage.remove_result(first["url"].rpartition("/")[2])
    assert "cache" not in restored(service)["params"]


@pytest.mark.parametrize(("word", "given"), [("owner", False), ("all", True)])
def test_another_owner_gets_it_only_where_the_setting_says_so(
    tmp_path: Path, backend: RepeatableBackend, word: str, given: bool
) -> None:
    with serving(tmp_path, backend, word) as service:
        restored(service)
        service.client.headers["X-API-KEY"] = OTHER_KEY
        assert ("cache" in restored(service)["params"]) is given


def test_it_is_off_by_default(tmp_path: Path, backend: RepeatableBackend) -> None:
    with running(tmp_path, backend=backend) as service:
        restored(service)
        assert "cache" not in restored(service)["params"]
        assert backend.calls == 2


def test_copies_say_nothing_of_the_pace(service: Service) -> None:
    restored(service)
    pace = service.context.store.seconds_per_megapixel()
    restored(service)
    assert service.context.store.seconds_per_megapixel() == pace
    assert len(service.context.store.recent_completed()) == 1


@pytest.mark.parametrize("from_call", [1, 2], ids=["before the restoration", "after it"])
def test_a_database_that_cannot_say_the_key_costs_no_photo(
    service: Service, monkeypatch: pytest.MonkeyPatch, from_call: int
) -> None:
    results = service.context.store.results
    photo_sha256: Callable[[str], str | None] = results.photo_sha256
    calls = itertools.count(1)

    def away(photo_id: str) -> str | None:
        if next(calls) >= from_call:
            raise Unavailable("database_unavailable", "Away.")
        return photo_sha256(photo_id)

    with monkeypatch.context() as patch:
        patch.setattr(results, "photo_sha256", away)
        restored(service)
    assert "cache" not in restored(service)["params"]  # the first result has no key
    assert restored(service)["params"]["cache"] == "hit"


def test_the_local_backend_names_the_files_that_run(fast_weights: Path) -> None:
    backend = open_local_backend(fast_weights, device="cpu", precision="fp32", allow_unverified=True)
    fast = RestoreOptions(quality="fast", face_enhance=False)
    facts = backend.result_facts(fast)
    assert facts is not None
    assert list(facts["files"]) == ["realesr-general-x4v3.pth"]
    assert len(facts["files"]["realesr-general-x4v3.pth"]) == 64
    assert backend.result_facts(RestoreOptions(model="no-such-model")) is None


@pytest.mark.parametrize("name", ["restoring.py", "coefficients.safetensors"])
def test_the_code_and_what_lies_beside_it_have_a_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.__file__", str(tmp_path / "__init__.py"))
    (tmp_path / name).write_bytes(b"1")
    (tmp_path / "notes.txt").write_bytes(b"1")
    first = code_version()
    (tmp_path / "notes.txt").write_bytes(b"2")
    assert code_version() == first
    (tmp_path / name).write_bytes(b"2")
    second = code_version()
    assert second != first
    monkeypatch.setattr("app.jobs.result_cache.metadata.version", lambda library: "9.9")
    assert code_version() not in (first, second)
