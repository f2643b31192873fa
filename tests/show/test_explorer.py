import asyncio
import io
import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageSequence

import lpdirs as lp
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Best, Directions, DirectionsInfo
from lpdirs.measures.measures import ct
from lpdirs.measures.thorax import thorax
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.runs.models import explore
from lpdirs.scores.inversion import Inversion
from lpdirs.show.explorer import SHOWN, Explorer
from lpdirs.show.plots import NOTICE, animation, as_png, contact_sheet, film_strips, mosaic, save_figure, shift_heads
from lpdirs.show.scene import FORMAT
from tests.scores.test_steering import MEASURES, Mixed
from tests.toys import lively

CT = ct((-1000.0, 1000.0))


@pytest.fixture
def explorer(tmp_path):
    named = DirectionsInfo(names={4: "rotation"}, words={4: "rotation, +3 degrees per unit of shift"}, curves={4: [-1, 0, 1]})
    models = {
        "gan": (lively(GeneratorNetwork(32, 4, 4)), Directions(random(3, 4))),
        "vae": (lively(Decoder(32, 6, 4)), Directions(random(12, 6), named)),
    }
    return Explorer(models, thorax((-1000.0, 1000.0), 12.0), CT, folder=tmp_path)


def shown(explorer, name="after"):
    return np.asarray(Image.open(io.BytesIO(explorer.images[name].value)))


def test_a_slider_moves_the_picture_and_reset_brings_it_back(explorer):
    before = shown(explorer)
    explorer.sliders[1].value = 6.0
    assert not np.array_equal(shown(explorer), before) and np.array_equal(shown(explorer, "before"), before)
    assert np.array_equal(shown(explorer), CT.to_grey(explorer.image_values()))
    explorer.reset.click()
    assert np.array_equal(shown(explorer), before) and all(s.value == 0 for s in explorer.sliders.values())
    assert (shown(explorer, "change") == shown(explorer, "change")[0, 0]).all(), "no difference has one colour"


def test_new_z_draws_another_slice(explorer):
    before = shown(explorer)
    explorer.new.click()
    assert not np.array_equal(shown(explorer), before)
    explorer.seed.value = 0
    assert np.array_equal(shown(explorer), before)


def test_directions_add_up(explorer):
    explorer.set_shifts({0: 2.0, 2: -3.0})
    both = explorer.image_values()
    explorer.set_shifts({0: 2.0})
    assert not np.array_equal(explorer.image_values(), both)
    assert "direction 0 +2.0" in explorer.status.value and "diagnosis" in explorer.status.value


def test_what_is_shifted_has_a_slider_that_is_shown(explorer):
    explorer.model.value = "vae"
    hidden = explorer.order[-1]
    assert hidden not in explorer.rows
    explorer.set_shifts({hidden: 3.0})
    assert explorer.rows[hidden] in explorer.panel.children and explorer.sliders[hidden].value == 3.0
    explorer.set_shifts({})
    assert explorer.rows[hidden] not in explorer.panel.children


def test_pictures_say_what_they_show_to_those_who_do_not_see_them(explorer):
    explorer.set_shifts({0: 2.0})
    assert explorer.images["after"].tooltip.endswith(f"shift: {explorer.titles[0]} +2.0")
    assert explorer.images["before"].tooltip.endswith("as it was drawn") and "what has changed" in explorer.images["change"].tooltip


def test_undo_goes_back_one_change_at_a_time(explorer):
    pictures = [shown(explorer)]
    for value in (2.0, 5.0):
        explorer.sliders[0].value = value
        pictures.append(shown(explorer))
    explorer.seed.value = 3
    for expected in reversed(pictures):
        explorer.undo.click()
        assert np.array_equal(shown(explorer), expected)
    explorer.undo.click()
    assert np.array_equal(shown(explorer), pictures[0]), "and no further"


def test_named_directions_come_first_and_the_search_finds_the_rest(explorer):
    explorer.sliders[0].value = 4.0
    explorer.model.value = "vae"
    assert len(explorer.panel.children) == SHOWN and shown(explorer).shape == (32, 32)
    first = explorer.panel.children[0].children
    assert first[0].description == "rotation (4)" and "<svg" in first[1].value and "3 degrees" in first[1].value
    explorer.search.value = "11"
    assert [row.children[0].description for row in explorer.panel.children] == ["direction 11"]
    explorer.sliders[11].value = 2.0
    explorer.search.value = "no such"
    assert "no direction says" in explorer.panel.children[0].value
    explorer.search.value = ""
    assert len(explorer.panel.children) == SHOWN + 1, "what is moved stays in sight"


