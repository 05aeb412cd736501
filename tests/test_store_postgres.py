"""PostgreSQL beyond the contract: types that hold, isolation, what its errors become, and a server that goes away."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, func, select, text, update

from app.errors import Conflict, Internal, NotFound, Unavailable
from app.store import SqlStore, may_be_committed, migration, photo_transitions, postgres
from app.store.locks import AdvisoryLock, hold
from app.store.postgres import PostgresDatabase
from app.store.schema import VERSION, attempts, photos
from tests.databases import Clock, needs_postgres
from tests.harness import until
from tests.postgres_server import PostgresServer, shared_server
from tests.test_store_contract import ME, add, finish, first, photo, result, status_of

pytestmark = needs_postgres


@pytest.fixture
def url() -> str:
    return shared_server().new_database()


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    opened = SqlStore(url)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def database(url: str) -> Iterator[PostgresDatabase]:
    opened = PostgresDatabase(url)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One of its own, to be killed."""
    own = PostgresServer()
    own.start()
    yield own
    own.remove()


def with_options(url: str, options: str) -> str:
    """The address with further options for the server."""
    return f"{url}%20{options.replace(' ', '%20').replace('=', '%3D')}"


# Values.


def test_sizes_beyond_two_gigabytes_and_long_names_are_kept(store: SqlStore) -> None:
    large = dataclasses.replace(photo(), bytes=3 << 30, name="ä" * 5000)
    job = store.add_job(ME, [large], '{"prompt": "' + "x" * 100_000 + '"}', "local", 9, 1.0)
    store.claim(first(job), "t", 1.0)
    said = dataclasses.replace(result(first(job)), bytes=5 << 30, model="m" * 300)
    assert store.complete(first(job), "t", said, 2.0)
    done = store.job(ME, job.id).attempts[0]
    assert (done.photo_bytes, done.result_bytes) == (3 << 30, 5 << 30)
    assert (done.model, done.original_filename) == ("m" * 300, "ä" * 5000)


def test_text_that_the_database_cannot_hold_is_marked_and_ids_with_it_name_nothing(store: SqlStore) -> None:
    odd = "a\x00b\ud800c"
    job = store.add_job(ME, [dataclasses.replace(photo(), name=odd)], "{}", "local", 9, 1.0)
    store.claim(first(job), "t", 1.0)
    assert store.fail(first(job), "t", "code", odd, 2.0)
    failed = store.job(ME, job.id).attempts[0]
    assert (failed.original_filename, failed.error_message) == ("a\ufffdb\ufffdc", "ab?c")
    for call in (store.job, store.result_attempt, store.library.photo):
        with pytest.raises(NotFound):
            call(ME, f"{job.id}\x00")
    with pytest.raises(NotFound):
        store.jobs(ME, 5, before=f"{job.id}\x00")
    assert store.attempt(f"{first(job)}\x00") is None
    assert store.claim("\ud800", "t", 1.0) is None


def test_times_are_kept_exactly(store: SqlStore) -> None:
    moment = 1_764_067_931.123456
    assert store.job(ME, add(store, now=moment).id).created_at == moment


def test_the_clock_of_leases_is_the_servers(store: SqlStore) -> None:
    claimed = store.claim(first(add(store)), "t", 5.0)
    assert claimed is not None
    assert claimed.lease_until is not None
    with create_engine(shared_server().new_database()).connect() as connection:
        now = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    assert 0 <= float(now) + 60.0 - claimed.lease_until < 30


# Transactions.


def test_a_reading_transaction_sees_one_state_and_changes_nothing(store: SqlStore, database: PostgresDatabase) -> None:
    add(store)
    count = select(func.count()).select_from(photos)

    def read(connection: Connection) -> tuple[int, int]:
        before = connection.execute(count).scalar_one()
        add(store)
        return before, connection.execute(count).scalar_one()

    assert database.read(read) == (1, 1)
    with pytest.raises(Unavailable) as refused:
        database.read(lambda connection: connection.execute(update(photos).values(name="x")))
    assert refused.value.code == "database_unwritable"
    assert database.write(read) == (2, 3)  # a writing one sees what was committed meanwhile


