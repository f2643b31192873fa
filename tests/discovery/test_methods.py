"""Every way of finding directions, on generators whose answer is known."""

import pandas as pd
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery import closed_form
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.discovery.others import contrast
from lpdirs.discovery.registry import METHODS
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.models.priors import Prior
from lpdirs.models.wrapping import as_generator
from tests.toys import bare, lively

D = 6


class Stretched(nn.Module):
    """Images linear in z up to a gentle curve: the columns of `frame` are its true directions, with known strengths."""

    latent_dim = D

    def __init__(self, strengths=(8.0, 5.0, 3.0, 2.0, 1.0, 0.5)):
        super().__init__()
        torch.manual_seed(3)
        self.frame = torch.linalg.qr(torch.randn(D, D))[0]
        self.first = nn.Linear(D, 1024, bias=False)
        pictures = torch.linalg.qr(torch.randn(1024, D))[0]
        with torch.no_grad():
            self.first.weight.copy_(pictures @ torch.diag(torch.tensor(strengths)) @ self.frame.T)

    def forward(self, z):
        return torch.tanh(0.01 * self.first(z)).reshape(-1, 1, 32, 32)


def agreement(found, frame):
    """|cosine| of each direction with the true one of the same rank."""
    return (found * frame.T[: len(found)]).sum(1).abs()


@pytest.mark.parametrize("method", ["sefa", "jacobian", "local-basis", "pca"])
def test_closed_forms_find_what_was_planted_strongest_first(method):
    generator = bare(Stretched())
    found = discover(generator, method, 4).matrix
    assert agreement(found, generator.module.frame).min() > (0.97 if method == "pca" else 0.999)


def test_sources_and_sparse_changes_are_found_where_all_are_equally_strong():
    """PCA and the Jacobian cannot tell such directions from any rotation of them."""
    pictures = nn.functional.one_hot(torch.arange(D).repeat_interleave(6), D).float() @ torch.diag(torch.ones(D))  # each its own pixels
    frame = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(2)))[0]
    image = nn.Linear(D, 36, bias=False)
    image.weight.data = 0.2 * pictures @ frame.T
    large = nn.Sequential(image, nn.Unflatten(1, (1, 6, 6)), nn.Upsample(scale_factor=4))
    best = lambda found: (found @ frame).abs().max(1).values
    assert best(discover(as_generator(large, D), "sparse", D).matrix).min() > 0.99
    assert best(discover(as_generator(large, D), "jacobian", D).matrix).min() < 0.9
    image.weight.data = 0.2 * torch.linalg.qr(torch.randn(36, D))[0]
    axes = discover(as_generator(large, D, prior=Prior.uniform(-1, 1)), "ica", D).matrix.abs().max(1).values
    assert (
        axes.min() > 0.9 and discover(as_generator(large, D, prior=Prior.uniform(-1, 1)), "pca", D).matrix.abs().max(1).values.min() < 0.9
    )


class Bumps(nn.Module):
    """Along each column of `frame` another part of the image changes, all by as much, and not in a straight line; parts may overlap."""

    latent_dim = D

    def __init__(self, overlap=0.0):
        super().__init__()
        self.mixing = nn.Parameter(torch.eye(D) + overlap * torch.eye(D).roll(1, 0), False)
        self.frame = nn.Parameter(torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(2)))[0], False)

    def forward(self, z):
        parts = torch.sin(0.5 * z @ self.frame) @ self.mixing  # (B, D)
        return parts.repeat_interleave(6, 1).reshape(-1, 1, 6, 6).repeat_interleave(6, 2).repeat_interleave(6, 3)


def test_the_hessian_penalty_finds_what_changes_independently():
    """Also where their changes overlap in the image, which mixes the Jacobian's."""
    generator = bare(Bumps(overlap=0.6))
    cosines = lambda found: (found @ generator.module.frame).abs().max(1).values.min()
    assert cosines(discover(generator, "hessian", D).matrix) > 0.95 > cosines(discover(generator, "jacobian", D).matrix)


@pytest.mark.parametrize(("method", "absolute"), [("latentclr", False), ("disco", True)])
def test_contrastive_directions_do_the_same_everywhere_and_each_its_own(method, absolute):
    """By their loss on starting points that they have not seen, far below that of random directions."""
    generator = bare(Bumps())
    z = torch.randn(64, D, generator=torch.Generator().manual_seed(9))

    def loss(directions):
        changes = torch.stack([(generator(z + 3 * a) - generator(z)).flatten(1) for a in directions.matrix])
        return contrast(changes.abs() if absolute else changes).item()

    assert loss(discover(generator, method, 3)) < 0.5 * min(loss(discover(generator, "random", 3, seed=seed)) for seed in range(5))


