"""A slice that exists, put into latent space: by the VAE's encoder, or for any generator by optimisation; then moved and looked at."""

from dataclasses import dataclass

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import device_of, draw_z, generate, latent_dim_of, prior_of, window_of
from lpdirs.models.training import encode
from lpdirs.models.trial import is_differentiable
from lpdirs.models.vae import VAE

LR, PRIOR_WEIGHT = 0.05, 2e-4  # of Adam, and of z's distance from the prior's middle beside the squared error
REFINED_WEIGHT = 2e-3  # the same where the encoder's z is refined: with it z ends as far from the middle as samples are


@dataclass(frozen=True)
class Inversion:
    """For slices (N, 1, S, S): their `z` (N, d) and what the generator makes of it, `reconstruction`; `error` in HU and `ssim`, (N,)."""

    slices: Tensor
    z: Tensor
    reconstruction: Tensor
    error: np.ndarray
    ssim: np.ndarray


def checked(generator: nn.Module, slices: Tensor, window: tuple[float, float]) -> Tensor:
    """The slices (N, C, S, S), if they are what the generator draws; UserError where their size, range or window is another."""
    if not isinstance(slices, Tensor) or slices.ndim != 4 or not len(slices):
        given = tuple(slices.shape) if isinstance(slices, Tensor) else type(slices).__name__
        raise UserError(f"slices must be a tensor (N, C, S, S), as Slices.tensor() gives, not {given}")
    drawn = generate(generator, draw_z(generator, 1, 0)).shape[1:]
    if slices.shape[1:] != drawn:
        raise UserError(f"slices are {tuple(slices.shape[1:])}, and the generator draws {tuple(drawn)}: build the data set at that size")
    slices = slices.float()
    if not slices.isfinite().all() or slices.abs().max() > 1 + 1e-4:
        raise UserError("slices must be finite and in [-1, 1], as Slices.tensor() gives: HU are scaled by lpdirs.data.store.scale")
    known = window_of(generator)
    if known is not None and tuple(map(float, window)) != tuple(map(float, known)):
        raise UserError(f"the generator learned slices of the window {known}, and these have {tuple(window)}: build the data set with it")
    return slices


def _judged(generator: nn.Module, slices: Tensor, z: Tensor, window: tuple[float, float]) -> Inversion:
    made = generate(generator, z)
    real, drawn = (to_hu(x.numpy(), window) for x in (slices, made))
    alike = [structural_similarity(a, b, data_range=window[1] - window[0], channel_axis=0) for a, b in zip(real, drawn, strict=True)]
    return Inversion(slices, z, made, np.sqrt(np.mean((real - drawn) ** 2, axis=(1, 2, 3))), np.array(alike))


def invert_by_encoder(vae: VAE, slices: Tensor, window: tuple[float, float], steps: int = 0) -> Inversion:
    """The means of q(z|x); `slices` (N, 1, S, S) in [-1, 1], whose ends are `window` in HU.

    With `steps` z is refined from there by Adam on the squared error, and on its distance from the prior's middle (REFINED_WEIGHT), as
    Kim et al. (2018, Semi-Amortized Variational Autoencoders) refine what an encoder says of new data. Fifty make much of it.
    """
    slices = checked(vae.decoder, slices, window)
    z = encode(vae, slices)[0]
    return _judged(vae.decoder, slices, _refined(vae.decoder, slices, z, steps, REFINED_WEIGHT) if steps else z, window)


def _refined(generator: nn.Module, slices: Tensor, z: Tensor, steps: int, weight: float) -> Tensor:
    """z (N, d) after `steps` of Adam towards the `slices` (N, C, S, S)."""
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise UserError(f"z is put nearer to a slice in a whole number of steps, at least 1, not {steps!r}")
    device = device_of(generator)
    middle, scale = (part.to(device) for part in prior_of(generator).middle(latent_dim_of(generator)))
    z, target = z.clone().to(device).requires_grad_(), slices.to(device)
    optimiser, bar = torch.optim.Adam([z], LR), Progress("putting slices into latent space")
    for step in range(steps):
        optimiser.zero_grad()
        error = (generator(z) - target).square().mean((1, 2, 3))
        (error + weight * ((z - middle) / scale).square().mean(1)).sum().backward(inputs=[z])  # and not of the generator's weights
        optimiser.step()
        bar(step + 1, steps)
    return z.detach().cpu()


def invert(
    generator: nn.Module,
    slices: Tensor,
    window: tuple[float, float],
    steps: int = 200,
    starts: int = 4,
    seed: int = 0,
) -> Inversion:
    """z by Adam on the squared error, from `starts` random z a slice of which the best is kept.

    PRIOR_WEIGHT times the mean squared distance from the prior's middle, in its SDs, keeps z where the generator was trained. The error
    that remains is stated, not hidden: a GAN cannot draw every slice. UserError where no gradient reaches z.
    """
    if not is_differentiable(generator):
        raise UserError("putting slices into latent space needs gradients, and none reach z through this generator")
    slices, rng = checked(generator, slices, window), torch.Generator().manual_seed(seed)
    every = slices.repeat_interleave(starts, 0)
    z = _refined(generator, every, draw_z(generator, len(every), rng), steps, PRIOR_WEIGHT)
    error = (generate(generator, z) - every).square().mean((1, 2, 3))
    best = error.view(len(slices), starts).argmin(1) + torch.arange(len(slices)) * starts
    return _judged(generator, slices, z[best], window)


def edit(generator: nn.Module, directions: Directions, inverted: Inversion, k: int, eps: float, residual: float = 0.0) -> Tensor:
    """The slices moved along direction k, (N, 1, S, S) in [-1, 1].

    `residual` times what the reconstruction lacks is added back, so that at eps 0 and residual 1 the slices themselves return;
    it does not move with the anatomy, and far edits show it as a ghost.
    """
    moved = generate(generator, directions.shift(inverted.z, k, eps))
    return (moved + residual * (inverted.slices - inverted.reconstruction)).clamp(-1, 1)