def test_a_single_statement_needs_neither_a_transaction_nor_a_ping(
    store: SqlStore, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings: list[object] = []
    engine = database._opened().shared
    ping = engine.dialect.do_ping

    def counted(connection: Any) -> bool:
        pings.append(connection)
        return ping(connection)

    monkeypatch.setattr(engine.dialect, "do_ping", counted)
    for _ in range(20):
        assert database.read_statement(_autocommits)
    assert not database.write(_autocommits)
    assert not database.read(_autocommits)
    assert len(pings) < 5  # a connection that was used just now is alive; on a busy machine some look older
    monkeypatch.setattr(postgres, "_TRUSTED_SECONDS", -1.0)
    before = len(pings)
    database.read_statement(_autocommits)
    assert len(pings) == before + 1


def test_a_server_that_vanished_is_noticed_whether_data_is_on_its_way_or_not(database: PostgresDatabase) -> None:
    def parameters(connection: Connection) -> dict[str, str]:
        driver: Any = connection.connection.dbapi_connection
        return dict(driver.info.get_parameters())

    for call in (database.read, database.write, database.write_apart):
        used = call(parameters)
        idle = [int(used[f"keepalives_{name}"]) for name in ("idle", "interval", "count")]
        assert idle[0] + idle[1] * idle[2] <= 30
        assert 0 < int(used["tcp_user_timeout"]) <= 30_000  # else TCP sends again for a quarter of an hour


def _autocommits(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.autocommit)


def test_a_deadlock_is_tried_once_more(store: SqlStore, database: PostgresDatabase) -> None:
    ids = [first(add(store)) for _ in range(2)]
    both_hold_one = threading.Barrier(2)
    calls: list[str] = []

    def lock(order: list[str]) -> None:
        def work(connection: Connection) -> None:
            calls.append(order[0])
            connection.execute(update(attempts).where(attempts.c.id == order[0]).values(stage="x"))
            if len(calls) <= 2:
                both_hold_one.wait(10)
            connection.execute(update(attempts).where(attempts.c.id == order[1]).values(stage="x"))

        database.write(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lock, [ids, ids[::-1]]))
    assert len(calls) == 3
    assert {getattr(store.attempt(attempt_id), "stage", None) for attempt_id in ids} == {"x"}


def waits_for_a_lock(url: str) -> bool:
    """Whether some transaction on the server waits for another one's lock."""
    with create_engine(url).connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(connection.execute(text(query)).scalar_one())


def test_a_photo_about_to_be_restored_is_not_archived_or_removed(url: str, store: SqlStore) -> None:
    kept, _ = store.library.add(ME, photo(), 1.0)
    for call in (lambda: store.library.archive(ME, kept.id, 3.0), lambda: store.library.remove(ME, kept.id)):
        job, _ = store.restore_photo(ME, kept.id, "{}", "local", 9, 1.0)
        finish(store, first(job))
        with ThreadPoolExecutor(1) as pool:

            def restore(connection: Connection, call: Callable[[], object] = call) -> Future[object]:
                photo_transitions.restore(connection, ME, kept.id, "{}", "local", 9, 2.0)
                other = pool.submit(call)
                until(lambda: other.done() or waits_for_a_lock(url))
                return other

            with pytest.raises(Conflict) as refused:
                store._database.write(restore).result(20)
        assert refused.value.code == "photo_busy"
        for active in store.jobs(ME, 1):
            store.cancel_or_remove(ME, active.id, 4.0)


def test_the_next_attempt_is_another_one_while_the_first_is_about_to_be_claimed(store: SqlStore) -> None:
    ids = [first(add(store)) for _ in range(2)]

    def work(connection: Connection) -> None:
        connection.execute(select(attempts.c.id).where(attempts.c.id == ids[0]).with_for_update())
        claimed = store.claim_next("t", 1.0, first=ids[0])
        assert claimed is not None
        assert claimed.id == ids[1]
        assert store.claim_next("u", 1.0) is None

    store._database.write(work)


