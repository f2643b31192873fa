"""Names on generators of which every coordinate is known to do one thing: what must not earn one, and what is said of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.scores.naming import distinct
from lpdirs.scores.response import best_directions

D = 8


class Stripes(nn.Module):
    """z to images of 16 px whose four bands of rows each say a function of z."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        rows = nn.functional.pad(torch.stack(self.function(z), 1), (0, 4 - len(self.function(z))))
        return rows.repeat_interleave(4, 1)[:, None, :, None].expand(-1, 1, -1, 16)


def read(names):
    table = lambda x: pd.DataFrame({n: 100 * x[:, 0, 4 * i, 0].double() for i, n in enumerate(names)})
    return lp.Measures(table, dict.fromkeys(names, "mm"))


def named(function, measures, samples=64):
    generator = lp.as_generator(Stripes(function), D, value_range=(-100, 100))
    directions = lp.discover(generator, "coordinate", D)
    responses = lp.respond(generator, directions, measures, samples=samples)
    return lp.name(generator, directions, responses).info, responses.table(resamples=50)


def test_what_bends_or_goes_up_here_and_down_there_takes_the_name_from_a_smaller_steady_change():
    for bent in (lambda z: 0.5 * z[:, 0] ** 2, lambda z: z[:, 0] * z[:, 1]):
        function = lambda z, bent=bent: [0.2 * z[:, 0] + 0.1 * z[:, 4], bent(z), z[:, 2], z[:, 3]]
        info, table = named(function, read("ABCD"))
        assert 0 not in info.names and info.words[0] == "mixed: A steadily, and more that bends or differs between images"
        assert info.names[2] == "C" and info.names[3] == "D"
        first = table[table["direction"] == 0].set_index("factor")
        assert first.loc["B", "moved"] > 0.9 * first.loc["A", "moved"] > 0 and first.loc["B", "selectivity"] < 0.15


def test_one_factor_alone_or_most_not_measurable_earns_no_name():
    """Selectivity is a share of what was measured, and 1 where nothing else was."""
    function = lambda z: [z[:, 0], z[:, 1], z[:, 2], z[:, 3]]
    assert not named(function, read("A"))[0].names
    blind = lp.Measures(lambda x: read("ABCD").function(x).assign(B=np.nan, C=np.nan, D=np.nan), dict.fromkeys("ABCD", "mm"))
    assert not named(function, blind)[0].names
    assert set(named(function, read("ABCD"))[0].names.values()) == set("ABCD")


def test_a_factor_that_does_not_vary_is_nobody_s_main_factor():
    """Rounding of a constant has a tiny SD, in which its own effects are as large as any."""
    still = lambda z: 0.7 + 1e-7 * torch.sin(1000 * z[:, 0])
    info, table = named(lambda z: [z[:, 0], z[:, 1], still(z)], read("ABC"))
    assert table[table["factor"] == "C"]["effect"].isna().all() and info.names[0] == "A"


def test_a_factor_that_moves_only_where_shifts_go_is_said_to_be_left_out():
    rare = lambda z: torch.relu(z[:, 0].abs() - 6)  # of no image that is not shifted
    with pytest.warns(UserWarning, match="C: the same in every unshifted image"):
        named(lambda z: [z[:, 0], z[:, 1], rare(z)], read("ABC"))


def test_a_second_name_is_not_another_factor_s():
    function = lambda z: [z[:, 0] + z[:, 1], z[:, 2], z[:, 3]]
    info, _ = named(function, read(["A", "A 2", "B"]))
    assert sorted(info.names.values()) == ["A", "A 2", "A 3", "B"] and info.names[2] == "A 2"


def test_what_is_noise_is_no_direction_s_best_factor():
    noise = np.random.default_rng(0)
    measures = lp.Measures(lambda x: pd.DataFrame(noise.normal(size=(len(x), 3)), columns=list("ABC")), dict.fromkeys("ABC", "mm"))
    info, table = named(lambda z: [z[:, 0] + z[:, 4], z[:, 1] + z[:, 5], z[:, 2] + z[:, 6], z[:, 3] + z[:, 7]], measures, samples=256)
    assert not info.best and not info.names and best_directions(table)["direction"].isna().all()
    assert sum("no factor steadily" in text for text in info.words.values()) >= 7  # one in twenty passes by luck


def test_names_say_the_units_that_the_responses_were_measured_in():
    generator = lp.as_generator(Stripes(lambda z: [z[:, 0], z[:, 1], z[:, 2]]), D, value_range=(-100, 100))
    directions = lp.discover(generator, "coordinate", D)
    responses = lp.respond(generator, directions, read("ABC"), samples=64)
    assert "A, +1 mm per unit of shift" in lp.name(generator, directions, responses).info.words[0]


def test_what_could_not_be_measured_is_said_not_to_be():
    lost = lp.Measures(lambda x: pd.DataFrame({"a": np.full(len(x), np.nan), "b": np.full(len(x), np.nan)}), {"a": "", "b": ""})
    info, _ = named(lambda z: [z[:, 0]], lost, 8)
    assert info.words[0] == "not measured: no factor could be measured on more than 0% of images along it" and not info.names


