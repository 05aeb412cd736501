"""`run.py serve` and `run.py api`: keep the server process running under a supervisor; `serve` fetches weights first.

The parent stays small (it never imports torch) and owns the terminal; the child is the service itself, `app.main`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.commands import models, torch_build
from app.commands.bootstrap import ROOT
from app.commands.configure import read_settings
from app.commands.console import complain, say
from app.commands.ports import port_error
from app.commands.supervisor import Supervisor, die_with
from app.error_codes import PASSING_AT_START
from app.errors import RestoreError
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_CARD_LOST, EXIT_FAILED, EXIT_HUNG, EXIT_OK
from app.options import CARD_FAILED, HUNG_OFTEN
from app.restoration.models import weights
from app.restoration.models.table import EMBEDDED_MODEL, QUALITY_MODELS, TABLE, find_installed
from app.restoration.models.weights import is_present
from app.settings import Settings

# glibc's allocator in the server process. One arena from the start: in another than the main one large blocks are
# mapped afresh each time, which costs a restoration in the worker's thread much of its speed. The other limits (keep
# freed memory) are set from inside by app.restoration.device; a value set by the user wins.
ALLOCATOR_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


def run(*, download: bool = True, restores: bool = True) -> int:
    """Serve until stopped; returns the exit code. Without `restores` workers do, and no weights are needed."""
    settings = read_settings(listens=True)
    taken = _taken_port(settings)
    if taken is not None:
        complain(taken)
        return EXIT_FAILED
    if restores:
        provide_weights(settings, download=download and not settings.offline)
    return supervise(settings, ["serve" if restores else "api"])


def supervise(settings: Settings, words: Sequence[str]) -> int:
    """Keep the process of this command running until stopped; returns the exit code."""
    command = [sys.executable, "-m", "app.commands", *words, "--child-of", str(os.getpid())]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**ALLOCATOR_ENVIRONMENT, **os.environ, "PYTHONPATH": path}
    without_card = _words_without_card() if torch_build.may_use_card(settings.device) else {}
    supervisor = Supervisor(
        command, environment, complain, words_without_card=without_card, words_after_death=["--after-death"]
    )
    return supervisor.run()


def _words_without_card() -> dict[int, list[str]]:
    """What tells a child why it does without its card, by how those before it ended."""
    return {EXIT_CARD_LOST: ["--instead-of-card", CARD_FAILED], EXIT_HUNG: ["--instead-of-card", HUNG_OFTEN]}


def run_child(parent_pid: int, *, after_death: bool = False, no_card: str | None = None, restores: bool = True) -> int:
    """The server process: runs the service until SIGTERM, and dies with its supervisor.

    `after_death`: the supervisor saw the process before this one die, so what it had in work is under suspicion.
    `no_card`: CARD_FAILED or HUNG_OFTEN, as the supervisor saw it too often; the CPU restores, whatever DEVICE says.
    """
    die_with(parent_pid)
    settings = read_settings(listens=True)
    if no_card is not None:
        settings = settings.model_copy(update={"device": no_card})
    from app.main import ProcessRole, serve  # where it restores it imports torch, which the parent does without

    role = ProcessRole.ALL if restores else ProcessRole.API
    try:
        serve(settings, banner=lambda facts: _print_banner(settings, facts), after_death=after_death, role=role)
    except RestoreError as error:
        return exit_code_of(error)
    return EXIT_OK


def exit_code_of(error: RestoreError) -> int:
    """Say why a process could not start; where DEVICE names a card that is not there, say, a restart would not help.

    A database that is away, busy, full, read-only for a while or held by earlier workers is: those pass.
    """
    complain(error.detail)
    return EXIT_FAILED if error.code in PASSING_AT_START else EXIT_BAD_SETTINGS


def banner(settings: Settings, facts: Mapping[str, Any]) -> list[str]:
    """The lines that a start prints: addresses, device and precision with their reasons, models, the key.

    Args:
        settings: what the service runs with.
        facts: what the local backend says of itself (`LocalBackend.describe`).
    """
    installed = [row["name"] for row in facts.get("models", ()) if row.get("installed")]
    absent = [row["name"] for row in facts.get("models", ()) if not row.get("installed")]
    ways = ["X-API-KEY"] * bool(settings.api_keys) + ["Bearer token"] * settings.accepts_tokens
    key = f"needed ({' or '.join(ways)})" if ways else "none set: open to this machine only"
    lines = [
        "",
        f"  API         {_address(settings.host, settings.port)}",
        f"  Dashboard   {_address(settings.host, settings.dashboard_port)}",
        *_machine_lines(facts, installed),
    ]
    if absent:
        lines.append(f"  Not here    {', '.join(absent)} (python3 run.py models list)")
    lines.append(f"  Key         {key}")
    remarks = [*facts.get("problems", ()), *facts.get("notes", ())]
    return [*lines, *(f"  Note        {remark}" for remark in remarks), ""]


def _machine_lines(facts: Mapping[str, Any], installed: Sequence[str]) -> list[str]:
    if not facts:
        return ["  Restores    nothing here; workers do (python3 run.py worker)"]
    return [
        f"  Device      {facts.get('device')} ({facts.get('device_reason')})",
        f"  Precision   {facts.get('precision')} ({facts.get('precision_reason')})",
        f"  Quality     {facts.get('default_quality')} by default, with {facts.get('default_model') or 'no model yet'}",
        f"  Models      {', '.join(installed) or 'none installed'}",
    ]


def _print_banner(settings: Settings, facts: Mapping[str, Any]) -> None:
    for line in banner(settings, facts):
        say(line)


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def provide_weights(settings: Settings, *, download: bool) -> None:
    """Fetch the default files that are missing, or say what is missing and how to get it; the start goes on anyway."""
    wanted = models.missing_defaults(settings.weights_folder)
    if not wanted:
        return
    if download:
        say(f"Fetching {len(wanted)} missing weight file(s) ...")
        if models.fetch(wanted, settings):
            return
    still = [row.file for row in models.missing_defaults(settings.weights_folder)]
    if still:
        complain(f"Missing weights: {', '.join(still)}. {what_runs(settings.weights_folder)} To get them:")
        for line in models.how_to_get(settings.weights_folder):
            complain(line)


def what_runs(folder: Path) -> str:
    """What restores with the files that are there, as far as that is known before they are opened."""
    files_of_ours = (*(row.file for row in (*weights.MANIFEST, weights.EMBEDDED)), *weights.REPAIR_FILES)
    known = {Path(file).stem for file in files_of_ours}
    own = [path.stem for path in weights.files_in(folder) if path.stem not in known]
    files = {row.name: weights.path_of(folder, row.file) for row in TABLE}

    def is_there(name: str) -> bool:
        return name in own or (name in files and is_present(files[name]))

    meant: dict[str, list[str]] = {}
    for quality, model in QUALITY_MODELS.items():
        meant.setdefault(model, []).append(str(quality))
    sentences = []
    for model, qualities in meant.items():
        runs = find_installed(model, own, is_there)
        if runs != model:
            named = "the small model of the project" if runs == EMBEDDED_MODEL else runs or "nothing"
            sentences.append(f"For {' and '.join(qualities)} {named} runs instead of {model}.")
    partners = [row.denoise_partner for row in TABLE if row.denoise_partner and is_there(row.name)]
    if any(not is_present(folder / partner) for partner in partners):
        sentences.append("The option denoise has no effect.")
    return " ".join(sentences)


def _taken_port(settings: Settings) -> str | None:
    """One sentence when a port cannot be listened on, else None."""
    for name, port in (("PORT", settings.port), ("DASHBOARD_PORT", settings.dashboard_port)):
        reason = port_error(settings.host, port)
        if reason is not None:
            return (
                f"{settings.host} port {port} cannot be listened on ({reason}); "
                f"stop what uses it, or choose another {name}."
            )
    return None
