"""The kill -9 campaign: kill a working service at random moments and at named points, and look for what it lost.

Run from the repository's root: `python -m benchmarks.kill9 --kills 200`, and with `--http` for the whole service behind
real sockets (else the parts below the API, which lives faster); `--postgres` keeps the jobs in a PostgreSQL server that
it starts. It checks after every kill that each completed row has its whole file, and at the end that no accepted job
is lost, every attempt has ended well (a kill is never the photo's fault), uploads are what was sent, and the database
is sound. It prints one JSON line and exits 1 on any fault.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import Connection, NullPool, create_engine, inspect

from tests.fault_http import listen, load, serve_http
from tests.fault_service import points_of, serve
from tests.postgres_server import shared_server

# A random kill comes so long after a random number of accepted jobs, however slow the machine; some come in the start.
MOST_ACCEPTED = 6
LONGEST_WAIT_SECONDS = 0.3
START_SHARE = 0.15
LONGEST_START_SECONDS = 1.0
WORK_TIMEOUT_SECONDS = 60.0
HTTP_CLIENTS = 3
POINT_TIMEOUT_SECONDS = 30.0
SETTLE_TIMEOUT_SECONDS = 120.0
FORMATS = ("JPEG", "PNG")


class Campaign:
    """One folder, many lives of the service in it; behind real sockets with `http`.

    `serve_http` and `load` are what the service and each of its clients do there.
    """

    serve_http = staticmethod(serve_http)
    load = staticmethod(load)

    def __init__(self, folder: Path, database_url: str, seed: int, *, http: bool, wrong_order: bool) -> None:
        self._database_url = database_url
        self.folder, self.chance, self.wrong_order = folder, random.Random(seed), wrong_order
        self.accepted: set[str] = set()
        self.faults: list[str] = []
        self.kills = 0
        self.points: set[str] = set()
        self._looked_at: set[str] = set()
        self._listening: socket.socket | None = listen() if http else None
        self.working_lives = 0

    def run(self, rounds: list[str | None]) -> None:
        """Lives that end at these points (None: at a random moment), shuffled, and then one that ends well."""
        self.chance.shuffle(rounds)
        for point in rounds:
            if point is None:
                self.kill_at_random()
            else:
                self.kill_at(point)
        self.settle()

    def kill_at_random(self) -> None:
        """One life that ends at a random moment: in its start, or after it took some jobs."""
        with self._life(submitting=True) as (pid, answers):
            if self.chance.random() < START_SHARE:
                time.sleep(self.chance.uniform(0.0, LONGEST_START_SECONDS))
            else:
                if not answers.wait_for(self.chance.randint(1, MOST_ACCEPTED)):
                    self.faults.append(f"a service took too few jobs in {WORK_TIMEOUT_SECONDS:g} s")
                time.sleep(self.chance.uniform(0.0, LONGEST_WAIT_SECONDS))
                self.working_lives += 1
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.kills += 1
        self.look()

    def kill_at(self, point: str) -> None:
        """One life that ends at a named point."""
        with self._life(submitting=True, point=point) as (pid, _):
            if _ended(pid, POINT_TIMEOUT_SECONDS) == -signal.SIGKILL:
                self.points.add(point)
            else:
                self.faults.append(f"the point '{point}' was never reached")
        self.kills += 1
        self.look()

    def settle(self) -> None:
        """A last life that takes nothing new and ends when nothing is active; then look at everything."""
        with self._life(submitting=False) as (pid, _):
            if self._listening is not None:
                self._await_rest()
                self.ask_at_the_end(self._listening.getsockname()[1])
                os.kill(pid, signal.SIGTERM)
            if _ended(pid, SETTLE_TIMEOUT_SECONDS) not in (0, -signal.SIGTERM):
                self.faults.append("the last service did not come to rest")
        self._looked_at.clear()
        self.look()
        with self.database() as database:
            self.look_at_jobs(database)
            self._look_at_uploads(database)
            if database.dialect.name == "sqlite":
                said = database.exec_driver_sql("PRAGMA integrity_check").scalar_one()
                self.faults += [] if said == "ok" else [f"the database is damaged: {said}"]

    def ask_at_the_end(self, port: int) -> None:
        """What the last service is asked, behind real sockets, when nothing is active any more."""

    def note(self, lines: list[str]) -> None:
        """What the clients of a life said."""
        self.accepted.update(lines)

    def look(self) -> None:
        """Every completed row has its whole file."""
        if self._database_url.startswith("sqlite") and not (self.folder / "data" / "jobs.sqlite3").exists():
            return
        with self.database() as database:
            if not inspect(database).has_table("attempts"):
                return  # killed before the first table
            query = "SELECT result_name, result_bytes, result_width, result_height FROM attempts"
            rows = database.exec_driver_sql(f"{query} WHERE status = 'completed'").all()
        for name, size, width, height in rows:
            if name not in self._looked_at:
                self._looked_at.add(name)
                self._look_at_result(self.folder / "results" / name, size, (width, height))

    def summary(self) -> dict[str, Any]:
        """Figures of the campaign, JSON-ready."""
        with self.database() as database:
            counts = database.exec_driver_sql("SELECT status, count(*) FROM attempts GROUP BY status").all()
        return {
            "kills": self.kills,
            "points": len(self.points),
            "accepted_jobs": len(self.accepted),
            "working_lives": self.working_lives,
            "attempts": {row[0]: row[1] for row in counts},
            "faults": self.faults,
        }

    def _look_at_result(self, path: Path, size: int, sides: tuple[int, int]) -> None:
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                whole = image.size == sides and path.stat().st_size == size
        except (OSError, SyntaxError) as error:
            self.faults.append(f"half result {path.name}: {type(error).__name__}")
        else:
            if not whole:
                self.faults.append(f"result {path.name} is not what its row says")

    def look_at_jobs(self, database: Connection) -> None:
        """No accepted job is lost, and each attempt ended well."""
        known = {row[0] for row in database.exec_driver_sql("SELECT id FROM jobs")}
        self.faults += [f"accepted job {job_id} is lost" for job_id in sorted(self.accepted - known)]
        # On a database that others may use, a start cannot know how the processes before it died, so runs lapse.
        well = ("completed", "cancelled") if database.dialect.name == "sqlite" else ("completed", "cancelled", "failed")
        rows = database.exec_driver_sql("SELECT id, status, tries, error_code FROM attempts").fetchall()
        odd = [row for row in rows if row[1] not in well or row[3] not in (None, "worker_lost")]
        self.faults += [f"attempt {row} did not end as it should" for row in odd]

    def _look_at_uploads(self, database: Connection) -> None:
        for photo_id, sha256 in database.exec_driver_sql("SELECT id, sha256 FROM photos"):
            path = self.folder / "uploads" / photo_id
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                self.faults.append(f"upload {photo_id} is not what was sent")

    @contextlib.contextmanager
    def database(self) -> Iterator[Connection]:
        """Read only, so that the next life finds SQLite's log just as the kill left it."""
        url = self._database_url
        if url.startswith("sqlite"):
            url = f"sqlite:///file:{url.removeprefix('sqlite:///')}?mode=ro&uri=true"
        with create_engine(url, poolclass=NullPool).connect() as opened:
            yield opened

    def _await_rest(self) -> None:
        """Wait until no attempt is active; what stays active is found later."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
        query = "SELECT count(*) FROM attempts WHERE status IN ('queued', 'processing')"
        while time.monotonic() < deadline:
            with self.database() as database:
                if database.exec_driver_sql(query).scalar_one() == 0:
                    return
            time.sleep(0.1)

    @contextlib.contextmanager
    def _life(self, *, submitting: bool, point: str | None = None) -> Iterator[tuple[int, _Answers]]:
        """One life of the service, with its clients; gives its process and what it accepts, noted afterwards."""
        read, write = os.pipe()
        seeds = [self.chance.randrange(2**31) for _ in range(1 + HTTP_CLIENTS)]
        listening, clients = self._listening, []
        if listening is None:
            wrong = self.wrong_order
            options: dict[str, Any] = {"point": point, "wrong_order": wrong, "submitting": submitting}
            pid = _fork(lambda: serve(self.folder, self._database_url, write, **options, seed=seeds[0]), read)
        else:
            port = listening.getsockname()[1]
            pid = _fork(
                lambda: self.serve_http(self.folder, self._database_url, listening, point=point, seed=seeds[0]), read
            )
            if submitting:
                clients = [_fork(functools.partial(self.load, port, write, seed), read) for seed in seeds[1:]]
        os.close(write)
        answers = _Answers(read)
        try:
            yield pid, answers
        finally:
            for client in clients:
                os.kill(client, signal.SIGKILL)
                os.waitpid(client, 0)
            self.note(answers.close())


class _Answers:
    """The ids of accepted jobs, one a line, that come out of a pipe while a life lasts."""

    def __init__(self, read: int) -> None:
        self._read, self._text = read, b""

    def wait_for(self, count: int) -> bool:
        """Wait until so many jobs are accepted; False when that takes too long."""
        deadline = time.monotonic() + WORK_TIMEOUT_SECONDS
        while self._text.count(b"\n") < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return False
            got = os.read(self._read, 65536)
            if not got:  # all writers are dead
                return False
            self._text += got
        return True

    def close(self) -> list[str]:
        """Read the rest: what stands in the pipe outlives its writers."""
        with os.fdopen(self._read, "rb") as lines:
            return (self._text + lines.read()).decode("ascii").split()


def _fork(life: Callable[[], object], close: int) -> int:
    """Run `life` in a child: this process has one thread, so a fork is safe and spares the imports."""
    pid = os.fork()
    if pid == 0:
        try:
            os.close(close)
            life()
        finally:
            os._exit(3)
    return pid


def _ended(pid: int, timeout_seconds: float) -> int:
    """Wait for the end of a life; what it ended with (negative: a signal), 99 when it had to be ended."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 99


def main() -> int:
    """Run the campaign the command line asks for; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments")
    parser.add_argument("--points", default="all", help="all, none, or one named point")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http", action="store_true", help="the whole service behind real sockets")
    parser.add_argument("--wrong-order", action="store_true", help="negative control: commit the row before the file")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server instead of SQLite")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill9-") as folder:
        url = shared_server().new_database() if asked.postgres else f"sqlite:///{folder}/data/jobs.sqlite3"
        points = {"all": points_of(url), "none": []}.get(asked.points, [asked.points])
        campaign = Campaign(Path(folder), url, asked.seed, http=asked.http, wrong_order=asked.wrong_order)
        rounds = [*points, *[None] * asked.kills]
        campaign.run(rounds)
        summary = {**campaign.summary(), "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(summary))
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
