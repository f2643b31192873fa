import json
import sys

import numpy as np
import pytest
import torch

from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.measures.thorax import FACTORS
from lpdirs.models.networks import Decoder
from tests.conftest import ROOT
from tests.toys import lively

sys.path.insert(0, str(ROOT / "examples"))
from rating_sheet import RatingSheet, fleiss_kappa, make_items, read_ratings


@pytest.fixture
def items(tmp_path):
    torch.manual_seed(0)
    decoder = lively(Decoder(32, 4, 4))
    models = {"vae-unit4": (decoder, Directions(random(4, 4))), "vae-unit4, random": (decoder, Directions(random(4, 4, seed=1)))}
    return make_items(models, tmp_path / "ratings", each=2), tmp_path / "ratings"


def rate(sheet, answer):
    sheet.answer.value = answer
    sheet.save.click()


def test_a_rater_sees_strips_and_no_method(items):
    made, folder = items
    assert len(made) == 4 and len({item.png for item in made}) == 4
    sheet = RatingSheet(made, folder, FACTORS)
    texts = [getattr(child, "value", "") for child in sheet.children] + [getattr(child, "description", "") for child in sheet.children]
    assert not any("unit4" in str(text) or "random" in str(text) for text in texts)
    assert all("unit4" not in item.key for item in made) and set(json.loads((folder / "key.json").read_text())) == {i.key for i in made}


def test_answers_are_saved_at_once_and_gone_on_with(items):
    made, folder = items
    sheet = RatingSheet(made, folder, FACTORS)
    assert sheet.save.disabled and "name first" in sheet.message.value
    sheet.rater.value = "A. B./../x"
    assert sheet.path.parent == folder and sheet.path.name == "ABx.csv", "a name is no path"
    sheet.save.click()
    assert "Choose an answer" in sheet.message.value and not sheet.path.exists()
    rate(sheet, "rotation")
    assert read_ratings(folder)["answer"].tolist() == ["rotation"]
    again = RatingSheet(made, folder, FACTORS)
    again.rater.value = "A. B./../x"
    assert again.message.value == "1 of 4 done" and again.picture.value == made[1].png
    for _ in range(3):
        rate(again, "nothing")
    assert again.save.disabled and "All are done" in again.message.value
    rows = read_ratings(folder)
    assert len(rows) == 4 and set(rows["set"]) == {"vae-unit4", "vae-unit4, random"}


def test_without_answers_there_is_an_empty_table_and_without_a_key_an_error(items):
    made, folder = items
    assert len(read_ratings(folder)) == 0
    sheet = RatingSheet(made, folder, FACTORS)
    sheet.rater.value = "x"
    rate(sheet, "breast")
    (folder / "key.json").unlink()
    with pytest.raises(UserError, match="key.json is missing"):
        read_ratings(folder)


def test_fleiss_kappa_is_that_of_fleiss_s_own_example():
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(np.eye(3) * 4) == pytest.approx(1)
    assert np.isnan(fleiss_kappa([[1, 0], [0, 1]])) and np.isnan(fleiss_kappa(np.zeros((0, 3))))
