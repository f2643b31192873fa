"""What people bring: each module works, or is refused in a line that says what to do; none gives wrong directions in silence."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.models.priors import Prior
from lpdirs.models.trial import first_layers
from lpdirs.models.wrapping import as_generator, faster
from tests.toys import bare

D = 8
QUICK = DiscoverySettings(batch=4, steps=2)


class Plain(nn.Module):
    def __init__(self, px=32, d=D):
        super().__init__()
        torch.manual_seed(0)
        self.px, self.linear = px, nn.Linear(d, px * px)

    def forward(self, z):
        return torch.tanh(self.linear(z)).view(-1, 1, self.px, self.px)


class Made(nn.Module):
    """Whatever `make` does with Plain's images."""

    def __init__(self, make, px=32):
        super().__init__()
        self.plain, self.make = Plain(px), make

    def forward(self, z):
        return self.make(self.plain(z))


@dataclass
class Output:
    latents: torch.Tensor
    sample: torch.Tensor


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda x: {"sample": x}, {}),
        (lambda x: {"sample": x, "mask": x}, {"output": "sample"}),
        (lambda x: Output(x.flatten(1), x), {}),
        (lambda x: Output(x, x), {"output": "sample"}),
        (lambda x: (x, [x.flatten(1)]), {}),
        (lambda x: [x.flatten(1), x, x], {"output": 1}),
        (lambda x: x[:, :, None].expand(-1, -1, 5, -1, -1), {"project": lambda v: v[:, :, 2]}),
        (lambda x: {"volume": x[:, :, None]}, {"project": lambda out: out["volume"][:, :, 0]}),
    ],
)
def test_images_are_found_in_what_a_module_returns(make, options):
    generator = as_generator(Made(make), D, **options)
    z = torch.randn(3, D)
    assert torch.allclose(generator.images(z), Plain()(z), atol=1e-6)
    assert len(lp.discover(generator, "jacobian", 2)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: {"a": x, "b": x}, r"several image tensors \(a, b\).*output="),
        (lambda x: {"a": x.flatten(1)}, "no image tensor"),
        (lambda x: x[:, :, None], r"gave \(8, 1, 1, 32, 32\).*project="),
        (lambda x: x * float("nan"), "not finite: 100% of their pixels"),
        (lambda x: x + torch.randn_like(x), "draws noise.*noise='fix'"),
        (lambda x: nn.functional.dropout(x, 0.5, training=True), "draws noise"),
        (lambda x: x - x.mean(0), "depends on the others in its batch"),
        (lambda x: x[..., :16], r"images \(B, 1 or 3, S, S\)"),
        (lambda x: x + torch.from_numpy(np.random.default_rng().normal(size=x.shape)).to(x), "noise"),
    ],
)
def test_what_would_go_wrong_in_silence_is_refused(make, message):
    with pytest.raises(UserError, match=message) as caught:
        as_generator(Made(make), D)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: x + 0.3 * torch.randn_like(x),
        lambda x: x + 0.3 * x.new_empty(len(x), 1, 32, 32).normal_(),
        lambda x: nn.functional.dropout(x, 0.5, training=True),
        lambda x: x + 0.3 * torch.randn(1, 1, 32, 32),
    ],
)
def test_fixed_noise_is_the_same_for_every_z_and_all_who_look(noise):
    generator = as_generator(Made(noise), D, noise="fix")
    z = torch.randn(5, D)
    before = torch.get_rng_state()
    once = generator.images(z)
    assert torch.equal(before, torch.get_rng_state()), "torch's own random state is left alone"
    assert torch.equal(once, generator.images(z)) and torch.allclose(once[3:4], generator.images(z[3:4]), atol=1e-6)
    assert torch.allclose(faster(generator)(z), once, atol=1e-6), "nothing is traced into a constant"
    assert "noise, held fixed" in str(generator)
    for method in ("jacobian", "sefa", "pca", "reconstructor"):
        assert len(lp.discover(generator, method, 2, settings=QUICK)) == 2


def test_noise_that_is_not_torch_s_is_refused_also_when_it_is_to_be_fixed():
    def noisy(x):
        return x + torch.from_numpy(np.random.default_rng().normal(size=tuple(x.shape[-2:]))).to(x)

    with pytest.raises(UserError, match="not torch's"):
        as_generator(Made(noisy), D, noise="fix")


