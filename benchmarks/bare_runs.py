"""What the process of a variant runs without a photo: a matrix product, or one forward pass of a network."""

from __future__ import annotations

from typing import Any


def product_work(side: int) -> float:
    """Multiplications and additions of a square matrix product."""
    return 2.0 * side**3


def make_product(task: dict[str, Any]) -> tuple[Any, float]:
    """(one call, its work) of a product of two square matrices on the task's device."""
    import torch

    from app.restoration.device import DTYPES

    device = torch.device(task["device"])
    generator = torch.Generator().manual_seed(0)
    shape = (task["side"], task["side"])
    a, b = (torch.randn(shape, generator=generator).to(device, DTYPES[task["precision"]]) for _ in range(2))
    c = torch.empty_like(a)  # written over and over, so that no fresh memory is counted
    return _repeated(lambda: torch.mm(a, b, out=c), task), product_work(task["side"]) * task["repeats"]


def make_network(task: dict[str, Any]) -> tuple[Any, float]:
    """(one call, its work) of a forward pass over a square tile that lies on the device already."""
    from pathlib import Path

    import torch

    from app.restoration import device as devices
    from app.restoration.models.registry import ModelRegistry

    registry = ModelRegistry(Path(task["weights"]), allow_unverified=True)
    devices.prepare(task["device"])
    network = registry.load(registry.find(task["model"]), None, task["device"], task["precision"])
    side = task["side"]
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(task["device"])
    return _repeated(lambda: network(x), task), 2e6 * network.facts.work * side * side * task["repeats"]


def _repeated(call: Any, task: dict[str, Any]) -> Any:
    """The call as often as asked, ended only when the device has ended."""
    import torch

    def run() -> None:
        with torch.inference_mode():
            for _ in range(task["repeats"]):
                call()
        if task["device"] != "cpu":
            torch.cuda.synchronize(torch.device(task["device"]))  # not whichever card is current

    return run
