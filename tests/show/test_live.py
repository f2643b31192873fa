"""The page in which generators draw: what it shows is what they draw in Python, and it asks nobody for anything."""

import json
import re
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import Best, Directions, DirectionsInfo
from lpdirs.measures.measures import Measures, ct
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.show.live import NotLive, export
from tests.browser import page
from tests.toys import lively

pytest.importorskip("onnxruntime")
WINDOW = (-1000.0, 1000.0)
CLOSE = 2.0  # HU


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    torch.manual_seed(0)
    read = {"mean": lambda x: x.mean((1, 2, 3)), "upper": lambda x: x[:, :, :16].mean((1, 2, 3))}
    measures = Measures(lambda x: {name: one(x).numpy() * 1000 for name, one in read.items()}, dict.fromkeys(read, "HU"))
    models = {}
    for name, network in (("gan", GeneratorNetwork(32, 6, 8)), ("vae", Decoder(32, 6, 8))):
        best = {"upper": Best(direction=2, slope=40.0, r=0.9, selectivity=0.71, chance=0.4, p=0.01)}
        info = DirectionsInfo(generator=name, method="motion", best=best, words={2: "upper, 71% of what it does"})
        models[f"{name}-motion6"] = lively(network, name).but(measures=measures), Directions(torch.eye(6), info)
    steering = {label: lp.fit_steering(generator, samples=200) for label, (generator, _) in models.items()}
    path = tmp_path_factory.mktemp("live") / "live.html"
    assert lp.share(models, path, ct(WINDOW), note="Toys.", live=True, steering=steering) == path
    return models, path


def opened(tab, path, view=""):
    tab.goto(path.as_uri() + view, wait_until="load")
    tab.wait_for_function("window.lpdirs")
    tab.evaluate("stop()")
    return json.loads(re.search(r'(?s)id="data">(.*?)</script>', path.read_text())[1])


def drawn(tab, which="after"):
    tab.wait_for_function("!drawing && Number(document.body.dataset.drawn) === wanted")
    return np.array(tab.evaluate(f"Array.from(window.lpdirs.{which})"))


def in_hu(generator, z):
    return ct(WINDOW).pictures(generator.images(z[None]))[0].ravel()


def slide(tab, name, value):
    tab.evaluate("""([id, value]) => { const one = document.getElementById(id); one.value = value;
        one.dispatchEvent(new Event("input")); one.dispatchEvent(new Event("change")); }""", [name, value])  # fmt: skip


def test_what_a_slider_shows_is_what_the_generator_draws_there(shared):
    models, path = shared
    generator, directions = models["gan-motion6"]
    z = generator.draw(200, 1)
    with page() as tab:
        data = opened(tab, path)
        tab.click("#reset")
        assert np.abs(drawn(tab) - in_hu(generator, z[0])).max() < CLOSE
        slide(tab, "shifts-2", 3.0)
        moved = directions.shift(z[:1], 2, 3.0)
        assert np.abs(drawn(tab) - in_hu(generator, moved[0])).max() < CLOSE
        assert np.abs(drawn(tab, "before") - in_hu(generator, z[0])).max() < CLOSE
        assert "upper, 71% of what it does" in tab.locator("#said").text_content()
        assert "selectivity 0.71, by chance 0.40: beyond it" in tab.locator("#directions").text_content()
        tab.fill("#slice", "57")
        tab.keyboard.press("Tab")
        assert np.abs(drawn(tab) - in_hu(generator, directions.shift(z[56:57], 2, 3.0)[0])).max() < CLOSE
        assert "choose one of these" in tab.locator("#about-factor").text_content(), "paths were measured from the first slices alone"
        assert len(tab.requests) == 2 and tab.requests[1].startswith("blob:") and not tab.errors
    assert all(one["near"]["largest"] < CLOSE for one in data["generators"])


def test_a_factor_goes_along_the_path_that_was_steered(shared):
    models, path = shared
    generator = models["vae-motion6"][0]
    with page() as tab:
        data = opened(tab, path, "#set=vae-motion6&slice=3&window=lung")
        tab.click("#reset")
        before = generator.measures(torch.tensor(drawn(tab)).float().reshape(1, 1, 32, 32) / 1000)["upper"][0]
        slide(tab, "factors-upper", 1.0)
        after = generator.measures(torch.tensor(drawn(tab)).float().reshape(1, 1, 32, 32) / 1000)["upper"][0]
        g = next(one for one in data["generators"] if one["name"] == "vae")
        f = [one["name"] for one in g["paths"]["factors"]].index("upper")
        at = data["amounts"].index(1.0)
        assert after == pytest.approx(g["paths"]["read"][2][f][at][f], abs=2) and after > before
        assert "asked" in tab.locator("#said").text_content() and "HU measured" in tab.locator("#said").text_content()
        slide(tab, "shifts-2", 1.0)
        drawn(tab)
        assert "in a mixture, which was not measured" in tab.locator("#said").text_content()
        assert not tab.errors


def test_slices_that_exist_come_first_and_can_be_steered(shared, tmp_path):
    models, _ = shared
    generator, directions = models["vae-motion6"]
    z = generator.draw(2, 77)
    steering = {"vae-motion6": lp.fit_steering(generator, samples=200)}
    path = lp.share({"vae-motion6": models["vae-motion6"]}, tmp_path / "a.html", live=True, steering=steering, starts={"vae-motion6": z})
    with page() as tab:
        opened(tab, path, "#slice=2")
        assert np.abs(drawn(tab) - generator.display.pictures(generator.images(z[1:]))[0].ravel()).max() < CLOSE
        assert tab.locator("#start").text_content() == "Drawn again from one of the run's own images."
        assert tab.locator("input[id^=factors-]").count()
        tab.click("#reset")
        slide(tab, "slice", 3)
        assert tab.locator("#start").text_content() == ""