@pytest.mark.parametrize(
    "make", [lambda x: ((x + 1) * 127.5).round().to(torch.uint8), lambda x: x.detach(), lambda x: torch.from_numpy(x.detach().numpy())]
)
def test_methods_that_need_a_gradient_refuse_where_there_is_none_and_the_others_work(make):
    value_range = (0, 255) if make(torch.zeros(1)).dtype == torch.uint8 else (-1, 1)
    generator = as_generator(Made(make), D, value_range=value_range)
    assert not generator.info.differentiable
    for method in ("reconstructor", "jacobian"):
        with pytest.raises(UserError, match=f"{method} needs gradients"):
            lp.discover(generator, method, 2, settings=QUICK)
    for method in ("pca", "sefa", "random", "coordinate"):
        assert len(lp.discover(generator, method, 2)) == 2
    assert len(lp.discover(generator, "reconstructor", 2, settings=QUICK.but(freeze=True))) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_work_with_every_method_and_measure(dtype):
    generator = as_generator(Plain().to(dtype), D)
    assert generator.images(torch.randn(2, D)).dtype == torch.float32
    for method in ("jacobian", "sefa", "pca", "reconstructor"):
        found = lp.discover(generator, method, 2, settings=QUICK)
    measures = lp.Measures(lambda x: {"mean": x.mean((1, 2, 3)).numpy()}, {"mean": ""})
    assert lp.respond(generator, found, measures, samples=4).table().notna().any(axis=None)


def test_weights_without_values_are_refused():
    with torch.device("meta"):
        module = Plain()
    with pytest.raises(UserError, match="meta device"):
        as_generator(module, D)


def test_a_range_that_is_not_the_images_is_said(capsys):
    as_generator(Made(lambda x: (x + 1) * 127.5), D, value_range=(0, 1), name="mine")
    said = capsys.readouterr().out
    assert (
        said.startswith("mine: z (8, normal) to images of 32 px")
        and "Its images leave value_range (0, 1)" in said
        and said.count("\n") == 1
    )
    as_generator(Made(lambda x: x), D, value_range=(0, 255))
    assert "value_range (0, 255)" in capsys.readouterr().out
    as_generator(Made(lambda x: 10 + x), D, value_range=(0, 255))
    assert "fill little of value_range" in capsys.readouterr().out
    as_generator(Plain(), D)
    assert "value_range" not in capsys.readouterr().out


def test_what_draws_one_image_is_refused_and_a_range_that_begins_at_zero_is_asked_for(capsys):
    class One(Net):
        def forward(self, z):
            return super().forward(0 * z)

    class Sigmoid(Net):
        def forward(self, z):
            return 0.6 * (super().forward(z) + 1) / 2

    with pytest.raises(UserError, match="the same image whatever z is"):
        lp.as_generator(One(), 8)
    lp.as_generator(Sigmoid(), 8)
    assert "nothing below 0" in capsys.readouterr().out
    lp.as_generator(Sigmoid(), 8, value_range=(0, 1))
    assert "nothing below 0" not in capsys.readouterr().out


@pytest.mark.parametrize("px", [16, 20, 28])
def test_small_images_have_reconstructors(px):
    generator = as_generator(Plain(px), D)
    assert len(lp.discover(generator, "reconstructor", 2, settings=QUICK)) == 2


# layers that are not torch's own


class Own(nn.Module):
    """A fully connected layer as StyleGAN has it."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in))

    def forward(self, x):
        return x @ (self.weight / self.weight.shape[1] ** 0.5).T


class OwnLayers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = Own(D, 64), Own(64, 1024)

    def forward(self, z):
        return torch.tanh(self.second(torch.relu(self.first(z)))).view(-1, 1, 32, 32)


def test_layers_of_one_s_own_are_seen():
    module = OwnLayers()
    generator = as_generator(module, D)
    assert generator.info.layers == 1 and first_layers(generator) == [generator.module.module.first]
    found = lp.discover(generator, "sefa", 4).matrix
    right = torch.linalg.svd(module.first.weight).Vh[:4]
    assert (found @ right.T).diagonal().abs().min() > 0.999
    assert len(lp.discover(generator, "pca", 4)) == 4


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_scripted_module_works_with_all_but_sefa():
    generator = as_generator(torch.jit.trace(Plain().eval(), torch.zeros(2, D)), D)
    for method in ("pca", "jacobian", "reconstructor"):
        assert len(lp.discover(generator, method, 2, settings=QUICK)) == 2
    with pytest.raises(UserError, match="none can be seen"):
        lp.discover(generator, "sefa", 2)


class FiveD(nn.Module):
    """A volume of which one slice is shown, and weights of five dimensions as rosinality's StyleGAN2 has them."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(D, 8 * 32 * 32), nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, z):
        return self.conv(self.linear(z).view(-1, 1, 8, 32, 32))[:, :, 4].tanh()


