"""Weights of the original code bases, opened as ours: the DCGAN and VAE of Schoen et al. (2022)."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.models.dcgan import Generator
from lpdirs.models.vae import Decoder

# names in the original's residual blocks, and ours
PARTS = {"conv1": "conv1", "BN1": "norm1", "conv2": "conv2", "BN2": "norm2", "conv3": "shortcut"}
BLOCKS = ("conv1", "conv12", "conv2", "conv3", "conv4", "conv5", "conv6")


def read_checkpoint(path: str | Path) -> dict:
    """What torch.save wrote, with plain values, tensors and numpy's scalars and nothing that could run; UserError otherwise."""
    path = Path(path)
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    allowed = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no checkpoint makes the reader raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path.name} cannot be opened as a checkpoint ({why})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} holds a {type(content).__name__}, not a state dict: save module.state_dict() instead")
    return content


def weights_in(content: dict, *keys: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, under the first of `keys` that is there or itself, without DataParallel's prefix."""
    state = next((content[key] for key in keys if key in content), content)
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}


def open_old_generator(path: str | Path) -> nn.Module:
    """The generator in a checkpoint of the original code: its DCGAN, or the decoder of its VAE; frozen and in eval mode.

    Takes the files that its training scripts write (modelG_state_dict, state_dict, decoder.pt) and bare state dicts. Size,
    width and latent_dim are read from the weights. UserError where they are of another architecture.
    """
    path = Path(path)
    state = weights_in(read_checkpoint(path), "modelG_state_dict", "state_dict")
    state = {re.sub(r"^(main|decoder|G)\.", lambda m: "main." if m[1] == "main" else "", name): v for name, v in state.items()}
    try:
        model = _dcgan(state) if "main.0.weight" in state else _decoder(state)
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{path.name} holds neither the original DCGAN's generator nor its VAE's decoder: "
            "build your module, load its weights, and wrap it with as_generator"
        ) from error
    return model.eval().requires_grad_(False)


def _dcgan(state: dict[str, Tensor]) -> Generator:
    state = {name.replace("main.", "layers."): value for name, value in state.items()}
    convolutions = [name for name, value in state.items() if value.ndim == 4]
    model = Generator(4 << (len(convolutions) - 1), state["layers.0.weight"].shape[0], state[convolutions[-1]].shape[0])
    model.load_state_dict(state)
    return model


def _decoder(state: dict[str, Tensor]) -> Decoder:
    blocks = [block for block in BLOCKS if f"{block}.conv3.weight" in state]
    renamed = {}
    for name, value in state.items():
        block, _, rest = name.partition(".")
        if block in blocks and rest.partition(".")[0] in PARTS:
            part, _, leaf = rest.partition(".")
            renamed[f"stages.{blocks.index(block)}.{PARTS[part]}.{leaf}"] = value
        elif block == "conv7":
            renamed[f"out.{rest}"] = value
    last, first = renamed["out.weight"], renamed["stages.0.conv1.weight"]
    model = Decoder(1 << len(blocks), first.shape[1], 2 * last.shape[1])
    model.load_state_dict(renamed)
    return model
