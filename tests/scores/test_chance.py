"""Chance on generators whose truth is planted: how often random sets earn names, and where a planted direction stands among them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import random
from lpdirs.scores.chance import against, open_chance, random_codes, random_sets
from lpdirs.scores.disentanglement import one_to_one
from lpdirs.scores.naming import Rules, earned, main_factors

D = 6


class Planted(nn.Module):
    """z (B, 6) to images whose first three pixels say three coordinates, in unlike sizes."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(D, D, bias=False)
        self.mix.weight.data = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.3, 0.3, 0.3]))

    def forward(self, z):
        return nn.functional.pad(0.2 * self.mix(z), (0, 32 * 32 - D)).view(-1, 1, 32, 32)


def read(images):
    x = images.flatten(1)[:, :3].double().numpy()
    return pd.DataFrame(x + 0.02 * np.sin(1e5 * x), columns=list("abc"))  # and noise of each image's own


MEASURES = lp.Measures(read, dict.fromkeys("abc", ""))


@pytest.fixture(scope="module")
def generator():
    return lp.as_generator(Planted(), D)


def test_at_most_one_random_set_in_twenty_earns_a_name_by_calibrated_rules(generator):
    k, hits, trials = 4, 0, 0
    for seed in range(6):
        rules = Rules().beyond(random_sets(generator, MEASURES, k, seed=seed))
        for other in range(25):
            fresh = lp.Directions(random(k, D, 77 + 100 * seed + other, orthonormal=True))
            table = lp.respond(generator, fresh, MEASURES, samples=32, seed=seed).table(0, 50)
            hits, trials = hits + bool(earned(main_factors(table), rules).any()), trials + 1
    assert hits / trials <= 0.08  # 5 percent, and what 150 trials may show by luck


def test_a_planted_direction_stands_beyond_chance_and_of_random_sets_one_in_twenty(generator):
    """The corrected p speaks of all factors at once: at most 5 percent of 200 random sets, and what luck adds, have any below 0.05."""
    k = 4
    band = random_sets(generator, MEASURES, k, sets=200)
    found = band.place(generator, lp.Directions(torch.eye(D)[:k]), MEASURES)
    least = k / (20 * k + k)  # one of N + K directions that are alike
    assert np.allclose(found[["selectivity_p", "selectivity_corrected"]], least) and (found["selectivity_z"] > 1).all()
    assert (found["selectivity"] > found["selectivity_chance"]).all() and found.index.name == "factor"
    fresh = [lp.Directions(random(k, D, 900 + seed, orthonormal=True)) for seed in range(200)]
    tables = [lp.respond(generator, each, MEASURES, samples=32).table(0, 50) for each in fresh]
    bands = [random_sets(generator, MEASURES, k, sets=50, seed=seed) for seed in range(8)]
    # measured from the first band's images, placed among directions that other seeds drew
    placed = [replace(bands[i % 8], seed=0).place(generator, fresh[i], MEASURES, table=table) for i, table in enumerate(tables)]
    for score in ("r", "selectivity"):
        beyond = np.mean([(one[f"{score}_corrected"] <= 0.05).any() for one in placed])
        usual = np.mean([one[f"{score}_p"].mean() for one in placed])
        assert beyond <= 0.09 and 0.3 < usual < 0.75, (score, beyond, usual)


class Bands(nn.Module):
    """z (B, 16) to images whose columns, in sevenths, are as grey as seven coordinates say."""

    def __init__(self, factors=7):
        super().__init__()
        self.factors, self.mix = factors, nn.Linear(16, factors, bias=False)
        self.mix.weight.data = torch.eye(16)[:factors]

    def forward(self, z):
        return (0.05 * self.mix(z)).repeat_interleave(4, 1)[:, None, :, None].expand(-1, 1, -1, 4 * self.factors).clone()


def greys(factors):
    names = [f"f{i}" for i in range(factors)]
    read = lambda x: pd.DataFrame(x[:, 0, ::4].mean(2).double().numpy(), columns=names)
    return lp.Measures(read, dict.fromkeys(names, ""))