def test_a_view_can_be_sent_taken_back_and_reset(shared):
    models, path = shared
    with page() as tab:
        opened(tab, path, "#set=gan-motion6&slice=4&window=lung&d=2:1.5,0:-2&f=" + quote("mean:0.5") + "&beside=vae-motion6")
        first = drawn(tab)
        address = tab.evaluate("location.href")
        slide(tab, "shifts-2", -3.0)
        assert np.abs(drawn(tab) - first).max() > 1
        tab.click("#undo")
        assert np.array_equal(drawn(tab), first)
        assert tab.locator("#after1").get_attribute("aria-label").startswith("slice 4, moved")
        tab.click("#reset")
        assert np.array_equal(drawn(tab), drawn(tab, "before")) and "d=&" in tab.evaluate("location.href")
        with tab.expect_download() as got:
            tab.click("#png")
        with Image.open(got.value.path()) as picture:
            assert picture.size[0] == 6 * 256, "both models"
    with page() as tab:
        opened(tab, path, address[address.index("#") :])
        assert np.array_equal(drawn(tab), first), "the same view in another window"
        with tab.expect_download():
            tab.click("#strip")  # of a view in which nothing was moved yet


def test_beside_another_model_a_factor_goes_as_far_in_its_unit_and_each_is_described(shared):
    models, path = shared
    with page() as tab:
        data = opened(tab, path, "#set=gan-motion6&slice=2&f=upper:0.5&beside=vae-motion6")
        drawn(tab)
        one, other = ({f["name"]: f["sd"] for f in g["paths"]["factors"]}["upper"] for g in data["generators"])
        moves = tab.evaluate("shown().map((set) => moves(set).factors[0][1])")
        assert moves == pytest.approx([0.5, min(0.5 * one / other, 1.5)])
        said = [tab.locator(name).get_attribute("aria-label") for name in ("#after", "#after1")]
        asked = [re.search(r"upper: (\S+) HU asked", text)[1] for text in said]
        assert float(asked[0]) == pytest.approx(0.5 * one, abs=0.06) and float(asked[1]) == pytest.approx(moves[1] * other, abs=0.06)
        assert said[0] != said[1] and all(f"{name}: upper" in tab.locator("#said").text_content() for name in ("GAN", "VAE"))


def test_a_page_that_is_loaded_again_shows_something_and_draws_new_images(shared):
    models, path = shared
    with page() as tab:
        opened(tab, path, "#set=gan-motion6&slice=1&window=full&d=&f=")
        assert not np.array_equal(drawn(tab), drawn(tab, "before")), "it plays, though the address holds a view that is not moved"
        tab.click("#reset")
        slide(tab, "slice", 5000)
        new = drawn(tab, "before")
        z = np.array(tab.evaluate("Array.from(latent(generators[data.sets[state.set].generator]))"))
        assert abs(z.mean()) < 2 and 0.2 < z.std() < 2.5
        assert np.abs(new - in_hu(models["gan-motion6"][0], torch.tensor(z).float())).max() < CLOSE
        address = tab.evaluate("location.href")
    with page() as tab:
        opened(tab, path, address[address.index("#") :])
        assert np.array_equal(drawn(tab, "before"), new), "the same number is the same image"
        assert not tab.errors


def test_it_works_by_keys_by_touch_and_without_motion(shared):
    path = shared[1]
    with page(touch=True) as tab:
        opened(tab, path)
        tab.click("#reset")
        sizes = tab.evaluate("[...document.querySelectorAll('button, select, input')].map((x) => x.getBoundingClientRect().height)")
        assert min(size for size in sizes if size) >= 44 and tab.evaluate("document.documentElement.scrollWidth") <= 400
        slider = tab.locator("#shifts-2")
        before = drawn(tab)
        slider.focus()
        for _ in range(30):
            tab.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == "+3.0" and np.abs(drawn(tab) - before).max() > 1
        named = tab.evaluate("[...document.querySelectorAll('.slider input')].every((x) => x.getAttribute('aria-label'))")
        assert named and not tab.errors
    with page() as tab:
        tab.emulate_media(reduced_motion="reduce")
        opened(tab, path)
        assert not np.array_equal(drawn(tab), drawn(tab, "before")), "it opens on something to see"
        assert tab.locator("#play").get_attribute("aria-pressed") == "false"


def test_what_onnx_cannot_hold_becomes_strips_with_a_word_why(shared, tmp_path, capsys):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = GeneratorNetwork(32, 6, 8)

        def forward(self, z):
            return self.network(torch.special.bessel_j0(z))

    generator = lp.as_generator(Odd().eval(), 6)
    with pytest.raises(NotLive, match="cannot be exported to ONNX"):
        export(generator)
    models = {"odd": (generator, Directions(torch.eye(6)[:2]))}
    path = lp.share(models, tmp_path / "page.html", frames=3, slices=1)
    assert "The page holds strips" in capsys.readouterr().out and '"sprites"' in path.read_text()
    with pytest.raises(UserError, match="cannot be exported"):
        lp.share(models, tmp_path / "page.html", live=True)
