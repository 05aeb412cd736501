"""What users cost: the check of a token, a photo that was restored before, and one owner who floods.

- token: milliseconds of one check by shared secret, RSA and elliptic curve, in this process;
- cache: milliseconds from submit to end of a second identical job at 12 megapixels, and whether its bytes are equal;
- flood: seconds from submit to start and to end of one owner's photos, alone and while another owner floods (`flood`).

With everything of users off it is `benchmarks.default_mode` that says what they cost. Run: `python -m benchmarks.users
--weights FOLDER [--only PART]`. Prints lines and JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.flood import flood, invented_photo
from benchmarks.running_service import running_service

_CHECKS = 2000
_CACHED_SIDE = 433  # at scale 8 the result has 12 megapixels
_WAIT = {"Prefer": "wait=30"}


def token_check_ms() -> dict[str, float]:
    """Median milliseconds of one check, for each kind of key."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    from app.api.auth.key_set import KeySet
    from app.api.auth.tokens import SharedSecret, TokenRules, Tokens

    now = int(time.time())
    claims = {"iss": "https://id.example.org", "aud": "restore", "sub": "user", "exp": now + 3600, "iat": now}
    claims |= {"realm_access": {"roles": ["offline_access", "uma_authorization"]}, "scope": "openid profile email"}
    rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    rows = [
        {**RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True), "kid": "rsa"},
        {**ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True), "kid": "ec"},
    ]
    keys = KeySet("unused", fetch=lambda _: json.dumps({"keys": rows}).encode())
    keys.refresh()
    rules, secret = TokenRules("https://id.example.org", "restore", ("realm_access.roles", "admin")), "s" * 32
    cases = {
        "HS256": (Tokens(rules, SharedSecret(secret)), jwt.encode(claims, secret, "HS256")),
        "RS256": (Tokens(rules, keys), jwt.encode(claims, rsa_key, "RS256", headers={"kid": "rsa"})),
        "ES256": (Tokens(rules, keys), jwt.encode(claims, ec_key, "ES256", headers={"kid": "ec"})),
    }
    return {name: asyncio.run(_median_check_ms(*case)) for name, case in cases.items()}


async def _median_check_ms(tokens: Any, token: str) -> float:
    times = []
    for _ in range(_CHECKS):
        started = time.perf_counter()
        await tokens.check(token.encode())
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def cache_hit(weights: Path, rounds: int) -> dict[str, Any]:
    """The same photo again and again: a result of 12 megapixels is made once and copied then. Limit: 300 ms."""
    data = {"scale": "8", "face_enhance": "false", "output_format": "png"}
    photo, times, equal = invented_photo(_CACHED_SIDE), [], []
    with (
        running_service(weights, RESULT_CACHE="owner") as service,
        httpx2.Client(base_url=service.url, timeout=3600.0) as client,
    ):
        for number in range(rounds + 1):
            started = time.perf_counter()
            answer = client.post("/api/v1/enhance", files={"file": ("a.jpg", photo)}, data=data, headers=_WAIT)
            while (job := answer.json())["status"] not in ("completed", "failed"):
                answer = client.get(f"/api/v1/jobs/{job['job_id']}").raise_for_status()
            times.append(1000 * (time.perf_counter() - started))
            (attempt,) = job["attempts"]
            assert ("cache" in attempt["result"]["params"]) == (number > 0), attempt
            equal.append(client.get(attempt["result"]["url"]).raise_for_status().content)
    return {
        "made_ms": times[0],
        "hit_ms": statistics.median(times[1:]),
        "slowest_hit_ms": max(times[1:]),
        "megapixels": attempt["result"]["width"] * attempt["result"]["height"] / 1e6,
        "bytes_equal": len(set(equal)) == 1,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.users", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--submits", type=int, default=15)
    parser.add_argument("--only", choices=("token", "flood", "cache"))
    asked = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "token": token_check_ms,
        "flood": lambda: flood(asked.weights, asked.submits),
        "cache": lambda: cache_hit(asked.weights, asked.rounds),
    }
    report = {}
    for name, measure in parts.items():
        if asked.only in (None, name):
            report[name] = measure()
            print(f"{name}: {report[name]}", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
