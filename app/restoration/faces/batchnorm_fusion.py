"""Folds batch normalisation into the convolution before it, for networks that only run. It knows torch only."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution among the children of one parent, at any depth, in place.

    The same function up to rounding, without a pass over memory for each norm. The module must be in eval mode and
    its children must run in the order in which they are registered (true of facexlib's and torchvision's networks).
    """
    module.eval()
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        elif not isinstance(child, nn.Conv2d):
            fold_batch_norms(child)
        before = (name, child) if isinstance(child, nn.Conv2d) else None
