"""Our engine against upstream's `RealESRGANer(tile=0, pre_pad=0)`: same photo, same weights, one interleaved run.

Each engine is a process of its own. On a CPU upstream also runs with the allocator's limits that ours sets for itself,
on a card also in the half precision that its own script uses by default.
"""

from __future__ import annotations

from app.restoration.reference.packages import is_available
from benchmarks.request import LeftOut, Request, Row
from benchmarks.variants import TUNED_ALLOCATOR, Variant, measured_alone


def measure(request: Request) -> list[Row]:
    """Seconds, times of upstream and peaks, for each model and photo size."""
    if not is_available():
        raise LeftOut(
            "The packages realesrgan and basicsr are not installed here, so there is nothing to compare with."
        )
    sizes = request.sizes[:1] if request.quick else request.sizes
    return [row for model in request.models for side in sizes for row in _measure_one(request, model, side)]


def _measure_one(request: Request, model: str, side: int) -> list[Row]:
    variants = [Variant.upstream(request, model, side)]
    if request.on_cpu:
        tuned = Variant.upstream(request, model, side, "upstream, tuned allocator", environment=TUNED_ALLOCATOR)
    else:
        tuned = Variant.upstream(request, model, side, "upstream, fp16", half=True)
    variants += [tuned, Variant.ours(request, model, side, "ours, fp32", precision="fp32")]
    variants.append(Variant.ours(request, model, side))
    measured = measured_alone(request, variants, request.rounds)
    plain, second = measured["upstream"].seconds, measured[tuned.name].seconds
    return [
        Row(
            "upscale",
            f"{model}, {side}x{side}, {name}",
            {
                "median_ms": row.seconds * 1000,
                "times_upstream": plain / row.seconds,
                f"times_{tuned.name.replace(', ', '_').replace(' ', '_')}": second / row.seconds,
                **row.peaks,
                **row.tf32,
            },
        )
        for name, row in measured.items()
    ]
