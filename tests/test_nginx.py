"""`deploy/nginx.conf` in a real Nginx: accepted by `nginx -t`, and run before two real servers that die under it."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from app.api.middleware.access_control import AccessRules
from app.api.prefer_wait import LONGEST_WAIT_SECONDS
from app.api.routes import damage, jobs, photos, previews
from app.main import create_app
from app.main.serving import KEEP_ALIVE_SECONDS
from app.setting_values import usual_file_megabytes
from app.settings import Settings
from tests import nginx
from tests.databases import needs_postgres
from tests.harness import until
from tests.http_service import KEY, assert_problem, photo, settings_for
from tests.postgres_server import shared_server
from tests.s3_servers import BUCKET, S3Server, free_ports

ROOT = Path(__file__).resolve().parents[1]
TEXT = nginx.CONFIGURATION.read_text(encoding="utf-8")
MEGABYTE = 1024 * 1024
MASK_OF_NO_JOB = damage.DAMAGE.format(job_id="0" * 32)


def seconds_of(directive: str) -> int:
    """The value of a directive that stands once, in seconds."""
    (value,) = [line.split()[1].rstrip(";") for line in TEXT.splitlines() if line.split()[:1] == [directive]]
    return int(value.removesuffix("s"))


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    told = nginx.check(nginx.render(tmp_path, free_ports(1)[0], [1, 2], [3, 4]))
    assert "syntax is ok" in told
    assert "[warn]" not in told


def test_the_numbers_fit_those_of_the_service() -> None:
    assert seconds_of("proxy_read_timeout") > LONGEST_WAIT_SECONDS
    assert TEXT.count(f"keepalive_timeout {KEEP_ALIVE_SECONDS - 5}s;") == 2
    fields = Settings.model_fields
    largest = usual_file_megabytes(alone=False) * fields["max_batch_size"].default
    assert f"client_max_body_size    {largest + 2}m;" in TEXT


def location_of(path: str) -> str:
    """What the configuration says of an address: the block of the first pattern that finds it, as Nginx chooses."""
    blocks = re.findall(r"\n( +)location ~ (\S+) \{\n(.*?)\n\1\}", TEXT, re.DOTALL)
    return next((block for _, pattern, block in blocks if re.search(pattern, path)), "")


def takes_a_file(call: dict[str, Any]) -> bool:
    """Whether the body of a call is anything but a few fields."""
    kinds = set(call.get("requestBody", {}).get("content", ()))
    return bool(kinds - {"application/json", "application/x-www-form-urlencoded"})


def test_every_call_that_takes_a_file_is_an_upload_and_no_other(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path))
    calls = [(path, call) for path, methods in app.openapi()["paths"].items() for call in methods.values()]
    uploads = {path for path, call in calls if takes_a_file(call)}
    assert uploads >= {jobs.SIMPLE_SUBMIT, jobs.SUBMIT_BATCH, photos.UPLOAD, previews.PREVIEW, damage.DAMAGE}
    layers = [layer.kwargs.get("rules") for layer in app.user_middleware]
    (rules,) = [found for found in layers if isinstance(found, AccessRules)]
    assert set(rules.submit_limits) == uploads  # all that may send more than a few fields
    for path, _ in calls:
        block = location_of(re.sub(r"\{\w+\}", "0" * 32, path))
        assert ("proxy_request_buffering off;" in block) is (path in uploads), path
        assert ("client_max_body_size" in block) is (path in uploads), path


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that arrived."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_server_is_told_the_client_once_and_by_nobody_else(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        (port,), target = free_ports(1), echo.server_address[1]
        with nginx.running(nginx.render(tmp_path, port, [target] * 2, [target] * 2), port):
            forged = {"X-Forwarded-For": "10.1.2.3", "X-Request-ID": "mine-1", "Host": "photos.example.org:8443"}
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
                arrived = client.get("/api/v1/config", headers=forged).json()
                bad = client.get("/", headers={"X-Request-ID": "a b{}", "X-Forwarded-Proto": "https"}).json()
        echo.shutdown()
    told = {name: [value for key, value in arrived if key == name] for name, _ in arrived}
    assert told["x-forwarded-for"] == ["127.0.0.1"]
    assert told["host"] == ["photos.example.org:8443"]
    assert told["x-request-id"] == ["mine-1"]
    assert told["x-forwarded-proto"] == ["http"]
    assert "upgrade" not in told
    assert dict(bad)["x-forwarded-proto"] == "https"
    assert len(dict(bad)["x-request-id"]) == 32


class Cluster:
    """Two server processes, each on a folder of its own, or with settings that make them share everything."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.port, *ports = free_ports(5)
        self.pairs = [(ports[0], ports[1]), (ports[2], ports[3])]
        self.servers = [self._serve(number) for number in range(2)]
        self.address = f"127.0.0.1:{self.port}"

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://{self.address}", headers={"X-API-KEY": KEY}, timeout=30)

    def ready(self, number: int) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            address = f"http://127.0.0.1:{self.pairs[number][0]}/health/ready"
            return httpx2.get(address, headers={"X-API-KEY": KEY}).status_code == 200
        return False

    def kill(self, number: int) -> None:
        os.kill(self.servers[number].pid, signal.SIGKILL)
        self.servers[number].wait()

    def close(self) -> None:
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
            server.wait()

    def _serve(self, number: int) -> subprocess.Popen[bytes]:
        api, pages = self.pairs[number]
        folder = self.folder / f"server-{number}"
        folder.mkdir()
        words = [str(folder), str(api), str(pages), "0.1", "1", KEY, json.dumps(self.settings)]
        with (folder / "log.txt").open("wb") as log:
            command = [sys.executable, "-m", "tests.lanczos_server", *words]
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


