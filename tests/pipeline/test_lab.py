"""The explorer where its users meet it: JupyterLab in a browser, a notebook run, a slider moved, the picture seen to change."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import psutil
import pytest

from tests.browser import page
from tests.conftest import ROOT

CELL = """import torch
from lpdirs.analysis.explorer import Explorer
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.generative.vae import Decoder

torch.manual_seed(0)
torch.set_num_threads(1)
decoder = Decoder(64, 8, 4)
for _ in range(20):
    decoder(torch.randn(8, 8))
named = {"names": {"3": "rotation"}}
Explorer({"vae": (decoder.eval(), Directions(random(5, 8), named))}, (-1000.0, 1000.0), pixel_mm=6.0)"""


@pytest.fixture
def server(tmp_path):
    """The address of a JupyterLab of this test's own; whatever it started is ended by its id."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "explore.ipynb")
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
        "root_dir": tmp_path,
    }
    words = [f"--ServerApp.{name}={value}" for name, value in settings.items()] + ["--allow-root", "--LabApp.news_url=", "--no-browser"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "RUNTIME")}
    surroundings = os.environ | folders | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], cwd=tmp_path, env=surroundings, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (tmp_path / "server.log").read_text()[-2000:]
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


def test_a_slider_moves_the_picture_in_jupyterlab(server):
    with page() as tab:
        tab.goto(server, wait_until="domcontentloaded", timeout=60_000)
        tab.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        tab.get_by_text("| Idle").wait_for(timeout=60_000)  # cells that are run before there is a kernel are not run
        tab.get_by_role("menuitem", name="Run", exact=True).click()
        tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        after = tab.locator(".jp-OutputArea img.widget-image").nth(1)
        after.wait_for(timeout=90_000)
        tab.locator(".widget-readout").first.wait_for()
        source = "document.querySelectorAll('.jp-OutputArea img.widget-image')[1].src"
        before = tab.evaluate(source)
        handle = tab.locator(".widget-slider .noUi-handle").first
        box = handle.bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=6)
        tab.mouse.up()
        tab.wait_for_function(f"{source} !== '{before}'")
        tab.get_by_text("rotation (3) +").first.wait_for()
        folder = ROOT / "outputs" / "browser"
        folder.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=folder / "explorer.png")
        assert (folder / "explorer.png").stat().st_size > 20_000
