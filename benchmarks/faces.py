"""Face restoration against the untouched `GFPGANer`, part by part and as a whole, in one interleaved run.

Each engine is a process of its own; rounds go through all in turn. Two faces of a photo of 700x464 are pasted into
2800x1856, and for the whole stage also those of 350x232 into 1400x928. Both engines look for faces and then work on the
same drawn ones, so random weights do. By itself: `python -m benchmarks.faces --weights FOLDER`; there `--memory`
measures thirty faces instead.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.restoration.faces.alignment import TEMPLATE
from app.restoration.faces.detection import DetectedFace
from app.restoration.faces.pipeline import LoadedFaceModels
from app.restoration.reference.packages import is_available
from benchmarks.random_weights import DETECTOR_FILE, put_face_weights
from benchmarks.request import LeftOut, Request, Row, invented_picture, median
from benchmarks.variants import TUNED_ALLOCATOR, Engine, describe_in_child, resident_mb

SCALE = 4
WARM_UP_ROUNDS = 1
PASTE, GFPGAN, PARSING = "paste without parsing", "GFPGAN, a face", "parsing, a face"
_SIZE = (700, 464)
STAGES = {"face stage, 350x232": (350, 232), "face stage, 700x464": _SIZE}
DETECTION = "detection, 12 megapixels"
PARTS = (PASTE, GFPGAN, PARSING, *STAGES, DETECTION)
_PLACES = ((506, 200, 323), (176, 211, 259))  # centre and side of each face's frame, pixels
_FILES = ("GFPGANv1.3.pth", "parsing_parsenet.pth", DETECTOR_FILE)
Part = Callable[[], Callable[[], object]]  # prepares one run, which is then timed


def drawn(places: tuple[tuple[float, float, float], ...]) -> list[DetectedFace]:
    """Faces at these places."""
    return [
        DetectedFace(
            (x - side * 0.3, y - side * 0.4, x + side * 0.3, y + side * 0.4),
            0.99,
            (TEMPLATE - 256) / 512 * side + (x, y),
        )
        for x, y, side in places
    ]


def drawn_on(pixels: NDArray[Any]) -> list[DetectedFace]:
    """The two faces of the photo, at any size of it; (H, W, 3)."""
    factor = pixels.shape[1] / _SIZE[0]
    return drawn(tuple((x * factor, y * factor, side * factor) for x, y, side in _PLACES))


def resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture in another size (width, height)."""
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC)).copy()