@contextlib.contextmanager
def running(folder: Path, **settings: str) -> Iterator[Cluster]:
    """Both servers, ready, with Nginx before them."""
    nginx.program()
    found = Cluster(folder, **settings)
    try:
        until(lambda: found.ready(0) and found.ready(1), 60)
        api, pages = zip(*found.pairs, strict=True)
        with nginx.running(nginx.render(folder, found.port, api, pages), found.port):
            yield found
    finally:
        found.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path) as found:
        yield found


def refused_early(address: tuple[str, int], head: str, most_bytes: int) -> tuple[bytes, int]:
    """Send a head and a slow body until something is answered; the answer, and how many bytes had been sent by then."""
    sent = 0
    with socket.create_connection(address, timeout=20) as plain:
        plain.sendall(head.replace("\n", "\r\n").encode())
        plain.settimeout(0.05)
        while sent < most_bytes:
            with contextlib.suppress(TimeoutError):
                return plain.recv(65536), sent
            plain.settimeout(5)
            plain.sendall(b"x" * 10_000)
            plain.settimeout(0.05)
            sent += 10_000
    raise AssertionError("nothing was answered")


def upload_head(length: int, *more: str, path: str = jobs.SUBMIT) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: multipart/form-data; boundary=b", *more]
    return "\n".join([*lines, f"Content-Length: {length}", "", ""])


def test_uploads_are_judged_before_their_body_is_here(cluster: Cluster) -> None:
    place = ("127.0.0.1", cluster.port)
    for path in (jobs.SUBMIT, previews.PREVIEW, damage.LOOK, MASK_OF_NO_JOB):
        answer, sent = refused_early(place, upload_head(9 * MEGABYTE, path=path), 2 * MEGABYTE)
        assert b" 401 " in answer.split(b"\r\n")[0], path
        assert sent < MEGABYTE
    answer, sent = refused_early(place, upload_head(400 * MEGABYTE, f"X-API-KEY: {KEY}"), 2 * MEGABYTE)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert sent < MEGABYTE
    assert not list(cluster.folder.glob("client_body/*"))


def test_what_nginx_refuses_itself_is_a_problem_too(cluster: Cluster) -> None:
    answer, _ = refused_early(("127.0.0.1", cluster.port), upload_head(600 * MEGABYTE), MEGABYTE)
    assert b" 413 " in answer.split(b"\r\n")[0]
    with cluster.client() as client:
        large = client.post("/api/v1/photos/x/restore", content=b"x" * (2 * MEGABYTE))
        assert large.headers["content-type"] == "application/problem+json"
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        mask = client.post(MASK_OF_NO_JOB, files={"mask": b"x" * (2 * MEGABYTE)})
        assert_problem(mask, 404, "job_not_found")  # the service says so, whose limit is another
        assert client.get("/metrics").status_code == 404
        assert "1." not in client.get("/").headers["server"]
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "require-trusted-types-for" in page.headers["content-security-policy"]
        assert client.get("/health/ready").status_code == 200
        named = client.get("/api/v1/config", headers={"X-Request-ID": "abc-1"})
        assert named.headers["x-request-id"] == "abc-1"


