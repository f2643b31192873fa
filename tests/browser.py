"""A headless Chromium and a JupyterLab for tests, with a bound on every wait, that end when their test does."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest

from tests.conftest import ROOT

WAIT_MS = 20_000


def chromium() -> str | None:
    """The Chromium of this machine."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


def has_browser() -> bool:
    """Whether a page can be opened here."""
    return chromium() is not None and importlib.util.find_spec("playwright") is not None


@contextmanager
def page(touch: bool = False) -> Iterator["Page"]:  # noqa: F821
    """One page, that of a phone with `touch`; skips where there is no Chromium.

    Console errors and requests are collected in `page.errors`, `page.requests`.
    """
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=arguments, timeout=60_000)
        try:
            tab = browser.new_page(viewport={"width": 400, "height": 900} if touch else {"width": 1200, "height": 900}, has_touch=touch)
            tab.set_default_timeout(WAIT_MS)
            tab.errors, tab.requests = [], []
            tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: tab.errors.append(str(error)))
            tab.on("request", lambda request: tab.requests.append(request.url))
            yield tab
        finally:
            browser.close()


@contextmanager
def jupyter_lab(folder: Path, cell: str | None) -> Iterator[str]:
    """The address of folder/explore.ipynb in a JupyterLab of the test's own; whatever it started is ended by its id.

    With `cell` the notebook is made of that cell.
    """
    if cell is not None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / "explore.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "ip": "127.0.0.1",
        "port": port,
        "port_retries": 0,
        "token": "",
        "password": "",
        "open_browser": False,
        "root_dir": folder,
    }
    words = [f"--ServerApp.{name}={value}" for name, value in settings.items()] + ["--allow-root", "--LabApp.news_url=", "--no-browser"]
    folders = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME")}
    surroundings = os.environ | folders | {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], cwd=folder, env=surroundings, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?reset"
    finally:
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        for child in started:
            if child.is_running():
                child.kill()


def run_all(tab, address: str) -> float:
    """Open the notebook at `address`, run all cells, and wait for the explorer's pictures and sliders; seconds from the click to these."""
    tab.goto(address, wait_until="domcontentloaded", timeout=60_000)
    tab.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    tab.get_by_text("| Idle").wait_for(timeout=60_000)  # cells that are run before there is a kernel are not run
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    began = time.monotonic()
    tab.locator(".jp-OutputArea img.widget-image").nth(1).wait_for(timeout=90_000)
    tab.locator(".widget-readout").first.wait_for()
    return time.monotonic() - began