def test_the_window_changes_grey_values_and_nothing_else(explorer):
    hu, before = explorer.image_values(), shown(explorer)
    explorer.preset.value = "bone"
    assert np.array_equal(explorer.image_values(), hu) and not np.array_equal(shown(explorer), before)


def test_how_far_from_the_prior_is_said(explorer):
    explorer.set_shifts({0: 6.0, 1: 6.0, 2: 6.0})
    assert explorer.scene.typical() < 0.01 and f"{explorer.scene.typical():.1%} of random slices" in explorer.readout.value
    assert "rotation" in explorer.readout.value and "degrees" in explorer.readout.value


def test_a_saved_state_reopens_exactly(explorer, tmp_path):
    explorer.model.value = "vae"
    explorer.seed.value = 7
    explorer.set_shifts({4: 3.3, 9: -1.0})
    hu, path, picture = explorer.image_values(), explorer.export("json"), explorer.export("png")
    explorer.model.value = "gan"
    for source in (path, picture):
        explorer.scene.open_state(source)
        explorer.show(explorer.scene.state())
        assert explorer.model.value == "vae" and explorer.sliders[4].value == 3.3
        assert np.array_equal(explorer.image_values(), hu)
        explorer.reset.click()
    for wrong, message in (({}, "no saved state"), ({"format": FORMAT, "model": "x"}, "belongs to model 'x'")):
        with pytest.raises(UserError, match=message):
            explorer.scene.restore(wrong)
    with pytest.raises(UserError, match="moves direction 40, and gan has 3"):
        explorer.scene.restore({"format": FORMAT, "model": "gan", "seed": 0, "shifts": {"40": 1.0}, "preset": "full"})


def test_exports_are_marked_as_synthetic_in_pixels_and_metadata(explorer):
    with Image.open(explorer.export("png")) as picture:
        pixels, text = np.asarray(picture, int), picture.text
    plain = np.asarray(
        Image.fromarray(explorer.scene.grey(explorer.image_values())).resize(pixels.shape[::-1], Image.Resampling.BICUBIC), int
    )
    written = np.abs(pixels - plain) > 40
    assert len(pixels) >= 256 and written[-24:].sum() > 200 and written[:-24].sum() == 0
    assert "not for diagnosis" in text["Description"]
    with Image.open(explorer.export("gif")) as gif:
        assert gif.n_frames == 28 and b"not for diagnosis" in gif.info["comment"]
    assert "saved gan-slice0-direction0.gif" in explorer.message.value


def test_where_nothing_can_be_written_it_says_so(explorer, tmp_path):
    (tmp_path / "file").write_text("")
    explorer.folder = tmp_path / "file"
    assert explorer.export("png") is None and explorer.message.value.startswith("not saved:")


def test_play_moves_the_chosen_direction_and_no_other(explorer):
    explorer.played.value = 2
    explorer.play.value = 15
    assert explorer.sliders[2].value == pytest.approx(explorer.furthest) and explorer.sliders[0].value == 0


def test_what_is_played_has_a_slider_and_one_undo_takes_the_film_back(explorer):
    explorer.model.value = "vae"
    explorer.sliders[4].value = 1.5
    last = explorer.order[-1]
    explorer.played.value = last
    assert last not in explorer.sliders, "it stands beyond the first sliders"
    explorer.play.playing = True
    for frame in range(1, 20):
        explorer.play.value = frame
    explorer.play.playing = False
    assert explorer.rows[last] in explorer.panel.children and explorer.sliders[last].value != 0
    explorer.undo.click()
    assert explorer.sliders[last].value == 0 and explorer.sliders[4].value == 1.5


