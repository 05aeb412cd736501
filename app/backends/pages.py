"""Every page of a TIFF through a backend, one after another: one result of several pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from app.backends.protocol import Backend
from app.errors import RestoreError
from app.images import Encoded, PagesEncoder, Picture
from app.notices import Notice, NoticeKind, notice
from app.options import Pages, RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage

FACES_OF_PAGES = notice(
    NoticeKind.FACES_NOT_KEPT,
    "The faces of several pages are not kept, so their strength cannot be changed without restoring again.",
)


def has_pages(picture: Picture, options: RestoreOptions) -> bool:
    """Whether more than this picture, the first page of its file, is to be restored."""
    return options.pages == Pages.ALL and picture.pages > 1


def restore_pages(
    backend: Backend,
    first: Picture,
    decode_page: Callable[[int], Picture],
    options: RestoreOptions,
    encoder: PagesEncoder,
    on_progress: OnProgress,
) -> tuple[RestorationResult, Encoded]:
    """Restore and write all pages. Only the page in work is in memory.

    Args:
        backend: restores each page.
        first: the first page, decoded.
        decode_page: gives another page, from 1.
        options: of every page.
        encoder: takes the results; the caller closes it.
        on_progress: is called with the share of all pages, and with the stage of the page in work.

    Returns:
        What is known of all pages together, with the first page's picture as it came in, and what was written.

    Raises:
        RestoreError: of the backend, or of a page that cannot be decoded, which is named.
        Cancelled: `on_progress` said so.
    """
    results, notes = [], list(first.notes)
    for index in range(first.pages):
        picture = first if index == 0 else _decoded(decode_page, index)
        notes += picture.notes if index else ()
        share = _share(on_progress, index, first.pages)
        restored = backend.restore(picture, options, share)
        encoder.add(restored.picture)
        faces = tuple({**face, "page": index} for face in restored.faces)
        results.append(dataclasses.replace(restored, picture=first, faces=faces, face_layers=(), damage=None))
        del picture, restored
    return _together(results, notes), encoder.finish()


def _decoded(decode_page: Callable[[int], Picture], index: int) -> Picture:
    try:
        return decode_page(index)
    except RestoreError as error:
        error.detail = f"Page {index + 1}: {error.detail}"
        raise


def _share(on_progress: OnProgress, index: int, total: int) -> OnProgress:
    def of_page(fraction: float, stage: Stage) -> bool:
        return on_progress((index + fraction) / total, stage)

    return of_page


def _together(results: list[RestorationResult], notes: list[Notice]) -> RestorationResult:
    """One result of several: times are summed, faces numbered through, each warning told once."""
    faces: list[Mapping[str, Any]] = [face for result in results for face in result.faces]
    warnings = [warning for result in results for warning in result.warnings] + notes
    if any(face["restored"] for face in faces):
        warnings.append(FACES_OF_PAGES)
    return dataclasses.replace(
        results[0],
        seconds=sum(result.seconds for result in results),
        params={**results[0].params, **_repair_of_all(results), "pages": len(results)},
        faces=tuple({**face, "index": number} for number, face in enumerate(faces)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _repair_of_all(results: list[RestorationResult]) -> dict[str, Any]:
    """What was filled of all pages together, and the share of each; nothing where none was repaired."""
    reports = [result.params["repair"] for result in results if "repair" in result.params]
    if not reports:
        return {}
    shares = [report["share"] for report in reports]
    together = {"share": round(sum(shares) / len(shares), 6), "regions": sum(report["regions"] for report in reports)}
    return {"repair": {**reports[0], **together, "share_in_faces": None, "page_shares": shares}}
