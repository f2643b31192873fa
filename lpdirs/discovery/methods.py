"""discover(): one call for every way of finding directions."""

from pathlib import Path
from typing import Any

import torch
from pydantic import InstanceOf
from torch import Tensor

from lpdirs.base.checked import Count, Seed, checked
from lpdirs.base.errors import UserError

# in the order in which users read of them
from lpdirs.discovery import objective, motion, closed_form, others, curved  # isort: skip # noqa: F401
from lpdirs.discovery.closed_form import finite
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.discovery.registry import Found, method_of
from lpdirs.models.generators import Generator


@checked
def discover(
    generator: InstanceOf[Generator],
    method: str = "reconstructor",
    k: Count = 32,
    *,
    seed: Seed = 0,
    known: Any = None,
    settings: InstanceOf[DiscoverySettings] | None = None,
    folder: str | Path | None = None,
) -> Directions:
    """K directions of a frozen generator by one of METHODS (discovery/registry.py), on the generator's device, or by a function of your
    own, "my_methods.py:mine".

    What is `known` besides the generator, with z in units of the prior, as `Measures.sample` gives it: "pca-encoded" needs the means of
    q(z|x) for real slices (N, d), the oracles and "curved" z (N, d) and a table of N rows in z's order. The first directions are its
    columns', by name; further ones of the oracles are fitted to resamples of the rows, and "curved" gives one a column, whatever K. Of an
    oracle `info.notes["r2"]` says how well it predicts each column on rows that were left out. "reconstructor" trains with `settings`
    (n_directions and seed are replaced), and can be resumed from `folder`. Methods that order their directions put the strongest first.
    UserError where K is more than a method can give, or what it needs is missing.
    """
    chosen, d = method_of(method), generator.latent_dim
    if chosen.at_most_d and k > d:
        raise UserError(f"{method} gives at most latent_dim = {d} directions: ask for at most {d}")
    frozen = settings is not None and settings.freeze
    if chosen.gradients and not frozen and not generator.info.differentiable:
        raise UserError(
            f"{method} needs gradients, and none reach z through this generator (it rounds, detaches, or computes outside torch): use "
            f"motion, sparse, pca, ica, random or coordinate"
        )
    given = {"known": known, "settings": settings, "folder": folder}
    found = chosen.find(generator, k, seed, **{name: given[name] for name in chosen.needs})
    found = found if isinstance(found, Found) else Found(found)
    if isinstance(info := found.notes.get("info"), DirectionsInfo):
        return Directions(found.matrix, info)
    matrix = found.matrix
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[1] != d:
        given_shape = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
        raise UserError(f"{method} must give directions as a tensor (K, {d}), not {given_shape}")
    length = finite(matrix).norm(dim=1, keepdim=True)
    if not (length > 0).all():
        raise UserError(f"{method} gave a direction of length 0: the generator's images hardly change with z")
    matrix = torch.where((length - 1).abs() > 1e-5, matrix / length, matrix).cpu()
    belongs = {"generator": generator.info.name, "generator_fingerprint": generator.info.fingerprint, "prior": generator.prior.name}
    info = DirectionsInfo(method=method, seed=seed, names=found.names, notes=found.notes, **belongs)
    return Directions(matrix, info, found.bends)