def test_a_row_that_is_written_twice_is_an_error_the_second_time(store: SqlStore) -> None:
    twice = photo()
    with pytest.raises(Exception, match="duplicate key"):
        store.add_job(ME, [photo(), twice, twice], "{}", "local", 100, 1.0)
    assert store.named_files.photo_ids() == set()
    assert store.jobs(ME, 9) == []


def test_one_janitor_and_one_sweep_at_a_time(url: str, database: PostgresDatabase) -> None:
    clock = Clock()
    store = SqlStore(url, clock=clock)
    store.open()
    finish(store, first(add(store)), now=1.0)
    lost = first(add(store))
    store.claim(lost, "t", 1.0)
    clock.now += 100

    def meanwhile(connection: Connection) -> None:
        hold(connection, AdvisoryLock.EXPIRY)
        hold(connection, AdvisoryLock.LEASE_SWEEP)
        assert store.expire(before=50.0).jobs == ()
        assert store.sweep_leases(2.0).lapsed == ()

    database.write(meanwhile)
    assert len(store.expire(before=50.0).jobs) == 1
    assert store.sweep_leases(2.0).lapsed == (lost,)
    store.close()


def test_a_start_touches_no_run_of_another_process(url: str, store: SqlStore) -> None:
    running, waiting = first(add(store)), first(add(store))
    store.claim(running, "of the first", 1.0)
    second = SqlStore(url)
    second.open()
    assert second.recover(2.0) == [waiting]
    assert second.sweep_leases(2.0).lapsed == ()
    assert store.holds(running, "of the first")
    assert store.complete(running, "of the first", result(running), 3.0)
    assert status_of(second, running) == "completed"
    second.close()


def test_a_death_that_a_supervisor_saw_burns_a_try_of_its_own_worker_only(url: str, store: SqlStore) -> None:
    held, names = [], ("host:mark:7", "host:other:7", "host:7")
    for name in names:
        other = SqlStore(url, worker=name)
        other.open()
        held.append(first(add(other)))
        assert other.claim(held[-1], name, 1.0) is not None
        other.close()
    assert store.recover(2.0, burn_try=False, predecessors="host:mark:") == []
    assert store.recover(2.0, burn_try=True, predecessors="") == []
    assert store.recover(2.0, burn_try=True, predecessors="host:mark:") == held[:1]
    assert [store.holds(*run) for run in zip(held, names, strict=True)] == [False, True, True]
    again = SqlStore(url, worker="host:mark:8")
    again.open()
    for token in "bc":
        assert again.claim(held[0], token, 3.0) is not None
        again.recover(4.0, burn_try=True, predecessors="host:mark:")
    again.close()
    assert (status_of(store, held[0]), getattr(store.attempt(held[0]), "error_code", "")) == (
        "failed",
        "worker_crashed",
    )


