"""One process of a cluster for the campaigns: the real service under the real supervisor, with stand-in backends.

The local backend enlarges by Lanczos and takes its time; the cloud backend is the real one, bent to the provider's
stand-in of the tests, which runs in the campaign's own process. `python -m benchmarks.cluster_node supervise NODE` with
NODE as JSON, see `Node`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from app.backends.siliconflow import NAME as CLOUD
from app.backends.siliconflow.backend import open_siliconflow_backend
from app.commands.supervisor import Policy, Supervisor, die_with
from app.images import Decoder, ImageLimits, Picture
from app.main import serve
from app.main.roles import ProcessRole
from app.main.worker_service import work
from app.options import RestoreOptions
from app.outbound.ssrf_safe_transport import GuardedNetwork
from app.results import RestorationResult
from app.settings import Settings
from app.stages import OnProgress, Stage
from tests import provider_stand_in as provider
from tests.http_service import GatedBackend, describe, settings_for

STRIP_SECONDS = 0.02  # between two words of progress
AFTER_DEATH = "--after-death"
POLICY = Policy(restarts=1000, first_wait_seconds=0.5, longest_wait_seconds=1.0)


@dataclasses.dataclass(frozen=True)
class Node:
    """What a process is started with.

    Attributes:
        folder: its own, for scratch files.
        settings: as `Settings` takes them.
        seconds: how long the local stand-in takes for a photo, spread over its strips.
        restores: whether it does, or only serves.
        provider: ports of the provider's stand-in on loopback: its API, and its store of results.
    """

    folder: str
    settings: dict[str, Any]
    seconds: float
    provider: tuple[int, int]
    restores: bool = True

    def words(self) -> str:
        """As a word of a command line."""
        return json.dumps(dataclasses.asdict(self))


class SlowBackend(GatedBackend):
    """Enlarges by Lanczos and takes `seconds` for each photo."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `Backend`."""
        ends = time.monotonic() + self._seconds

        def slowly(fraction: float, stage: Stage) -> bool:
            while fraction > 0 and time.monotonic() < ends:
                if not on_progress(fraction, stage):
                    return False
                time.sleep(STRIP_SECONDS)
            return on_progress(fraction, stage)

        return super().restore(picture, options, slowly)


def network(api_port: int, store_port: int) -> GuardedNetwork:
    """How a node reaches the provider's stand-in: every guard stays, only the dialling is bent to loopback."""
    authority = provider._CERTIFICATE.findall(provider._PEM.read_text())[-1]

    def resolve(host: str, _port: int) -> list[str]:
        return {"127.0.0.1": ["127.0.0.1"], provider.HOST: [provider.PUBLIC]}[host]

    def dial(address: str, port: int, timeout_seconds: float) -> socket.socket:
        bent = {("127.0.0.1", api_port): api_port, (provider.PUBLIC, 443): store_port}
        return socket.create_connection(("127.0.0.1", bent[address, port]), timeout_seconds)

    return GuardedNetwork(resolve, dial, ssl.create_default_context(cadata=authority))


def backends_of(node: Node, settings: Settings) -> dict[str, Any]:
    """The stand-in and the bent cloud backend."""
    api_port, store_port = node.provider
    limits = ImageLimits(settings.max_input_megapixels, settings.decode_timeout_seconds, settings.decode_memory_mb)
    cloud = open_siliconflow_backend(
        api_key=provider.KEY,
        api_url=f"http://127.0.0.1:{api_port}/v1/images/generations",
        model=provider.MODEL,
        timeout_seconds=60.0,
        result_hosts=(provider.HOST,),
        network=network(api_port, store_port),
        decode=Decoder(limits).decode,
    )
    return {"local": SlowBackend(node.seconds), CLOUD: cloud}


def run(node: Node, *, after_death: bool) -> None:
    """The child: an API server or a Celery worker, until a signal."""
    settings = settings_for(Path(node.folder), **{**node.settings, "siliconflow_api_key": provider.KEY})
    if node.restores:
        work(settings, backends=backends_of(node, settings), describe=describe, after_death=after_death)
    else:
        serve(settings, role=ProcessRole.API, after_death=after_death)


def supervise(word: str) -> int:
    """The parent, as `run.py api` and `run.py worker` have one."""
    command = [sys.executable, "-m", "benchmarks.cluster_node", "run", word, str(os.getpid())]
    return Supervisor(
        command, dict(os.environ), lambda line: print(line, flush=True), POLICY, words_after_death=[AFTER_DEATH]
    ).run()


def main() -> int:
    """Supervise, or be the child."""
    role, word, *more = sys.argv[1:]
    if role == "supervise":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return supervise(word)
    die_with(int(more[0]))
    facts = json.loads(word)
    run(Node(**{**facts, "provider": tuple(facts["provider"])}), after_death=AFTER_DEATH in more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
