"""Attacks by what is asked: odd texts, sizes that open nowhere, cookies after their end, settings, weight files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import requests

from benchmarks.attacks.hostile import photo, weights_with_code
from benchmarks.attacks.target import Target, started

_TIMEOUT_SECONDS = 60.0


def odd_prompt(target: Target) -> str:
    """7: a lone surrogate in the prompt, then the list of jobs."""
    body = (
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="x"\r\n\r\n' + photo() + b"\r\n"
        b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\n\xed\xa0\x80\r\n--b--\r\n'
    )
    headers = target.attacker | {"content-type": "multipart/form-data; boundary=b"}
    sent = requests.post(f"{target.url}/enhance", data=body, headers=headers, timeout=_TIMEOUT_SECONDS)
    listed = requests.get(f"{target.url}/api/v1/jobs", headers=target.attacker, timeout=_TIMEOUT_SECONDS)
    return f"submit {sent.status_code}, list {listed.status_code}"


def wide_avif(target: Target) -> str:
    """10: an AVIF wider than 32,768 pixels."""
    sent = requests.post(
        f"{target.url}/enhance",
        files={"files": ("wide", photo(9000, 16))},
        data={"output_format": "avif", "scale": "4"},
        headers=target.attacker,
        timeout=_TIMEOUT_SECONDS,
    )
    return f"submit {sent.status_code} {sent.json().get('code', '')}"


def cookie_after_sign_out(target: Target) -> str:
    """18: the cookie of a session that was signed out."""
    url = f"{target.url}/api/v1/session"
    signed_in = requests.post(url, headers=target.neighbour, timeout=_TIMEOUT_SECONDS)
    cookies = signed_in.cookies.copy()
    requests.delete(url, cookies=cookies, headers={"origin": target.url}, timeout=_TIMEOUT_SECONDS)
    answer = requests.get(f"{target.url}/api/v1/jobs", cookies=cookies, timeout=_TIMEOUT_SECONDS)
    return f"the list with the old cookie: {answer.status_code}"


def weight_file_with_code(checkout: Path) -> str:
    """1, 11: with no official model, a dropped-in file that carries a program, then a default photo."""
    with tempfile.TemporaryDirectory() as name:
        folder, marker = Path(name), Path(name) / "written"
        with started(checkout, weights_with_code(folder, marker)) as target:
            answer = requests.post(
                f"{target.url}/api/v1/enhance",
                files={"file": ("x", photo())},
                data={"face_enhance": "false"},
                headers=target.neighbour | {"prefer": "wait=60"},
                timeout=90,
            )
        said = answer.json()
        state = said.get("status") if answer.ok else said.get("code")
        return f"its program {'RAN' if marker.exists() else 'did not run'}; a default photo: {state}"


def any_origin_without_key(checkout: Path) -> str:
    """17: CORS for everybody, without a key."""
    try:
        with started(checkout, API_KEY="", CORS_ORIGINS="*"):
            return "it starts"
    except RuntimeError as error:
        return f"it does not start ({error})"


def proxies_in_settings(checkout: Path) -> str:
    """18: FORWARDED_ALLOW_IPS in a `.env` file, as documented."""
    code = "from app.settings import Settings; print(Settings(_env_file=__import__('sys').argv[1]))"
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write("FORWARDED_ALLOW_IPS=127.0.0.1\n")
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], cwd=checkout, capture_output=True, check=False)
    return "taken" if done.returncode == 0 else "refused"
