"""The dashboard in other languages than English: chosen by the browser or by hand, down to plurals and numbers."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Route, expect

from tests import browser as browsing
from tests.browser import PHONE, Service, as_file, drop, grave_findings, photo, shoot, visit


def test_a_german_browser_gets_a_german_page_and_can_choose_another_language(
    browser: Browser, restoring: Service, tmp_path: Path
) -> None:
    browsing.forget_jobs(restoring)
    with visit(browser, restoring.address, locale="de-AT", viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        expect(page.locator("html")).to_have_attribute("lang", "de")
        assert [Path(request.url).name for request in seen.asked("/strings/")] == ["de.json"]
        expect(page.locator("#service-word")).to_have_text("Bereit")
        expect(page.locator(".drop-lead")).to_have_text("Fotos hier ablegen")
        expect(page.locator("#theme")).to_have_attribute("aria-label", "Zwischen hell und dunkel wechseln")
        heavy = photo(64, 48, "PNG") + bytes(1_600_000)
        drop(page, as_file("eins.png", heavy), as_file("zwei.jpg", photo(64, 48)), as_file("brief.txt", b"no"))
        expect(page.locator("#tray-title")).to_have_text("2 Fotos gewählt")
        expect(page.locator(".tile-note").first).to_contain_text("1,53\u00a0MB")
        expect(page.locator("#refused-title")).to_have_text("1 Datei kann nicht restauriert werden")
        expect(page.locator("#restore-time")).to_contain_text("etwa")
        shoot(page, "language-german-phone", tmp_path)
        assert grave_findings(page) == []
        page.select_option("#language", "es")  # photos wait: they are not thrown away
        expect(page.locator("#language-later")).to_be_visible()
        expect(page.locator(".tile")).to_have_count(2)
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        expect(page.locator(".job-title")).to_contain_text("2 Fotos · Schnell")
        page.select_option("#language", "en")
        expect(page.locator("html")).to_have_attribute("lang", "en")
        expect(page.locator(".job-title")).to_contain_text("2 photos")  # the page is loaded whole, and hears the menu
        page.select_option("#language", "es")
        expect(page.locator(".job-title")).to_contain_text("2 fotos · Rápida")
        page.reload()
        expect(page.locator("#tray-clear")).to_have_text("Vaciar")
        shoot(page, "language-spanish-phone", tmp_path)
    with visit(browser, restoring.address, locale="fr-FR") as seen:
        expect(seen.open().locator(".drop-lead")).to_have_text("Drop photos here")


MISSING_BY_ROLE = """
async () => {
  const { learnInstalling, warningText } = await import('./js/text.js');
  const values = { why: 'get it with: python3 run.py', file: 'x.pth', worker: 'a:1, b:2' };
  return ['button', 'command', 'by_hand', 'ask'].map((way) => {
    learnInstalling({ way, command: way === 'command' ? 'python3 run.py models download' : null });
    return warningText({ kind: 'face_detector_missing', message: 'python3 run.py', values });
  });
}
"""
# A worker of an earlier version told no codes, or other values.
OF_OLD_WORKERS = """
async () => {
  const { reasonText } = await import('./js/text.js');
  return [
    { code: 'other', message: 'a:1: It is hot.', values: {} },
    { code: 'cpu_instead', message: 'The CPU restores: it is full.', values: {} },
  ].map(reasonText);
}
"""


def test_a_refusal_of_the_service_is_said_in_the_language_of_the_page(
    browser: Browser, restoring: Service, tmp_path: Path
) -> None:
    """By its code; a sentence whose code the catalog lacks stands as the service said it."""
    no_model = {"code": "no_model", "message": "No model is installed; run: python3 run.py models download"}
    causes = [{**no_model, "values": {}}, {"code": "newer", "message": "As it is.", "values": {}}]

    def in_trouble(route: Route) -> None:
        state = route.fetch().json()
        told = {"status": "failing", "causes": causes, "reasons": [cause["message"] for cause in causes]}
        route.fulfill(json={**state, **told})

    with visit(browser, restoring.address, locale="de-DE") as seen:
        page = seen.open()
        sentences = page.evaluate("""async () => {
          const { errorText } = await import('./js/text.js');
          return [errorText({ code: 'queue_full', message: 'x' }), errorText({ code: 'newer', message: 'As it is.' })];
        }""")
        assert sentences == ["Die Warteschlange ist voll; gleich noch einmal versuchen.", "As it is."]
        sentences = page.evaluate("""async () => {
          const { warningText } = await import('./js/text.js');
          const exact = { code: 'photo_changed', message: 'x', kind: 'pages_left_out', values: { pages: 1200 } };
          return [exact, { ...exact, kind: 'newer' }, { code: 'photo_changed', message: 'As it is.' }].map(warningText);
        }""")
        assert sentences == ["Die Datei hat 1.200 Seiten; nur die erste wurde restauriert.", "x", "As it is."]
        by_role = page.evaluate(MISSING_BY_ROLE)
        assert len(set(by_role)) == 4
        assert [("run.py" in words) for words in by_role] == [False, True, False, False]
        assert by_role[0] == (
            "Worker a:1, b:2: Nach Gesichtern wurde nicht gesucht: x.pth fehlt oder ist nicht brauchbar. "
            "Was fehlt, lässt sich unter „Modelle“ installieren."
        )
        assert page.evaluate(OF_OLD_WORKERS) == ["a:1: It is hot.", "The CPU restores: it is full."]
        page.reload()
        page.route("**/api/v1/status", in_trouble)
        expect(page.locator("#trouble p")).to_have_text(
            [re.compile("^Kein Modell ist installiert. Dieser Dienst lädt nichts herunter: .* Gewichte.$"), "As it is."]
        )
        assert grave_findings(page) == []
        shoot(page, "trouble-german", tmp_path)
        page.unroute("**/api/v1/status")
        page.route(
            "**/api/v1/jobs?*",
            lambda route: route.fulfill(
                status=503,
                content_type="application/problem+json",
                body='{"status": 503, "code": "database_busy", "detail": "The job database is busy."}',
            ),
        )
        page.reload()
        expect(page.locator("#message-words")).to_have_text(
            "Der Dienst ist gerade überlastet; gleich noch einmal versuchen."
        )
