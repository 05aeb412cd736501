"""What a process may be with which settings, what it loads for that, and what `run.py status` says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.commands import status
from app.errors import Conflict
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_FAILED, EXIT_OK
from app.jobs.worker_reports import WorkerReport
from app.main.roles import ProcessRole, check_role, queues_of
from app.main.storage import open_storage
from app.main.worker_service import serve_metrics
from app.metrics import Metrics
from app.queue.names import QueueName, queue_of
from app.store import LiveWorker, SqlStore
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.http_service import free_port, settings_for

ROOT = Path(__file__).resolve().parents[1]
BROKER = "redis://127.0.0.1:1/0"
SHARED = {"database_url": "postgresql+psycopg://db/x", "broker_url": BROKER, "shared_folders": True}


@pytest.mark.parametrize("role", list(ProcessRole))
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**SHARED, "database_url": "sqlite:///x"}, "SQLite belongs to one process alone"),
        ({**SHARED, "shared_folders": False}, "SHARED_FOLDERS=true"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    role: ProcessRole, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(Conflict, match=words) as refused:
        check_role(settings_for(tmp_path, **changes), role)
    assert refused.value.code == "settings_conflict"
    for good in (SHARED, {**changes, **SHARED, "shared_folders": False, "storage_url": "s3://bucket"}):
        check_role(settings_for(tmp_path, **good), role)


def test_only_the_whole_service_does_without_a_broker(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    check_role(settings, ProcessRole.ALL)
    for role in (ProcessRole.API, ProcessRole.WORKER):
        with pytest.raises(Conflict, match="needs BROKER_URL"):
            check_role(settings, role)


def test_a_worker_serves_the_cloud_only_with_a_key(tmp_path: Path) -> None:
    without, with_key = settings_for(tmp_path), settings_for(tmp_path, siliconflow_api_key="k")
    assert queues_of(without, ()) == [QueueName.GPU]
    assert queues_of(with_key, ()) == [QueueName.GPU, QueueName.CLOUD]
    assert queues_of(with_key, [QueueName.CLOUD, QueueName.CLOUD]) == [QueueName.CLOUD]
    with pytest.raises(Conflict, match="SILICONFLOW_API_KEY"):
        queues_of(without, [QueueName.CLOUD])
    assert (queue_of("local"), queue_of("siliconflow")) == (QueueName.GPU, QueueName.CLOUD)


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh process has loaded after this code."""
    end = "; print('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}{end}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    return set(told.stdout.split())


OPTIONAL = {"celery", "kombu", "redis", "psycopg", "boto3", "botocore"}
BUILD = (
    "from pathlib import Path; from tests.http_service import settings_for; from app.main import create_app; "
    "app = create_app(settings_for(Path('/nowhere'), {changes}), restores=False)"
)


def test_nothing_of_several_machines_is_loaded_on_one() -> None:
    assert not loaded_by("import app.main") & (OPTIONAL | {"torch"})


def test_an_api_server_loads_no_torch_and_celery_only_for_a_broker() -> None:
    shared = "database_url='postgresql+psycopg://db/x', shared_folders=True"
    without = loaded_by(BUILD.format(changes=shared))
    assert not without & {"torch", "celery", "kombu"}
    with_broker = loaded_by(BUILD.format(changes=f"{shared}, broker_url='{BROKER}'"))
    assert "celery" in with_broker
    assert "torch" not in with_broker


def test_a_worker_of_the_cloud_loads_no_torch() -> None:
    code = (
        "from pathlib import Path; from tests.http_service import free_port, settings_for; "
        "from app.main.worker_service import WorkerService; from app.queue.names import QueueName; "
        f"settings = settings_for(Path('/nowhere'), siliconflow_api_key='k', **{SHARED!r}); "
        "lanes = WorkerService(settings, [QueueName.CLOUD]).restoring.worker.lanes; "
        "assert set(lanes) == {'siliconflow'}"
    )
    found = loaded_by(code)
    assert "celery" in found
    assert "torch" not in found


def test_a_worker_whose_port_for_metrics_is_taken_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = settings_for(tmp_path, worker_metrics_port=other.getsockname()[1])
        with pytest.raises(Conflict, match="WORKER_METRICS_PORT") as refused:
            serve_metrics(settings, Metrics())
    assert refused.value.code == "settings_conflict"
    serve_metrics(settings, Metrics())()


@pytest.mark.parametrize("word", ["api", "worker"])
def test_a_command_refuses_with_a_sentence_and_is_not_started_again(word: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{tmp_path}/jobs.sqlite3",
        "BROKER_URL": BROKER,
        "PORT": str(free_port()),
        "DASHBOARD_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "app.commands", word]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert (told.returncode, told.stderr.count("SQLite belongs to one process alone")) == (EXIT_BAD_SETTINGS, 1)


@pytest.mark.parametrize("shared", [False, True])
def test_runs_of_several_hosts_never_write_one_file(shared: bool, tmp_path: Path) -> None:
    storage = open_storage(settings_for(tmp_path, shared_folders=shared))
    names = {storage.name_of_run(f"{'a' * 32}.png", run * 32) for run in "12"}
    assert len(names) == (2 if shared else 1)


# run.py status


def worker(host: str, state: str) -> LiveWorker:
    return LiveWorker(f"{host}:1", host, 0.0, None, 1.0, WorkerReport(("local",), state).as_facts())


def test_a_host_is_well_by_its_own_living_workers() -> None:
    found = [worker("a", "busy"), worker("b", "failing")]
    assert status.is_well(found, "a")
    assert not status.is_well(found, "b")
    assert not status.is_well(found, "c")
    assert status.is_well(found, None)
    assert not status.is_well([], None)


@needs_postgres
def test_status_reads_workers_and_queue_from_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    monkeypatch.setattr(status, "read_settings", lambda: settings_for(tmp_path, database_url=url))
    assert status.run() == EXIT_FAILED
    assert "No worker is alive" in capsys.readouterr().out
    store = SqlStore(url)
    store.open()
    description = {"device": "cuda:0", "precision": "fp16", "models": [{"name": "small", "installed": True}]}
    report = WorkerReport(("local",), "busy", in_work=2, description=description)
    store.workers.report("elsewhere:1", "elsewhere", report.as_facts())
    store.close()
    assert (status.run(), status.run(any_host=True)) == (EXIT_FAILED, EXIT_OK)
    out = capsys.readouterr().out
    assert "elsewhere:1: busy, 2 in work, serves local" in out
    assert "device cuda:0, precision fp16\n  models small" in out
    assert "Queue: 0 waiting, 0 in work" in out


def test_status_sends_one_machine_to_its_own_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "read_settings", lambda: settings_for(tmp_path))
    assert status.run() == EXIT_BAD_SETTINGS