def test_the_jacobian_is_that_of_torch():
    generator = lively(Decoder(32, 4, 4))
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    j = torch.func.vmap(torch.func.jacrev(lambda one: generator(one[None])[0].flatten()))(z)
    expected = closed_form.sorted_eigenvectors((j.transpose(1, 2) @ j).sum(0))
    assert torch.allclose(closed_form.jacobian(generator, samples=8, batch=4), expected, atol=1e-3)


def test_encoded_patients_give_their_axes():
    frame = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)))[0]
    encoded = torch.randn(4000, D) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.2]) @ frame.T
    found = discover(bare(Stretched()), "pca-encoded", 3, known=encoded).matrix
    assert agreement(found, frame).min() > 0.99


def test_the_oracle_follows_the_factors_and_names_its_directions():
    z = torch.randn(500, D)
    truth = torch.linalg.qr(torch.randn(D, D))[0][:2]
    table = pd.DataFrame((z @ truth.T + 0.01 * torch.randn(500, 2)).numpy(), columns=["rotation", "thickness"])
    table.iloc[::7, 0] = float("nan")
    found = discover(bare(Stretched()), "oracle", known=(z, table))
    assert (
        (found.matrix[:2] * truth).sum(1).min() > 0.999
        and (found.matrix[2:4] * truth).sum(1).min() > 0.999
        and found.title(1) == "body thickness (1)"
        and len(found) == 32
    )
    assert min(found.info.notes["r2"].values()) > 0.99
    noise = discover(bare(Stretched()), "oracle", known=(z, table.sample(frac=1, random_state=0).reset_index(drop=True))).info.notes["r2"]
    assert max(noise.values()) < 0.1 and list(noise) == ["rotation", "thickness"]


def test_the_oracle_moves_one_factor_alone_where_factors_share_directions():
    z = torch.randn(2000, D)
    w = torch.linalg.qr(torch.randn(D, D))[0][:3]
    w[1] = w[0] + 0.5 * w[1]  # thickness grows with rotation
    factors = z @ w.T
    table = pd.DataFrame(factors.numpy(), columns=list("abc"))
    plain, alone = (discover(bare(Stretched()), method, 3, known=(z, table)).matrix @ w.T for method in ("oracle", "oracle-alone"))
    off = lambda moved: (moved - torch.diag(moved.diag())).abs().amax()
    assert off(alone) < 1e-4 < 0.5 < off(plain) and alone.diag().min() > 0.2


def test_sefa_as_released_gives_each_unit_of_the_layer_the_same_weight():
    layer = nn.Linear(D, 1024, bias=False)
    layer.weight.data[:512] *= 5
    generator = as_generator(nn.Sequential(layer, nn.Unflatten(1, (1, 32, 32))), D, value_range=(-20, 20))
    a = layer.weight.data.double()
    a = a / a.norm(dim=1, keepdim=True)
    expected = torch.linalg.eigh(a.T @ a)[1].flip(1).T
    assert ((discover(generator, "sefa-released", D).matrix.double() * expected).sum(1).abs() > 0.999).all()
    assert (discover(generator, "sefa", D).matrix.double() * expected).sum(1).abs().min() < 0.9


def test_the_first_directions_of_a_large_jacobian_are_those_of_the_whole():
    torch.manual_seed(0)
    scale = torch.diag(0.8 ** torch.arange(80.0))
    net = nn.Linear(80, 1024, bias=False)
    net.weight.data = torch.linalg.qr(torch.randn(1024, 80))[0] @ scale @ torch.linalg.qr(torch.randn(80, 80))[0]
    generator = as_generator(nn.Sequential(net, nn.Unflatten(1, (1, 32, 32))), 80)
    some, whole = (closed_form.jacobian(generator, k, samples=4)[:6] for k in (6, None))
    assert ((some * whole).sum(1).abs() > 0.999).all()


