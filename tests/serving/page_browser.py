"""Fixtures `browser` and `page`: headless Chromium, which fails a test on any complaint."""

import os
import shutil
from urllib.parse import urlsplit

import pytest

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    """A window of Chromium, driven by playwright."""
    path = os.environ.get("TZREC_TEST_CHROMIUM", CHROMIUM)  # noqa: TID251
    if shutil.which(path) is None:
        pytest.skip(f"no browser: {path} is not there (TZREC_TEST_CHROMIUM names another)")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        window = chromium.new_context(viewport={"width": 1200, "height": 900})
        window.set_default_timeout(20_000)
        window.grant_permissions(["clipboard-read", "clipboard-write"])
        yield window
        chromium.close()


@pytest.fixture
def page(browser):
    """A tab of its own; fails for script errors, refused resources and requests elsewhere."""
    opened = browser.new_page()
    complaints, hosts = [], set()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text))
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    yield opened
    opened.close()
    # The browser's own note of an answer that is an error is no fault of the page.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    assert len(hosts) <= 1, f"the page has loaded from {hosts}"
