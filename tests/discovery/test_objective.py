import pytest
import torch
from torch import nn

from lpdirs.base.checkpoints import stream, train
from lpdirs.base.errors import UserError
from lpdirs.discovery.objective import Discovery, DiscoverySettings, draw_shifts, make_reconstructor
from lpdirs.models.networks import GeneratorNetwork
from tests.models.test_training import same
from tests.toys import bare


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_reconstructors():
    assert round(count(make_reconstructor("lenet", 32)) / 1e3, 1) == 74.6
    assert round(count(make_reconstructor("lenet", 100)) / 1e3, 1) == 80.4
    assert round(count(make_reconstructor("resnet18", 32)) / 1e6, 1) == 11.2


@pytest.mark.parametrize("kind", ["lenet", "resnet18", "resnet18-224"])
def test_the_reconstructor_looks_at_both_images(kind):
    """The original's ResNet overwrote the second image with the first."""
    reconstructor = make_reconstructor(kind, 5)
    a, b = torch.randn(2, 4, 1, 32, 32, requires_grad=True).unbind()
    for output in reconstructor(a, b):
        for gradient in torch.autograd.grad(output.square().sum(), (a, b), retain_graph=True):
            assert gradient.abs().max() > 0
    assert reconstructor(a, b)[0].shape == (4, 5) and reconstructor(a, b)[1].shape == (4,)
    with pytest.raises(UserError, match="'lenet', 'resnet18'"):
        make_reconstructor("vgg", 5)


def test_shifts_are_drawn_as_in_the_paper():
    s = DiscoverySettings(n_directions=7)
    k, eps = draw_shifts(20000, s, torch.Generator().manual_seed(0))
    assert torch.equal(k.unique(), torch.arange(7))
    assert eps.abs().min() == 0.5 and 5.9 < eps.abs().max() <= 6 and abs(eps.mean()) < 0.1
    assert (eps.abs() == 0.5).float().mean().item() == pytest.approx(0.5 / 6, abs=0.01)


def test_only_directions_and_reconstructor_are_trained(tmp_path):
    generator = bare(GeneratorNetwork(32, 4, 4))
    before = {k: v.clone() for k, v in generator.module.state_dict().items()}
    discovery = Discovery(generator, DiscoverySettings(n_directions=3, batch=8))
    a = discovery.directions().matrix
    train(discovery, 2, tmp_path, {})
    assert all(torch.equal(v, before[k]) for k, v in generator.module.state_dict().items())
    assert not torch.equal(discovery.directions().matrix, a)


@pytest.mark.parametrize("basis", ["unit", "orthonormal"])
def test_a_resumed_search_ends_as_an_undisturbed_one(basis, tmp_path):
    make = lambda: Discovery(bare(GeneratorNetwork(32, 4, 4)), DiscoverySettings(n_directions=3, batch=8, basis=basis))
    torch.manual_seed(1)
    whole = make()
    history = train(whole, 5, tmp_path / "whole", {})
    for stop in (2, 5):
        torch.manual_seed(1)
        parts = make()
        resumed = train(parts, stop, tmp_path / "parts", {}, save_every=2)
    assert resumed == history and same(parts.state_dict(), whole.state_dict())


class Planted(nn.Module):
    """Two of eight latent dimensions show: the height of a bright bar, and the place of a dark column. The rest do nothing."""

    latent_dim = 8

    def forward(self, z):
        grid = torch.linspace(-1, 1, 32)
        bar = torch.sigmoid(12 * (0.4 - (grid[None, :, None] - 0.12 * z[:, 0, None, None]).abs()))
        column = torch.sigmoid(12 * (0.2 - (grid[None, None, :] - 0.12 * z[:, 1, None, None]).abs()))
        return (bar - column)[:, None]


def test_planted_directions_are_found(tmp_path):
    """Of eight dimensions two do something. Directions must turn into their plane (one may stay dead: that too can be told)."""
    settings = DiscoverySettings(n_directions=4, batch=48, lr_directions=0.03, lr_reconstructor=5e-3, seed=2)
    discovery = Discovery(bare(Planted()), settings)
    start = discovery.directions().matrix[:, :2].norm(dim=1)
    train(discovery, 200, tmp_path, {})
    found = discovery.directions().matrix[:, :2].norm(dim=1)
    assert start.mean() < 0.6 and found.sort().values[1:].min() > 0.9
    assert discovery.accuracy(512) > 0.85


def test_accuracy_is_repeatable_and_leaves_the_training_alone():
    discovery = Discovery(bare(Planted()), DiscoverySettings(n_directions=4, batch=8))
    before = {k: v.clone() for k, v in discovery.reconstructor.state_dict().items()}
    assert discovery.accuracy(256) == discovery.accuracy(256)
    assert same(dict(discovery.reconstructor.state_dict()), before) and discovery.reconstructor.training


def test_only_the_shifted_image_carries_a_graph():
    discovery = Discovery(bare(GeneratorNetwork(32, 4, 4)), DiscoverySettings(n_directions=3))
    plain, shifted, _, _ = discovery.pairs(4, stream(0, 0))
    assert not plain.requires_grad and shifted.requires_grad


def test_pairs_of_one_z_share_its_plain_image_and_are_right():
    generator = bare(GeneratorNetwork(32, 4, 4))
    discovery = Discovery(generator, DiscoverySettings(n_directions=3, batch=8, shifts_per_z=3))
    plain, shifted, k, eps = discovery.pairs(8, stream(0, 4, 0), 3)
    assert torch.equal(plain[0], plain[2]) and len(plain.unique(dim=0)) == 3
    rng = stream(0, 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(draw_shifts(8, discovery.settings, rng), (k, eps), strict=True))
    z = generator.draw(3, rng)[torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])]
    assert torch.allclose(plain, generator(z), atol=1e-5) and torch.allclose(shifted, generator(z + discovery.matrix(k, eps)), atol=1e-5)


def test_the_released_resnet_takes_images_as_they_are():
    released, before = make_reconstructor("resnet18", 5).eval(), make_reconstructor("resnet18-224", 5).eval()
    seen = []
    for r in (released, before):
        r.features.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        r(torch.full((2, 1, 32, 32), 0.5), torch.zeros(2, 1, 32, 32))
    assert seen[0].shape[-1] == 32 and torch.equal(seen[0][:, 0], torch.full((2, 32, 32), 0.5))
    assert seen[1].shape[-1] == 224 and seen[1][0, 0, 0, 0] == pytest.approx((0.75 - 0.456) / 0.224, abs=1e-4)
