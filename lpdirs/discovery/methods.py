"""discover(): one call for every way of finding directions."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lpdirs.base.checkpoints import train
from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.discovery import closed_form
from lpdirs.discovery.contrastive import contrastive
from lpdirs.discovery.curved import curved
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.discovery.hessian import hessian
from lpdirs.discovery.motion import motion, sparse
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.generators import check_ready, info_of, latent_dim_of, prior_of
from lpdirs.models.trial import first_line, is_differentiable

METHODS = {
    "reconstructor": "A and R trained together (Voynov and Babenko 2020), the paper's",
    "pca": "principal components of features (GANSpace)",
    "pca-encoded": "principal axes of encoded patients (VAE)",
    "sefa": "what the first layer amplifies most, by the paper's equation",
    "sefa-released": "the same with the units of the layer normalised, as its authors released it",
    "jacobian": "what changes most pixels most",
    "motion": "each motion that the generator has with the least other change, then sparse changes without motion: ours",
    "sparse": "the Jacobian's, turned so that their changes are sparse (varimax)",
    "ica": "independent components of features (FastICA)",
    "local-basis": "the Jacobian's at one z (Local Basis)",
    "hessian": "the Jacobian's, turned until they change images independently (Hessian penalty)",
    "latentclr": "changes of features that are alike from any start, and unlike others (LatentCLR)",
    "disco": "the same in images, without sign, each in few places (DisCo's objective)",
    "random": "chance: a random rotation, or random vectors where K is larger than latent_dim",
    "coordinate": "the axes of z",
    "oracle": "regression of known factors on z, no discovery: where each grows fastest",
    "oracle-alone": "the same with the other factors held still, the higher of the two: no limit, since factors are not linear in z",
    "curved": "the mean path of z as each known factor grows, which bends: no discovery either, one a factor",
}
AT_MOST_D = (
    "motion",
    "sparse",
    "hessian",
    "local-basis",
    "sefa",
    "sefa-released",
    "jacobian",
    "pca-encoded",
    "coordinate",
)  # methods that give at most latent_dim directions


def discover(
    generator: nn.Module,
    method: str = "reconstructor",
    k: int = 32,
    *,
    seed: int = 0,
    known: Tensor | tuple[Tensor, pd.DataFrame] | None = None,
    settings: DiscoverySettings | None = None,
    folder: str | Path | None = None,
) -> Directions:
    """K directions of a frozen generator by one of METHODS, on the generator's device.

    What is `known` besides the generator, with z in units of the prior, as `Measures.sample` gives it: "pca-encoded" needs the means of
    q(z|x) for real slices (N, d), the oracles and "curved" z (N, d) and a table of N rows in z's order. The first directions are its
    columns', by name; further ones of the oracles are fitted to resamples of the rows, and "curved" gives one a column, whatever K. Of an
    oracle `info.notes["r2"]` says how well it predicts each column on rows that were left out. "reconstructor" trains with `settings`
    (n_directions and seed are replaced), and can be resumed from `folder`. Methods that order their directions put the strongest first.
    UserError where K is more than a method can give, or what it needs is missing.
    """
    check_ready(generator)
    d, of_generator = latent_dim_of(generator), info_of(generator)
    names: dict[int, str] = {}
    notes: dict[str, Any] = {}
    bends: dict[int, Tensor] = {}
    if settings is not None and not isinstance(settings, DiscoverySettings):
        raise UserError(f"settings must be lp.DiscoverySettings(...), not {type(settings).__name__}")
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise UserError(f"k must be a whole number of at least 1, not {k!r}")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"seed must be a whole number of at least 0, not {seed!r}")
    k, seed = int(k), int(seed)
    if method in AT_MOST_D and k > d:
        raise UserError(f"{method} gives at most latent_dim = {d} directions: ask for at most {d}")
    frozen = settings is not None and settings.freeze
    with_gradients = ("jacobian", "local-basis", "hessian", "latentclr", "disco")
    if (method in with_gradients or (method == "reconstructor" and not frozen)) and not is_differentiable(generator):
        raise UserError(
            f"{method} needs gradients, and none reach z through this generator (it rounds, detaches, or computes outside torch): use "
            f"motion, sparse, pca, ica, random or coordinate"
        )
    if method == "reconstructor":
        search = Discovery(generator, (settings or DiscoverySettings()).but(n_directions=k, seed=seed))
        with tempfile.TemporaryDirectory() as temporary:
            steps, where = search.settings.steps, Path(folder or temporary)
            train(search, steps, where, search.identity(), report=Progress("searching directions"))
        return search.directions()
    if method == "pca":
        matrix = closed_form.pca(generator, k, seed=seed)
    elif method == "pca-encoded":
        known = torch.from_numpy(known).float() if isinstance(known, np.ndarray) and known.dtype.kind == "f" else known
        if not isinstance(known, Tensor):
            raise UserError(f"pca-encoded needs an encoder: known= the means of q(z|x) for real images, a tensor (N, {d})")
        if known.ndim != 2 or known.shape[1] != d:
            raise UserError(f"pca-encoded needs latents (N, {d}), as this generator takes them, not {tuple(known.shape)}")
        if not known.isfinite().all():
            raise UserError("pca-encoded needs finite latents: some of these are NaN or infinite")
        if k > len(known) - 1:
            raise UserError(f"{len(known)} latents have at most {max(len(known) - 1, 0)} principal axes: ask for as many, or give more")
        matrix = closed_form.pca_encoded(known)[:k]
    elif method in ("sefa", "sefa-released"):
        matrix = closed_form.sefa(generator, normalised=method == "sefa-released")[:k]
    elif method == "jacobian":
        matrix = closed_form.jacobian(generator, k, seed=seed)
    elif method == "motion":
        matrix, notes["motions"] = motion(generator, k, seed=seed)
    elif method == "sparse":
        matrix = sparse(generator, k, seed=seed)
    elif method == "ica":
        matrix = closed_form.ica(generator, k, seed=seed)
    elif method == "local-basis":
        matrix = closed_form.local_basis(generator, k)
    elif method == "hessian":
        matrix = hessian(generator, k, seed=seed)
    elif method in ("latentclr", "disco"):
        matrix = contrastive(generator, k, seed=seed, unsigned=method == "disco")
    elif method == "random":
        matrix = closed_form.random(k, d, seed, orthonormal=k <= d)
    elif method == "coordinate":
        matrix = torch.eye(d)[:k]
    else:
        z, table = _checked(known, method, d)
        names = {i: str(name) for i, name in enumerate(table)}
        if method == "curved":
            matrix, bends = curved(z, table)
        elif k < len(names):
            raise UserError(f"{method} gives a direction for each of the table's {len(names)} columns: ask for as many, or leave some out")
        else:
            matrix = closed_form.oracle(z, torch.tensor(table.to_numpy(float)), k, method == "oracle-alone", seed)
            notes["r2"] = dict(zip(names.values(), closed_form.oracle_r2(z, table.to_numpy(float)), strict=True))
    belongs = {"generator": of_generator.name, "generator_fingerprint": of_generator.fingerprint}
    info = DirectionsInfo(method=method, seed=seed, names=names, notes=notes, prior=prior_of(generator).name, **belongs)
    return Directions(closed_form.finite(matrix).cpu(), info, bends)


def _checked(known: Any, method: str, d: int) -> tuple[Tensor, pd.DataFrame]:
    """z (N, d) and a table of N rows of numbers that vary; UserError for anything else."""
    if not isinstance(known, tuple) or len(known) != 2 or not isinstance(known[1], pd.DataFrame):
        raise UserError(f"{method} needs factors: known=(z, table), z (N, {d}) and a table of what is known or measured on its N slices")
    z, table = torch.as_tensor(known[0]).detach(), known[1]
    if z.ndim != 2 or z.shape[1] != d or len(table) != len(z) or not len(table.columns):
        raise UserError(f"{method} needs z (N, {d}) and a table of N rows, not {tuple(z.shape)} and {table.shape}")
    if not z.isfinite().all():
        raise UserError(f"{method} needs finite z: {int((~z.isfinite().all(1)).sum())} of {len(z)} rows hold NaN or infinity")
    try:
        table = table.astype(float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{method} needs a table of numbers ({first_line(error)})") from error
    if set(table.index) == set(range(len(table))) and not table.index.is_monotonic_increasing:
        raise UserError(f"the table of {method} counts its rows in another order than it has them: sort_index() or reset_index(drop=True)")
    still = [str(name) for name, sd in table.std().items() if not sd > 0]
    if still:
        raise UserError(f"{', '.join(still)} cannot be measured, or hardly varies, in these samples: leave its column out")
    return z, table