def test_weights_of_five_dimensions_are_no_obstacle():
    generator = as_generator(FiveD(), D)
    for method in ("reconstructor", "jacobian", "pca", "sefa"):
        assert len(lp.discover(generator, method, 2, settings=QUICK)) == 2


def test_sefa_does_not_run_what_comes_after_the_first_layers():
    """A generator of 512 dimensions: what comes after them sees the trial's handful of images and no more."""
    seen = []

    class Rest(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.view(-1, 1, 32, 32).tanh()

    generator = as_generator(nn.Sequential(nn.Linear(512, 1024), Rest()), 512)
    seen.clear()
    assert lp.discover(generator, "sefa", 4).latent_dim == 512
    assert sum(seen) <= 4


@pytest.mark.parametrize("d", [32, 1024])
def test_pca_finds_planted_directions_in_many_dimensions(d):
    class Planted(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            weight = torch.randn(1024, d) / 32 * 0.3
            weight[:, :4] = torch.linalg.qr(torch.randn(1024, 4))[0] * torch.tensor([6.0, 5.0, 4.0, 3.0])
            self.linear = nn.Linear(d, 1024, bias=False)
            self.linear.weight.data = weight * 0.02

        def forward(self, z):
            return self.linear(z).tanh().view(-1, 1, 32, 32)

    found = lp.discover(as_generator(Planted(), d), "pca", 4).matrix
    assert found[:, :4].diagonal().abs().min() > 0.85


# priors


def test_priors_give_samples_a_unit_and_how_typical_a_z_is():
    torch.manual_seed(0)
    samples = 3 + 0.2 * torch.randn(500, D)
    mapping = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, D))
    priors = {
        "normal": (lp.Prior.normal(), 1.0),
        "uniform": (lp.Prior.uniform(-1, 1), 3**-0.5),
        "sphere": (lp.Prior.sphere(), 1.0),
        "samples": (lp.Prior.from_samples(samples), 0.2),
        "mapped": (lp.Prior.mapped(mapping, 4), None),
    }
    prints = set()
    for name, (prior, unit) in priors.items():
        generator = as_generator(Plain(), D, prior=prior, value_range=(-1, 1))
        z = generator.draw(2000, 0)
        assert torch.equal(z, generator.draw(2000, 0)) and not torch.equal(z, generator.draw(2000, 1))
        assert z.std(0).mean() == pytest.approx(1, abs=0.05), "z is counted in the prior's unit"
        assert unit is None or prior.unit(D) == pytest.approx(unit, rel=0.05)
        assert generator.typicality(z).mean() == pytest.approx(0.5, abs=0.05)
        assert generator.typicality(z.mean(0) + 20 * torch.ones(4, D)).max() < 0.01, "far out"
        raw = prior.draw(3, D, torch.Generator().manual_seed(5))
        own = raw / prior.unit(D)
        assert torch.allclose(generator.images(own), Plain()(raw), atol=1e-5)
        assert name in str(generator)
        assert len(lp.discover(generator, "jacobian", 2)) == len(lp.discover(generator, "reconstructor", 2, settings=QUICK)) == 2
        prints.add(generator.info.fingerprint)
    assert len(prints) == len(priors), "another prior is another generator"