def test_curves_go_from_the_lowest_shift_to_the_highest():
    generator = lp.as_generator(Stripes(lambda z: [z[:, 0]]), D, value_range=(-100, 100))
    directions, measures = lp.discover(generator, "coordinate", 2), read(["a", "b"])
    info = lp.name(generator, directions, lp.respond(generator, directions, measures, (0, -4, 4), 8)).info
    assert info.curves[0] == sorted(info.curves[0])


def test_seeds_and_measures_that_do_not_fit_are_one_line():
    generator = lp.as_generator(Stripes(lambda z: [z[:, 0], z[:, 1]]), D, value_range=(-100, 100))
    directions = lp.discover(generator, "coordinate", 2)
    responses = lp.respond(generator, directions, read(["a", "b"]), samples=8)
    for seed in (-1, 1.5, None):
        with pytest.raises(UserError, match="seed must be"):
            lp.respond(generator, directions, read(["a", "b"]), samples=8, seed=seed)
    with pytest.raises(UserError, match="the responses are of a, b, and the measures of c, d"):
        lp.score(generator, directions, read(["c", "d"]), responses)


def test_distinct_directions_are_each_there_once_and_none_is_dead():
    generator = lp.as_generator(Stripes(lambda z: [z[:, 0], z[:, 1], z[:, 2]]), D, value_range=(-100, 100))
    axes = torch.eye(D)
    matrix = torch.stack([axes[0], -axes[0], axes[1], axes[5], (axes[2] + axes[6]) / 2**0.5, axes[2]])
    found = lp.Directions(matrix).with_info(names={2: "B", 4: "C"}, words={1: "as the first", 2: "B", 4: "C"})
    kept = distinct(generator, found)
    assert kept.info.notes["kept"] == [0, 2, 4] and torch.equal(kept.matrix, matrix[[0, 2, 4]])
    assert kept.info.names == {1: "B", 2: "C"} and kept.info.words == {1: "B", 2: "C"}
    with pytest.raises(UserError, match="dead"):
        distinct(generator, lp.Directions(axes[5:7]))


def lesions(d: int = D) -> tuple[nn.Module, lp.Measures]:
    """A is there where z[0] > 0 alone, and then z[1]; B is z[2]."""
    generator = lp.as_generator(Stripes(lambda z: [z[:, 1], z[:, 2], z[:, 0]]), d, value_range=(-100, 100))
    plain = read("ABC").function
    there = lambda x: plain(x).assign(A=lambda t: t["A"].where(t["C"] > 0))[["A", "B"]]
    return generator, lp.Measures(there, dict.fromkeys("AB", "mm"))


def test_a_direction_along_which_a_factor_appears_is_said_to_be_one():
    generator, measures = lesions()
    directions = lp.discover(generator, "coordinate", 3)
    info = lp.name(generator, directions, lp.respond(generator, directions, measures, samples=64)).info
    assert "A can be measured on 0% of images at the lowest shift and on 100% at the highest" in info.words[0]
    assert "can be measured on" not in info.words[1] + info.words[2]


def test_with_one_factor_alone_the_words_say_why_nothing_has_a_name():
    generator = lp.as_generator(Stripes(lambda z: [z[:, 0], z[:, 1]]), D, value_range=(-100, 100))
    directions = lp.discover(generator, "coordinate", 2)
    info = lp.name(generator, directions, lp.respond(generator, directions, read("A"), samples=32)).info
    assert info.words[0].startswith("A, +1 mm per unit of shift, |r| 1.00; no name") and not info.names
    assert info.words[1] == "mixed: it moves no factor steadily"


def test_what_was_measured_on_another_generator_or_with_other_measures_is_refused():
    one, other = (lp.as_generator(Stripes(lambda z, s=s: [s * z[:, 0], z[:, 1]]), D, value_range=(-100, 100)) for s in (1, 2))
    directions, measures = lp.discover(one, "coordinate", 2).with_info(generator_fingerprint=""), read("AB")
    responses = lp.respond(one, directions, measures, samples=16)
    for act in (lambda: lp.name(other, directions, responses), lambda: lp.score(other, directions, measures, responses)):
        with pytest.raises(UserError, match="measured on another generator"):
            act()
    with pytest.raises(UserError, match="the responses are of A, B, and the measures of a, b"):
        lp.name(one, directions, responses, read(["a", "b"]))
    band = lp.random_sets(one, measures, 2, samples=16)
    with pytest.raises(UserError, match="measured on another generator"):
        band.place(other, directions, measures)
    with pytest.raises(UserError, match="these random sets have A, B"):
        band.place(one, directions, read(["a", "b"]))
    with pytest.raises(UserError, match="responses must be what lp.respond"):
        lp.name(one, directions, responses.table())
    with pytest.raises(UserError, match=r"rules must be rules"):
        lp.name(one, directions, responses, rules="default")
    with pytest.raises(UserError, match="sample must be what"):
        lp.score(one, directions, measures, responses, sample=(torch.randn(9, D), pd.DataFrame({"q": range(9)})))
    for steps in (0, -1, 5.5):
        with pytest.raises(UserError, match="steps must be"):
            lp.score(one, directions, measures, responses, steps=steps)
