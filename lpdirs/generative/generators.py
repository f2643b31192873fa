"""A generator is anything that maps z (B, d) to slices (B, 1, S, S); here it is saved, opened and wrapped."""

import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lpdirs.errors import UserError
from lpdirs.files import write_atomic
from lpdirs.generative.dcgan import Generator
from lpdirs.generative.vae import VAE, Decoder

KINDS = {"dcgan": Generator, "vae": VAE, "decoder": Decoder}


def save_model(model: nn.Module, path: str | Path, kind: str, metadata: dict, **architecture) -> None:
    """Weights as safetensors, with what is needed to build the model again; `kind` is one of KINDS."""
    header = {"kind": kind, "architecture": json.dumps(architecture), "metadata": json.dumps(metadata)}
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_atomic(path, lambda partial: save_file(weights, partial, header))


def load_model(path: str | Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """The model that `save_model` wrote, frozen and in eval mode, and its metadata."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if header.get("kind") not in KINDS:
            raise UserError(f"{Path(path).name} holds no model of lpdirs: use as_generator to wrap a module of your own")
        model = KINDS[header["kind"]](**json.loads(header["architecture"]))
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return model.to(device).eval().requires_grad_(False), json.loads(header["metadata"])


def load_generator(path: str | Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Like load_model, but of a VAE the decoder alone: what maps z to slices."""
    model, metadata = load_model(path, device)
    return (model.decoder if isinstance(model, VAE) else model), metadata


class _Wrapped(nn.Module):
    """What as_generator makes of a module; how its output is to be read is found out once, by a trial."""

    def __init__(self, module: nn.Module, latent_dim: int, latent_shape: tuple[int, ...], value_range: tuple[float, float], bound: dict):
        super().__init__()
        self.module, self.latent_dim, self.latent_shape = module, latent_dim, latent_shape
        self.value_range, self.bound = value_range, bound
        self.first, self.grey = False, False

    def bound_for(self, z: Tensor) -> dict:
        """The further inputs of the module, for a batch like z."""
        return {k: v.to(z.device).expand(z.shape[0], *v.shape[1:]) if isinstance(v, Tensor) else v for k, v in self.bound.items()}

    def forward(self, z: Tensor) -> Tensor:
        x = self.module(z.reshape(z.shape[0], *self.latent_shape), **self.bound_for(z))
        x = x[0] if self.first else x
        x = x.mean(1, keepdim=True) if self.grey else x
        low, high = self.value_range
        return x if (low, high) == (-1, 1) else (x - low) * (2 / (high - low)) - 1


def as_generator(
    module: nn.Module,
    latent_dim: int,
    latent_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] = (-1, 1),
    **bound,
) -> nn.Module:
    """Any torch module that maps z to images, frozen and in eval mode, as a generator of slices (B, 1, S, S) in [-1, 1].

    `latent_shape` is the shape of one z where it is not (latent_dim,), such as (8, 4, 4) for a spatial latent of 128.
    `value_range` is that of the module's images. Further inputs of the module are `bound` by name; tensors among them have a
    first dimension of 1, which is expanded to the batch. Of several outputs the first is taken; colour is averaged to grey.
    Raises UserError when a trial gives anything else.
    """
    shape = (latent_dim,) if latent_shape is None else tuple(latent_shape)
    if math.prod(shape) != latent_dim:
        raise UserError(f"latent_shape {shape} holds {math.prod(shape)} numbers, and latent_dim is {latent_dim}")
    wrapped = _Wrapped(module, latent_dim, shape, value_range, bound).eval().requires_grad_(False)
    parameter = next(module.parameters(), torch.zeros(1))
    trial = torch.zeros(2, *shape, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        x = module(trial, **wrapped.bound_for(trial))
    wrapped.first = isinstance(x, tuple | list)
    x = x[0] if wrapped.first else x
    if x.ndim != 4 or x.shape[0] != 2 or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        raise UserError(f"a generator must map z (B, {latent_dim}) to images (B, 1 or 3, S, S); z (2, {latent_dim}) gave {tuple(x.shape)}")
    wrapped.grey = x.shape[1] == 3
    return wrapped


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, batch: int = 128) -> Tensor:
    """Slices (N, 1, S, S) in [-1, 1] for z (N, d), on the CPU."""
    device = next(generator.parameters(), z).device
    return torch.cat([generator(part.to(device)).cpu() for part in z.split(batch)])


def typical_z(generator: nn.Module, latent_dim: int, seed: int = 0, n: int = 256) -> Tensor:
    """Of n random z the one (latent_dim,) whose slice is nearest to the mean slice, as a starting point for strips."""
    z = torch.randn(n, latent_dim, generator=torch.Generator().manual_seed(seed))
    x = generate(generator, z)
    return z[(x - x.mean(0)).square().mean((1, 2, 3)).argmin()]
