"""Models of this package as files: safetensors with what is needed to build the model again."""

import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import write_atomic
from lpdirs.models.generators import Generator, GeneratorInfo
from lpdirs.models.networks import VAE, Decoder, GeneratorNetwork

KINDS: dict[str, type[nn.Module]] = {"dcgan": GeneratorNetwork, "vae": VAE, "decoder": Decoder}


def save_model(model: nn.Module, path: str | Path, kind: str, metadata: dict, **architecture: int) -> None:
    """Weights as safetensors, with what is needed to build the model again; `kind` is one of KINDS. The same model gives the same bytes."""
    header = {"kind": kind, "architecture": json.dumps(architecture), "metadata": json.dumps(metadata)}
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_atomic(path, save(weights, {"lpdirs": json.dumps(header)}))  # several keys lie in any order


def read_header(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; one line where there is none or it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["lpdirs"]) if "lpdirs" in metadata else metadata
    except FileNotFoundError as error:
        raise MissingInput(f"there is no file {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}): it is damaged, or another kind of file") from error


def load_model(path: str | Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """The model that `save_model` wrote, frozen and in eval mode, and its metadata; UserError where the file holds none."""
    header = read_header(path)
    if header.get("kind") not in KINDS:
        raise UserError(f"{Path(path).name} holds no model of lpdirs: use as_generator to wrap a module of your own")
    try:
        architecture = json.loads(header["architecture"])
        with safe_open(path, "pt") as file:
            _check_fits(KINDS[header["kind"]], architecture, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})
            model = KINDS[header["kind"]](**architecture)
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
        metadata = json.loads(header["metadata"])
        _check_metadata(metadata)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} does not hold the model that it describes ({str(error).splitlines()[0]}): train it again") from error
    return model.to(device).eval().requires_grad_(False), metadata


def _check_metadata(metadata: object) -> None:
    """ValueError unless a file's window and mm a pixel make sense: every HU and every length stands on them."""
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is no mapping")
    window, pixel_mm = metadata.get("window"), metadata.get("pixel_mm")
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    if window is not None and not (isinstance(window, list) and len(window) == 2 and all(map(number, window)) and window[0] < window[1]):
        raise ValueError(f"its window is {str(window)[:40]}")
    if pixel_mm is not None and not (number(pixel_mm) and pixel_mm > 0):
        raise ValueError(f"its mm a pixel are {str(pixel_mm)[:40]}")


def _check_fits(kind: type[nn.Module], architecture: dict, shapes: dict[str, tuple[int, ...]]) -> None:
    """ValueError unless the architecture that a file describes has the weights that it holds, before any memory is taken for it."""
    with torch.device("meta"):
        described = {name: tuple(value.shape) for name, value in kind(**architecture).state_dict().items()}
    if described != shapes:
        name = min(name for name in described.keys() | shapes.keys() if described.get(name) != shapes.get(name))
        raise ValueError(f"{name} is {shapes.get(name, 'missing')}, and would be {described.get(name, 'unknown')}")


def load_generator(path: str | Path, device: str = "cpu") -> Generator:
    """The generator in a model's file (of a VAE its decoder), with its name, fingerprint, window and mm a pixel."""
    model, metadata = load_model(path, device)
    module: nn.Module = model.decoder if isinstance(model, VAE) else model
    window = tuple(metadata["window"]) if metadata.get("window") else None
    architecture = json.loads(read_header(path)["architecture"])
    info = GeneratorInfo(metadata.get("model", "own"), fingerprint(path), window, metadata.get("pixel_mm"), architecture["size"])
    return Generator(module, architecture["latent_dim"], info=info)


def fingerprint(weights: Path | str) -> str:
    """A short hash of the tensors in a safetensors file; the file's own bytes differ each time that it is written."""
    digest = hashlib.sha256()
    with safe_open(weights, "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
