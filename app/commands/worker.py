"""`run.py worker`: keeps a process that restores what API servers accept running under a supervisor.

One a card; a worker of the queue `cloud` alone loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.commands.configure import read_settings
from app.commands.console import complain, say
from app.commands.serve import exit_code_of, provide_weights, supervise
from app.commands.supervisor import die_with
from app.errors import RestoreError
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_OK
from app.main.roles import ProcessRole, check_role, queues_of
from app.queue.names import QueueName


def run(queues: Sequence[QueueName], *, download: bool = True) -> int:
    """Restore until stopped; returns the exit code."""
    settings = read_settings()
    try:
        check_role(settings, ProcessRole.WORKER)
        served = queues_of(settings, queues)
    except RestoreError as error:
        complain(error.detail)
        return EXIT_BAD_SETTINGS
    if QueueName.GPU in served:
        provide_weights(settings, download=download and not settings.offline)
    return supervise(settings, ["worker", "--queues", ",".join(served)])


def run_child(
    queues: Sequence[QueueName], parent_pid: int, *, after_death: bool = False, no_card: str | None = None
) -> int:
    """The process that restores: until SIGTERM, and it dies with its supervisor. See `app.commands.serve.run_child`."""
    die_with(parent_pid)
    settings = read_settings()
    if no_card is not None:
        settings = settings.model_copy(update={"device": no_card})
    from app.main import work  # where it restores by itself it imports torch, which the parent does without

    try:
        work(settings, queues, banner=_print_banner, after_death=after_death)
    except RestoreError as error:
        return exit_code_of(error)
    return EXIT_OK


def _print_banner(facts: Mapping[str, Any]) -> None:
    if facts:
        say(f"The worker is ready: {facts.get('device')}, {facts.get('precision')}, {facts.get('default_model')}")
    else:
        say("The worker is ready.")
