import pytest
import torch

from lpdirs.base.errors import UserError
from lpdirs.models.files import fingerprint, load_generator, load_model, save_model
from lpdirs.models.networks import VAE, Decoder, Discriminator, Encoder, GeneratorNetwork, calibrated_loss, kl_per_dimension, paper_loss
from lpdirs.models.wrapping import as_generator


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_architectures():
    """Counts of ../shared/reference/paper.md, at 128 px, d = 32, widths 128 and 64."""
    assert round(count(GeneratorNetwork()) / 1e6, 2) == 45.62
    assert round(count(Discriminator()) / 1e6, 2) == 44.61
    assert round(count(Encoder()) / 1e6, 2) == 9.14
    assert round(count(Decoder()) / 1e6, 2) == 20.89


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("make", [GeneratorNetwork, Decoder])
def test_generators_of_all_sizes(make, size):
    x = make(size, latent_dim=5, width=4)(torch.randn(3, 5))
    assert x.shape == (3, 1, size, size) and x.abs().max() <= 1


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_encoder_and_discriminator_of_all_sizes(size):
    x = torch.randn(3, 1, size, size)
    assert Discriminator(size, 4)(x).shape == (3,)
    mean, log_variance = Encoder(size, 5, 4)(x)
    assert mean.shape == log_variance.shape == (3, 5)


def test_other_sizes_are_refused():
    with pytest.raises(UserError, match="size must be 32, 64, 128 or 256"):
        GeneratorNetwork(48)


def test_kl_is_zero_at_the_prior_and_known_elsewhere():
    assert torch.equal(kl_per_dimension(torch.zeros(4, 2), torch.zeros(4, 2)), torch.zeros(2))
    assert kl_per_dimension(torch.full((4, 1), 2.0), torch.zeros(4, 1)).item() == pytest.approx(2.0)


def test_the_two_losses_have_one_optimum():
    """log(mse) + w * KL is 2 / pixels times beta * KL apart: the paper's 0.01 is a beta of 82 at 128 px."""
    error, kl, pixels = torch.tensor(0.02, requires_grad=True), torch.tensor(5.0), 128 * 128
    paper = paper_loss(error, kl, 0.01, pixels) / 2
    calibrated = calibrated_loss(error, kl, 0.01 * pixels / 2, pixels)
    offset = calibrated_loss(torch.tensor(1.0), torch.tensor(0.0), 1.0, pixels)
    assert (calibrated - offset).item() == pytest.approx(paper.item(), rel=1e-5)
    assert round(0.01 * pixels / 2) == 82


def test_decoding_the_mean_is_deterministic():
    vae = VAE(32, 4, 4).eval()
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(vae(x)[0], vae(x)[0])
    assert not torch.equal(vae(x, torch.randn(2, 4))[0], vae(x)[0])


@pytest.mark.parametrize(("kind", "make"), [("dcgan", GeneratorNetwork), ("vae", VAE)])
def test_saved_models_open_as_they_were(tmp_path, kind, make):
    model = make(32, 4, 4)
    with torch.no_grad():
        for _ in range(2):  # move BatchNorm's statistics from their start
            (model if kind == "dcgan" else model.decoder)(torch.randn(8, 4))
    save_model(model, tmp_path / "m.safetensors", kind, {"window": [-1000, 2000]}, size=32, latent_dim=4, width=4)
    loaded, about = load_model(tmp_path / "m.safetensors")
    assert about == {"window": [-1000, 2000]} and not any(p.requires_grad for p in loaded.parameters())
    generator = load_generator(tmp_path / "m.safetensors")
    z = torch.randn(3, 4)
    mine = model.eval() if kind == "dcgan" else model.decoder.eval()
    assert torch.equal(generator(z), mine(z)) and generator.latent_dim == 4


def test_a_fingerprint_is_of_the_weights_not_of_the_file(tmp_path):
    model = GeneratorNetwork(32, 4, 4)
    prints = set()
    for i in range(8):  # the order of the file's metadata is not the same each time
        save_model(model, tmp_path / f"{i}.safetensors", "dcgan", {"a": i, "b": 2}, size=32, latent_dim=4, width=4)
        prints.add(fingerprint(tmp_path / f"{i}.safetensors"))
    assert len(prints) == 1
    with torch.no_grad():
        model.layers[0].weight[0, 0, 0, 0] += 1e-6
    save_model(model, tmp_path / "other.safetensors", "dcgan", {}, size=32, latent_dim=4, width=4)
    assert fingerprint(tmp_path / "other.safetensors") not in prints


def test_any_module_can_be_a_generator():
    module = torch.nn.Sequential(torch.nn.Linear(6, 256), torch.nn.Unflatten(1, (1, 16, 16)), torch.nn.Tanh())
    generator = as_generator(module, 6)
    assert generator.latent_dim == 6 and generator.images(torch.randn(5, 6), batch=2).shape == (5, 1, 16, 16)
    with pytest.raises(UserError, match=r"gave \(8, 256\)"):
        as_generator(module[0], 6)


def test_a_small_file_that_claims_a_huge_model_is_refused_before_it_is_built(tmp_path):
    save_model(GeneratorNetwork(32, 8, 8), tmp_path / "g.safetensors", "dcgan", {}, size=32, latent_dim=8, width=100_000)
    with pytest.raises(UserError, match="does not hold the model that it describes"):
        load_model(tmp_path / "g.safetensors")


def test_the_start_of_strips_is_near_the_mean_and_not_the_most_blurred():
    """Checks whose contrast is z[0]: the flattest is nearest to their mean, and half of them are sharper than the start may not be."""

    class Checks(torch.nn.Module):
        def forward(self, z):
            return torch.tanh(z[:, :1, None, None]) * ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1)

    generator = as_generator(Checks(), 4)
    z = generator.draw(256, 0)
    contrast, start = z[:, 0].abs(), generator.typical()[0].abs()
    assert contrast.median() <= start < contrast.quantile(0.6) and contrast.min() < 0.1