def enlarge(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What stands for the upscaled photo."""
    return resize(rgb, (rgb.shape[1] * SCALE, rgb.shape[0] * SCALE))


class Drawing:
    """Upstream's detector, whose answer is exchanged for drawn faces."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def detect_faces(self, bgr: NDArray[Any], threshold: float) -> NDArray[np.float64]:
        """(N, 15): box, score, landmarks."""
        self._detector.detect_faces(bgr, threshold)
        return np.array([[*face.box, face.score, *face.landmarks.ravel()] for face in drawn_on(bgr)])


class Ready:
    """A background that is ready; stands where upstream calls its upsampler."""

    def __init__(self, bgr: NDArray[np.uint8]) -> None:
        self._bgr = bgr

    def enhance(self, _: object, outscale: float) -> tuple[NDArray[np.uint8], None]:
        """The background."""
        return self._bgr, None


def our_parts(task: dict[str, Any]) -> dict[str, Part]:
    """What is timed of ours."""
    from app.images import Picture
    from app.restoration import device as devices
    from app.restoration.faces import find_faces, restore_faces
    from app.restoration.faces.alignment import align_face, inverse_affine
    from app.restoration.faces.parsing import plain_mask
    from app.restoration.faces.pasting import Patch, paste
    from app.restoration.faces.pipeline import MAX_LAYERS_BYTES, to_faces

    real = open_tools(task)
    devices.prepare(task["device"])
    rgb = np.load(task["photo"])
    background, big = enlarge(rgb), resize(rgb, (4243, 2828))
    tools = dataclasses.replace(real, detect=lambda pixels: (real.detect(pixels), drawn_on(pixels))[1])
    faces = find_faces(tools, rgb)
    matrices = [face.matrix for face in faces if face.matrix is not None]
    crops = [align_face(rgb, matrix) for matrix in matrices]
    batch = to_faces(crops[:1])
    backs = [inverse_affine(matrix, SCALE, SCALE) for matrix in matrices]
    patches = [Patch(n, crops[n], plain_mask(), back) for n, back in enumerate(backs)]
    assert tools.parse is not None
    parse = tools.parse

    def pasting() -> Callable[[], object]:
        canvas = background.copy()
        return lambda: paste(canvas, patches, 1.0, MAX_LAYERS_BYTES)

    def stage(size: tuple[int, int]) -> Callable[[], object]:
        photo = resize(rgb, size)
        canvas = enlarge(photo)
        return lambda: restore_faces(tools, Picture(photo), canvas, find_faces(tools, photo), 1.0, lambda f: True)

    return {
        PASTE: pasting,
        GFPGAN: lambda: lambda: finished(tools.restore(batch)),
        PARSING: lambda: lambda: parse(batch),
        **{name: functools.partial(stage, size) for name, size in STAGES.items()},
        DETECTION: lambda: lambda: real.detect(big),
    }


def finished(out: Any) -> None:
    """Wait for a card to end its work."""
    out[..., :1].float().cpu()


def open_tools(task: dict[str, Any]) -> LoadedFaceModels:
    """Our face networks."""
    from app.restoration.device import choose_precision
    from app.restoration.faces import FaceModels
    from app.restoration.models.registry import ModelRegistry

    precision = choose_precision(task["precision"], task["device"]).value
    registry = ModelRegistry(Path(task["weights"]), allow_unverified=True)
    tools, _ = FaceModels(registry, task["device"], precision, "mobilenet").open(None)
    assert tools is not None
    return tools


def upstream_parts(task: dict[str, Any]) -> dict[str, Part]:
    """What is timed of upstream, on its untouched objects."""
    import torch

    from app.restoration.faces.models import FaceModelChoice
    from app.restoration.models.registry import ModelRegistry
    from app.restoration.reference.faces import make_face_enhancer

    bgr = np.ascontiguousarray(np.load(task["photo"])[:, :, ::-1])
    background, big = enlarge(bgr), resize(bgr, (4243, 2828))
    registry = ModelRegistry(Path(task["weights"]), allow_unverified=True)
    choice = FaceModelChoice("GFPGANv1.3", "mobilenet", parses=True)
    enhancer = make_face_enhancer(registry, choice, task["device"], SCALE, Ready(background))
    helper = enhancer.face_helper
    helper.face_det = Drawing(helper.face_det)
    batch = torch.rand(1, 3, 512, 512, device=task["device"]) * 2 - 1

    def aligned(image: NDArray[np.uint8]) -> None:
        helper.clean_all()
        helper.read_image(image)
        helper.get_face_landmarks_5(eye_dist_threshold=5)

    def pasting() -> Callable[[], object]:
        aligned(bgr)
        helper.align_warp_face()
        for face in helper.cropped_faces:
            helper.add_restored_face(face)
        helper.get_inverse_affine(None)
        helper.use_parse = False
        return lambda: helper.paste_faces_to_input_image(upsample_img=background)

    def stage(size: tuple[int, int]) -> Callable[[], object]:
        photo = resize(bgr, size)
        helper.use_parse, enhancer.bg_upsampler = True, Ready(enlarge(photo))
        return lambda: enhancer.enhance(photo)

    def without_gradients(network: Any) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                finished(network(batch)[0])

        return run

    return {
        PASTE: pasting,
        GFPGAN: lambda: without_gradients(lambda x: enhancer.gfpgan(x, return_rgb=False)),
        PARSING: lambda: without_gradients(lambda x: helper.face_parse(x)[0].argmax(1)),
        **{name: functools.partial(stage, size) for name, size in STAGES.items()},
        DETECTION: lambda: lambda: aligned(big),
    }


def serve(task: dict[str, Any]) -> None:
    """Answer each line, the name of a part, with the seconds of one run."""
    answers = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints
        parts = {"ours": our_parts, "upstream": upstream_parts}[task["engine"]](task)
        for line in sys.stdin:
            run = parts[line.strip()]()
            started = time.perf_counter()
            run()
            print(json.dumps(time.perf_counter() - started), file=answers, flush=True)


def measure(request: Request) -> list[Row]:
    """Medians of each part, and how many times faster ours is."""
    if not is_available():
        raise LeftOut("The packages gfpgan and facexlib are not installed here, so there is nothing to compare with.")
    parts = PARTS[:1] if request.quick else PARTS
    return compare(make_task(request.folder, request.weights, request.picture, request.device), request.rounds, parts)


def make_task(folder: Path, source: Path | None, picture: NDArray[np.uint8], device: str) -> dict[str, Any]:
    """Weights and photo in a scratch folder, and where they are."""
    faces = folder / "faces"
    faces.mkdir(exist_ok=True)
    put_face_weights(faces, source, _FILES)
    np.save(faces / "photo.npy", resize(picture, _SIZE))
    return {"weights": str(faces), "photo": str(faces / "photo.npy"), "device": device, "precision": "auto"}


def compare(task: dict[str, Any], rounds: int, parts: tuple[str, ...]) -> list[Row]:
    """All engines in turn, part by part; the tuned allocator stays out of the two long parts."""
    plain, ours = _engine("upstream", task), _engine("ours", task)
    tuned = _engine("upstream", task, TUNED_ALLOCATOR) if task["device"] == "cpu" else None
    rows = []
    for part in parts:
        engines = {"upstream": plain, "ours": ours}
        if tuned is not None and part not in (*STAGES, DETECTION):
            engines["upstream, tuned allocator"] = tuned
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(rounds + WARM_UP_ROUNDS):
            for name, engine in engines.items():
                value = float(engine.ask(part))
                if number >= WARM_UP_ROUNDS:
                    seconds[name].append(value)
        medians = {name: median(values) for name, values in seconds.items()}
        for name, value in medians.items():
            figures = {"median_ms": value * 1000, "times_upstream": medians["upstream"] / value}
            rows.append(Row("faces", f"{part}, {name}", figures))
    for started in (plain, ours, tuned):
        if started is not None:
            started.close()
    return rows


def _engine(name: str, task: dict[str, Any], environment: dict[str, str] | None = None) -> Engine:
    return Engine(name, ("benchmarks.faces", "--serve", json.dumps({**task, "engine": name})), environment)


def thirty_faces(task: dict[str, Any]) -> dict[str, Any]:
    """Peak memory of thirty faces in this process, above what the networks, the photo and the result take."""
    from app.images import Picture
    from app.restoration.faces import find_faces, restore_faces

    tools = open_tools(task)
    rgb = resize(np.load(task["photo"]), (1400, 928))
    found = drawn(tuple((120 + 230 * (i % 6), 110 + 175 * (i // 6), 220) for i in range(30)))
    picture, result = Picture(rgb), enlarge(rgb)
    faces = find_faces(dataclasses.replace(tools, detect=lambda pixels: found), rgb)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = round(resident_mb("self", "VmRSS"))
    started = time.perf_counter()
    done = restore_faces(tools, picture, result, faces, 1.0, lambda fraction: True)
    peak = round(resident_mb("self"))
    return {
        "faces": sum(row["restored"] for row in done.rows),
        "layers_mb": round(sum(layer.before.nbytes * 2 + layer.mask.nbytes for layer in done.layers) / 1e6),
        "before_mb": before,
        "peak_mb": peak,
        "above_mb": peak - before,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Measure faces alone."""
    parser = argparse.ArgumentParser(description="Our faces against GFPGANer.")
    parser.add_argument("--weights", type=Path, help="random ones stand in for missing files")
    parser.add_argument("--photo", type=Path, help="(default: one is invented)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--memory", action="store_true", help="peak memory of thirty faces (Linux)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(json.loads(asked.serve))
        return
    from benchmarks.table import as_table

    picture = invented_picture()
    if asked.photo is not None:
        with Image.open(asked.photo, formats=["JPEG", "PNG"]) as image:
            picture = np.asarray(image.convert("RGB"), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        task = make_task(Path(name), asked.weights, picture, describe_in_child(asked.device)[0])
        if asked.memory:
            print(json.dumps(thirty_faces(task)))
            return
        rows = compare(task, asked.rounds, tuple(asked.parts))
    print(as_table(rows))
    print(json.dumps([dataclasses.asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