def test_a_heartbeat_does_not_wait_for_the_pool(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt_id = first(add(store))
    store.claim(attempt_id, "t", 1.0)
    taken, go = threading.Semaphore(0), threading.Event()

    def occupy(_: int) -> None:
        def work(connection: Connection) -> None:
            connection.execute(select(1))
            taken.release()
            assert go.wait(20)

        store._database.read(work)

    with ThreadPoolExecutor(postgres.POOL_CONNECTIONS) as pool:
        done = [pool.submit(occupy, number) for number in range(postgres.POOL_CONNECTIONS)]
        for _ in range(postgres.POOL_CONNECTIONS):
            assert taken.acquire(timeout=20)
        assert store.renew_leases(["t"]) == {"t"}
        go.set()
        for each in done:
            each.result()


# What errors become.


def test_a_lock_or_a_statement_that_takes_too_long_is_busy(url: str, store: SqlStore) -> None:
    attempt_id = first(add(store))
    hasty = PostgresDatabase(with_options(url, "-c lock_timeout=100ms -c statement_timeout=300ms"))
    hasty.open()
    row = attempts.c.id == attempt_id

    def meanwhile(connection: Connection) -> None:
        connection.execute(update(attempts).where(row).values(stage="x"))
        with pytest.raises(Unavailable) as refused:
            hasty.write(lambda other: other.execute(update(attempts).where(row).values(stage="y")))
        assert refused.value.code == "database_busy"

    store._database.write(meanwhile)
    with pytest.raises(Unavailable) as refused:
        hasty.read(lambda connection: connection.execute(select(func.pg_sleep(5))))
    assert refused.value.code == "database_busy"
    hasty.close()


def test_a_pool_without_a_free_connection_is_busy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "POOL_CONNECTIONS", 1)
    monkeypatch.setattr(postgres, "POOL_TIMEOUT_SECONDS", 0.05)
    small = SqlStore(url)
    small.open()

    def nested(connection: Connection) -> None:
        connection.execute(select(1))
        small.counts()

    with pytest.raises(Unavailable) as refused:
        small._database.read(nested)
    assert refused.value.code == "database_busy"
    small.close()


