"""The columns of a report: which ways of restoring are compared in one run, each with its options and a name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from app.errors import BadRequest
from app.options import BackendName, RestoreOptions

BASELINE = "bicubic"
INPUTS_FOLDER = "inputs"


@dataclasses.dataclass(frozen=True)
class Column:
    """One way of restoring: its name in the report, and the options of the service."""

    name: str
    options: RestoreOptions

    @property
    def folder(self) -> str:
        """Name of the folder that its results lie in."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks to compare; each may name several, empty means the service's default."""

    models: Sequence[str] = ()
    qualities: Sequence[str] = ()
    backends: Sequence[str] = (BackendName.LOCAL.value,)
    faces: Sequence[str] = ("on",)


def make_columns(asked: Asked, shared: Mapping[str, object]) -> tuple[Column, ...]:
    """One column for each model and quality, times faces on or off, and one or two for each other backend.

    Args:
        asked: models, qualities, backends and faces (on, off).
        shared: options that hold for all columns, as texts or values (scale, denoise, ...).

    Raises:
        BadRequest: `same_column` when two columns would have one name.
        Unprocessable: an option is out of its bounds.
    """
    picks: list[dict[str, object]] = [{"model": name} for name in asked.models]
    picks += [{"quality": name} for name in asked.qualities]
    columns = [
        _column(backend, pick, face, asked, shared)
        for backend in asked.backends
        for pick in (picks if picks and backend == BackendName.LOCAL else [{}])
        for face in asked.faces
    ]
    names = [column.folder.lower() for column in columns] + [BASELINE, INPUTS_FOLDER]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadRequest("same_column", f"'{twice[0]}' was asked for twice; name each model, quality and backend once.")
    return tuple(columns)


def _column(backend: str, pick: Mapping[str, object], face: str, asked: Asked, shared: Mapping[str, object]) -> Column:
    options = RestoreOptions.from_fields({**shared, "backend": backend, **pick, "face_enhance": face})
    words = [str(next(iter(pick.values()), "default"))]
    if backend != BackendName.LOCAL:
        words = [backend]
    if len(asked.faces) > 1:
        words.append(f"faces {face}")
    return Column(", ".join(words), options)
