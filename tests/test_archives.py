"""ZIP archives as something to be attacked with: few at once, and each gives back what it holds, however it ends."""

from __future__ import annotations

import asyncio
import functools
import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import pytest
from starlette.types import Message

from app.api import archives
from app.api.connections import Connections
from app.images import Decoder
from app.storage import OpenedFile
from tests.harness import OWNER, Harness
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running
from tests.test_guard import Wire, call
from tests.test_keeping import open_files

EVERYTHING = "/api/v1/results"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two keys, two places for archives, and one for each owner."""
    with running(tmp_path_factory.mktemp("archives"), key=f"kay:user:{KEY},ops:admin:{OTHER_KEY}") as found:
        found.context.archiving = Connections(most=2, most_of_one=1)
        yield found


def finished_batch(service: Service) -> str:
    """The address of the archive of two finished photos."""
    sent = [("files", (name, photo())) for name in ("one.png", "two.png")]
    job_id = service.client.post("/enhance", files=sent).json()["job_id"]
    service.finish(job_id)
    return f"/api/v1/batch/{job_id}/results"


class SlowClient(Wire):
    """Takes the first bytes of an answer and then no more, until it reads on or leaves."""

    def __init__(self, service: Service, path: str) -> None:
        super().__init__()
        self._begun, self._goes_on, self._leaves = threading.Event(), asyncio.Event(), asyncio.Event()
        portal = service.client.portal
        assert portal is not None
        self._portal = portal
        ask = functools.partial(call, service.app, self, path, {"x-api-key": KEY}, "GET")
        self._answered: Future[None] = portal.start_task_soon(ask)
        assert self._begun.wait(10)

    async def receive(self) -> Message:
        if not self.read:
            self.read = 1
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body":
            self._begun.set()
            await self._goes_on.wait()

    def read_on(self) -> bytes:
        """The body to its end."""
        self._portal.call(self._goes_on.set)
        self._answered.result(10)
        return b"".join(message["body"] for message in self.sent[1:])

    def leave(self) -> None:
        """Close the connection, in the middle of the answer; harmless after its end."""
        self._portal.call(self._leaves.set)
        self._answered.result(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()


def open_results(service: Service) -> list[str]:
    return [name for name in open_files() if name.startswith(str(service.folder / "results"))]


@pytest.mark.parametrize("everything", [False, True])
def test_an_owner_who_takes_an_archive_slowly_gets_no_further_one_until_it_has_ended(
    service: Service, everything: bool
) -> None:
    path = finished_batch(service)
    path = EVERYTHING if everything else path
    with SlowClient(service, path) as slow:
        for refused in (service.client.get(path), service.client.get(EVERYTHING)):
            assert "ZIP" in assert_problem(refused, 429, "too_many_archives")["detail"]
            assert refused.headers["retry-after"] == str(archives.RETRY_SECONDS)
        with zipfile.ZipFile(io.BytesIO(slow.read_on())) as archive:
            assert archive.testzip() is None
    assert service.context.archiving.total == 0
    assert service.client.get(path).status_code == 200


def test_all_owners_together_have_so_many_places(service: Service) -> None:
    path, places = finished_batch(service), service.context.archiving
    with places.acquire("a third owner"), SlowClient(service, path):
        other = service.client.get(EVERYTHING, headers={"X-API-KEY": OTHER_KEY})
        assert_problem(other, 429, "too_many_archives")
    with places.acquire("a third owner"):
        assert service.client.get(path).status_code == 200


def test_who_leaves_in_the_middle_gives_the_place_and_the_files_back(service: Service) -> None:
    path = finished_batch(service)
    with SlowClient(service, path) as slow:
        assert slow.status == 200
        assert open_results(service)
        assert service.context.archiving.total == 1
    assert service.context.archiving.total == 0
    assert not open_results(service)


def test_an_archive_that_fails_before_its_first_byte_gives_the_place_back(service: Service) -> None:
    path = finished_batch(service)
    attempts = service.client.get(path.removesuffix("/results")).json()["attempts"]
    (service.folder / attempts[1]["result"]["url"].replace("/processed/", "results/")).unlink()
    assert_problem(service.client.get(path), 404, "result_not_found")
    assert_problem(service.client.get(EVERYTHING + "?before=nothing"), 404, "job_not_found")
    assert service.context.archiving.total == 0
    assert service.client.delete(path.removesuffix("/results").replace("batch", "jobs")).is_success


def test_each_file_of_an_archive_is_closed_as_soon_as_it_is_out(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, None, decoder)
    harness.open()
    photos = [photo(30 + number, 20, "JPEG") for number in range(3)]
    job = harness.submit(*photos)
    for attempt in job.attempts:
        harness.runner.run_attempt(attempt.id)
    opened: list[OpenedFile] = []
    open_result = harness.storage.open_result

    def noting(name: str, *, prefetch: bool = True) -> OpenedFile:
        opened.append(open_result(name, prefetch=prefetch))
        return opened[-1]

    monkeypatch.setattr(harness.storage, "open_result", noting)
    answer = archives.archive_response(harness.storage, [harness.store.job(OWNER, job.id)], "a.zip")
    assert [one.file.closed for one in opened] == [False] * 3

    async def open_after_each_part() -> list[int]:
        return [sum(not one.file.closed for one in opened) async for _ in answer.body_iterator]

    counts = asyncio.run(open_after_each_part())
    assert (sorted(set(counts), reverse=True), counts == sorted(counts, reverse=True)) == ([3, 2, 1, 0], True)
    harness.close()
