"""The cluster campaign: a whole cluster of real servers under load while one part after another is killed or frozen.

Run from the repository's root: `python -m benchmarks.cluster_campaign`, with `--clocks-apart 300` for two hosts whose
clocks are five minutes ahead. It starts PostgreSQL, Redis, SeaweedFS, Nginx with the project's configuration, two API
servers and three workers; 20 owners submit 500 photos, a fifth of them for the provider's stand-in. At the end it looks
at every photo that was accepted: is its job known and ended, is the result what the stand-in gives for this very photo,
can others see it, was the provider asked twice. It prints one JSON line and exits 1 on any fault.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.cluster_clients import ENDED, Accepted, Client
from benchmarks.cluster_servers import Cluster, Part, freeze, in_thread, running_cluster
from tests.provider_stand_in import StandIn, stand_in
from tests.s3_servers import CREDENTIALS

CLIENTS = 20
SECONDS_A_PHOTO = 0.4
END_TIMEOUT_SECONDS = 600.0
FROZEN_SECONDS = (2.0, 9.0)
FAULTS = ("lost", "not ended", "wrong results", "mixed owners", "paid twice")
LONG_FROZEN_SECONDS = 80.0  # longer than a lease: the photo is restored elsewhere, and the late result is dropped


class Faults:
    """Kills and freezes parts of the cluster in turn, one kind after another."""

    def __init__(self, cluster: Cluster, rounds: int, pause_seconds: float, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._cluster, self._rounds, self._pause, self._chance = cluster, rounds, pause_seconds, chance
        self._busy: set[str] = set()

    def run(self) -> None:
        """`rounds` of each kind; every second one is a freeze. One worker is frozen for longer than a lease.

        The calling thread kills and starts again: a server of the tests ends with the thread that started it.
        """
        running = []
        for round_number in range(self._rounds):
            for kind in self._shuffled(["worker", "api", *(part.name for part in self._cluster.parts)]):
                part = self._pick(kind)
                if round_number % 2:
                    long = kind == "worker" and round_number == 1
                    seconds = LONG_FROZEN_SECONDS if long else self._chance.uniform(*FROZEN_SECONDS)
                    running.append(in_thread(functools.partial(self._freeze, part, kind, seconds)))
                else:
                    part.kill()
                    self._note(part, f"{kind} killed")
                time.sleep(self._pause)
        for thread in running:
            thread.join(LONG_FROZEN_SECONDS * 2)

    def _freeze(self, part: Part, kind: str, seconds: float) -> None:
        freeze(part, seconds)
        self._note(part, f"{kind} frozen")

    def _note(self, part: Part, done: str) -> None:
        self.done[done] += 1
        self._busy.discard(part.name)

    def _pick(self, kind: str) -> Part:
        """One that nothing is done to just now; waits for it."""
        every: list[Part] = [*self._cluster.parts, *self._cluster.servers]
        while not (free := [part for part in every if part.name.startswith(kind) and part.name not in self._busy]):
            time.sleep(0.1)
        part = self._chance.choice(free)
        self._busy.add(part.name)
        return part

    def _shuffled(self, kinds: list[str]) -> list[str]:
        self._chance.shuffle(kinds)
        return kinds


class Verdict:
    """What became of the accepted photos."""

    def __init__(self, clients: list[Client], provider: StandIn) -> None:
        self._clients, self._provider = clients, provider
        self.ends: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {kind: [] for kind in FAULTS}

    def look(self) -> None:
        """Wait for every end, then look at everything."""
        deadline = time.monotonic() + END_TIMEOUT_SECONDS
        for client in self._clients:
            for accepted in client.accepted:
                self._look_at(client, accepted, deadline)
        paid = Counter(_photo_of(heard.body) for heard in self._provider.asked("api"))
        self.faults["paid twice"] += [photo for photo, times in paid.items() if times > 1]

    def _look_at(self, client: Client, accepted: Accepted, deadline: float) -> None:
        state = client.state(accepted.job_id)
        while state["status"] not in (*ENDED, "lost") and time.monotonic() < deadline:
            time.sleep(0.5)
            state = client.state(accepted.job_id)
        status = str(state["status"])
        code = _error_code(state) if status == "failed" else ""
        self.ends[f"{status} {code}".strip()] += 1
        if status == "lost" or (status == "failed" and not (accepted.cloud and code == "interrupted")):
            self.faults["lost"].append(f"{accepted} {code}")
        elif status not in ENDED:
            self.faults["not ended"].append(f"{accepted} {status}")
        elif status == "completed":
            fault = client.fault_of_result(accepted)
            self.faults["wrong results"] += [f"{accepted}: {fault}"] if fault else []
        other = self._clients[(accepted.owner + 1) % len(self._clients)]
        self.faults["mixed owners"] += [str(accepted)] if other.is_strange(accepted.job_id) else []


def _error_code(state: dict[str, Any]) -> str:
    return ",".join(str(error["code"]) for error in state.get("errors", ())) or str(
        [attempt.get("error") for attempt in state.get("attempts", ())]
    )


def _photo_of(body: bytes) -> str:
    """The photo that the provider was sent: a digest of its pixels, since each photo is sent by one submission only."""
    data = json.loads(body)["image"].split(",", 1)[1]
    with Image.open(io.BytesIO(base64.b64decode(data)), formats=("JPEG",)) as image:
        return hashlib.sha256(image.tobytes()).hexdigest()


def campaign(
    folder: Path, photos: int, rounds: int, pause_seconds: float, seed: int, clocks_apart_seconds: float
) -> dict[str, Any]:
    """One campaign; its figures, JSON-ready."""
    chance, began = random.Random(seed), time.monotonic()
    keys = [f"campaign-owner-{number:02d}-{seed:08d}" for number in range(CLIENTS)]
    with stand_in() as provider:
        cluster_of = running_cluster(
            folder, keys, provider, seconds=SECONDS_A_PHOTO, clocks_apart_seconds=clocks_apart_seconds
        )
        with cluster_of as cluster:
            clients = [Client(n, cluster.url, key, random.Random(f"{seed} {n}")) for n, key in enumerate(keys)]
            faults, give_up = Faults(cluster, rounds, pause_seconds, chance), threading.Event()
            each = photos // CLIENTS
            pause = rounds * 5 * pause_seconds / each
            submitting = [in_thread(functools.partial(client.submit, each, pause, give_up)) for client in clients]
            faults.run()
            deadline = time.monotonic() + END_TIMEOUT_SECONDS
            for thread in submitting:
                thread.join(max(0.0, deadline - time.monotonic()))
            give_up.set()
            verdict = Verdict(clients, provider)
            verdict.look()
    refused = sum((client.refused for client in clients), Counter[str]())
    return {
        "accepted": sum(len(client.accepted) for client in clients),
        "cloud": sum(one.cloud for client in clients for one in client.accepted),
        "provider_asked": len(provider.asked("api")),
        "done": dict(faults.done),
        "ends": dict(verdict.ends),
        "refused": dict(refused),
        "faults": {kind: len(found) for kind, found in verdict.faults.items()},
        "examples": {kind: found[:5] for kind, found in verdict.faults.items() if found},
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Run the campaign the command line asks for; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=12, help="of one fault of each kind; every second one a freeze")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clocks-apart", type=float, default=0.0, help="seconds that two hosts' clocks are ahead")
    parser.add_argument("--folder", help="where to put the servers' files and logs; they stay when there was a fault")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    os.environ.update(CREDENTIALS)  # of the S3 server of the tests
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=asked.folder))
    summary = campaign(folder, asked.photos, asked.rounds, asked.pause, asked.seed, asked.clocks_apart)
    if not any(summary["faults"].values()):
        shutil.rmtree(folder)
    print(json.dumps(summary))
    return 1 if any(summary["faults"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
