"""The choice of SiliconFlow on the page: there only with a key, with what leaves the machine and what it costs.

The provider's address is a port on this machine where nobody listens, so nothing leaves it and the failure is shown.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests import browser as browsing
from tests.browser import Service, as_file, drop, grave_findings, photo, restoring_service, shoot, visit
from tests.http_service import free_port

LONG_MILLISECONDS = 120_000


def test_without_a_key_nobody_is_asked_where(restoring: Service) -> None:
    with browsing.browser() as browser, visit(browser, restoring.address) as seen:
        expect(seen.open().locator("#backend-row")).to_be_hidden()


def test_with_a_key_the_page_says_what_leaves_and_what_it_costs_and_shows_a_failure(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1/images/generations"
    keyed = {"SILICONFLOW_API_KEY": "sk-of-a-test", "SILICONFLOW_API_URL": nobody}
    with (
        restoring_service(tmp_path / "service", **keyed) as service,
        browsing.browser() as browser,
        visit(browser, service.address) as seen,
    ):
        page = seen.open()
        if page.locator("#settings").get_attribute("open") is None:
            page.click("#settings > summary")
        cloud = page.locator("#backends label", has_text="SiliconFlow")
        expect(cloud).to_contain_text("are sent")
        expect(cloud).to_contain_text("charges")
        expect(page.locator("input[name=backend][value=local]")).to_be_checked()
        cloud.click()
        expect(page.locator("#local-only")).to_be_hidden()
        page.fill("#prompt", "Remove the crease.")
        assert grave_findings(page) == []
        shoot(page, "11-cloud-light", tmp_path)
        drop(page, as_file("one.jpg", photo(72, 54)))
        page.click("#restore")
        expect(page.locator(".card[data-status=failed]")).to_contain_text(
            "Service unavailable", timeout=LONG_MILLISECONDS
        )
        job = page.request.get(f"{service.address}/api/v1/jobs").json()["jobs"][0]
        assert (job["options"]["backend"], job["options"]["prompt"]) == ("siliconflow", "Remove the crease.")
