"""The page to share: one file, no network, and it does what it says in a real browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.measures.measures import Measures, ct
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.show.plots import strip
from lpdirs.show.share import share
from tests.browser import page
from tests.toys import lively

WINDOW = (-1000.0, 1000.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    torch.manual_seed(0)
    measures = Measures(lambda x: {"mean_value": x.mean((1, 2, 3)).numpy()}, {"mean_value": "half ranges"})
    generator = lively(GeneratorNetwork(32, 6, 8), "gan").but(measures=measures)
    of = {"generator": "gan", "method": "reconstructor", "basis": "unit", "reconstructor": "lenet"}
    named = DirectionsInfo(**of, names={2: "rotation"}, words={2: "rotation, +3.1 degrees per unit of shift", 0: "dead: <nothing>"})
    models = {
        "gan-unit4-lenet": (generator, Directions(torch.eye(6)[:4], named)),
        "vae-sefa3": (
            lively(GeneratorNetwork(32, 6, 8), "vae"),
            Directions(torch.eye(6)[3:], DirectionsInfo(generator="vae", method="sefa")),
        ),
    }
    path = share(models, tmp_path_factory.mktemp("page") / "explore.html", ct(WINDOW), frames=5, slices=2, note="run tests", live=False)
    return models, path


def test_the_page_holds_what_the_models_draw(shared):
    models, path = shared
    text = path.read_text()
    assert "http" not in re.sub(r'(?s)<script type="application/json".*?</script>', "", text), "nothing is fetched"
    data = json.loads(re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)[1])
    assert [d["name"] for d in data["models"][0]["directions"]] == ["rotation (2)", "direction 0", "direction 1", "direction 3"]
    assert data["models"][0]["directions"][1]["words"] == "dead: <nothing>" and data["shifts"] == [-4.5, -2.25, 0, 2.25, 4.5]
    generator, directions = models["gan-unit4-lenet"]
    how = ct(WINDOW)
    sprite = np.array(Image.open(io.BytesIO(base64.b64decode(data["models"][0]["sprites"][0][0]))).convert("L"), float)
    read = data["models"][0]["directions"][0]["read"][0]
    assert len(read) == 5 and abs(read[2][0] - generator.images(generator.typical()[None]).mean().item()) < 1e-3
    drawn = np.concatenate(list(how.to_grey(strip(generator, directions, generator.typical(), 2, data["shifts"], how))), axis=1)
    assert sprite.shape == (32, 5 * 32) and np.abs(sprite - drawn).mean() < 6


def test_no_middle_or_too_large_is_refused(shared, tmp_path, monkeypatch):
    models, _ = shared
    with pytest.raises(UserError, match="frames must be odd"):
        share(models, tmp_path / "x.html", ct(WINDOW), frames=4, live=False)
    with pytest.raises(UserError, match="starts is given for 'typo', and the models are"):
        share(models, tmp_path / "x.html", ct(WINDOW), starts={"typo": []})
    monkeypatch.setattr("lpdirs.show.share.LARGEST", 51_000)
    with pytest.raises(UserError, match="share fewer slices, frames or models"):
        share(models, tmp_path / "x.html", ct(WINDOW), frames=3, live=False)
    assert not (tmp_path / "x.html").exists()


def test_it_works_in_a_browser_without_a_network(shared):
    _, path = shared
    with page() as tab:
        picture = lambda name: tab.evaluate(f"document.getElementById('{name}').toDataURL()")
        tab.goto(path.as_uri())
        tab.wait_for_function("document.getElementById('after').width === 384")
        assert tab.locator("#words").text_content() == "rotation, +3.1 degrees per unit of shift"
        assert picture("before") == picture("after")
        tab.locator("#shift").focus()
        tab.keyboard.press("ArrowRight")
        tab.wait_for_function("document.getElementById('value').textContent === '+2.3'")
        tab.wait_for_function("document.getElementById('after').toDataURL() !== document.getElementById('before').toDataURL()")
        assert tab.locator("#shift").get_attribute("aria-valuetext") == "+2.3 along rotation (2)"
        moved = picture("after")
        assert tab.locator("#read").text_content().startswith("measuredunshiftedmovedmean value"), "the factor is read along the way"
        tab.keyboard.down("b")
        tab.wait_for_function("document.getElementById('after').toDataURL() === document.getElementById('before').toDataURL()")
        tab.keyboard.up("b")
        tab.wait_for_function("document.getElementById('after').toDataURL() !== document.getElementById('before').toDataURL()")
        box = tab.locator("#after").bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 3, box["y"] + 50)
        tab.mouse.up()
        tab.wait_for_function("document.getElementById('value').textContent === '-4.5'")
        assert picture("after") != moved
        tab.select_option("#model", label="VAE, SeFa, K = 3")
        tab.wait_for_function("document.getElementById('words').textContent === 'not measured'")
        assert tab.locator("#read").text_content().startswith("measuredunshiftedmovedbrightness"), (
            "of any image, where nothing else is known"
        )
        tab.select_option("#direction", label="direction 1")
        tab.select_option("#slice", label="slice 2")
        tab.emulate_media(color_scheme="dark")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 26)"
        assert tab.errors == [] and {url.split(":")[0] for url in tab.requests} <= {"file", "data", "blob"}


def test_a_finger_moves_it_too(shared):
    _, path = shared
    with page(touch=True) as tab:
        tab.goto(path.as_uri())
        tab.wait_for_function("document.getElementById('after').width === 384")
        tab.locator("#after").scroll_into_view_if_needed()
        box = tab.locator("#after").bounding_box()
        finger = tab.context.new_cdp_session(tab)
        at = lambda share: [{"x": box["x"] + share * box["width"], "y": box["y"] + 60}]
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at(0.5)})
        for share in (0.6, 0.8, 0.98):
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": at(share)})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tab.wait_for_function("document.getElementById('value').textContent === '+4.5'")
        assert tab.errors == []


def test_a_page_takes_what_fits_and_says_what_it_left_out(shared, tmp_path, monkeypatch, capsys):
    models, path = shared
    whole = path.stat().st_size
    monkeypatch.setattr("lpdirs.show.share.LARGEST", int(whole * 0.7) + 50_000)
    small = share(models, tmp_path / "x.html", ct(WINDOW), frames=5, slices=2, note="run tests", live=False)
    data = json.loads(re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', small.read_text())[1])
    shown = [[d["name"] for d in model["directions"]] for model in data["models"]]
    assert shown[0][0] == "rotation (2)" and 0 < len(shown[0]) + len(shown[1]) < 7
    few = [len(names) for names in shown]
    said = f"{few[0]} of the 4 directions of GAN, the paper's method (LeNet), K = 4; {few[1]} of the 3 directions of VAE, SeFa, K = 3"
    assert said in data["note"] and said in capsys.readouterr().out
    assert all(len(row) == len(names) for model, names in zip(data["models"], shown, strict=True) for row in model["sprites"])
