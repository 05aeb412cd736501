"""The campaign of mutated files over HTTP: thousands of damaged photos sent to a real service, each to its end.

Run from the repository's root: `python -m benchmarks.mutated_uploads --files 20000`. Every mutant of
`benchmarks.mutations` is posted as a user would post it, by several clients at once, and its job followed to its end.
An answer of 5xx, a job that fails by our fault, a job without an end, the death of the server, or a good photo that
does not work afterwards is a fault; it prints one JSON line and exits 1 on any.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx2

from benchmarks.mutations import mutant
from benchmarks.stand_in_service import StandInService, stand_in_service

CLIENTS = 4
# A full queue would be answered with 503, which is no fault of anybody's.
_SETTINGS: dict[str, Any] = {"queue_limit": 10_000, "queue_limit_per_owner": 10_000}
# Codes that say that we failed, and not the photo.
_OUR_FAULT = frozenset(("decoder_unavailable", "internal_error", "no_space", "file_missing", "worker_crashed"))
_SCALE = "1"  # results as large as the photos: what is looked for is not in the enlarging


class Uploads:
    """Sends the mutants of one seed and counts what became of them; safe to call from several threads."""

    def __init__(self, service: StandInService, seed: int) -> None:
        self._service, self._seed = service, seed
        self._lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []

    def one(self, number: int) -> None:
        """One mutant, from its upload to the end of its job."""
        what, data = mutant(self._seed, number)
        form = {"scale": _SCALE, "face_enhance": "false"}
        try:
            answer = self._service.client.post("/enhance", files=[("files", ("mutant", data))], data=form)
            end = self._end_of(answer)
        except httpx2.TransportError as error:
            end = f"fault: no answer ({type(error).__name__})"
        with self._lock:
            self.ends[end] += 1
            if end.startswith("fault"):
                self.faults.append(f"{number} ({what}): {end}")
                print(self.faults[-1], flush=True)

    def _end_of(self, answer: httpx2.Response) -> str:
        if answer.status_code >= 500:
            return f"fault: {answer.status_code} {answer.text[:200]}"
        if answer.status_code != 202:
            return f"refused: {answer.json()['code']}"
        state = self._service.ended(f"/api/v1/jobs/{answer.json()['job_id']}")
        codes = [error["code"] for error in state["errors"]]
        if state["status"] not in ("completed", "failed") or _OUR_FAULT.intersection(codes):
            return f"fault: the job is {state['status']} {codes}"
        return f"job: {codes[0] if codes else 'restored'}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 on any fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    began = time.monotonic()
    with stand_in_service(**_SETTINGS) as service:
        uploads = Uploads(service, asked.seed)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(uploads.one, range(asked.first, asked.first + asked.files)))
        if service.process.poll() is not None:
            uploads.faults.append(f"the server died with {service.process.returncode}")
        elif not service.restores_a_photo():
            uploads.faults.append("a good photo does not work afterwards")
    facts = {"files": asked.files, "first": asked.first, "seed": asked.seed}
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({**facts, "seconds": seconds, "ends": uploads.ends, "faults": uploads.faults}))
    return 1 if uploads.faults else 0


if __name__ == "__main__":
    sys.exit(main())