def test_w_plus_repeats_one_w_and_sefa_sees_it():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 64), nn.Linear(4, 64)

        def forward(self, w):
            return torch.tanh(torch.relu(self.a(w[:, 0])) + self.b(w[:, 1])).view(-1, 1, 8, 8).repeat(1, 1, 4, 4)

    mapping = nn.Linear(3, 4)
    generator = as_generator(Layers(), 8, latent_shape=(2, 4), prior=lp.Prior.mapped(mapping, 3))
    z = generator.draw(10, 0)
    assert torch.equal(z[:, :4], z[:, 4:]) and generator.info.layers == 2
    assert len(lp.discover(generator, "sefa", 3)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "normal"}, "prior must be a Prior"),
        ({"noise": "yes"}, "noise must be 'refuse' or 'fix'"),
        ({"prior": lp.Prior.from_samples(torch.zeros(4, 3))}, "samples are of 3 numbers, and the generator takes 8"),
    ],
)
def test_options_that_make_no_sense_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        as_generator(Plain(), D, **options)


def test_no_factor_is_named_where_it_could_hardly_be_measured():
    """A generator of bright discs, measured with a function that fails on three of four of them."""

    class Discs(nn.Module):
        def forward(self, z):
            y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
            at = lambda i: z[:, i, None, None]
            return torch.exp(-((x - 0.1 * at(0)) ** 2 + (y - 0.1 * at(1)) ** 2) / 0.1)[:, None]

    def where(x, share):
        place, down = ((x[:, 0].sum(axis) * torch.arange(32.0)).sum(1) / x[:, 0].sum((1, 2)) for axis in (1, 2))
        known = (1e4 * place) % 1 < share
        return {"x": np.where(known, place, np.nan), "y": np.where(known, down, np.nan)}

    generator = as_generator(Discs(), 8, value_range=(0, 1))
    found = lp.discover(generator, "coordinate", 3)
    names = []
    for share in (1.0, 0.1):
        measures = lp.Measures(lambda x, share=share: where((x + 1) / 2, share), {"x": "px", "y": "px"})
        names.append(lp.name(generator, found, lp.respond(generator, found, measures, samples=64), measures).info.names)
    assert names[0] and set(names[0].items()) <= {(0, "x"), (1, "y")} and not names[1]


