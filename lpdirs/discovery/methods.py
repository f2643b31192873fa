"""discover(): one call for every way of finding directions."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lpdirs.checkpoints import train
from lpdirs.discovery import closed_form
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.errors import UserError

METHODS = {
    "reconstructor": "A and R trained together (Voynov and Babenko 2020), the paper's",
    "pca": "principal components of features (GANSpace)",
    "pca-encoded": "principal axes of encoded patients (VAE)",
    "sefa": "what the first layer amplifies most",
    "jacobian": "what changes most pixels most",
    "random": "chance: a random rotation, or random vectors where K is larger than latent_dim",
    "coordinate": "the axes of z",
    "oracle": "regression of known factors on z: an upper bound, not a discovery",
}


def discover(
    generator: nn.Module,
    method: str = "reconstructor",
    k: int = 32,
    *,
    seed: int = 0,
    encoded: Tensor | None = None,
    factors: tuple[Tensor, pd.DataFrame] | None = None,
    settings: DiscoverySettings | None = None,
    steps: int = 3000,
    folder: str | Path | None = None,
    device: str = "cpu",
    report: Callable[[int, int, dict], None] = lambda done, total, losses: None,
) -> Directions:
    """K directions of a frozen generator by one of METHODS.

    "pca-encoded" needs `encoded`, the means of q(z|x) for real slices (N, d). "oracle" needs `factors`: z (N, d) and a table of N
    rows, of which each column gives one direction, named after it. "reconstructor" trains for `steps` with `settings` (their
    n_directions and seed are replaced) and can be resumed from `folder`. Methods that order their directions put the strongest
    first. Raises UserError where K is more than a method can give, or what it needs is missing.
    """
    d = generator.latent_dim
    names: dict[str, str] = {}
    if method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if method in ("sefa", "jacobian", "pca-encoded", "coordinate") and k > d:
        raise UserError(f"{method} gives at most latent_dim = {d} directions: set n_directions to at most {d}")
    if method == "reconstructor":
        s = replace(settings or DiscoverySettings(), n_directions=k, seed=seed)
        search = Discovery(generator, s, device)
        with tempfile.TemporaryDirectory() as temporary:
            train(search, steps, Path(folder or temporary), asdict(s), report=report)
        matrix = search.directions().matrix
    elif method == "pca":
        matrix = closed_form.pca(generator, k, seed=seed)
    elif method == "pca-encoded":
        if encoded is None:
            raise UserError("pca-encoded needs an encoder: it is for the VAE, not for a GAN")
        matrix = closed_form.pca_encoded(encoded)[:k]
    elif method == "sefa":
        matrix = closed_form.sefa(generator)[:k]
    elif method == "jacobian":
        matrix = closed_form.jacobian(generator, seed=seed)[:k]
    elif method == "random":
        matrix = closed_form.random(k, d, seed, orthonormal=k <= d)
    elif method == "coordinate":
        matrix = torch.eye(d)[:k]
    else:
        if factors is None:
            raise UserError("oracle needs factors: z and a table of what is known or measured on its slices")
        z, table = factors
        matrix = closed_form.oracle(z, torch.tensor(table.to_numpy(float)))
        names = {str(i): str(name) for i, name in enumerate(table)}
    return Directions(matrix.cpu(), {"method": method, "n_directions": len(matrix), "latent_dim": d, "seed": seed, "names": names})
