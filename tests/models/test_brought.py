"""Generators as people bring them: each situation of ../shared/failing/generators, on modules of our own."""

import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.models.wrapping import faster


class Disc(nn.Module):
    """z[1] moves a disc to the side, z[3] makes it larger, z[4] brighter, turned by an orthonormal matrix; the rest is texture."""

    d, size = 6, 24

    def __init__(self, texture=0.0):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(torch.linalg.qr(torch.randn(self.d, self.d, generator=rng))[0])
        pattern = nn.functional.interpolate(torch.randn(1, self.d, 6, 6, generator=rng), (self.size, self.size), mode="bilinear")[0]
        self.register_buffer("texture", texture * pattern * torch.tensor([1, 0, 1, 0, 0, 1.0])[:, None, None])
        along = torch.linspace(-1, 1, self.size)
        self.register_buffer("x", along.expand(self.size, -1).clone())
        self.register_buffer("y", along[:, None].expand(-1, self.size).clone())

    def forward(self, z):
        z = z @ self.mix.T
        side, radius, grey = 0.12 * z[:, 1], 0.35 * torch.exp(0.15 * z[:, 3]), 0.2 + 0.6 * torch.sigmoid(0.5 * z[:, 4])
        away = ((self.x - side[:, None, None]) ** 2 + self.y**2).sqrt()
        disc = grey[:, None, None] * torch.sigmoid(20 * (radius[:, None, None] - away))
        return (disc + torch.einsum("bd,dxy->bxy", torch.tanh(z), self.texture)).clamp(0, 1)[:, None]


def area(images):
    x = images[:, 0] + 1
    return {"area": (x > x.amax((1, 2), keepdim=True) / 2).double().sum((1, 2)).numpy()}


@pytest.mark.parametrize("texture", [0.0, 0.003, 0.03])
def test_motion_finds_what_grows_both_ways_alike(texture):
    disc = Disc(texture)
    found = lp.discover(lp.as_generator(disc, Disc.d, value_range=(0, 1)), "motion", 3)
    cosines = (found.matrix @ disc.mix.detach().T).abs().max(0).values
    assert cosines[1] > 0.9 and cosines[3] > 0.9, cosines


def middle(images):
    """Where the disc lies and how much of it there is."""
    x = images[:, 0].double() + 1
    disc = (x > x.amax((1, 2), keepdim=True) / 2).double()
    along, n = torch.linspace(-1, 1, x.shape[-1], dtype=torch.float64), disc.sum((1, 2)).clamp(min=1)
    return {
        "x": (disc.sum(1) @ along / n).numpy(),
        "y": (disc.sum(2) @ along / n).numpy(),
        "area": n.numpy(),
        "bright": x.mean((1, 2)).numpy(),
    }


def test_a_factor_that_moves_by_less_than_a_pixel_earns_no_name():
    """With texture the outline flickers by a few hundredths of a pixel: y hardly varies, and its SDs make nothing of it."""
    measures = lp.Measures(middle, {"x": "half widths", "y": "half heights", "area": "px", "bright": ""})
    generator = lp.as_generator(Disc(0.03), Disc.d, value_range=(0, 1), measures=measures)
    directions = lp.discover(generator, "motion", 6)
    responses = lp.respond(generator, directions, samples=48)
    named = lp.name(generator, directions, responses, rules=lp.Rules(r=0.3, sign_consistency=0.5, selectivity=0.3, movement=0.3))
    least = 0.1 * measures.of_a_pixel(generator.images(generator.draw(8, 0)))
    table = responses.table()
    for k, name in named.info.names.items():
        factor = name.partition(" ")[0]
        row = table[(table["direction"] == k) & (table["factor"] == factor)].iloc[0]
        assert abs(row["slope"]) > 0.8 * least[factor], (name, row["slope"], least[factor])
    assert "y" not in named.info.names.values()


