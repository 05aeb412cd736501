"""Presets, settings of a single photo, and settings that are gone, in a browser in front of the real service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.restoration.models import weights
from benchmarks.random_weights import put_weights
from tests.browser import PHONE, Eyes, Service, as_file, drop, models_service, photo, shoot, visit
from tests.weights_mirror import serving_weights

DRAWINGS = "RealESRGAN_x4plus_anime_6B"
WORK_MILLISECONDS = 240_000
# Storage as it is when the disk is full, or when a visitor has forbidden it.
FULL = "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
OWN_LIST = """
async () => {
  const { OwnPresets, MOST_PRESETS } = await import('./js/own_presets.js');
  const key = 'neural-image-restore.presets';
  const found = [];
  const stored = (text) => {
    localStorage.setItem(key, text);
    return new OwnPresets().all().map(({ name }) => name);
  };
  const good = { id: 'own-7', name: ' my  album ', values: { scale: '2', face_enhance: false, prompt: 'private' } };
  found.push(stored('{'), stored('null'), stored('"x"'));
  found.push(stored('[1, null, {}, {"id": "own-1", "name": "", "values": {}}]'));
  found.push(stored(JSON.stringify([good, { ...good, id: 'old_scan' }, { ...good, id: 'own-8', values: 5 }])));
  const own = new OwnPresets();
  found.push(own.get('own-7').values, own.problemOf('MY album'));
  found.push(own.problemOf('My Album', 'own-7'), own.problemOf('  '));
  const other = new OwnPresets(); // another tab
  own.add('first', { scale: '3' });
  other.add('second', { scale: '4' });
  own.refresh();
  found.push(own.all().map(({ id, name }) => `${id} ${name}`));
  while (!own.problemOf('one more')) own.add(`number ${own.all().length}`, {});
  found.push(own.problemOf('one more'), own.all().length === MOST_PRESETS);
  localStorage.removeItem(key);
  return found;
}
"""


def stored(page: Page, name: str) -> object:
    return json.loads(page.evaluate("(name) => localStorage.getItem(name) ?? 'null'", f"neural-image-restore.{name}"))


def test_a_preset_says_what_it_set_and_what_was_changed_and_own_ones_are_kept(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        told, missing = page.locator("#preset-sets"), page.locator("#preset-missing")
        scan = page.get_by_role("button", name="Old scan")
        assert page.locator(".preset").all_inner_texts() == ["Old scan", "Phone photo", "Drawing", "Just cleaner"]
        scan.click()
        repair = "( · Repair scratches: Carefully)?"  # where its network is installed
        sets = rf"^Sets: Best · 2× · Restore faces: off{repair} · Bring faded colours back: 100 %$"
        expect(told).to_have_text(re.compile(sets))
        expect(missing).to_contain_text("Better with RealESRGAN_x4plus and the models for faces (not installed).")
        expect(missing.get_by_role("button")).to_have_count(0)  # this service downloads nothing
        expect(page.locator("input[name=quality][value=best]")).to_be_checked()
        expect(page.locator("#scale-value")).to_have_text("2×")
        expect(page.get_by_role("switch", name="Bring faded colours back")).to_be_checked()
        expect(page.get_by_role("switch", name="Restore faces")).not_to_be_checked()
        eyes.look("presets-1-chosen")
        page.locator("#scale").fill("3")
        expect(told).to_have_text("Old scan, changed: 3×")
        eyes.look("presets-2-changed")
        page.click("#preset-back")
        expect(told).to_contain_text("Sets: Best · 2×")
        page.get_by_role("button", name="Just cleaner").click()
        expect(told).to_have_text("Sets: Fast · 1× · Restore faces: off")
        expect(scan).to_have_attribute("aria-pressed", "false")

        page.select_option("#format", "png")
        page.click("#preset-save")
        expect(page.locator("#preset-name")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#preset-problem")).to_have_text("Give it a name.")
        eyes.look("presets-3-naming")
        page.keyboard.press("Escape")
        expect(page.locator("#preset-save")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.type("For the album")
        page.keyboard.press("Enter")
        own = page.locator(".preset", has_text="For the album")
        expect(own).to_have_attribute("aria-pressed", "true")
        expect(told).to_have_text("Sets: Fast · 1× · Restore faces: off · Save as: PNG, lossless")
        page.locator("#scale").fill("2")
        page.click("#preset-update")
        expect(told).to_contain_text("Sets: Fast · 2×")
        page.click("#preset-rename")
        page.fill("#preset-name", "Album")
        page.keyboard.press("Enter")
        scan.click()
        page.reload()
        expect(scan).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Album").click()
        expect(page.locator("#format")).to_have_value("png")
        page.click("#preset-save")
        page.fill("#preset-name", " ALBUM ")
        page.keyboard.press("Enter")
        expect(page.locator("#preset-problem")).to_have_text("There is a preset of this name already.")
        page.click("#preset-cancel")
        eyes.look("presets-4-own")
        page.click("#preset-delete")
        expect(page.locator(".preset")).to_have_count(5)  # the first press only asks
        page.get_by_role("button", name="Really delete?").click()
        expect(page.locator(".preset")).to_have_count(4)
        assert stored(page, "presets") == []
        page.click("#settings-reset")
        expect(told).to_contain_text("Choose what comes nearest")
        assert eyes.found == [], "\n".join(eyes.found)


def test_presets_and_settings_survive_a_broken_and_a_full_storage_and_say_what_is_gone(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        found = page.evaluate(OWN_LIST)
        assert found[:5] == [[], [], [], [], ["my album"]]
        assert found[5:9] == [{"scale": "2", "face_enhance": False}, "presets.name_taken", None, "presets.no_name"]
        assert found[9] == ["own-7 my album", "own-8 first", "own-9 second"]
        assert found[10:] == ["presets.too_many", True]

        old = {
            "quality": "best",
            "model": "RealESRGAN_x2plus",
            "output_format": "heic",
            "scale": "3",
            "backend": "siliconflow",
        }
        page.evaluate("(old) => localStorage.setItem('neural-image-restore.settings', old)", json.dumps(old))
        page.reload()
        gone = page.locator("#gone")
        expect(gone).to_contain_text("Model: RealESRGAN_x2plus is gone; instead: Chosen by the quality.")
        expect(gone).to_contain_text("Save as: heic is gone; instead: Same as the photo.")
        expect(gone).to_contain_text("Where: SiliconFlow, in the cloud is gone; instead: On this machine.")
        expect(page.locator("#scale-value")).to_have_text("3×")
        eyes = Eyes(page, tmp_path)
        eyes.look("presets-5-gone")
        drop(page, as_file("a.jpg", photo(48, 36)))
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
        assert "siliconflow" not in " ".join(request.url for request in seen.asked("/estimate"))
        page.reload()
        expect(gone).to_be_visible()  # a model may come back, so what was wished is kept until this is dismissed
        page.get_by_role("button", name="Dismiss this notice").last.click()
        page.reload()
        page.wait_for_selector("body[data-state=started]")
        expect(gone).to_be_hidden()

        for broken in ("{", "7", '{"scale": {}, "quality": 3, "face_enhance": "yes", "nobody": 1}'):
            page.evaluate("(text) => localStorage.setItem('neural-image-restore.settings', text)", broken)
            page.reload()
            page.wait_for_selector("body[data-state=started]")
            expect(page.locator("#scale-value")).to_have_text("4×")
            expect(page.locator("input[name=quality][value=fast]")).to_be_checked()
        page.evaluate(FULL)
        page.get_by_role("button", name="Just cleaner").click()
        page.click("#preset-save")
        page.fill("#preset-name", "Kept for now")
        page.keyboard.press("Enter")
        expect(page.locator("#preset-problem")).to_contain_text("its storage is full or off")
        page.get_by_role("button", name="Old scan").click()
        page.get_by_role("button", name="Kept for now").click()
        expect(page.locator("#preset-sets")).to_contain_text("1×")
        assert eyes.found == [], "\n".join(eyes.found)


def test_one_photo_of_a_batch_has_settings_of_its_own(browser: Browser, service: Service, tmp_path: Path) -> None:
    with visit(browser, service.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        drop(page, *[as_file(f"{name}.jpg", photo(48, 36, seed=place)) for place, name in enumerate("abc")])
        page.get_by_role("button", name="Settings for b.jpg only").click()
        expect(page.get_by_role("dialog", name="Settings for b.jpg only")).to_be_visible()
        box = page.locator("#photo-settings")
        box.get_by_role("button", name="Just cleaner").click()
        expect(box.locator("#preset-sets")).to_contain_text("1×")
        eyes.look("presets-6-photo")
        page.keyboard.press("Escape")  # without a change
        expect(page.locator(".tile-own:visible")).to_have_count(0)
        page.get_by_role("button", name="Settings for b.jpg only").click()
        expect(box.locator("#scale-value")).to_have_text("4×")
        box.get_by_role("button", name="Just cleaner").click()
        page.click("#photo-settings-save")
        expect(page.locator(".tile-own:visible")).to_have_text("Own: Just cleaner")
        page.get_by_role("button", name="Settings for c.jpg only").click()
        expect(box.locator("#photo-settings-common")).to_be_hidden()
        box.locator("#scale").fill("2")
        page.click("#photo-settings-save")
        expect(page.locator(".tile-own:visible").last).to_have_text("Own: 2×")
        eyes.look("presets-7-tray")
        page.click("#settings > summary")
        expect(page.locator("#settings #scale-value")).to_have_text("4×")
        page.locator("#scale").fill("2")
        expect(page.locator(".tile-own:visible").last).to_have_text("Own: at present as the others")
        page.get_by_role("button", name="Give c.jpg the same settings as the others").click()
        expect(page.locator(".tile-own:visible")).to_have_count(1)
        expect(page.locator("#restore-time")).to_contain_text("about")
        assert not page.evaluate("JSON.stringify({...localStorage})").count('"scale":"1"')
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(3, timeout=WORK_MILLISECONDS)
        expect(page.locator(".job-title")).to_have_text("3 photos · Fast · 2× · 1 with settings of its own")
        (job,) = page.evaluate("(async () => (await (await fetch('api/v1/jobs')).json()).jobs)()")
        sent = [(row["original_filename"], row["result"]["width"], row["own_options"]) for row in job["attempts"]]
        assert sent == [("a.jpg", 96, {}), ("b.jpg", 48, {"face_enhance": False, "scale": 1}), ("c.jpg", 96, {})]
        assert eyes.found == [], "\n".join(eyes.found)


@pytest.fixture
def drawing_service(tmp_path: Path, browser: Browser) -> Iterator[Service]:
    """Nothing is installed; the model for drawings can be, and is a small random one."""
    folder = tmp_path / "service" / "mirror"
    folder.mkdir(parents=True)
    for row in weights.MANIFEST:
        (folder / row.file).write_bytes(row.file.encode())
    put_weights(folder, None, (DRAWINGS,))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (
        serving_weights(files) as mirror,
        models_service(tmp_path / "service", f"{mirror.address}/whole") as running,
    ):
        yield running


def test_a_preset_follows_what_is_installed_from_it_and_what_is_taken_away_is_told(
    browser: Browser, drawing_service: Service, tmp_path: Path
) -> None:
    with visit(browser, drawing_service.address) as seen:
        page = seen.open()
        page.get_by_role("button", name="Drawing").click()
        expect(page.locator("#preset-sets")).to_have_text("Sets: Fast · 4× · Restore faces: off")
        shoot(page, "presets-8-drawing-light", tmp_path)
        page.get_by_role("button", name=f"Install {DRAWINGS}").click()
        expect(page.locator("#model")).to_have_value(DRAWINGS)
        expect(page.locator("#preset-sets")).to_contain_text(f"Sets: {DRAWINGS} · 4×")
        expect(page.locator("#preset-missing")).to_be_hidden()
        page.click("#preset-save")
        page.fill("#preset-name", "Mine")
        page.keyboard.press("Enter")
        drop(page, as_file("a.png", photo(32, 24, "PNG")))
        page.get_by_role("button", name="Settings for a.png only").click()
        page.locator("#scale").fill("2")
        page.click("#photo-settings-save")
        expect(page.locator(".tile-own:visible")).to_contain_text("Own: 2×")
        next((tmp_path / "service" / "weights").glob(f"{DRAWINGS}*")).unlink()
        expect(page.locator("#gone")).to_contain_text(f"Model: {DRAWINGS} is gone; instead: Chosen by the quality.")
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
