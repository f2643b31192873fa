"""A slice that exists, put into latent space: by the VAE's encoder, or for any generator by optimisation; then moved and looked at."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import InstanceOf
from safetensors.torch import load_file, save
from skimage.metrics import structural_similarity
from torch import Tensor

from lpdirs.base.checked import Count, Number, Seed, Whole, checked
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.progress import Progress
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.models.files import read_header
from lpdirs.models.generators import Generator
from lpdirs.models.networks import VAE
from lpdirs.models.training import encode

FORMAT, FIELDS = "lpdirs.inversion/1", ("slices", "z", "reconstruction", "error", "ssim")
LR, PRIOR_WEIGHT = 0.05, 2e-4  # of Adam, and of z's distance from the prior's middle beside the squared error
REFINED_WEIGHT = 2e-3  # the same where the encoder's z is refined: with it z ends as far from the middle as samples are


@dataclass(frozen=True)
class Inversion:
    """For slices (N, C, S, S): their `z` (N, d) and what the generator makes of it, `reconstruction`; `error`, root mean square in the
    window's unit (HU), and `ssim`, (N,)."""

    slices: Tensor
    z: Tensor
    reconstruction: Tensor
    error: np.ndarray
    ssim: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, the slices too."""
        held = {name: torch.as_tensor(getattr(self, name)).cpu().contiguous() for name in FIELDS}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(held, {"lpdirs": json.dumps({"format": FORMAT})}))

    @classmethod
    def load(cls, path: str | Path) -> "Inversion":
        """Read what `save` wrote."""
        if read_header(path).get("format") != FORMAT:
            raise UserError(f"{Path(path).name} holds no slices that were put into latent space")
        held = load_file(path)
        return cls(held["slices"], held["z"], held["reconstruction"], held["error"].numpy(), held["ssim"].numpy())


def check_slices(generator: Generator, slices: Any, window: tuple[float, float]) -> Tensor:
    """The slices (N, C, S, S), if they are what the generator draws; UserError where their size, range or window is another."""
    if not isinstance(slices, Tensor) or slices.ndim != 4 or not len(slices):
        given = tuple(slices.shape) if isinstance(slices, Tensor) else type(slices).__name__
        raise UserError(f"slices must be a tensor (N, C, S, S), as Slices.tensor() gives, not {given}")
    drawn = generator.images(generator.draw(4, 0))
    if slices.shape[1:] != drawn.shape[1:]:
        given, own = tuple(slices.shape[1:]), tuple(drawn.shape[1:])
        raise UserError(f"slices are {given}, and the generator draws {own}: build the data set at that size")
    slices = slices.float()
    if not slices.isfinite().all() or slices.abs().max() > 1 + 1e-4:
        raise UserError("slices must be finite and in [-1, 1], as Slices.tensor() gives: HU are scaled by lpdirs.data.store.scale")
    if slices.min() >= 0 and drawn.min() < -0.5:
        raise UserError("slices hold nothing below 0, and the generator draws in [-1, 1]: give 2 * x - 1 if yours go from 0 to 1")
    known = generator.info.window
    if known is not None and tuple(map(float, window)) != tuple(map(float, known)):
        raise UserError(f"the generator learned slices of the window {known}, and these have {tuple(window)}: build the data set with it")
    return slices


def _judged(generator: Generator, slices: Tensor, z: Tensor, window: tuple[float, float]) -> Inversion:
    made = generator.images(z)
    real, drawn = (to_hu(x.numpy(), window) for x in (slices, made))
    alike = [structural_similarity(a, b, data_range=window[1] - window[0], channel_axis=0) for a, b in zip(real, drawn, strict=True)]
    return Inversion(slices, z, made, np.sqrt(np.mean((real - drawn) ** 2, axis=(1, 2, 3))), np.array(alike))


def invert_by_encoder(vae: VAE, generator: Generator, slices: Tensor, window: tuple[float, float], steps: int = 0) -> Inversion:
    """The means of q(z|x); `slices` (N, 1, S, S) in [-1, 1], whose ends are `window` in HU, and `generator` the VAE's.

    With `steps` z is refined from there by Adam on the squared error, and on its distance from the prior's middle (REFINED_WEIGHT), as
    Kim et al. (2018, Semi-Amortized Variational Autoencoders) refine what an encoder says of new data. Fifty make much of it.
    """
    slices = check_slices(generator, slices, window)
    z = encode(vae, slices)[0]
    return _judged(generator, slices, _refined(generator, slices, z, steps, REFINED_WEIGHT) if steps else z, window)


def _refined(generator: Generator, slices: Tensor, z: Tensor, steps: int, weight: float) -> Tensor:
    """z (N, d) after `steps` of Adam towards the `slices` (N, C, S, S)."""
    device = generator.device
    middle, scale = (part.to(device) for part in generator.prior.middle(generator.latent_dim))
    z, target = z.clone().to(device).requires_grad_(), slices.to(device)
    optimiser, bar = torch.optim.Adam([z], LR), Progress("putting slices into latent space")
    for step in range(steps):
        optimiser.zero_grad()
        error = (generator(z) - target).square().mean((1, 2, 3))
        (error + weight * ((z - middle) / scale).square().mean(1)).sum().backward(inputs=[z])  # and not of the generator's weights
        optimiser.step()
        bar(step + 1, steps)
    return z.detach().cpu()


@checked
def invert(
    generator: InstanceOf[Generator],
    slices: Tensor,
    window: tuple[Number, Number] | None = None,
    steps: Count = 200,
    starts: Count = 4,
    seed: Seed = 0,
) -> Inversion:
    """z of slices (N, C, S, S) in [-1, 1] by Adam on the squared error, from `starts` random z a slice of which the best is kept.

    `window` are the values of -1 and 1 (default: the generator's). PRIOR_WEIGHT times the mean squared distance from the prior's middle,
    in its SDs, keeps z where the generator was trained. The error that remains is stated, not hidden: a GAN cannot draw every slice.
    UserError where no gradient reaches z, or the slices are none of the generator's.
    """
    if not generator.info.differentiable:
        raise UserError("putting slices into latent space needs gradients, and none reach z through this generator")
    window = window or generator.info.window or generator.display.window
    slices, rng = check_slices(generator, slices, window), torch.Generator().manual_seed(seed)
    every = slices.repeat_interleave(starts, 0)
    z = _refined(generator, every, generator.draw(len(every), rng), steps, PRIOR_WEIGHT)
    error = (generator.images(z) - every).square().mean((1, 2, 3))
    best = error.view(len(slices), starts).argmin(1) + torch.arange(len(slices)) * starts
    return _judged(generator, slices, z[best], window)


@checked
def edit(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions],
    inverted: InstanceOf[Inversion],
    k: Whole,
    shift: Number,
    residual: Number = 0.0,
) -> Tensor:
    """The slices moved by `shift` along direction k, (N, 1, S, S) in [-1, 1].

    `residual` times what the reconstruction lacks is added back, so that at shift 0 and residual 1 the slices themselves return;
    it does not move with the anatomy, and far edits show it as a ghost.
    """
    moved = generator.images(directions.shift(inverted.z, k, shift))
    return (moved + residual * (inverted.slices - inverted.reconstruction)).clamp(-1, 1)