def test_a_server_that_was_killed_is_told_and_used_again_once_it_is_back(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TRUSTED_SECONDS", 0.0)  # a tiny database may be back within the usual time
    store = SqlStore(server.new_database())
    store.open()
    job = add(store)
    server.kill()
    server.start()
    assert store.job(ME, job.id) == job  # the dead connection in the pool is noticed before it is used
    server.kill()
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            add(store)
        assert refused.value.code == "database_unavailable"
    server.start()
    assert store.job(ME, job.id) == job
    add(store)
    store.close()


def test_a_server_that_dies_within_a_transaction_leaves_nothing_of_it(server: PostgresServer) -> None:
    store = SqlStore(server.new_database())
    store.open()

    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO jobs (id, owner, created_at, options_json) VALUES ('j', 'me', 1, '{}')"))
        server.kill()
        connection.execute(select(1))

    with pytest.raises(Unavailable) as refused:
        store._database.write(work)
    assert refused.value.code == "database_unavailable"
    server.start()
    assert store.jobs(ME, 9) == []
    store.close()


def test_a_commit_whose_answer_was_lost_is_told_as_one_that_may_stand(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(dialect: Any, connection: Any) -> None:
        connection.commit()
        raise dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.dialects.postgresql.psycopg.PGDialect_psycopg.do_commit", lose)
        with pytest.raises(Unavailable) as refused:
            add(store)
    assert may_be_committed(refused.value)
    (job,) = store.jobs(ME, 9)
    assert store.queued_ids() == [first(job)]


# Opening.


def test_opening_waits_for_a_server_that_is_starting(server: PostgresServer) -> None:
    url = server.new_database()
    server.stop()
    store = SqlStore(url)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(store.open)
        assert not opening.done()
        server.start()
        opening.result(20)
    add(store)
    store.close()


def test_a_server_that_does_not_come_is_told_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "OPEN_PATIENCE_SECONDS", 0.0)
    secret = "very-secret-word"
    store = SqlStore(f"postgresql+psycopg://me:{secret}@127.0.0.1:1/jobs")
    with pytest.raises(Unavailable, match="check that PostgreSQL runs") as refused:
        store.open()
    assert refused.value.code == "database_unavailable"
    assert secret not in refused.value.detail


def test_a_user_without_rights_is_told(url: str) -> None:
    with create_engine(url).begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS guest"))
        connection.execute(text("CREATE ROLE guest LOGIN"))
    with pytest.raises(Internal) as refused:
        SqlStore(url.replace("postgres@", "guest@")).open()
    assert refused.value.code == "database_refused"


def test_many_processes_that_open_an_empty_database_make_its_tables_once(url: str) -> None:
    stores = [SqlStore(url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for opened in [pool.submit(store.open) for store in stores]:
            opened.result()
    add(stores[0])
    assert all(store.counts().queued == 1 for store in stores)
    with create_engine(url).connect() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalars().all() == [VERSION]
    for store in stores:
        store.close()


def test_an_earlier_version_gets_its_columns_and_a_later_one_is_refused(url: str, store: SqlStore) -> None:
    job = add(store)
    store.close()
    with create_engine(url).begin() as connection:
        connection.execute(text("ALTER TABLE attempts DROP COLUMN lease_until, DROP COLUMN worker"))
        connection.execute(text("UPDATE schema_version SET version = 2"))
    store.open()
    assert store.job(ME, job.id) == job
    assert store.claim(first(job), "t", 1.0) is not None
    store.close()
    with create_engine(url).begin() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == VERSION
        connection.execute(text("UPDATE schema_version SET version = 99"))
    with pytest.raises(Internal) as refused:
        store.open()
    assert refused.value.code == "database_newer"


@pytest.mark.parametrize(("version", "silent_seconds", "opens"), [(6, 0, False), (6, 21, True), (7, 0, True)])
def test_workers_that_know_no_receipts_are_not_worked_beside(
    version: int, silent_seconds: int, opens: bool, url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that took over a photo which a provider was paid for would pay again."""
    store.workers.report("old-host:7", "old-host", {})
    store.close()
    with create_engine(url).begin() as connection:
        connection.execute(text("ALTER TABLE attempts DROP COLUMN receipts_json"))
        connection.execute(text(f"UPDATE schema_version SET version = {version}"))
        connection.execute(text(f"UPDATE workers SET seen_at = seen_at - {silent_seconds}"))
    monkeypatch.setattr("app.store.postgres.OPEN_PATIENCE_SECONDS", 0.0)
    if not opens:
        with pytest.raises(Unavailable) as refused:
            store.open()
        assert refused.value.code == "older_workers"
        assert "old-host:7" in refused.value.detail
        with create_engine(url).begin() as connection:  # nothing was changed, so the older workers work on
            assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == version
            connection.execute(text("DELETE FROM workers"))  # as one does that is stopped
    store.open()
    assert store.claim(first(add(store)), "t", 1.0) is not None


def test_a_change_of_tables_that_breaks_off_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Connection) -> None:
        raise RuntimeError("the machine stops here")

    with monkeypatch.context() as patch:
        patch.setattr(migration, "add_columns", broken)
        with pytest.raises(RuntimeError):
            SqlStore(url).open()
    with create_engine(url).connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"))
        assert found.scalar_one() == 0


def test_a_closed_store_says_so_and_can_be_opened_again(store: SqlStore) -> None:
    job = add(store)
    store.close()
    store.close()
    with pytest.raises(Unavailable) as refused:
        store.counts()
    assert refused.value.code == "store_closed"
    store.open()
    assert store.job(ME, job.id) == job


# What the default mode has nothing of.


def run(script: str) -> str:
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_sqlite_loads_nothing_of_postgresql() -> None:
    script = """
import sys, app.main, app.commands.dispatch
from app.store import SqlStore
store = SqlStore("sqlite://"); store.open(); store.counts(); store.close()
others = ("psycopg", "psycopg_binary", "celery", "redis", "boto3", "modal")
print([name for name in sys.modules if name.split(".")[0] in others or name == "app.store.postgres"])
"""
    assert run(script).strip() == "[]"


def test_a_missing_driver_is_told_with_the_remedy() -> None:
    script = """
import sys
sys.modules["psycopg"] = None
from app.errors import Internal
from app.store import SqlStore
try:
    SqlStore("postgresql+psycopg://me@localhost/jobs").open()
except Internal as error:
    print(error.code, error.detail)
"""
    said = run(script)
    assert said.startswith("database_driver_missing")
    assert "requirements-cluster.txt" in said