def test_of_random_sets_one_in_twenty_lies_beyond_chance_however_many_factors_there_are():
    """Seven factors, of which each could lie far out: in the SD of the others alone a random set does so in one case of eight."""
    generator, measures, k, hits = lp.as_generator(Bands(), 16), greys(7), 4, []
    for seed in range(10):
        band = random_sets(generator, measures, k, samples=4, seed=seed)
        fresh = torch.cat([random(k, 16, 10_000 + 100 * seed + i, orthonormal=True) for i in range(40)])
        table = lp.respond(generator, lp.Directions(fresh), measures, band.shifts, 4, band.seed).table(0, 20)
        for i in range(40):
            one = table[table["direction"] // k == i].assign(direction=lambda rows: rows["direction"] % k).reset_index(drop=True)
            placed = band.place(generator, lp.Directions(fresh[k * i : k * i + k]), measures, table=one)
            hits.append((placed["selectivity_corrected"] <= 0.05).any())
    assert np.mean(hits) <= 0.08  # of 400, 5 percent and what luck adds


def test_of_two_factors_random_directions_earn_no_names_and_planted_ones_do():
    """Without rules of the caller's own, names are taken against random directions on the same generator."""
    generator, measures = lp.as_generator(Bands(2), 16), greys(2)
    named = 0
    for seed in range(10):
        directions = lp.discover(generator, "random", 8, seed=seed)
        named += len(lp.name(generator, directions, lp.respond(generator, directions, measures, samples=16)).info.names) > 0
    planted = lp.Directions(torch.eye(16)[:4])
    assert named <= 2  # of ten sets; by fixed rules nearly all
    assert lp.name(generator, planted, lp.respond(generator, planted, measures, samples=16)).info.names.get(0) == "f0"


def test_a_set_of_more_directions_than_the_random_ones_is_refused():
    generator, measures = lp.as_generator(Bands(3), 16), greys(3)
    band = random_sets(generator, measures, 2, samples=4, sets=20)
    with pytest.raises(UserError, match="these are 3 directions, and the random sets have 2"):
        band.place(generator, lp.discover(generator, "random", 3), measures)


def test_of_one_factor_alone_no_direction_is_purer_than_chance(generator):
    """Its selectivity is 1 along every direction."""
    alone = lp.Measures(lambda x: read(x)[["a"]], {"a": ""})
    placed = random_sets(generator, alone, 4).place(generator, lp.Directions(torch.eye(D)[:4]), alone)
    assert placed.loc["a", "selectivity"] == 1 and placed.loc["a", ["selectivity_p", "selectivity_corrected"]].min() > 0.99


def test_a_set_is_measured_from_the_band_s_starting_images_whatever_its_seed(generator, tmp_path):
    """Other starting images would move r and selectivity by themselves, and chance with them."""
    band = random_sets(generator, MEASURES, 4, sets=50, samples=8, seed=3)
    band.save(tmp_path / "band.csv")
    directions = lp.discover(generator, "random", 4, seed=1)
    places = [
        kept.place(generator, directions, MEASURES, seed) for kept in (band, open_chance(tmp_path / "band.csv", 4)) for seed in (0, 7)
    ]
    assert all(np.allclose(places[0]["r"], other["r"], atol=1e-9) for other in places[1:])


def test_every_set_has_directions_of_its_own_where_enough_are_measured(generator):
    band = random_sets(generator, MEASURES, 3, sets=5)
    assert sorted(band.sets.ravel()) == list(range(15)) and band.best()["r"].shape == (5, 3)


def test_random_codes_hold_random_sets_and_not_the_axes():
    """Of factors that are axes of z the axes have the best codes; one random set in a hundred is at the end of its own band."""
    z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    factors = pd.DataFrame(z[:, :4].numpy(), columns=list("abcd"))
    band = random_codes((z, factors), 8, sets=20)
    of = lambda found: against("", pd.Series(found), band, len(band))
    axes = of(one_to_one(z.numpy(), factors))
    assert all(axes.loc[name, "_z"] > 3 and axes.loc[name, "_p"] == 1 / 21 for name in ("mig", "dci_disentanglement"))
    another = of(random_codes((z, factors), 8, sets=1, seed=1).iloc[0].to_dict())
    assert (another["_z"].drop("dci_informativeness").abs() < 4).all()
