"""The segmentation's loss: cross-entropy, soft Dice of each damaged sample, soft F1, a price on marks elsewhere.

Cross-entropy alone is content with thin damage half found, Dice alone with a few marks on clean pictures; F1 of the
damaged samples together is counted as the figures are, with a tolerance; the price looks only at the most suspicious
pixels of an undamaged picture. Lonely specks weigh more than lines. Pixels that are unsure count nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from app.evaluation.damage.agreement import TOLERANCE

POSITIVE_WEIGHT = 1.5
DICE_WEIGHT = 0.4
TOLERANT_WEIGHT = 0.5
CLEAN_WEIGHT = 0.5
NEAR_PIXELS = 17  # side of the square in which the damage around a pixel is counted
LINE_SHARE = 0.15  # of that square: what a thin line takes; what takes less is a speck, and weighs more
SPECK_WEIGHT = 4.0  # at most
CLEAN_SHARE = 0.005  # of an undamaged picture's pixels, the most suspicious ones


def dice_loss(probability: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """One minus soft Dice of each sample; all (N, 1, H, W) fp32, result (N,)."""
    found = (probability * known).sum(dim=(1, 2, 3))
    both = (probability * mask).sum(dim=(1, 2, 3))
    return 1.0 - (2.0 * both + 1.0) / (found + mask.sum(dim=(1, 2, 3)) + 1.0)


def tolerant_dice_loss(probability: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """One minus soft F1 of all damaged samples together; all (N, 1, H, W) fp32, result a scalar.

    It has the tolerance of `agreement`, in a square where that has a disc.
    """
    side = 2 * TOLERANCE + 1
    marked = probability * known * mask.flatten(1).amax(dim=1)[:, None, None, None]  # undamaged samples count elsewhere
    near_mark = functional.max_pool2d(probability, side, 1, side // 2)
    near_damage = functional.max_pool2d(mask, side, 1, side // 2)
    precision = ((marked * near_damage).sum() + 1.0) / (marked.sum() + 1.0)
    recall = ((mask * near_mark).sum() + 1.0) / (mask.sum() + 1.0)
    return 1.0 - 2.0 * precision * recall / (precision + recall)


def clean_price(probability: Tensor) -> Tensor:
    """Mean probability of the most suspicious pixels of each sample; (N, 1, H, W) fp32 to (N,)."""
    flat = probability.flatten(1)
    return flat.topk(max(1, round(CLEAN_SHARE * flat.shape[1])), dim=1).values.mean(dim=1)


def speck_weight(target: Tensor) -> Tensor:
    """1 where damage is a line or wider, up to `SPECK_WEIGHT` where it is a lonely speck; (N, 1, H, W) fp32 twice.

    Without it specks drown: a first network found 88 % of the cracks and 6 % of the dust.
    """
    half = NEAR_PIXELS // 2
    rows = functional.avg_pool2d(target, (1, NEAR_PIXELS), 1, (0, half))
    share = functional.avg_pool2d(rows, (NEAR_PIXELS, 1), 1, (half, 0))
    return (LINE_SHARE / share.clamp_min(1e-4)).clamp(1.0, SPECK_WEIGHT)


def segmentation_loss(logits: Tensor, mask: Tensor, unsure: Tensor) -> Tensor:
    """What is made small.

    Args:
        logits: (N, 1, H, W) fp32.
        mask: (N, 1, H, W) bool, visible damage.
        unsure: (N, 1, H, W) bool, pixels that do not count.

    Returns:
        A scalar.
    """
    target, known = mask.float(), (~unsure).float()
    weight = known * (1.0 + (POSITIVE_WEIGHT * speck_weight(target) - 1.0) * target)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight)
    probability = logits.sigmoid()
    is_damaged = mask.flatten(1).any(dim=1).float()  # (N,)
    dice = dice_loss(probability, target, known) * is_damaged
    clean = clean_price(probability * known) * (1.0 - is_damaged)
    tolerant = tolerant_dice_loss(probability, target, known)
    return entropy + TOLERANT_WEIGHT * tolerant + torch.mean(DICE_WEIGHT * dice + CLEAN_WEIGHT * clean)
