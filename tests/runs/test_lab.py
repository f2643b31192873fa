"""The explorer where its users meet it: JupyterLab in a browser, a notebook run, a slider moved, the picture seen to change."""

import shutil

from tests.browser import jupyter_lab, page, run_all
from tests.conftest import ROOT


def drag(tab, selector: str) -> None:
    """Drag the first slider to the right and wait until the moved picture has changed."""
    before = tab.evaluate(selector)
    handle = tab.locator(".widget-slider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=6)
    tab.mouse.up()
    tab.wait_for_function(f"{selector} !== '{before}'")


AFTER = "document.querySelector('.jp-OutputArea img.lpdirs-after').src"


def keep(tab, name: str) -> None:
    folder = ROOT / "outputs" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=folder / name)
    assert (folder / name).stat().st_size > 20_000


def test_what_make_explore_opens_works_without_any_run(tmp_path):
    """The committed notebook, on the run that comes with the project: named sliders, and a picture that follows them."""
    notebook = tmp_path / "explore.ipynb"
    shutil.copy(ROOT / "notebooks" / "explore.ipynb", notebook)
    text = notebook.read_text().replace('outputs: str = \\"outputs\\"', f'outputs: str = \\"{ROOT / "outputs" / "reference"}\\"')
    assert str(ROOT) in text
    notebook.write_text(text)
    with jupyter_lab(tmp_path, None) as address, page() as tab:
        run_all(tab, address)
        drag(tab, AFTER)
        tab.get_by_text("y-position (").first.wait_for()
        for name in ("before", "after", "change"):  # what a screen reader reads
            assert "slice" in (tab.locator(f".jp-OutputArea img.lpdirs-{name}").get_attribute("title") or ""), name
        assert "shift: " in tab.locator(".jp-OutputArea img.lpdirs-after").get_attribute("title")
        unnamed = tab.locator(".jp-OutputArea .widget-slider").evaluate_all(
            "all => all.filter((one) => !one.querySelector('label')?.textContent)"
        )
        assert tab.locator(".jp-OutputArea .widget-slider").count() and not unnamed
        keep(tab, "explore.png")


def test_sliders_that_are_gone_leave_a_line_that_says_how_to_have_them_back(tmp_path):
    """After a kernel's restart, and in a notebook that was saved and opened again."""
    cell = (
        "import lpdirs as lp\nfrom torch import nn\n"
        "g = lp.as_generator(nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16))), 4)\n"
        "lp.explore({'a': (g, lp.discover(g, 'random', 4))})"
    )
    with jupyter_lab(tmp_path, cell) as address, page() as tab:
        run_all(tab, address)
        line = tab.get_by_text("run this cell again")
        assert line.count() == 1 and not line.is_visible(), "the sliders are there"
        tab.keyboard.press("Control+s")
        tab.get_by_role("menuitem", name="Kernel", exact=True).click()
        tab.locator(".lm-Menu-item", has_text="Restart Kernel").first.click()
        tab.locator(".jp-Dialog .jp-mod-accept, .jp-Dialog .jp-mod-warn").last.click()
        line.wait_for()
        tab.goto(address, wait_until="domcontentloaded", timeout=60_000)
        line.wait_for(timeout=60_000)
        tab.wait_for_function("!document.querySelector('.jp-OutputArea .widget-slider')")
        error = tab.get_by_text("model not found")
        assert error.count() == 0 or not error.is_visible()
