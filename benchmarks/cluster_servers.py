"""What a cluster consists of, each part a real server on loopback that a campaign may kill, freeze and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx2
import psutil

from app.store import SqlStore
from benchmarks.cluster_node import Node
from benchmarks.wall_clock import fixed_clock
from tests import nginx, postgres_server, s3_servers
from tests.provider_stand_in import StandIn

START_SECONDS = 120.0
API_SERVERS, WORKERS = 2, 3


class Part(Protocol):
    """One part of a cluster."""

    name: str

    def kill(self) -> None:
        """SIGKILL, and start it again."""
        ...

    def processes(self) -> list[psutil.Process]:
        """All of its processes."""
        ...


def freeze(part: Part, seconds: float) -> None:
    """Stop a part in its tracks for so long."""
    stopped = part.processes()
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    time.sleep(seconds)
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class Postgres:
    """PostgreSQL of the tests."""

    name = "postgres"

    def __init__(self) -> None:
        reason = postgres_server.missing()
        if reason is not None:
            raise SystemExit(reason)
        self.server = postgres_server.PostgresServer()
        self.server.start()

    def kill(self) -> None:
        """See `Part`."""
        self.server.kill()
        self.server.start()

    def processes(self) -> list[psutil.Process]:
        """See `Part`."""
        running = self.server._process
        return [] if running is None else _family(running.pid)


class S3:
    """SeaweedFS of the tests."""

    name = "s3"

    def __init__(self, folder: Path) -> None:
        self.server = s3_servers.SeaweedFS(folder)
        self.server.start()
        self.server.wait_until_it_takes()

    def kill(self) -> None:
        """See `Part`."""
        self.server.kill()
        self.server.start()

    def processes(self) -> list[psutil.Process]:
        """See `Part`."""
        return [process for running in self.server._processes for process in _family(running.pid)]


class Redis:
    """Debian's Redis with its log of writes, as docs/cluster.md asks for."""

    name = "redis"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("Redis is not installed (apt-get install redis-server)")
        (port,) = s3_servers.free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = folder
        self._command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """See `Part`."""
        self.end()
        self._process = self._start()

    def end(self) -> None:
        """SIGKILL for good."""
        self._process.kill()
        self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """See `Part`."""
        return _family(self._process.pid)


class Server:
    """A supervised process of the service. Every second kill is that of a power cut: its supervisor dies too."""

    def __init__(self, name: str, node: Node, port: int, environment: Mapping[str, str]) -> None:
        self.name, self.port = name, port
        self._node, self._environment = node, {**os.environ, **environment}
        self._kills = 0
        Path(node.folder).mkdir(parents=True, exist_ok=True)
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.cluster_node", "supervise", self._node.words()]
        with (Path(self._node.folder) / "log").open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """See `Part`."""
        self._kills += 1
        if self._kills % 2:
            for child in psutil.Process(self._process.pid).children():
                child.kill()
        else:
            self.end()
            self._process = self._start()

    def end(self) -> None:
        """SIGKILL for good, the supervisor first so that it starts nobody again."""
        for process in _family(self._process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """See `Part`."""
        return _family(self._process.pid)

    def is_ready(self) -> bool:
        """Whether it says so."""
        with contextlib.suppress(httpx2.HTTPError):
            url, key = f"http://127.0.0.1:{self.port}/health/ready", str(self._node.settings["key"]).split(",")[0]
            return httpx2.get(url, headers={"X-API-KEY": key}, timeout=5).status_code == 200
        return False


class Cluster:
    """All parts together; `url` is that of Nginx."""

    def __init__(self, url: str, parts: Sequence[Part], servers: Sequence[Server], database_url: str) -> None:
        self.url, self.parts, self.servers, self.database_url = url, parts, servers, database_url

    def await_ready(self) -> None:
        """Until every API server answers that it is ready, and every worker reports."""
        deadline = time.monotonic() + START_SECONDS
        servers = [server for server in self.servers if server.name.startswith("api")]
        with contextlib.closing(SqlStore(self.database_url)) as store:
            store.open()
            workers = len(self.servers) - len(servers)
            while not all(server.is_ready() for server in servers) or len(store.workers.live()) < workers:
                if time.monotonic() > deadline:
                    raise SystemExit("not every server became ready; see the logs")
                time.sleep(0.5)


def _shared_settings(database_url: str, s3_url: str, broker_url: str, keys: Sequence[str]) -> dict[str, Any]:
    """What every server of a cluster is started with."""
    return {
        "database_url": database_url,
        "storage_url": f"s3://{s3_servers.BUCKET}/campaign",
        "s3_endpoint_url": s3_url,
        "s3_addressing_style": "path",
        "key": ",".join(keys),
        "queue_limit": 1000,
        "queue_limit_per_owner": 1000,
        "siliconflow_concurrency": 4,
        "broker_url": broker_url,
    }


@contextlib.contextmanager
def running_cluster(
    folder: Path,
    keys: Sequence[str],
    stand_in: StandIn,
    *,
    seconds: float,
    clocks_apart_seconds: float,
    workers: int = WORKERS,
) -> Iterator[Cluster]:
    """Start everything; with clocks apart, one API server and one worker live so many seconds in the future."""
    with contextlib.ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.server.remove)
        for name in ("s3", "redis", "nginx"):
            (folder / name).mkdir()
        s3 = S3(folder / "s3")
        stack.callback(s3.server.kill)
        redis = Redis(folder / "redis")
        stack.callback(redis.end)
        ports = s3_servers.free_ports(2 * (API_SERVERS + workers) + 1)
        shared = _shared_settings(postgres.server.new_database(), s3.server.url, redis.url, keys)
        provider = (int(stand_in._api.server_address[1]), int(stand_in._store.server_address[1]))
        names = [f"api-{n + 1}" for n in range(API_SERVERS)] + [f"worker-{n + 1}" for n in range(workers)]
        servers = []
        for number, name in enumerate(names):
            port, pages = ports[2 * number], ports[2 * number + 1]
            node = Node(
                str(folder / name),
                {**shared, "port": port, "dashboard_port": pages},
                seconds,
                provider,
                not name.startswith("api"),
            )
            ahead = clocks_apart_seconds if name in ("api-2", "worker-2") else 0.0
            servers.append(Server(name, node, port, {**s3_servers.CREDENTIALS, **fixed_clock(ahead, folder)}))
            stack.callback(servers[-1].end)
        api, pages_of_api = ports[0 : 2 * API_SERVERS : 2], ports[1 : 2 * API_SERVERS : 2]
        configuration = nginx.render(folder / "nginx", ports[-1], api, pages_of_api)
        stack.enter_context(nginx.running(configuration, ports[-1]))
        cluster = Cluster(f"http://127.0.0.1:{ports[-1]}", [postgres, s3, redis], servers, str(shared["database_url"]))
        cluster.await_ready()
        yield cluster


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    """Run beside the caller."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
