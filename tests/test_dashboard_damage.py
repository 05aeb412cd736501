"""Repairing scratches on the page: the offer, and what was found over the photo with its slider and its brush."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser

from app.restoration.repair.halo import REACH_PIXELS
from app.restoration.repair.mask import make_mask
from tests.browser import Service, visit

FILTERS = (8, 16, 32, 64, 128)  # the five of PNG, as OpenCV numbers them
Map = NDArray[np.uint8]  # (H, W)
# What a mask does with strokes, the threshold and undo: after each step its count, and what stands there.
STROKES = """
async ([width, height, probability, found, threshold]) => {
  const { DamageMask, ADD, REMOVE } = await import('./js/damage_mask.js');
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const mask = new DamageMask(width, height, { found: bytes(found), probability: bytes(probability), threshold });
  const told = [];
  const tell = () => {
    let counted = 0;
    for (let at = 0; at < width * height; at += 1) counted += mask.has(at);
    told.push([mask.count, counted, mask.isChanged, mask.canUndo, mask.canRedo]);
  };
  const stroke = (from, to, radius, kind) => { mask.begin(); mask.paint(from, to, radius, kind); };
  tell();
  stroke({ x: 20, y: 20 }, { x: 180, y: 90 }, 6, ADD); mask.end(); tell();
  stroke({ x: 100, y: 55 }, { x: 100, y: 55 }, 30, REMOVE); mask.cancel(); tell();
  stroke({ x: 100, y: 55 }, { x: 100, y: 55 }, 30, REMOVE); mask.end(); tell();
  const outside = mask.paint({ x: -90, y: -90 }, { x: -80, y: -80 }, 5, ADD);
  mask.moveThreshold(0.2); mask.moveThreshold(0.25); mask.keepThreshold(threshold); tell();
  mask.undo(); tell(); mask.undo(); tell(); mask.undo(); tell(); mask.undo(); tell();
  mask.redo(); mask.redo(); mask.redo(); tell();
  mask.reset(); tell(); mask.undo(); tell();
  stroke({ x: 5, y: 5 }, { x: 5, y: 5 }, 2, ADD); mask.end(); tell();
  return { told, outside };
}
"""
# What the page makes of a probability with other thresholds, as a file of twice the size.
MARKS = """
async ([width, height, probability, threshold, faces, faceThreshold, moved]) => {
  const { DamageMask } = await import('./js/damage_mask.js');
  const { writeGreyPng } = await import('./js/grey_png.js');
  const bytes = Uint8Array.from(atob(probability), (letter) => letter.charCodeAt(0));
  const mask = new DamageMask(width, height, { probability: bytes, threshold, faces, faceThreshold });
  mask.moveThreshold(moved);
  const file = await writeGreyPng(2 * width - 1, 2 * height - 1, (row, y) => mask.rowInto(row, y, 2));
  return btoa(String.fromCharCode(...new Uint8Array(await file.arrayBuffer())));
}
"""
# What stays marked at another threshold of what was found at one.
KEPT = """
async ([width, height, probability, found, threshold, moved]) => {
  const { DamageMask } = await import('./js/damage_mask.js');
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const mask = new DamageMask(width, height, { found: bytes(found), probability: bytes(probability), threshold });
  mask.moveThreshold(moved);
  return Array.from({ length: width * height }, (_, at) => Number(mask.has(at)));
}
"""
# A photo over 16 megapixels: how it is made small, what is marked then, and the file that is sent.
LARGE = """
async (attempt) => {
  const { loadDamage, maskFile } = await import('./js/damage_loading.js');
  const { mask, factor } = await loadDamage('f'.repeat(32), attempt, undefined);
  const before = mask.count;
  mask.begin(); mask.paint({ x: 10, y: 10 }, { x: 10, y: 10 }, 2, 1); mask.end();
  const bytes = new Uint8Array(await (await maskFile(mask, attempt, factor)).arrayBuffer());
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return { factor, sides: [mask.width, mask.height], before, painted: mask.count - before, file: btoa(text) };
}
"""
READ = """
async (files) => {
  const { readGreyPng } = await import('./js/grey_png.js');
  const found = [];
  for (const file of files) {
    const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
    const rows = [];
    try {
      await readGreyPng(new Blob([bytes]), (width, height) => rows.push(width, height), (row) => rows.push(...row));
      found.push(rows);
    } catch (problem) { found.push(problem instanceof TypeError ? 'refused' : String(problem)); }
  }
  return found;
}
"""


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def some_damage(height: int, width: int) -> Map:
    """Probabilities with islands of every strength."""
    noise = np.random.default_rng(3).random((height, width), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    low, high = float(smooth.min()), float(smooth.max())
    return np.asarray(255 * ((smooth - low) / (high - low)) ** 2, np.uint8)


def test_a_mask_keeps_count_through_strokes_thresholds_and_undo(browser: Browser, service: Service) -> None:
    height, width, threshold = 130, 201, 0.5
    probability = some_damage(height, width)
    found = make_mask(probability, threshold)
    with visit(browser, service.address) as seen:
        page = seen.open()
        sides = (width, height, packed(probability.tobytes()))
        answer = page.evaluate(STROKES, [*sides, packed(found.tobytes()), threshold])
        told: list[list[Any]] = answer["told"]
        assert answer["outside"] is None
        assert [count for count, *_ in told] == [counted for _, counted, *_ in told]
        counts = [count for count, *_ in told]
        start, added, cancelled, removed, moved = counts[:5]
        assert start == np.count_nonzero(found)
        assert start < added == cancelled > removed < moved
        assert counts[5:9] == [removed, added, start, start]  # and with nothing more to take back nothing happens
        assert counts[9:12] == [moved, start, moved]
        assert [changed for *_, changed, _, _ in told[:2]] == [False, True]
        assert told[7][2:] == [False, False, True]  # as it was, and all can be done again
        assert told[10][2:] == [False, True, False]  # as it was found, which can be undone
        assert told[12][4] is False  # after another stroke nothing can be done again

        faces = [(30, 20, 120, 100)]
        for moved_to, in_faces in ((0.5, 0.8), (0.25, 0.7), (0.75, 0.9)):
            arguments = [*sides, 0.5, [list(face) for face in faces], 0.8, moved_to]
            drawn = Image.open(io.BytesIO(base64.b64decode(page.evaluate(MARKS, arguments))))
            assert (drawn.mode, drawn.size) == ("L", (2 * width - 1, 2 * height - 1))
            wanted = make_mask(probability, moved_to, faces, in_faces).repeat(2, 0).repeat(2, 1)[:-1, :-1]
            if moved_to == 0.5:  # where it was found nothing is computed again, and nothing had been found
                wanted[:] = False
            assert (np.asarray(drawn) == 255 * wanted).all()
            assert moved_to == 0.5 or wanted.any()


def test_an_island_keeps_its_rim_when_the_threshold_moves(browser: Browser, service: Service) -> None:
    height, width = 40, 60
    probability, found = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    probability[20, 10:50] = 255  # a crack and a speck, which a higher threshold leaves out
    probability[5, 5] = 140
    found[16:25, 6:54] = found[3:8, 3:8] = 1
    found[19] = 0  # a rim need not touch what it belongs to
    with visit(browser, service.address) as seen:
        arguments = [width, height, packed(probability.tobytes()), packed(found.tobytes()), 0.5, 0.9]
        kept = np.array(seen.open().evaluate(KEPT, arguments), np.bool_).reshape(height, width)
    wanted = np.zeros((height, width), np.bool_)
    wanted[20 - REACH_PIXELS : 21 + REACH_PIXELS, 10 - REACH_PIXELS : 50 + REACH_PIXELS] = True
    wanted[19] = False
    assert np.array_equal(kept, wanted)


def test_grey_pictures_are_read_exactly_and_others_refused(browser: Browser, service: Service) -> None:
    maps = [some_damage(37, 53), np.zeros((1, 1), np.uint8), np.tile(np.arange(256, dtype=np.uint8), (3, 1))]
    files = [encoded(grey) for grey in maps]
    for row_filter in FILTERS:
        files.append(cv2.imencode(".png", maps[0], [cv2.IMWRITE_PNG_FILTER, row_filter])[1].tobytes())
        maps.append(maps[0])
    bad = [b"", b"\x89PNG\r\n\x1a\n", files[0][:60], files[0][:-30], encoded(np.zeros((4, 4, 3), np.uint8))]
    with visit(browser, service.address) as seen:
        found = seen.open().evaluate(READ, [packed(file) for file in [*files, *bad]])
    for grey, read in zip(maps, found, strict=False):
        assert read == [grey.shape[1], grey.shape[0], *grey.ravel().tolist()], json.dumps(read)[:200]
    assert found[len(files) :] == ["refused"] * len(bad)


def test_of_a_large_photo_no_thin_scratch_is_lost_and_the_mask_has_its_own_size(
    browser: Browser, service: Service
) -> None:
    height, width = 4000, 4101
    grey = np.zeros((height, width), np.uint8)
    grey[[1000, 2001]] = 200  # of each pair of rows that become one, the first and the second
    report: dict[str, Any] = {"threshold": 0.6, "face_threshold": None, "own_mask": False, "faces": []}
    attempt = {
        "id": "e" * 32,
        "original_width": width,
        "original_height": height,
        "result": {"params": {"repair": report}},
    }
    with visit(browser, service.address) as seen:
        page = seen.open()
        page.route("**/damage?*", lambda route: route.fulfill(body=encoded(grey), content_type="image/png"))
        found = page.evaluate(LARGE, attempt)
        assert [request.url.rsplit("=", 1)[1] for request in seen.asked("/damage?")] == ["mask", "probability"]
    assert (found["factor"], found["sides"], found["before"]) == (2, [2051, 2000], 2 * 2051)
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["file"]))))
    assert sent.shape == (height, width)
    assert (sent[[1000, 1001, 2000, 2001]] == 255).all()
    assert np.count_nonzero(sent) == 4 * width + 4 * found["painted"]


def encoded(pixels: Map) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