def test_a_killed_server_refuses_no_read_and_the_other_serves_everything(cluster: Cluster) -> None:
    seen: list[int] = []
    cut: list[str] = []
    stop = threading.Event()

    def read() -> None:
        with cluster.client() as client:
            while not stop.is_set():
                try:
                    seen.append(client.get("/api/v1/config").status_code)
                except httpx2.RemoteProtocolError as error:
                    cut.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    until(lambda: len(seen) > 100)
    cluster.kill(1)
    before = len(seen)
    until(lambda: len(seen) > before + 200)
    stop.set()
    for reader in readers:
        reader.join()
    assert set(seen) == {200}
    assert len(cut) <= len(readers)  # only an answer that had begun can break off
    assert all("complete message body" in words for words in cut)
    with cluster.client() as client:
        job_id = client.post("/api/v1/enhance", files={"file": ("cat.png", photo())}).json()["job_id"]
        messages = follow(cluster, job_id)
        assert messages[-1]["status"] == "completed"
        result = client.get(f"/api/v1/jobs/{job_id}/result")
        part = client.get(f"/api/v1/jobs/{job_id}/result", headers={"Range": "bytes=2-9"})
        assert (part.status_code, part.content) == (206, result.content[2:10])
        etag = {"If-None-Match": result.headers["etag"]}
        assert client.get(f"/api/v1/jobs/{job_id}/result", headers=etag).status_code == 304
        began = time.monotonic()
        waited = client.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=20"})
        assert waited.json()["status"] == "completed"
        assert time.monotonic() - began < 20
        cluster.kill(0)
        gone = client.get("/api/v1/config")
        assert (gone.status_code, gone.json()["code"], gone.headers["retry-after"]) == (503, "no_server", "5")
        assert client.post("/api/v1/enhance", files={"file": photo()}).json()["code"] == "no_server"


def follow(cluster: Cluster, job_id: str) -> list[dict[str, Any]]:
    """All messages of a job's WebSocket through Nginx, until it closes with 1000."""
    address = f"ws://{cluster.address}/api/v1/jobs/{job_id}/status"
    with connect(address, additional_headers={"X-API-KEY": KEY}) as live:
        messages = [json.loads(message) for message in live]
        assert live.close_code == 1000
    return messages


def test_events_come_through_nginx_one_by_one(cluster: Cluster, tmp_path: Path) -> None:
    api, pages = cluster.pairs[1]
    (port,) = free_ports(1)
    headers = {"X-API-KEY": KEY}
    with (
        nginx.running(nginx.render(tmp_path, port, [api] * 2, [pages] * 2), port),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client,
    ):
        job_id = client.post("/api/v1/enhance", files={"file": ("cat.png", photo())}).json()["job_id"]
        with client.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
            told = [(time.monotonic(), line) for line in stream.iter_lines()]
    states = [(at, json.loads(line.removeprefix("data: "))) for at, line in told if line.startswith('data: {"job_id')]
    assert states[0][1]["status"] in ("queued", "processing")
    assert states[-1][1]["status"] == "completed"
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(states)]
    assert sum(gap > 0.05 for gap in gaps) > len(gaps) / 2  # a proxy that buffers tells several at once
    assert told[-2][1] == 'data: {"reason": "ended"}'


def test_the_log_of_nginx_holds_no_query_and_no_key(cluster: Cluster) -> None:
    with cluster.client() as client:
        assert_problem(client.get("/api/v1/jobs/0?token=hidden-word"), 404, "job_not_found")
    log = cluster.folder / "access.log"
    until(lambda: "/api/v1/jobs/0" in log.read_text())
    assert "hidden-word" not in log.read_text()
    assert KEY not in log.read_text()


@needs_postgres
def test_any_server_answers_for_any_job_of_one_database_and_bucket(seaweedfs: S3Server, tmp_path: Path) -> None:
    shared = {
        "database_url": shared_server().new_database(),
        "storage_url": f"s3://{BUCKET}/cluster",
        "s3_endpoint_url": seaweedfs.url,
        "s3_addressing_style": "path",
    }
    with running(tmp_path, **shared) as cluster, cluster.client() as client:
        jobs = [client.post("/api/v1/enhance", files={"file": ("a.png", photo(40 + n))}).json() for n in range(6)]
        ids = [job["job_id"] for job in jobs]

        def ended() -> bool:
            return all(client.get(f"/status/{job_id}").json()["status"] == "completed" for job_id in ids)

        until(ended, 60)
        for job_id in ids:
            answers = [direct(cluster, number, f"/api/v1/jobs/{job_id}/result") for number in range(2)]
            assert {answer.status_code for answer in answers} == {200}
            assert answers[0].content == answers[1].content
        assert client.delete(f"/api/v1/jobs/{ids[0]}").is_success
        gone = [direct(cluster, number, f"/api/v1/jobs/{ids[0]}").status_code for number in range(2)]
        assert gone == [404, 404]
        cluster.kill(0)
        assert all(client.get(f"/api/v1/jobs/{job_id}/result").status_code == 200 for job_id in ids[1:])
    log = (tmp_path / "access.log").read_text()
    assert all(f"127.0.0.1:{api} " in log for api, _ in cluster.pairs)


def direct(cluster: Cluster, number: int, path: str) -> httpx2.Response:
    """The answer of one server, asked past Nginx."""
    return httpx2.get(f"http://127.0.0.1:{cluster.pairs[number][0]}{path}", headers={"X-API-KEY": KEY}, timeout=20)
