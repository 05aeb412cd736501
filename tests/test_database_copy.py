"""`run.py database copy`: rows go over whole, and the service goes on with them; every doubtful case is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from app.commands import dispatch
from app.store import AttemptStatus, SqlStore, copying
from app.store.schema import metadata
from tests import old_database
from tests.databases import needs_postgres
from tests.postgres_server import shared_server
from tests.test_store_contract import ME, add, finish, first, photo

pytestmark = needs_postgres


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A stopped service's database: jobs in every state, and a photo of the library that was restored."""
    path = tmp_path / "old" / "jobs.sqlite3"
    store = SqlStore(f"sqlite:///{path}")
    store.open()
    for _ in range(3):
        for attempt in add(store, photos=2).attempts:
            finish(store, attempt.id)
    kept, _ = store.library.add(ME, photo(), 1.0)
    job, _ = store.restore_photo(ME, kept.id, "{}", "local", 9, 1.0)
    finish(store, first(job))
    store.library.select(ME, kept.id, first(job), 2.0)
    store.cancel_or_remove(ME, add(store).id, 3.0)
    store.claim(first(add(store)), "killed", 4.0)
    add(store)
    store.close()
    return path


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> str:
    url = shared_server().new_database()
    monkeypatch.setenv("DATABASE_URL", url)
    return url


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def opened(file: Path) -> Iterator[SqlStore]:
    """The old service."""
    store = SqlStore(f"sqlite:///{file}")
    store.open()
    yield store
    store.close()


def copy(file: Path, project: Path) -> int:
    return dispatch.main(["database", "copy", str(file)], project)


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, by table."""
    with create_engine(url).connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
            for table in metadata.sorted_tables
        }


def test_all_rows_go_over_as_they_are_and_the_service_goes_on(
    file: Path, target: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy(file, project) == 0
    assert "10 attempts" in capsys.readouterr().out
    assert everything(target) == everything(f"sqlite:///{file}")
    store = SqlStore(target)
    store.open()
    newest = store.jobs(ME, 1)[0]
    assert newest.status is AttemptStatus.QUEUED
    later = add(store)  # the numbers go on behind those that came along
    assert [job.id for job in store.jobs(ME, 2)] == [later.id, newest.id]
    assert store.queued_ids() == [first(newest), first(later)]
    (kept,) = store.library.photos(ME, 9)
    assert kept.selected_attempt_id == kept.attempts[0].id
    assert store.library.add(ME, photo(), 9.0)[1] is False  # the same bytes
    store.close()


def test_a_file_of_an_earlier_version_goes_over_too(target: str, project: Path) -> None:
    old_database.write(project / "first.sqlite3")
    assert copy(project / "first.sqlite3", project) == 0
    store = SqlStore(target)
    store.open()
    assert len(store.jobs("owner", 9)) == 4
    assert store.sweep_leases(1.0).lapsed != ()  # its killed run has no lease, so it counts as expired
    store.close()


def test_workers_that_report_already_are_neither_in_the_way_nor_overwritten(
    file: Path, target: str, project: Path
) -> None:
    for url in (f"sqlite:///{file}", target):
        store = SqlStore(url)
        store.open()
        store.workers.report("same", "host", {"database": url}, starting=True)
        store.close()
    assert copy(file, project) == 0
    store = SqlStore(target)
    store.open()
    assert [worker.report for worker in store.workers.live()] == [{"database": target}]
    assert len(store.jobs(ME, 99)) == 7
    store.close()


def test_a_running_service_is_left_alone(
    opened: SqlStore, file: Path, target: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy(file, project) == 1
    assert "stop it first" in capsys.readouterr().err


def test_a_database_with_rows_is_left_as_it_is(
    file: Path, target: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SqlStore(target)
    store.open()
    store.library.add(ME, photo(), 1.0)
    store.close()
    before = everything(target)
    assert copy(file, project) == 1
    assert "name an empty one" in capsys.readouterr().err
    assert everything(target) == before


def test_when_rows_are_missing_nothing_is_kept(
    file: Path, target: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = copying._copy_table

    def lossy(source: object, goal: object, table: object) -> None:
        whole(source, goal, table)  # type: ignore[arg-type]
        goal.execute(text("DELETE FROM attempts WHERE status = 'cancelled'"))  # type: ignore[attr-defined]

    monkeypatch.setattr(copying, "_copy_table", lossy)
    assert copy(file, project) == 1
    assert "nothing was kept" in capsys.readouterr().err
    assert all(rows == [] for rows in everything(target).values())


@pytest.mark.parametrize(
    ("url", "name", "said"),
    [("sqlite:///data/jobs.sqlite3", "jobs.sqlite3", "Set DATABASE_URL"), (None, "absent.sqlite3", "no database file")],
)
def test_what_cannot_be_meant_is_refused(
    file: Path,
    target: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str | None,
    name: str,
    said: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", url or target)
    assert copy(file.with_name(name), project) == 1
    assert said in capsys.readouterr().err
    assert not file.with_name("absent.sqlite3").exists()
