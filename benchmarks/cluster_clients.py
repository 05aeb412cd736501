"""The clients of the cluster campaign: each an owner of its own that submits photos nobody else has, and checks them.

A photo is made of random blocks, so that a result of another one is never taken for its own.
"""

from __future__ import annotations

import dataclasses
import io
import random
import threading
import time
from collections import Counter

import httpx2
import numpy as np
from PIL import Image

from tests.provider_stand_in import negative

SCALE = 2
CLOUD_SHARE = 0.2
ENDED = ("completed", "failed", "cancelled")
_BLOCKS, _SIDES = (6, 5), (48, 40)
_CLOUD_DIFFERENCE = 12.0  # of 255, in the mean: what JPEG and enlarging cost; another photo differs by about 85
_RETRY_SECONDS = 0.5


@dataclasses.dataclass
class Accepted:
    """A photo that was answered with 202."""

    job_id: str
    owner: int
    seed: int
    cloud: bool


def blocks(seed: int) -> Image.Image:
    """The photo of a seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (_BLOCKS[1], _BLOCKS[0], 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(_SIDES, Image.Resampling.NEAREST)


def png_of(image: Image.Image) -> bytes:
    """The file of a picture."""
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


class Client:
    """One owner. `refused` counts answers other than 202, and cut connections."""

    def __init__(self, number: int, url: str, key: str, chance: random.Random) -> None:
        self.number, self.accepted, self.refused = number, list[Accepted](), Counter[str]()
        self._chance = chance
        self._http = httpx2.Client(base_url=url, headers={"X-API-KEY": key}, timeout=30)

    def submit(self, photos: int, pause_seconds: float, give_up: threading.Event) -> None:
        """Send so many photos, each until it is accepted; a cut POST is never sent again as it was."""
        while len(self.accepted) < photos and not give_up.is_set():
            self.accepted += filter(None, [self._send()])
            give_up.wait(self._chance.uniform(0.5, 1.5) * pause_seconds)

    def _send(self) -> Accepted | None:
        seed, cloud = self._chance.getrandbits(60), self._chance.random() < CLOUD_SHARE
        fields = {"scale": str(SCALE), "output_format": "png", "backend": "siliconflow" if cloud else "local"}
        fields |= {"seed": "1"} if cloud else {}
        try:
            answer = self._http.post(
                "/api/v1/enhance", files={"file": ("photo.png", png_of(blocks(seed)))}, data=fields
            )
        except httpx2.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return None
        if answer.status_code != 202:
            self.refused[f"{answer.status_code} {_code(answer)}"] += 1
            time.sleep(_RETRY_SECONDS)
            return None
        return Accepted(answer.json()["job_id"], self.number, seed, cloud)

    def state(self, job_id: str) -> dict[str, object]:
        """What the service says of a job, asked until it answers."""
        answer = self._get(f"/api/v1/jobs/{job_id}")
        said: dict[str, object] = answer.json()
        return said if answer.status_code == 200 else {"status": "lost", "code": said.get("code")}

    def is_strange(self, job_id: str) -> bool:
        """Whether the job of another owner is shown, or its result given."""
        return any(self._get(f"/api/v1/jobs/{job_id}{more}").status_code != 404 for more in ("", "/result"))

    def fault_of_result(self, accepted: Accepted) -> str | None:
        """What is wrong with the result of a completed job; None when it is what the stand-in must give."""
        answer = self._get(f"/api/v1/jobs/{accepted.job_id}/result")
        if answer.status_code != 200:
            return f"no result: {answer.status_code} {_code(answer)}"
        try:
            with Image.open(io.BytesIO(answer.content), formats=("PNG",)) as image:
                found = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            return f"half a result: {type(error).__name__}"
        photo = blocks(accepted.seed)
        size = (photo.width * SCALE, photo.height * SCALE)
        if (found.shape[1], found.shape[0]) != size:
            return f"a result of {found.shape[1]}x{found.shape[0]}"
        if accepted.cloud:
            wanted = np.asarray(negative(photo.resize(size))).astype(float)
            return None if np.abs(found - wanted).mean() < _CLOUD_DIFFERENCE else "another photo's result"
        wanted = np.asarray(photo.resize(size, Image.Resampling.LANCZOS))
        return None if np.array_equal(found, wanted) else "a result that the stand-in did not give"

    def _get(self, path: str) -> httpx2.Response:
        for attempt in range(60):
            try:
                answer = self._http.get(path)
            except httpx2.HTTPError:
                if attempt == 59:
                    raise
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            time.sleep(_RETRY_SECONDS)
        return answer


def _code(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError):
        return "?"