def test_with_one_factor_the_best_direction_is_the_one_that_moves_it_most():
    disc = Disc()
    generator = lp.as_generator(disc, Disc.d, value_range=(0, 1), measures=lp.Measures(area, {"area": "px"}))
    directions = lp.discover(generator, "jacobian", 4)
    responses = lp.respond(generator, directions, samples=64)
    named = lp.name(generator, directions, responses)
    table = responses.table().set_index("direction")
    assert named.info.best["area"].direction == table["effect"].abs().idxmax()


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.classes, self.linear = nn.Embedding(3, 8), nn.Linear(8, 256)

    def forward(self, z, label):
        return torch.tanh(self.linear(z + self.classes(label))).view(-1, 1, 16, 16)


@pytest.mark.parametrize("label", [torch.tensor([1]), torch.tensor(1)])
def test_a_label_of_any_shape_hides_no_layer(label):
    assert lp.discover(lp.as_generator(Labelled(), 8, inputs={"label": label}), "sefa", 2).matrix.shape == (2, 8)


def test_a_label_for_another_batch_is_said():
    with pytest.raises(UserError, match="label"):
        lp.as_generator(Labelled(), 8, inputs={"label": torch.tensor([0, 1, 2])})


class Complex(nn.Module):
    def forward(self, z):
        return torch.complex(z, z).repeat(1, 64).view(-1, 1, 16, 16)


def test_complex_images_are_refused_and_not_halved():
    with pytest.raises(UserError, match="complex"):
        lp.as_generator(Complex(), 4)


class Dotted(nn.Module):
    """A pixel of -5 and one of 5 in images from 0 to 1."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1024)

    def forward(self, z):
        x = torch.sigmoid(self.linear(z)).view(-1, 1, 32, 32).clone()
        x[:, :, 0, 0], x[:, :, 0, 1] = -5.0, 5.0
        return x


def test_the_range_is_said_alike_on_both_sides(capsys):
    info = lp.as_generator(Dotted(), 4, value_range=(0, 1)).info
    assert (info.lowest < -4.9) == (info.highest > 4.9)


def test_codes_of_one_s_own_go_in_as_they_are():
    module = nn.Sequential(nn.Linear(4, 256), nn.Unflatten(1, (1, 16, 16)), nn.Tanh())
    generator = lp.as_generator(module, 4, prior=lp.Prior.normal(0.5))
    mine = 0.5 * torch.randn(3, 4)
    for codes in (mine, mine.numpy()):
        z = generator.z_of(codes)
        assert torch.allclose(generator.images(z), module(mine).detach(), atol=1e-5)
    with pytest.raises(UserError, match=r"codes must be \(N, 4\)"):
        generator.z_of(torch.zeros(3, 5))
    directions = lp.discover(generator, "coordinate", 2)
    assert torch.allclose(directions.shift(z.numpy(), 0, 1.0), directions.shift(z, 0, 1.0))


def test_a_name_with_a_hyphen_is_a_name():
    generator = lp.as_generator(nn.Sequential(nn.Linear(4, 256), nn.Unflatten(1, (1, 16, 16))), 4, name="my-gan", value_range=(-3, 3))
    one, other = (lp.discover(generator, method, 2).id for method in ("coordinate", "random"))
    assert one.model == other.model and "my-gan" in one.label and one.label != other.label
    assert one.title.startswith(one.model) and "gan-" not in one.title.replace("my-gan", "")


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 256),
            nn.Unflatten(1, (4, 8, 8)),
            nn.ConvTranspose2d(4, 4, 4, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 1, 1),
        )

    def forward(self, z):
        return torch.tanh(self.layers(z))


def test_a_wrapped_generator_draws_with_its_batchnorm_folded():
    module = Normed()
    for _ in range(20):
        module(torch.randn(16, 4))
    generator, z = lp.as_generator(module.eval(), 4), torch.randn(5, 4)
    assert not [part for part in faster(generator).module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert torch.allclose(generator.quick(z), module(z).detach(), atol=1e-4)