@pytest.mark.parametrize("generator", [lively(GeneratorNetwork(32, D, 4)), lively(Decoder(32, D, 4))], ids=["gan", "vae"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_call_for_every_method_and_both_models(generator, method):
    z = torch.randn(40, D)
    known = (z, pd.DataFrame(z[:, :4].numpy(), columns=list("abcd"))) if method in ("oracle", "oracle-alone", "curved") else z
    before = torch.get_rng_state()
    settings = DiscoverySettings(batch=4, steps=2)
    first, second = (discover(generator, method, 4, seed=1, settings=settings, known=known) for _ in range(2))
    assert torch.equal(first.matrix, second.matrix) and first.matrix.shape == (4, D)
    assert first.info.method == method and torch.equal(before, torch.get_rng_state())
    if method in ("sefa", "jacobian", "pca-encoded", "random", "coordinate"):
        assert torch.allclose(first.matrix @ first.matrix.T, torch.eye(4), atol=1e-5)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"oracle", "oracle-alone", "curved", "pca-encoded"}))
def test_a_generator_that_is_not_frozen_is_left_as_it_was(method):
    """Its weights require gradients: none are left in them, and directions hold no graph."""
    generator = bare(Decoder(32, D, 4))
    found = discover(generator, method, 4, settings=DiscoverySettings(batch=4, steps=2))
    assert not found.matrix.requires_grad and all(p.grad is None and p.requires_grad for p in generator.module.parameters())


def test_a_generator_in_training_mode_is_refused():
    """Its images depend on the others of a batch."""
    with pytest.raises(UserError, match="Decoder is in training mode"):
        lp.Generator(Decoder(32, D, 4).train(), D)


def test_what_cannot_be_done_is_said():
    generator = bare(Stretched())
    for method in ("sefa", "jacobian", "coordinate"):
        with pytest.raises(UserError, match="at most 6"):
            discover(generator, method, 7)
    assert len(discover(generator, "random", 9)) == 9
    with pytest.raises(UserError, match="needs an encoder"):
        discover(generator, "pca-encoded", 2)
    with pytest.raises(UserError, match="needs factors"):
        discover(generator, "oracle")
    z = torch.randn(50, D)
    table = pd.DataFrame(z[:, :3].numpy(), columns=list("abc"))
    with pytest.raises(UserError, match="ask for as many"):
        discover(generator, "oracle", 2, known=(z, table))
    with pytest.raises(UserError, match="in another order"):
        discover(generator, "oracle", 3, known=(z, table.sample(frac=1, random_state=0)))
    with pytest.raises(UserError, match="must be one of reconstructor, "):
        discover(generator, "guess")
    curved = as_generator(nn.Sequential(nn.Tanh(), nn.Linear(D, 1024), nn.Unflatten(1, (1, 32, 32))), D)
    with pytest.raises(UserError, match="linear in z"):
        discover(curved, "sefa", 2)


def test_frozen_directions_stay_and_only_the_reconstructor_learns():
    given = discover(bare(Stretched()), "random", 4)
    search = Discovery(bare(Stretched()), DiscoverySettings(n_directions=4, batch=16, freeze=True, lr_reconstructor=5e-3), start=given)
    losses = [search.step(i)["loss_k"] for i in range(60)]
    assert torch.allclose(search.directions().matrix, given.matrix, atol=1e-6) and losses[-1] < losses[0]


@pytest.mark.parametrize("basis", ["unit", "orthonormal"])
def test_a_warm_start_begins_there_and_then_moves(basis):
    given = discover(bare(Stretched()), "jacobian", 4)
    search = Discovery(bare(Stretched()), DiscoverySettings(n_directions=4, batch=8, basis=basis, lr_directions=0.01), start=given)
    assert torch.allclose(search.directions().matrix, given.matrix, atol=1e-5)
    for i in range(3):
        search.step(i)
    assert not torch.allclose(search.directions().matrix, given.matrix, atol=1e-3)
    with pytest.raises(UserError, match="holds 4 directions of 6 dimensions, not 5"):
        Discovery(bare(Stretched()), DiscoverySettings(n_directions=5), start=given)


def test_few_latents_have_few_axes():
    z = torch.randn(5, D)
    found = discover(bare(Stretched()), "pca-encoded", 4, known=z).matrix
    inside = torch.linalg.svd(z - z.mean(0)).Vh[:4]
    assert ((found @ inside.T) ** 2).sum(1).allclose(torch.ones(4), atol=1e-4)
    with pytest.raises(UserError, match="5 latents have at most 4 principal axes"):
        discover(bare(Stretched()), "pca-encoded", 5, known=z)
    with pytest.raises(UserError, match="finite latents"):
        discover(bare(Stretched()), "pca-encoded", 2, known=torch.full((9, D), float("nan")))
    with pytest.raises(UserError, match=r"lp.DiscoverySettings"):
        discover(bare(Stretched()), "reconstructor", 2, settings={"steps": 5})
