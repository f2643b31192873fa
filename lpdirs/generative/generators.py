"""A generator is anything that maps z (B, d) to slices (B, 1, S, S); here it is saved, opened and wrapped."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lpdirs.checkpoints import write_atomic
from lpdirs.errors import UserError
from lpdirs.generative.dcgan import Generator
from lpdirs.generative.vae import VAE, Decoder

KINDS = {"dcgan": Generator, "vae": VAE, "decoder": Decoder}


def save_model(model: nn.Module, path: Path, kind: str, metadata: dict, **architecture) -> None:
    """Weights as safetensors, with what is needed to build the model again; `kind` is one of KINDS."""
    header = {"kind": kind, "architecture": json.dumps(architecture), "metadata": json.dumps(metadata)}
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_atomic(path, lambda partial: save_file(weights, partial, header))


def load_model(path: Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """The model that `save_model` wrote, frozen and in eval mode, and its metadata."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if header.get("kind") not in KINDS:
            raise UserError(f"{path.name} holds no model of lpdirs: use as_generator to wrap a module of your own")
        model = KINDS[header["kind"]](**json.loads(header["architecture"]))
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return model.to(device).eval().requires_grad_(False), json.loads(header["metadata"])


def load_generator(path: Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Like load_model, but of a VAE the decoder alone: what maps z to slices."""
    model, metadata = load_model(path, device)
    return (model.decoder if isinstance(model, VAE) else model), metadata


class _Wrapped(nn.Module):
    def __init__(self, module: nn.Module, latent_dim: int):
        super().__init__()
        self.module, self.latent_dim = module, latent_dim

    def forward(self, z: Tensor) -> Tensor:
        return self.module(z)


def as_generator(module: nn.Module, latent_dim: int) -> nn.Module:
    """Any torch module that maps z (B, latent_dim) to slices (B, 1, S, S) in [-1, 1], frozen, as a generator.

    Raises UserError when a trial z gives another shape.
    """
    wrapped = _Wrapped(module, latent_dim).eval().requires_grad_(False)
    parameter = next(module.parameters(), torch.zeros(1))
    x = wrapped(torch.zeros(2, latent_dim, device=parameter.device, dtype=parameter.dtype))
    if x.ndim != 4 or x.shape[:2] != (2, 1) or x.shape[2] != x.shape[3]:
        raise UserError(f"a generator must map z (B, {latent_dim}) to slices (B, 1, S, S); z (2, {latent_dim}) gave {tuple(x.shape)}")
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