class Net(nn.Module):
    """z (B, 8) to images (B, 1, 32, 32), by a layer, a nonlinearity and another layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 1024)

    def forward(self, z):
        return torch.tanh(5 * self.last(torch.relu(self.first(z)))).view(-1, 1, 32, 32)


def test_sefa_is_that_of_the_first_layer_whatever_weights_lie_around_it():
    class Around(Net):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    plain, around = (lp.discover(lp.as_generator(net(), 8), "sefa", 8).matrix for net in (Net, Around))
    assert torch.allclose(plain, around, atol=1e-5)


def test_a_network_that_the_module_does_not_hold_is_refused_and_stays_as_it_is():
    outside = Net()

    class Borrows(nn.Module):
        def forward(self, z):
            return outside(z)

    with pytest.raises(UserError, match="weights that it does not hold"):
        lp.as_generator(Borrows(), 8)
    assert outside.training and all(p.grad is None and p.requires_grad for p in outside.parameters())


def test_a_frozen_network_that_the_module_does_not_hold_is_refused_too():
    """As at inference: no gradient tells of it. What a module makes anew in each call, and small constants, are its own."""
    outside, mean = Net().requires_grad_(False), torch.zeros(1, 1, 2, 2)

    class Borrows(nn.Module):
        def forward(self, z):
            return outside(z)

    class Makes(Net):
        def forward(self, z):
            grid = torch.from_numpy(np.linspace(-1, 1, 1024, dtype=np.float32).reshape(32, 32))
            return super().forward(z) * grid + mean.mean()

    with pytest.raises(UserError, match="weights that it does not hold"):
        lp.as_generator(Borrows(), 8)
    assert lp.as_generator(Makes(), 8).info.fingerprint


LEVEL = 0


def test_the_fingerprint_sees_functions_what_they_refer_to_and_what_is_private(monkeypatch):
    class Film(Net):
        def __init__(self, psi=1.0, kind=nn.Tanh):
            super().__init__()
            self._psi, self.end = psi, kind()

        def forward(self, z):
            return self.end(super().forward(z * self._psi)).repeat(1, 4, 1, 1)[:, None]

    def level(x, at=0):
        return x[:, :, at]

    def of(level):
        return lambda x: x[:, :, level]

    def by_global(x):
        return x[:, :, LEVEL]

    print_of = lambda project, **options: lp.as_generator(Film(**options), 8, project=project).info.fingerprint
    prints = [print_of(of(0)), print_of(of(1)), print_of(partial(level, at=1)), print_of(partial(level, at=2)), print_of(by_global)]
    prints += [print_of(of(0), psi=0.5), print_of(of(0), kind=nn.Softsign)]
    monkeypatch.setitem(globals(), "LEVEL", 3)
    prints.append(print_of(by_global))
    assert len(set(prints)) == len(prints) and print_of(of(1)) == prints[1]


def test_the_fingerprint_sees_what_is_no_weight():
    class Scaled(Net):
        def __init__(self, psi):
            super().__init__()
            self.psi, self.plain = psi, torch.full((1,), psi)

        def forward(self, z):
            return super().forward(z * self.psi)

    prints = [lp.as_generator(Scaled(psi), 8).info.fingerprint for psi in (1.0, 0.1)]
    prints += [
        lp.as_generator(Net(), 8, project=cut).info.fingerprint for cut in (lambda x: x[:, :, :16, :16], lambda x: x[:, :, 16:, 16:])
    ]
    assert len(set(prints)) == 4
    assert lp.as_generator(Net(), 8).info.fingerprint == lp.as_generator(Net(), 8).info.fingerprint


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


def test_odd_modules_go_all_the_way():
    class Keeps(Net):
        def forward(self, z):
            self.kept = self.first(z)
            return torch.tanh(self.last(self.kept)).view(-1, 1, 32, 32)

    class Custom(Net):
        def forward(self, z):
            return torch.tanh(self.last(NoForwardMode.apply(self.first(z)))).view(-1, 1, 32, 32)

    class Spectral(Net):
        def __init__(self):
            super().__init__()
            self.last = nn.utils.parametrizations.spectral_norm(self.last)

    settings = DiscoverySettings(steps=2, batch=4)
    for net in (Keeps, Custom, Spectral):
        generator = lp.as_generator(net(), 8, prior=lp.Prior.uniform())
        for method in ("reconstructor", "jacobian", "pca", "sefa"):
            found = lp.discover(generator, method, 3, settings=settings if method == "reconstructor" else None)
            assert found.info.prior == "uniform" and len(found) == 3
    plain, custom = (lp.as_generator(net(), 8) for net in (Net, Custom))
    assert lp.discover(custom, "jacobian", 3).matrix.shape == lp.discover(plain, "jacobian", 3).matrix.shape


@pytest.mark.parametrize(
    "of_batch",
    [
        lambda x: (x - x.min()) / (x.max() - x.min()),
        lambda x: (x - x.mean()) / x.std(),
        lambda x: x.argsort().argsort().float(),
        lambda x: x.sort().values,
    ],
)
def test_a_measure_that_depends_on_the_other_images_is_refused(of_batch):
    """Its units would be those of the batch."""
    generator = lp.as_generator(Net(), 8)
    measures = lp.Measures(lambda x: {"a": of_batch(x.mean((1, 2, 3)))}, {"a": ""})
    with pytest.raises(UserError, match="it must measure each image by itself"):
        lp.respond(generator, lp.discover(generator, "random", 2), measures, samples=4)


def test_what_a_measuring_function_gives_wrongly_is_one_line():
    generator = lp.as_generator(Net(), 8)
    directions = lp.discover(generator, "random", 2)

    def fails(_):
        raise RuntimeError("no model here")

    for function in (fails, lambda x: 0.5, lambda x: {"a": ["x"] * len(x)}, lambda x: {"b": x.mean((1, 2, 3))}):
        with pytest.raises(UserError, match="the measuring function") as error:
            lp.respond(generator, directions, lp.Measures(function, {"a": ""}), samples=4)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_sefa_is_of_the_first_weight_alone_though_what_follows_is_linear_too(name):
    """A BatchNorm in eval mode, or a convolution, right behind the first layer is linear in z, and no first layer."""
    from lpdirs.models.networks import Decoder, GeneratorNetwork

    torch.manual_seed(0)
    module = GeneratorNetwork(32, D, 4) if name == "gan" else Decoder(32, D, 4)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.1, 4)
    generator = bare(module)
    first = first_layers(generator)
    assert len(first) == {"gan": 1, "vae": 2}[name], "a residual block's two ways see z"
    seen = []
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out)) for layer in first]
    generator(torch.cat([torch.zeros(1, D), torch.eye(D)]))
    for hook in hooks:
        hook.remove()
    a = torch.cat([(out[1:] - out[:1]).flatten(1) for out in seen], 1).double()
    expected = torch.linalg.eigh(a @ a.T)[1].flip(1).T
    assert ((lp.discover(generator, "sefa", D).matrix.double() * expected).sum(1).abs() > 0.999).all()


def test_noise_that_depends_on_the_place_in_a_batch_is_refused():
    """As of a decoder that seeds its noise anew in each call: the first image of a batch is always the same, and the others are not."""

    class Seeded(nn.Module):
        def forward(self, z):
            rng = torch.Generator().manual_seed(0)
            return z.sum(1)[:, None, None, None].tanh().expand(-1, 1, 16, 16) + 0.1 * torch.randn(len(z), 1, 16, 16, generator=rng)

    with pytest.raises(UserError, match="its place there"):
        lp.as_generator(Seeded(), 8)


def test_arrays_that_a_module_holds_are_part_of_its_fingerprint():
    class Held(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.scale = np.full(3, value)

        def forward(self, z):
            return (z.sum(1) * float(self.scale[0]))[:, None, None, None].tanh().expand(-1, 1, 16, 16)

    one, same, other = (lp.as_generator(Held(value), 8).info.fingerprint for value in (0.1, 0.1, 0.2))
    assert one == same != other


def test_rows_that_a_function_has_sorted_go_back_to_their_images():
    measures = lp.Measures(lambda x: pd.DataFrame({"mean": x.mean((1, 2, 3))}).sort_values("mean"), {"mean": ""})
    x = torch.linspace(1, -1, 7)[:, None, None, None].expand(-1, 1, 16, 16)
    assert np.allclose(measures(x)["mean"], np.linspace(1, -1, 7), atol=1e-6)


def test_what_is_known_must_be_of_this_generator():
    generator = lp.as_generator(nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16))), 8)
    z, table = torch.randn(200, 8), pd.DataFrame({"a": np.arange(200.0)})
    wrong = [
        (z[:, :5], table),
        (z, table[:100]),
        (z, pd.DataFrame(index=range(200))),
        (z, table.assign(a=1.0)),
        (z, table.assign(a="x")),
        z,
    ]
    for known in wrong:
        for method in ("oracle", "curved"):
            with pytest.raises(UserError):
                lp.discover(generator, method, 2, known=known)
    with pytest.raises(UserError, match="measures must be"):
        lp.as_generator(nn.Identity(), 8, measures=lambda x: x)


def test_priors_of_one_s_own_are_tried_before_they_are_believed():
    """What ignores the seed cannot be repeated, and what is called normal is N(0, I)."""
    halves = lambda n, d, rng: 0.5 * torch.randn(n, d, generator=rng)
    assert as_generator(Plain(), D, prior=Prior("half", halves)).unit == pytest.approx(0.5, abs=0.02)
    assert as_generator(Plain(), D, prior=Prior.normal(0.5)).unit == pytest.approx(0.5, abs=0.02) and Prior.normal().unit(D) == 1
    wrong = {
        "other latents from the same seed": Prior("half", lambda n, d, rng: 0.5 * torch.randn(n, d)),
        "not ndarray": Prior("half", lambda n, d, rng: np.zeros((n, d))),
        r"not torch.float32 \(3, 2\)": Prior("half", lambda n, d, rng: torch.randn(n, 2, generator=rng)),
        f"of {D // 2} numbers, and the generator takes {D}": Prior.from_samples(torch.randn(50, D // 2)),
    }
    for message, prior in wrong.items():
        with pytest.raises(UserError, match=message):
            as_generator(Plain(), D, prior=prior)
    for make in (lambda: Prior("normal", halves), lambda: Prior.sphere("a"), lambda: Prior.sphere(0), lambda: Prior.normal(-1)):
        with pytest.raises(UserError, match="another name|a number above 0"):
            make()
    with pytest.raises(UserError, match="must be a torch module"):
        Prior.mapped(lambda z: z, D)


def test_a_module_of_numpy_is_told_to_return_a_tensor():
    class Other(nn.Module):
        def forward(self, z):
            return np.ones((len(z), 1, 32, 32), np.float32)

    with pytest.raises(UserError, match=r"return a tensor, torch.from_numpy"):
        as_generator(Other(), D)