def test_in_a_running_kernel_only_the_last_of_many_changes_is_drawn(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(explorer.scene, "both", lambda both=explorer.scene.both: drawn.append(1) or both())

    async def drag():
        for value in np.linspace(0, 6, 40):
            explorer.sliders[0].value = float(value)
        await asyncio.sleep(0.3)

    asyncio.run(drag())
    assert len(drawn) < 5 and "direction 0 +6.0" in explorer.status.value
    assert np.array_equal(shown(explorer), CT.to_grey(explorer.image_values()))


def test_a_run_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(MissingInput, match="no run 'nothing' with directions .* none yet; make it with python -m lpdirs run"):
        explore("nothing", outputs=str(tmp_path))
    assert not (tmp_path / "nothing").exists()


def test_grey_values_are_fixed_in_hu():
    assert CT.to_grey(np.array([-2000.0, -1000.0, -200.0, 600.0, 3000.0])).tolist() == [0, 0, 127, 255, 255]


def test_a_mosaic_reads_row_by_row():
    hu = np.arange(5)[:, None, None] * np.ones((5, 2, 2))
    picture = mosaic(hu, 3)
    assert picture.shape == (4, 6)
    assert picture[0].tolist() == [0, 0, 1, 1, 2, 2] and picture[3].tolist() == [3, 3, 4, 4, -1000, -1000]


def test_strips_have_the_steps_as_heads_and_all_rows(tmp_path):
    steps = np.linspace(-2, 2, 5)
    assert shift_heads(steps) == ["shift -2", "-1", "0", "+1", "+2"]
    fig = film_strips(np.zeros((3, 5, 8, 8)), shift_heads(steps), ["a", "b", "c"])
    assert len(fig.axes) == 16 and fig.axes[-1].get_ylabel() == "HU", "a bar of HU beside the slices"
    assert [ax.get_title() for ax in fig.axes[:5]] == shift_heads(steps)
    assert len(contact_sheet(np.zeros((3, 8, 8)), 2).axes) == 2


def test_an_animation_runs_there_and_back(tmp_path):
    walks = np.random.default_rng(0).uniform(-1000, 600, (3, 4, 8, 8))

    def read(file):
        with Image.open(file) as film:
            return np.stack([np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)])

    frames = read(animation(walks, tmp_path / "a.gif", (-2, -1, 1, 2), ["one", "two", "three"], columns=2))
    assert len(frames) == 6 and np.array_equal(frames[1], frames[5])
    assert (frames[0][-130:-20, -130:] == 255).all(), "where there is no fourth image the sheet is white"
    below = [frame[-18:] for frame in frames[:4]]
    assert all((one != other).any() for one, other in zip(below, below[1:], strict=False)), "the shift counts"
    assert np.array_equal(read(io.BytesIO(as_png(tmp_path / "a.gif"))), frames), "the PNG that moves holds the same frames"


def test_what_leaves_the_notebooks_is_marked_as_synthetic(tmp_path):
    walks = np.full((2, 3, 64, 64), -1000.0)
    path = animation(walks, tmp_path / "a.gif", (-1, 0, 1))
    with Image.open(path) as picture:
        assert picture.info["comment"].decode() == NOTICE and np.asarray(picture.convert("L"))[-18:].min() == 0, "letters on white"
    steps = np.linspace(-1, 1, 3)
    fig = film_strips(np.zeros((1, 3, 8, 8)), shift_heads(steps), ["a"])
    with Image.open(save_figure(fig, tmp_path / "a.png")) as picture:
        assert picture.text["Description"] == NOTICE
        marked = picture.size
    fig.savefig(tmp_path / "b.png", dpi=110, bbox_inches="tight")
    with Image.open(tmp_path / "b.png") as plain:
        assert marked[1] > plain.size[1], "the notice stands below the figure"


def test_a_cell_that_is_run_again_closes_what_it_had_opened(monkeypatch):
    """Nothing is left of the first one, in kernel or page; another cell's stays."""
    from types import SimpleNamespace

    from ipywidgets.widgets.widget import _instances

    cell = {"cellId": "a"}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: {"metadata": cell}))
    monkeypatch.setattr("lpdirs.show.explorer.get_ipython", lambda: shell)
    monkeypatch.setattr("lpdirs.show.explorer._open", {})
    torch.manual_seed(0)
    generator = lively(GeneratorNetwork(32, 12, 8))
    make = lambda: Explorer({"one": (generator, Directions(random(12, 12, 0))), "two": (generator, Directions(random(12, 12, 1)))})
    before = len(_instances)
    counts = []
    for _ in range(3):
        opened = make()
        opened.search.value = "direction 1"
        opened.search.value = "nothing of the kind"
        opened.search.value = ""
        opened.model.value = "two"
        counts.append(len(_instances))
    assert counts[0] == counts[1] == counts[2] > before
    cell["cellId"] = "b"
    make()
    assert len(_instances) > counts[0] and opened.comm is not None
    opened.close()
    make().close()
    assert len(_instances) == before


def test_a_factor_is_steered_while_the_others_hold(tmp_path):
    generator = lp.as_generator(Mixed(), 8, measures=MEASURES)
    models = {"mine": (generator, Directions(random(4, 8)))}
    explorer = Explorer(models, folder=tmp_path)
    before = explorer.image_values()
    explorer.learn.click()
    explorer.factors["a"].value = 1.0
    went = {name: after - first for name, (first, after) in explorer.scene.read(explorer.scene.both()).items()}
    assert went["a"] == pytest.approx(1.0, abs=0.2) and all(abs(went[name]) < 0.3 for name in "bcd")
    assert "steered: a +1" in explorer.status.value and "reached" in explorer.status.value
    after = explorer.image_values()
    saved = explorer.export("json")
    explorer.reset.click()
    assert np.array_equal(explorer.image_values(), before) and explorer.factors["a"].value == 0
    explorer.undo.click()
    assert np.array_equal(explorer.image_values(), after)
    other = Explorer(models, folder=tmp_path)
    other.show(json.loads(saved.read_text()))
    assert np.array_equal(other.image_values(), after)
    strange = json.loads(saved.read_text()) | {"changes": {"q": 1.0}}
    with pytest.raises(UserError, match="changes q, and here a, b, c, d are measured"):
        other.show(strange)


