"""Attacks by what is asked and set: odd texts, sizes that open nowhere, cookies after their end, settings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import requests

from benchmarks.attacks.hostile import photo
from benchmarks.attacks.target import TIMEOUT_SECONDS, Seen, Target, started


def odd_prompt(target: Target) -> Seen:
    """A lone surrogate in the prompt, by a form and as JSON, then the list of jobs."""
    body = (
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="x"\r\n\r\n' + photo() + b"\r\n"
        b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\n\xed\xa0\x80\r\n--b--\r\n'
    )
    headers = target.attacker | {"content-type": "multipart/form-data; boundary=b"}
    sent = requests.post(f"{target.url}/enhance", data=body, headers=headers, timeout=TIMEOUT_SECONDS)
    photos = f"{target.url}/api/v1/photos"
    kept = requests.post(photos, files={"file": ("x", photo())}, headers=target.attacker, timeout=TIMEOUT_SECONDS)
    restored = requests.post(
        f"{photos}/{kept.json()['id']}/restore",
        data='{"prompt": "\\ud800"}',
        headers=target.attacker | {"content-type": "application/json"},
        timeout=TIMEOUT_SECONDS,
    )
    listed = target.get("/api/v1/jobs")
    words = f"by a form {sent.status_code}, as JSON {restored.status_code}, then the list {listed.status_code}"
    return Seen(words, listed.status_code != 200)


def wide_avif(target: Target) -> Seen:
    """An AVIF wider than 32,768 pixels."""
    sent = target.submit(photo(9000, 16), output_format="avif", scale="4")
    if sent.status_code != 202:
        return Seen(f"submit {sent.status_code} {sent.json()['code']}", sent.status_code >= 500)
    job = sent.json()["job_id"]
    state = target.ended(job)["status"]
    preview = target.get(f"/api/v1/jobs/{job}/preview").status_code
    return Seen(f"submit 202, {state}, its preview {preview}", preview != 200)


def cookie_after_sign_out(target: Target) -> Seen:
    """The cookie of a session that was signed out."""
    url = f"{target.url}/api/v1/session"
    signed_in = requests.post(url, headers=target.neighbour, timeout=TIMEOUT_SECONDS)
    cookies = signed_in.cookies.copy()
    requests.delete(url, cookies=cookies, headers={"origin": target.url}, timeout=TIMEOUT_SECONDS)
    answer = requests.get(f"{target.url}/api/v1/jobs", cookies=cookies, timeout=TIMEOUT_SECONDS)
    return Seen(f"the list with the old cookie: {answer.status_code}", answer.status_code != 401)


def any_origin_without_key(checkout: Path) -> Seen:
    """CORS for everybody, without a key."""
    try:
        with started(checkout, API_KEY="", CORS_ORIGINS="*"):
            return Seen("it starts", broken=True)
    except RuntimeError as error:
        return Seen(f"it does not start ({error})", broken=False)


def proxies_in_settings(checkout: Path) -> Seen:
    """FORWARDED_ALLOW_IPS in a `.env` file, as documented."""
    code = "from app.settings import Settings; print(Settings(_env_file=__import__('sys').argv[1]))"
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write("FORWARDED_ALLOW_IPS=127.0.0.1\n")
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], cwd=checkout, capture_output=True, check=False)
    return Seen("taken" if done.returncode == 0 else "refused", done.returncode != 0)
