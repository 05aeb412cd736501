"""The damage of one photo found, masked and filled, and what is said about it.

It runs at the photo's own size, before colours, enlargement and faces. Where nothing is marked the photo passes as it
is, the same object.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.images import Picture
from app.images.damage_layer import DamageLayer
from app.images.metadata.edit_history import with_edit
from app.notices import Notice, NoticeKind, notice
from app.options import Repair
from app.restoration.faces.detection import Detect, DetectedFace
from app.restoration.repair.detection import DamageNetwork, find_damage
from app.restoration.repair.facial_features import FEATURE_LEVELS, box_of, without_features
from app.restoration.repair.filling import fill
from app.restoration.repair.halo import with_halo
from app.restoration.repair.inpainting_network import FillCorrection
from app.restoration.repair.mask import (
    FACE_THRESHOLDS,
    THRESHOLDS,
    FaceBox,
    Mask,
    count_regions,
    make_mask,
    share_in,
)
from app.results import RestorationResult
from app.stages import OnFraction

MUCH_SHARE = 0.25
DETECTION_SHARE = 0.6  # of the time, which paces the progress
_SHARE_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class RepairNetworks:
    """What repairs: `inpainting` is None where only the library fills."""

    segmentation: DamageNetwork
    inpainting: FillCorrection | None = None


@dataclasses.dataclass(frozen=True)
class RepairedPhoto:
    """A repaired photo, what was filled, the facts for the record (JSON-ready), and how long it took."""

    picture: Picture
    damage: DamageLayer
    report: dict[str, Any]
    seconds: float

    def told_by(self, result: RestorationResult, *, is_whole: bool = True) -> RestorationResult:
        """What was made of the repaired photo, with the damage, the time and, where it is not a part, its warning."""
        return dataclasses.replace(
            result,
            damage=self.damage,
            warnings=(*(_warnings(self.damage.share) if is_whole else ()), *result.warnings),
            seconds=self.seconds + result.seconds,
        )


def repair_photo(
    networks: RepairNetworks,
    picture: Picture,
    mode: Repair,
    *,
    mask: Mask | None = None,
    detect: Detect | None = None,
    on_fraction: OnFraction = lambda fraction: True,
    reduction: int | None = None,
) -> RepairedPhoto:
    """Find damage and fill it.

    Args:
        networks: what is installed.
        picture: any decoded photo.
        mode: auto or strong.
        mask: (H, W) bool, what to fill; None: what the network finds.
        detect: finds the faces, where the threshold is higher and features are left alone; None: none is installed.
        on_fraction: told the fraction done after every tile and window.
        reduction: of the whole photo, where `picture` is a part of it; see `find_damage`.

    Returns:
        The photo, which is the same object where nothing is marked.

    Raises:
        Cancelled: `on_fraction` said stop.
    """
    started = time.monotonic()
    if mask is not None:
        damage, begun = _drawn(picture, mask, detect), 0.0
    else:
        begun = DETECTION_SHARE
        probability = find_damage(
            networks.segmentation, picture.rgb, lambda f: on_fraction(f * begun), reduction=reduction
        )
        damage = _marked(probability, picture, mode, detect)
    report = _report(damage, mode, is_own=mask is not None, knows_faces=detect is not None)
    if damage.mask.any():

        def tell(fraction: float) -> bool:
            return on_fraction(begun + fraction * (1.0 - begun))

        rgb = fill(picture.rgb, damage.mask, networks.inpainting, tell, hidden=_hidden(picture))
        picture = dataclasses.replace(picture, rgb=rgb, xmp=with_edit(picture.xmp, _spoken(damage.share)))
    return RepairedPhoto(picture, damage, report, time.monotonic() - started)


def marked_share(networks: RepairNetworks, picture: Picture, on_fraction: OnFraction) -> float:
    """Which part of a photo, 0 to 1, `auto` would fill; faces are not looked for. Raises `Cancelled`."""
    probability = _seen_part(find_damage(networks.segmentation, picture.rgb, on_fraction), picture)
    return float(make_mask(probability, THRESHOLDS[Repair.AUTO]).mean())


def _drawn(picture: Picture, mask: Mask, detect: Detect | None) -> DamageLayer:
    """The mask that a user drew."""
    if mask.shape != (picture.height, picture.width):
        raise ValueError(f"a mask of {mask.shape} for a photo of {picture.rgb.shape}")
    faces = _boxes(picture, detect(picture.rgb)) if detect is not None and mask.any() else ()
    return DamageLayer(mask.astype(np.uint8) * np.uint8(255), mask, faces)


def _marked(probability: NDArray[np.uint8], picture: Picture, mode: Repair, detect: Detect | None) -> DamageLayer:
    """What is filled of what was found; faces are looked for where this or a lower threshold would mark something."""
    probability = _seen_part(probability, picture)
    found = detect(picture.rgb) if detect is not None and (probability > 255 * FEATURE_LEVELS[0]).any() else []
    faces = _boxes(picture, found)
    probability = without_features(probability, found)
    mask = make_mask(probability, THRESHOLDS[mode], faces, FACE_THRESHOLDS[mode])
    return DamageLayer(probability, with_halo(picture.rgb, mask, _hidden(picture)), faces)


def _seen_part(probability: NDArray[np.uint8], picture: Picture) -> NDArray[np.uint8]:
    """0 where the photo is fully transparent: what is hidden there is often black, which looks like a torn border."""
    hidden = _hidden(picture)
    return probability if hidden is None else np.asarray(np.where(hidden, 0, probability), dtype=np.uint8)


def _hidden(picture: Picture) -> Mask | None:
    """Where the photo is fully transparent, (H, W); None for one that has no transparency."""
    return None if picture.alpha is None else np.asarray(picture.alpha == 0, dtype=np.bool_)


def _boxes(picture: Picture, faces: list[DetectedFace]) -> tuple[FaceBox, ...]:
    return tuple(box_of(face, picture.height, picture.width) for face in faces)


def _report(damage: DamageLayer, mode: Repair, *, is_own: bool, knows_faces: bool) -> dict[str, Any]:
    return {
        "mode": mode.value,
        "share": round(damage.share, _SHARE_DIGITS),
        "regions": count_regions(damage.mask),
        "faces": [list(box) for box in damage.faces],
        "share_in_faces": round(share_in(damage.mask, damage.faces), _SHARE_DIGITS) if knows_faces else None,
        "threshold": None if is_own else THRESHOLDS[mode],
        "face_threshold": None if is_own or not knows_faces else FACE_THRESHOLDS[mode],
        "own_mask": is_own,
    }


def _spoken(share: float) -> str:
    """For the history that travels in the file."""
    percent = 100.0 * share
    digits = 2 if percent < 1 else 1 if percent < 10 else 0
    words = "Less than 0.01" if percent < 0.01 else f"{percent:.{digits}f}"
    return f"Damage repaired: {words} % of the photo was filled from its surroundings; what stands there is invented."


def _warnings(share: float) -> tuple[Notice, ...]:
    if share <= MUCH_SHARE:
        return ()
    words = "{percent} % of the photo was covered by damage and is invented; look at the mask before you trust it."
    return (notice(NoticeKind.MUCH_DAMAGE, words, percent=round(100 * share)),)