def test_where_nothing_varies_steering_says_so(explorer):
    nothing = lp.Measures(lambda x: pd.DataFrame({"a": np.zeros(len(x))}), {"a": "mm"})
    still = Explorer({label: (pair[0].but(measures=nothing), pair[1]) for label, pair in explorer.scene.models.items()})
    still.learn.click()
    assert still.message.value.startswith("nothing can be steered: no factor varies") and not still.factors


def test_a_state_comes_back_through_the_browser_and_what_is_measured_is_a_table(explorer, tmp_path):
    explorer.set_shifts({2: 2.0})
    state, picture, table = (explorer.export(kind) for kind in ("json", "png", "csv"))
    assert list(pd.read_csv(table)) == ["factor", "unit", "before", "after"] and "download" in explorer.message.value
    moved = explorer.image_values()
    for path in (state, picture):
        explorer.set_shifts({})
        explorer.opened.value = (
            {"name": path.name, "type": "", "size": 1, "content": path.read_bytes(), "last_modified": datetime.now(UTC)},
        )
        assert np.array_equal(explorer.image_values(), moved) and "restored" in explorer.message.value
    explorer.opened.value = ({"name": "other.json", "type": "", "size": 1, "content": b"{}", "last_modified": datetime.now(UTC)},)
    assert "was not restored: this is no saved state" in explorer.message.value


def test_each_slider_says_what_it_does_beside_chance(explorer):
    explorer.model.value = "gan"
    directions = explorer.scene.directions
    best = {"thickness": Best(direction=1, slope=-0.2, r=-0.9, selectivity=0.62, chance=0.4, p=0.02)}
    explorer.scene.models["gan"] = (explorer.scene.generator, directions.with_info(best=best))
    try:
        assert explorer._facts(1) == "best for body thickness: -0.2 mm a unit of shift, selectivity 0.62, chance 0.40: beyond it"
    finally:
        explorer.scene.models["gan"] = (explorer.scene.generator, directions)


def test_slices_that_exist_are_starts_and_what_the_model_cannot_draw_is_kept_if_wished(tmp_path):
    generator = lively(GeneratorNetwork(32, 4, 4))
    slices = generator.images(generator.draw(3, 7)).add(0.1).clamp(-1, 1)
    lp.invert(generator, slices, (-1000.0, 1000.0), steps=3).save(tmp_path / "starts.safetensors")
    put = Inversion.load(tmp_path / "starts.safetensors")
    explorer = Explorer({"gan": (generator, Directions(random(3, 4)))}, display=CT, folder=tmp_path, starts={"gan": put})
    explorer.real.click()
    assert explorer.seed.value == -1 and "held-out slice 1" in explorer.images["after"].tooltip
    assert np.allclose(explorer.image_values(), CT.pictures(put.reconstruction)[0], atol=1)
    explorer.keep.value = True
    assert np.allclose(explorer.image_values(), CT.pictures(slices)[0], atol=1), "the slice itself"
    explorer.sliders[1].value = 3.0
    moved = generator.images(explorer.scene.directions.shift(put.z[:1], 1, 3.0)) + slices[:1] - put.reconstruction[:1]
    assert np.allclose(explorer.image_values(), CT.pictures(moved.clamp(-1, 1))[0], atol=1)
    state = explorer.scene.state()
    explorer.real.click()
    explorer.real.click()
    explorer.real.click()
    assert explorer.seed.value == -1, "the first after the last"
    explorer.new.click()
    assert explorer.seed.value == 0
    explorer.show(state)
    assert explorer.seed.value == -1 and explorer.keep.value and explorer.sliders[1].value == 3.0
    for label, model, message in (("vae", generator, "here are gan"), ("gan", lively(Decoder(32, 6, 4)), "invert them again")):
        with pytest.raises(UserError, match=message):
            Explorer({"gan": (model, Directions(random(3, model.latent_dim)))}, display=CT, starts={label: put})
    other = Explorer({"gan": (generator, Directions(random(3, 4)))}, display=CT)
    with pytest.raises(UserError, match="held-out slice 1, which is not here"):
        other.show(state)
    with pytest.raises(UserError, match="holds no slices"):
        Directions(random(3, 4)).save(tmp_path / "other.safetensors")
        Inversion.load(tmp_path / "other.safetensors")
