"""A headless Chromium for tests, with a bound on every wait, that ends when its test does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

WAIT_MS = 20_000


@contextmanager
def page() -> Iterator["Page"]:  # noqa: F821
    """One page; skips where there is no Chromium. Console errors and requests are collected in `page.errors`, `page.requests`."""
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=arguments, timeout=60_000)
        try:
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            tab.set_default_timeout(WAIT_MS)
            tab.errors, tab.requests = [], []
            tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: tab.errors.append(str(error)))
            tab.on("request", lambda request: tab.requests.append(request.url))
            yield tab
        finally:
            browser.close()
