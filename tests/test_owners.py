"""`run.py owners`: whose key is gone, and what becomes of the photos that its owner kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.auth.api_keys import ApiKeys, NamedKey
from app.commands import dispatch
from app.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from app.store import SqlStore
from tests.databases import IMPLEMENTATIONS
from tests.http_service import KEY, OTHER_KEY
from tests.test_store_contract import add, finish, first, photo

PLENTY = 1_000_000


def owner_of(key: str) -> str:
    caller = ApiKeys([NamedKey(key)]).caller_of_key(key.encode())
    assert caller is not None
    return caller.owner


GONE, HERE = owner_of(KEY), owner_of(OTHER_KEY)


@pytest.fixture(params=IMPLEMENTATIONS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which a key that is not set any more keeps a job, and of which a library holds the same photo."""
    address = IMPLEMENTATIONS[request.param](tmp_path)
    monkeypatch.chdir(tmp_path)  # a command goes to its project's folder
    monkeypatch.setenv("DATABASE_URL", address)
    monkeypatch.setenv("API_KEY", f"kay:{OTHER_KEY}")
    for store in opened(address):
        job = add(store, owner=GONE)
        finish(store, first(job))
        store.keeping.keep(GONE, job.id, PLENTY, 5.0)
        for owner in (GONE, HERE):
            store.library.add(owner, photo(), 6.0)
    return address


def opened(address: str) -> Iterator[SqlStore]:
    store = SqlStore(address)
    store.open()
    yield store
    store.close()


def run(tmp_path: Path, *words: str) -> int:
    return dispatch.main(["owners", *words], tmp_path)


def test_the_list_says_whose_key_is_gone(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == EXIT_OK
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows[GONE][:5] == ["no", "key", "1", "1", "2"]
    assert rows[HERE][:4] == ["kay", "0", "0", "1"]


def test_what_a_lost_key_kept_can_be_let_go(url: str, tmp_path: Path) -> None:
    assert run(tmp_path, "let-go", GONE) == EXIT_OK
    for store in opened(url):
        assert not store.jobs(GONE, 1)[0].kept
        assert store.expire(before=1.0).jobs == ()  # its retention counts from now
        assert len(store.expire(before=1e12).jobs) == 1


def test_everything_is_handed_over_to_the_key_that_came_after(url: str, tmp_path: Path) -> None:
    assert run(tmp_path, "hand-over", GONE, "kay") == EXIT_OK
    for store in opened(url):
        assert store.jobs(GONE, 9) == []
        assert [job.kept for job in store.jobs(HERE, 9)] == [True]
        assert store.library.photos(GONE, 9) == []
        assert len(store.library.photos(HERE, 9)) == 1  # equal bytes of one owner are one photo


@pytest.mark.parametrize(
    "words", [("let-go",), ("let-go", "nobody"), ("hand-over", GONE), ("hand-over", GONE, "nobody"), ("list", "x")]
)
def test_what_names_no_owner_changes_nothing(url: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(tmp_path, *words) == EXIT_USAGE
    for store in opened(url):
        assert store.jobs(GONE, 1)[0].kept


def test_a_running_service_keeps_its_sqlite_file_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    monkeypatch.setenv("DATABASE_URL", address)
    monkeypatch.chdir(tmp_path)
    for _ in opened(address):
        assert run(tmp_path) == EXIT_FAILED
    assert capsys.readouterr().err
