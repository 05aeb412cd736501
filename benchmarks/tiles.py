"""Our engine with tiles of several sizes on one photo: which size is fastest on this device, and what each costs."""

from __future__ import annotations

from benchmarks.request import Request, Row
from benchmarks.variants import Variant, measured_alone

_CPU_TILES, _CUDA_TILES = (64, 128, 192, 256), (128, 256, 512, 1024)


def measure(request: Request) -> list[Row]:
    """Seconds and peaks for each tile side, chosen one included, on the largest photo."""
    side = max(request.sizes)
    rows = []
    for model in request.models:
        tiles = [tile for tile in (_CPU_TILES if request.on_cpu else _CUDA_TILES) if tile <= side] or [side]
        variants = [Variant.ours(request, model, side, name=f"tile {tile}", tile=tile) for tile in tiles]
        variants.append(Variant.ours(request, model, side, name="tile as chosen"))
        measured = measured_alone(request, variants, request.rounds)
        best = min(row.seconds for row in measured.values())
        for name, row in measured.items():
            figures = {"median_ms": row.seconds * 1000, "times_the_best": row.seconds / best, **row.peaks, **row.tf32}
            rows.append(Row("tiles", f"{model}, {side}x{side}, {name}", figures))
    return rows
