import numpy as np
import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import GeneratorInfo
from lpdirs.models.networks import VAE, Decoder
from lpdirs.scores.inversion import edit, invert, invert_by_encoder
from tests.toys import bare, lively

WINDOW = (-1000.0, 1000.0)


@pytest.fixture(scope="module")
def drawn():
    torch.manual_seed(0)
    generator = lively(Decoder(32, 4, 4))
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    return generator, z, generator.images(z)


def test_what_the_generator_drew_is_found_again(drawn):
    generator, _, slices = drawn
    found = invert(generator, slices, WINDOW, steps=150, starts=4)
    assert found.z.shape == (3, 4) and found.ssim.min() > 0.8
    contrast = 1000 * (slices - slices.mean(0)).square().mean((1, 2, 3)).sqrt().numpy()
    assert (found.error < 0.5 * contrast).all(), "far nearer than another slice"
    again = invert(generator, slices, WINDOW, steps=150, starts=4)
    assert torch.equal(found.z, again.z)


def test_more_starts_are_never_worse(drawn, monkeypatch):
    monkeypatch.setattr("lpdirs.scores.inversion.PRIOR_WEIGHT", 0.0)
    generator, _, slices = drawn
    one, four = (invert(generator, slices, WINDOW, steps=30, starts=n).error.mean() for n in (1, 4))
    assert four <= one * 1.05


class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.of = nn.Linear(8, 3 * 32 * 32, bias=False)

    def forward(self, z):
        return 0.1 * self.of(z).view(-1, 3, 32, 32).tanh()


def test_an_image_in_colour_is_judged_by_all_its_channels():
    torch.manual_seed(0)
    generator = lp.as_generator(Colours(), 8, channels="keep")
    slices = generator.images(generator.draw(2, 3))
    slices[:, 1:] = 1.0
    found = invert(generator, slices, (-1, 1), steps=2)
    assert np.allclose(found.error, (found.reconstruction - slices).square().mean((1, 2, 3)).sqrt())
    assert found.error.min() > 0.5


def test_z_stays_within_its_prior_and_not_about_zero():
    """What the image does not tell is left at the prior's middle."""
    torch.manual_seed(0)
    module = Colours()
    module.of.weight.data[:, 4:] = 0
    generator = lp.as_generator(module, 8, channels="keep", prior=lp.Prior.uniform(2, 3))
    found = invert(generator, generator.images(generator.draw(4, 1)), (-1, 1), steps=200)
    assert (found.z * generator.unit)[:, 4:].mean().item() == pytest.approx(2.5, abs=0.1)


def test_without_gradients_inversion_says_so():
    class Rounded(Colours):
        def forward(self, z):
            return super().forward(z).detach()

    generator = lp.as_generator(Rounded(), 8, channels="keep")
    with pytest.raises(UserError, match="none reach z through this generator"):
        invert(generator, generator.images(generator.draw(1, 1)), (-1, 1))


def test_the_residual_brings_the_slice_itself_back(drawn):
    generator, _, slices = drawn
    found = invert(generator, slices, WINDOW, steps=5, starts=1)
    directions = Directions(random(2, 4))
    assert torch.allclose(edit(generator, directions, found, 0, 0.0, residual=1.0), slices, atol=1e-5)
    assert torch.allclose(edit(generator, directions, found, 0, 0.0), found.reconstruction)
    assert not torch.allclose(edit(generator, directions, found, 1, 3.0), found.reconstruction, atol=1e-3)


def test_the_encoder_s_error_is_that_of_its_reconstruction():
    torch.manual_seed(0)
    vae = VAE(32, 4, 4).eval()
    slices = torch.rand(2, 1, 32, 32) * 2 - 1
    found = invert_by_encoder(vae, bare(vae.decoder, 4), slices, WINDOW)
    assert np.allclose(found.error, 1000 * (slices - found.reconstruction).square().mean((1, 2, 3)).sqrt().numpy(), rtol=1e-4)
    assert found.ssim.max() < 0.5, "an untrained VAE knows nothing"


def test_what_the_encoder_says_is_refined_towards_the_slice(drawn):
    torch.manual_seed(0)
    vae, slices = VAE(32, 4, 4).eval(), drawn[2]
    vae.decoder = drawn[0].module
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    plain, refined = (invert_by_encoder(vae, drawn[0], slices, WINDOW, steps) for steps in (0, 150))
    assert (refined.error < 0.9 * plain.error).all() and refined.z.norm(dim=1).max() < 2, "nearer to the slice, and within the prior"
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items()) and not any(
        p.grad is not None for p in vae.parameters()
    )


@pytest.mark.parametrize("steps", [-1, 0.5, "50"])
def test_steps_that_make_no_sense_are_refused(drawn, steps):
    with pytest.raises(UserError, match="steps must be"):
        invert(drawn[0], drawn[2], WINDOW, steps)


@pytest.mark.parametrize(
    ("bad", "window", "message"),
    [
        (lambda x: x[:, :, ::2, ::2], WINDOW, "the generator draws"),
        (lambda x: x.expand(-1, 3, -1, -1), WINDOW, "the generator draws"),
        (lambda x: x[0], WINDOW, "must be a tensor"),
        (lambda x: x.numpy(), WINDOW, "must be a tensor"),
        (lambda x: x[:0], WINDOW, "must be a tensor"),
        (lambda x: 1000 * x, WINDOW, "in .-1, 1."),
        (lambda x: x * float("nan"), WINDOW, "in .-1, 1."),
        (lambda x: x, (-160.0, 240.0), "learned slices of the window"),
    ],
)
def test_slices_that_the_generator_does_not_draw_are_one_line(drawn, bad, window, message):
    """What would else come back as an error of a few HU, or of a million."""
    torch.manual_seed(0)
    vae, (generator, _, slices) = VAE(32, 4, 4).eval(), drawn
    generator = generator.but(info=GeneratorInfo("own", "0", WINDOW, 4.0))
    for put_back in (
        lambda x: invert(generator, x, window, steps=1, starts=1),
        lambda x: invert_by_encoder(vae, bare(vae.decoder, 4, info=generator.info), x, window),
    ):
        with pytest.raises(UserError, match=message):
            put_back(bad(slices))


def test_images_from_0_to_1_are_not_taken_for_what_the_generator_draws():
    class Dark(Colours):
        def forward(self, z):
            return super().forward(z) * 9

    generator = lp.as_generator(Dark(), 8, channels="keep")
    with pytest.raises(UserError, match="2 \\* x - 1"):
        invert(generator, (generator.images(generator.draw(2, 1)) + 1) / 2, steps=1)
