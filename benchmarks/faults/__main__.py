"""`python -m benchmarks.faults`: faults of the machine under a real service, in rounds, while clients send photos.

A full disk, photos that need more memory than the decoder's child has, frozen processes, a clock that jumps by a day, a
locked database. Every accepted photo has to end as it is documented for that fault, with its whole result where it is
completed; what is refused has to say why; nothing half written may stay, and the next good photo has to work. It prints
one JSON line and exits 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx2
from PIL import Image

from benchmarks.faults.kinds import KINDS, Kind, Surroundings
from benchmarks.stand_in_service import StandInService, stand_in_service

CLIENTS, PHOTOS_OF_A_CLIENT = 3, 3
LATEST_STRIKE_SECONDS = 1.0
END_SECONDS = 90.0
RECOVERY_SECONDS = 20.0
_SCALE = "1"
_SECONDS_PER_STRIP = 0.03  # so that a fault often falls into the middle of a run
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
_MOST_SHOWN = 200


class Rounds:
    """The rounds of one kind on one service; counts what became of the photos."""

    def __init__(self, name: str, kind: Kind, service: StandInService, surroundings: Surroundings, seed: int) -> None:
        self._name, self._kind, self._service, self._surroundings = name, kind, service, surroundings
        self._chance = random.Random(f"{seed} {name}")
        self._lock = threading.Lock()
        self._number = 0
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []

    def one(self) -> None:
        """One round: clients send photos, the fault strikes among them, all is followed to its end and looked at."""
        self._number += 1
        chances = [random.Random(self._chance.getrandbits(64)) for _ in range(CLIENTS)]
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._send_some, chance) for chance in chances]
            time.sleep(self._chance.uniform(0.0, LATEST_STRIKE_SECONDS))
            self._surroundings.strike(self._service, self._chance)
            for client in clients:
                client.result()
        self._look_at_recovery()

    def _send_some(self, chance: random.Random) -> None:
        for _ in range(PHOTOS_OF_A_CLIENT):
            time.sleep(chance.uniform(0.0, 0.4))
            end = self._end_of(self._kind.photo(chance))
            with self._lock:
                self.ends[end] += 1
            if end.startswith("fault"):
                self._blame(end)

    def _end_of(self, data: bytes) -> str:
        """What becomes of one photo, in words that begin with `fault` where it should not."""
        form = {"scale": _SCALE, "face_enhance": "false"}
        try:
            answer = self._service.client.post("/enhance", files=[("files", ("photo", data))], data=form)
        except httpx2.TransportError as error:
            return f"fault: no answer to a submit ({type(error).__name__})"
        if answer.status_code != 202:
            code = answer.json().get("code")
            return f"refused: {code}" if code in self._kind.refusals else f"fault: refused with {code}"
        state = self._followed(answer.json()["job_id"])
        code = state["errors"][0]["code"] if state.get("errors") else ""
        if state["status"] == "completed":
            return self._looked_at(state["results"][0])
        if state["status"] == "failed" and code in self._kind.failures:
            return f"failed: {code}"
        return f"fault: accepted, then {state['status']} {code}"

    def _followed(self, job_id: str) -> dict[str, Any]:
        """The end of an accepted photo; while the service cannot say, it is asked again."""
        deadline = time.monotonic() + END_SECONDS
        state: dict[str, Any] = {"status": "never seen"}
        while time.monotonic() < deadline:
            try:
                answer = self._service.client.get(f"/status/{job_id}")
            except httpx2.TransportError:
                continue
            if answer.status_code == 404:
                return {"status": "lost"}
            if answer.status_code == 200:
                state = answer.json()
                if state["status"] in ("completed", "failed", "cancelled"):
                    return state
            time.sleep(0.05)
        return state

    def _looked_at(self, result: dict[str, Any]) -> str:
        """A completed photo has its whole result, of the size that its row says."""
        deadline = time.monotonic() + END_SECONDS
        while True:
            answer = self._service.client.get(result["url"])
            if answer.status_code < 500 or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if answer.status_code == 404 and self._kind.may_expire:
            return "completed, and expired when the clock said so"
        if answer.status_code != 200:
            return f"fault: the result is answered with {answer.status_code} {answer.text[:_MOST_SHOWN]}"
        try:
            with Image.open(io.BytesIO(answer.content), formats=_FORMATS) as image:
                image.load()
                whole = image.size == (result["width"], result["height"])
        except (OSError, SyntaxError) as error:
            return f"fault: half a result ({type(error).__name__})"
        return "completed" if whole else "fault: the result has another size than its row"

    def _look_at_recovery(self) -> None:
        """Nothing half written stays, and the next good photo works."""
        if self._service.process.poll() is not None:
            raise SystemExit(
                f"the service ended with {self._service.process.returncode}: {self._service.log()[-2000:]}"
            )
        deadline = time.monotonic() + RECOVERY_SECONDS
        parts, works = ["?"], False
        while time.monotonic() < deadline and (parts or not works):
            works = works or self._is_well()
            parts = [path.name for path in self._service.folder.rglob("*.part")]
            time.sleep(0.1)
        if parts:
            self._blame(f"half written files stay: {parts}")
        if not works:
            self._blame("the next good photo does not work, or the service is not ready")

    def _is_well(self) -> bool:
        try:
            return self._service.client.get("/health/ready").status_code == 200 and self._service.restores_a_photo()
        except (httpx2.TransportError, KeyError):
            return False

    def _blame(self, what: str) -> None:
        self.faults.append(f"{self._name} round {self._number}: {what}")
        print(self.faults[-1], flush=True)


def run(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """All rounds of one kind, and what became of the photos."""
    kind = KINDS[name]
    began = time.monotonic()
    with kind.surroundings() as surroundings:
        where: dict[str, Any] = {"parent": surroundings.parent, "environment": surroundings.environment}
        with stand_in_service(seconds_per_strip=_SECONDS_PER_STRIP, **where, **kind.settings) as service:
            campaign = Rounds(name, kind, service, surroundings, seed)
            for _ in range(rounds):
                campaign.one()
            log = service.log()
    traces = log.count("Traceback (most recent call last)")
    seconds = round(time.monotonic() - began, 1)
    facts = {"kind": name, "rounds": rounds, "seed": seed, "seconds": seconds, "traces_in_log": traces}
    return {**facts, "ends": dict(campaign.ends.most_common()), "faults": campaign.faults}


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 on any fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each kind (20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(KINDS), nargs="*", default=list(KINDS), metavar="KIND")
    asked = parser.parse_args(words)
    found = []
    for name in asked.only:
        found.append(run(name, asked.rounds, asked.seed))
        print(json.dumps(found[-1]), flush=True)
    return 1 if any(one["faults"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
