"""The models as JSON: what each is for, whether it is here and in use, and how far its download is.

What is installed comes from the catalog, what is on its way from the downloads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.api.dependencies import AppContext
from app.model_downloads import Download, InstallWay, ModelDownloads

SETS = ("default", "faces")
COMMAND = "python3 run.py models download"
_TABLES = (("upscaling", "models"), ("partner", "partner_models"), ("faces", "face_models"))


def list_models(context: AppContext, *, is_operator: bool) -> dict[str, Any]:
    """Every model and set of models; `downloads` says whether this caller may install, or why not."""
    described, downloads = context.catalog.description(), context.model_downloads
    uses = _uses(described)
    known = {} if downloads is None else downloads.known()
    rows = [
        {**_model(row, kind, uses), **_download(row, known, downloads)}
        for kind, table in _TABLES
        for row in described.get(table, ())
    ]
    return {
        "models": rows,
        "sets": [_set(name, rows) for name in SETS],
        "downloads": _ways(context, is_operator=is_operator),
        "loading": context.catalog.loading,
        "models_revision": context.catalog.revision(),
    }


def why_no_downloads(context: AppContext, *, is_operator: bool) -> str | None:
    """One sentence why this caller cannot install models here; None: they can."""
    if not is_operator:
        return "Whoever runs the service can install models."
    if context.model_downloads is None:
        return f"This server holds no models; install them where the workers run: {COMMAND}"
    return context.model_downloads.refusal


def _ways(context: AppContext, *, is_operator: bool) -> dict[str, Any]:
    """How this caller gets a missing model; the command is told only to whom it is of use."""
    refusal = why_no_downloads(context, is_operator=is_operator)
    way = InstallWay.COMMAND if context.model_downloads is None else context.model_downloads.way
    way = way if is_operator else InstallWay.ASK
    command = COMMAND if way is InstallWay.COMMAND else None
    return {"allowed": refusal is None, "reason": refusal, "way": way.value, "command": command}


def show_download(download: Download) -> dict[str, Any]:
    """One download, with a problem's code and sentence when it has failed."""
    return {
        "file": download.file,
        "state": download.state.value,
        "bytes": download.bytes,
        "of": download.of,
        "code": download.code,
        "message": download.message,
    }


def _model(row: Mapping[str, Any], kind: str, uses: Mapping[str, list[str]]) -> dict[str, Any]:
    """What a model is, from its row of the description."""
    return {
        "name": row["name"],
        "file": row["file"],
        "kind": kind,
        "purpose": row.get("purpose", ""),
        "bytes": row["bytes"],
        "licence": row["licence"],
        "commercial_use": row.get("commercial_use"),
        "sets": list(row.get("sets", ())),
        "installed": bool(row["installed"]),
        "present": bool(row.get("present", row["installed"])),
        "note": row.get("note"),
        "used_for": uses.get(str(row["file"]), []),
    }


def _download(
    row: Mapping[str, Any], known: Mapping[str, Download], downloads: ModelDownloads | None
) -> dict[str, Any]:
    """How a model comes here, where this server can fetch it."""
    file = str(row["file"])
    download = known.get(file)
    return {
        "can_install": downloads is not None and bool(downloads.find(file)),
        "partial_bytes": 0 if downloads is None else downloads.partial_bytes(file),
        "download": None if download is None else show_download(download),
    }


def _uses(described: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each file does just now: the qualities that its model serves, or `faces`."""
    files = {row["name"]: str(row["file"]) for row in described.get("models", ())}
    uses: dict[str, list[str]] = {}
    for row in described.get("qualities", ()):
        uses.setdefault(files.get(row["model"], ""), []).append(str(row["quality"]))
    return {**uses, **{str(file): ["faces"] for file in (described.get("faces") or {}).get("files", ())}}


def _set(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Models that are installed together; `bytes` are those still to come."""
    members = [row for row in rows if name in row["sets"]]
    missing = [row for row in members if not row["installed"]]
    return {
        "name": name,
        "files": [row["file"] for row in members],
        "bytes": sum(int(row["bytes"]) - int(row["partial_bytes"]) for row in missing),
        "installed": not missing,
        "commercial_use": all(row["commercial_use"] is not False for row in missing),
    }
