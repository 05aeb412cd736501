"""The campaign of the API's contract: Schemathesis on every operation of a real service's own OpenAPI page.

Run from the repository's root: `python -m benchmarks.api_contract --examples 500`. It starts a service with a key and a
backend that needs no networks, lets Schemathesis make valid and invalid calls of every operation, with and without the
key, and exits 1 on any failure: a 5xx, an answer that the page does not describe, a broken request that is accepted, a
right one that is refused, a key that is not asked for, a method that should not be there. It then sends a good photo.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.stand_in_service import StandInService, stand_in_service
from tests.http_service import KEY

PHASES = "examples,coverage,fuzzing"
# A full queue is answered with 503, as documented; here it would hide everything else.
_SETTINGS: dict[str, Any] = {
    "queue_limit": 100_000,
    "queue_limit_per_owner": 100_000,
    "forwarded_allow_ips": "127.0.0.1",
}
# What a schema cannot say: bytes at random are no picture, a result may be too large, options may not go together.
_CONFIG = """
hooks = "hooks.py"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 415, 416, 422, 429]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 404, 409]

[[operations]]
include-path-regex = "/enhance|/estimate|/restore$|/photos$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 413, 415, 422]

# Of previews an owner has so many a minute, whatever the settings say.
[[operations]]
include-path-regex = "/preview$|/damage$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 413, 415, 422, 429]
"""
# Many wrong keys from one address are answered with 429, so each call comes from an address of its own. A form cannot
# say null or an empty list: a field with one is sent empty or not at all, which is allowed, so nothing can be refused.
_HOOKS = """
import random
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    address = ".".join(str(random.randrange(1, 255)) for _ in range(3))
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{address}"}

@schemathesis.hook
def filter_failure(context, failure, case, response):
    is_form = case.media_type == "multipart/form-data" and isinstance(case.body, dict)
    left_out = is_form and any(value in (None, "", [], {}) for value in case.body.values())
    return not (left_out and type(failure).__name__ == "AcceptedNegativeData")
"""


def run_schemathesis(service: StandInService, folder: Path, examples: int, seed: int) -> int:
    """Run it on all operations, which it tells of by itself; gives its exit code, 0 when nothing failed."""
    (folder / "schemathesis.toml").write_text(_CONFIG, encoding="utf-8")
    (folder / "hooks.py").write_text(_HOOKS, encoding="utf-8")
    words = ["run", f"{service.url}/openapi.json", "--header", f"X-API-KEY: {KEY}", "--no-color"]
    words += ["--max-examples", str(examples), "--seed", str(seed), "--phases", PHASES, "--checks", "all"]
    words += ["--continue-on-failure", "--no-shrink", "--generation-database", "none", "--suppress-health-check", "all"]
    words += ["--request-timeout", "60"]
    program = Path(sys.executable).with_name("schemathesis")
    return subprocess.run([program, *words], cwd=folder, check=False).returncode


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 0 when nothing failed and the service still restores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=500, help="of every operation (500)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name, stand_in_service(**_SETTINGS) as service:
        code = run_schemathesis(service, Path(name), asked.examples, asked.seed)
        works = service.process.poll() is None and service.restores_a_photo()
    print(json.dumps({"examples": asked.examples, "seed": asked.seed, "code": code, "works_after": works}))
    return 0 if code == 0 and works else 1


if __name__ == "__main__":
    sys.exit(main())
