"""What `import lpdirs as lp` gives: a dozen names, each with few arguments, and one line for what does not fit."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import MissingInput, UserError
from tests.conftest import ROOT


def test_its_names_are_few_and_listed():
    assert len(lp.__all__) <= 26 and set(lp.__all__) <= set(dir(lp)) and (ROOT / "lpdirs" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'guess'"):
        _ = lp.guess


@pytest.mark.parametrize("name", lp.__all__)
def test_each_has_a_docstring_types_and_few_arguments(name):
    call = getattr(lp, name)
    signature = inspect.signature(call)
    arguments = [p for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    settings = name in ("DiscoverySettings", "Rules")  # all by name, each with a default
    by_place = [p for p in arguments if p.kind is not p.KEYWORD_ONLY]
    assert (len(by_place) <= 8 or settings) and len(inspect.getdoc(call)) > 40
    assert all(p.annotation is not p.empty for p in arguments) and (
        inspect.isclass(call) or signature.return_annotation is not signature.empty
    )


def test_no_public_function_of_the_package_has_many_arguments():
    import ast

    for path in (ROOT / "lpdirs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and "phantom" not in path.parts:
                arguments = [a.arg for a in node.args.args if a.arg != "self"]
                assert len(arguments) <= 8, f"{path.name}: {node.name} takes {len(arguments)}"


class Sheet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 32 * 32), nn.BatchNorm2d(1)

    def forward(self, z):
        return torch.tanh(self.norm(self.first(z).reshape(-1, 1, 32, 32)))


def grey(images):
    return pd.DataFrame({"left": images[..., :16].mean((1, 2, 3)).numpy(), "all": images.mean((1, 2, 3)).numpy()})


MEASURES = lp.Measures(grey, {"left": "grey", "all": ""})


def test_the_caller_s_module_is_left_as_it_was():
    module = Sheet()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generator = lp.as_generator(module, 6)
    lp.discover(generator, "jacobian", 2)
    lp.discover(generator, "sefa", 2)
    assert module.training and all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert generator.device == torch.device("cpu") and not any(p.requires_grad for p in generator.module.parameters())


def test_own_measures_go_all_the_way():
    torch.manual_seed(0)
    generator = lp.as_generator(Sheet(), 6, name="sheet")
    directions = lp.discover(generator, "jacobian", 3)
    assert directions.info.generator == "sheet" and len(directions.info.generator_fingerprint) == 16
    responses = lp.respond(generator, directions, MEASURES, (-1, 0, 1), samples=8)
    named = lp.name(generator, directions, responses, MEASURES)
    assert set(named.info.words) == {0, 1, 2} and all(named.title(k) for k in range(3))
    row = lp.score(generator, named, MEASURES, responses, steps=2, sample=MEASURES.sample(generator, 150))
    assert {"left_r", "all_r", "kappa_fresh", "mig"} <= row.keys() and 0 <= row["selectivity"] <= 1
    one = lp.Measures(grey, {"left": "grey", "all": ""}, main=("left",))
    again = lp.score(generator, named, one, responses, steps=2, sample=MEASURES.sample(generator, 150))
    for name in ("selectivity", "r"):  # over all factors, and not over the main ones alone
        assert again[name] == pytest.approx((row[f"left_{name}"] + row[f"all_{name}"]) / 2)
    explorer = lp.explore({"sheet": (generator, named)}, MEASURES)
    assert "left" in explorer.readout.value and "grey" in explorer.readout.value and explorer.seed.description == "image"
    assert len(lp.strips(generator, named, k=[0, 1]).axes) == 2 * 7 + 1


def test_what_is_given_in_another_way_is_one_line(tmp_path):
    generator = lp.as_generator(Sheet(), 6)
    directions = lp.discover(generator, "random", 2)
    for wrong, message in (
        (lambda: lp.respond(directions, generator), "generator must be a generator, lp.as_generator"),
        (lambda: lp.respond(generator, directions.matrix), "directions must be directions, as lp.discover"),
        (lambda: lp.explore((generator, directions)), "explore takes the name of a run"),
        (lambda: lp.explore({0: (generator, directions)}), "labels of models must be text"),
        (lambda: lp.share({0: (generator, directions)}, tmp_path / "x.html"), "labels of models must be text"),
        (lambda: lp.share({"a": (generator, directions)}, tmp_path / "x.html", frames=4.5), "frames must be a whole number"),
        (lambda: lp.share({"a": (generator, directions)}, tmp_path / "x.html", slices=0), "slices must be at least 1"),
        (lambda: lp.share({"a": (generator, directions)}, tmp_path / "x.html", furthest=0), "furthest must be greater than 0"),
        (lambda: lp.share({"a": (generator, directions)}, tmp_path / "x.html", (0, 1)), "display must be a display"),
        (lambda: lp.share({"a": (generator, directions)}, Path(__file__) / "x.html"), "a folder of its path is a file"),
        (lambda: lp.explore({"a": (generator, directions)}, grey), "measures must be measures: lp.Measures"),
        (lambda: lp.explore({"a": (generator, directions)}, furthest=-1), "furthest must be greater than 0"),
        (lambda: lp.strips(directions, generator), "generator must be a generator"),
        (lambda: lp.strips(generator, directions, k=5), "k between 0 and 1"),
        (lambda: lp.strips(generator, directions, shifts="abc"), "shifts must be a list"),
        (lambda: lp.strips(generator, directions, seed="a"), "seed must be a whole number"),
        (lambda: lp.Display(5), "window must be"),
        (lambda: lp.Display("ab"), "window must be"),
        (lambda: lp.thorax((-1000, 1000), "0.7"), "thorax needs the window in HU"),
        (lambda: lp.load(tmp_path, device="gpu"), "device"),
        (lambda: lp.random_sets(generator, MEASURES, 2, sets=0), "at least two random sets"),
        (lambda: lp.Measures(grey, {"left": "", "all": ""}, levels={"left": ("all", 2, 1)}), "from its lowest to a higher value"),
        (lambda: lp.Measures(lambda x: x.mean((1, 2, 3)), {"a": ""})(torch.zeros(3, 1, 32, 32)), "must return a table such as"),
        (lambda: directions.save(tmp_path / "d.pt"), "call the file d.safetensors"),
        (lambda: lp.Measures(grey, {0: ""}), "units must be text"),
        (lambda: lp.Measures(grey, {"left": None}), "units must be text"),
        (lambda: lp.Measures(grey, {"left": ""}, levels={"left": ("left", 1)}), "levels must be"),
    ):
        with pytest.raises(UserError, match=message) as error:
            wrong()
        assert "\n" not in str(error.value)
    assert len(lp.strips(generator, directions, k=1).axes) == 7 + 1


def test_levels_and_units_must_be_of_factors():
    for wrong, message in (
        ({"units": {}}, "at least one factor"),
        ({"units": {"a": ""}, "main": ("b",)}, "speak of b, and units has a"),
        ({"units": {"a": ""}, "levels": {"a": ("z", 0.0, 1.0)}}, "speak of z"),
    ):
        with pytest.raises(UserError, match=message):
            lp.Measures(grey, **wrong)
    with pytest.raises(UserError, match="gave 3 rows of left, all for 3 images: it must give a row an image with right"):
        lp.Measures(grey, {"right": ""})(torch.zeros(3, 1, 32, 32))
    with pytest.raises(UserError, match="must go from a smaller to a larger value"):
        lp.Display((1, -1))


def _named_by_others():
    generator = lp.as_generator(Sheet(), 6)
    one, other = (lp.discover(generator, "random", 3, seed=seed) for seed in (0, 1))
    lp.name(generator, other, lp.respond(generator, one, MEASURES, (-1, 0, 1), 4), MEASURES)


def _on_another():
    lp.strips(lp.as_generator(Sheet(), 6), lp.discover(lp.as_generator(Sheet(), 6), "random", 3))


EYE = lp.Directions(torch.eye(6))
WRONG = {
    "another latent_dim": (lambda: lp.as_generator(Sheet(), 7), "does not take z of shape (8, 7)"),
    "no module": (lambda: lp.as_generator(lambda z: z, 7), "takes a torch module, not function"),
    "no image": (lambda: lp.as_generator(nn.Linear(6, 6), 6), "must map z (B, 6) to images"),
    "no range": (lambda: lp.as_generator(Sheet(), 6, value_range=(1, 0)), "value_range must be (lowest, highest)"),
    "not wrapped, discover": (
        lambda: lp.discover(Sheet(), "sefa", 2),
        "generator must be a generator, lp.as_generator(module, latent_dim), not Sheet",
    ),
    "not wrapped, strips": (
        lambda: lp.strips(Sheet(), lp.Directions(torch.eye(6))),
        "generator must be a generator, lp.as_generator(module, latent_dim), not Sheet",
    ),
    "no measures": (
        lambda: lp.respond(lp.as_generator(Sheet(), 6), lp.Directions(torch.eye(6)), print),
        "measures must be measures: lp.Measures",
    ),
    "two shifts": (
        lambda: lp.respond(lp.as_generator(Sheet(), 6), EYE, MEASURES, (0, 1)),
        "at least 3 different shifts",
    ),
    "another's directions": (lambda: lp.strips(lp.as_generator(Sheet(), 6), lp.Directions(torch.eye(5))), "do not fit z of 6"),
    "another's directions, measured": (
        lambda: lp.respond(lp.as_generator(Sheet(), 6), lp.Directions(torch.eye(5)), MEASURES),
        "they belong to another generator",
    ),
    "responses of others": (lambda: _named_by_others(), "these are the responses of other directions"),
    "another generator": (lambda: _on_another(), "these directions belong to another generator"),
    "swapped": (lambda: lp.share({"a": (lp.Directions(torch.eye(6)), Sheet())}, "x.html"), "in this order"),
    "no window": (lambda: lp.thorax(None, None), "thorax needs the window in HU"),
    "a fractional dimension": (lambda: lp.as_generator(Sheet(), 6.0), "latent_dim must be a whole number"),
    "an endless range": (lambda: lp.as_generator(Sheet(), 6, value_range=(0, float("inf"))), "value_range must be a finite number"),
    "a direction that is not there": (
        lambda: lp.strips(lp.as_generator(Sheet(), 6), EYE, k=[9]),
        "k between 0 and 5",
    ),
    "whole numbers": (lambda: lp.Directions(torch.eye(3, dtype=torch.long)), "floating-point numbers"),
    "no matrix": (lambda: lp.Directions(torch.ones(3)), "must be a matrix (K, d)"),
    "no directions": (lambda: lp.discover(lp.as_generator(Sheet(), 6), "random", 0), "k must be at least 1"),
    "nothing to explore": (lambda: lp.explore({}), "there is nothing to show"),
    "no file": (lambda: lp.load("nowhere.safetensors"), "there is no file nowhere.safetensors"),
    "no run": (lambda: lp.explore("nowhere"), "there is no run 'nowhere'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line(case):
    call, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_load_opens_whatever_was_written(tmp_path):
    generator = lp.as_generator(Sheet(), 6)
    lp.discover(generator, "random", 3).save(tmp_path / "d.safetensors")
    assert len(lp.load(tmp_path / "d.safetensors")) == 3
    models = lp.load(ROOT / "outputs" / "reference" / "demo")
    assert all(len(directions) == 32 and model.latent_dim == 32 for model, directions in models.values())
    vae = lp.load(ROOT / "outputs" / "reference" / "demo" / "vae" / "vae.safetensors")
    assert vae.images(torch.zeros(1, 32)).shape == (1, 1, 64, 64) and vae.info.window == (-1000, 1000) and vae.info.name == "vae"
    for name, content in (("torn.safetensors", b"\0" * 40), ("empty.pt", b""), ("text.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            lp.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingInput):
        lp.load(tmp_path / "nothing")


def test_slices_are_read_from_a_folder_of_dicom(dicom_folder, tmp_path):
    slices = lp.read_slices(dicom_folder, size=32)
    assert len(slices) == 128 and slices.tensor().abs().max() <= 1
    kept = lp.read_slices(dicom_folder, 32, folder=tmp_path / "kept")
    assert (tmp_path / "kept" / "rejected.csv").exists() and torch.equal(kept.tensor(), slices.tensor())


EXAMPLES = {  # what is made smaller for the test, and what each prints
    "own_generator": ({}, "ink (5)"),
    "trained_run": ({"samples=16": "samples=4"}, "body thickness, selectivity 0.43 (chance 0.32)"),
    "steer": ({"samples=2000": "samples=400", "draw(4,": "draw(1,"}, "thickness, asked"),
    "own_images": ({"steps=100": "steps=20", "samples=1500": "samples=300"}, "y_position, asked"),
    "own_method": ({"draw(600": "draw(300", "order[400:": "order[200:", "order[:200": "order[:100", "steps=60": "steps=3"}, "thirds  "),
    "against_chance": ({"k=8": "k=3", "samples=16": "samples=4", "samples=64": "samples=8"}, "a name takes a selectivity of"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name, tmp_path):
    smaller, expected = EXAMPLES[name]
    code = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(code.splitlines()) <= 70
    for long, short in smaller.items():
        assert long in code
        code = code.replace(long, short)
    (tmp_path / "example.py").write_text(code)
    ran = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200,
                         env={**__import__("os").environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"})  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert expected in ran.stdout
    if name == "own_generator":  # the numbers beside the calls
        assert re.search(r"best for right \(2\) +mixed: mostly right, 79% of what it does", ran.stdout)
        assert Path(tmp_path / "own_generator.html").exists()


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    low, high = np.float32(-1000), np.int64(1000)
    assert lp.Display((low, high)).difference == 1000 and lp.thorax((low, high), np.float32(1.5)).factors
    assert lp.Prior.normal(np.float32(0.5)).unit(4) == pytest.approx(0.5, abs=0.02)
