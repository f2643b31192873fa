"""Directions that need no training: PCA, SeFa, the Jacobian, chance, axes, and a supervised oracle. Each gives (K, d) unit rows."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from torch import Tensor, nn
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from lpdirs.base.errors import UserError, first_line
from lpdirs.discovery.registry import Found, method
from lpdirs.models.generators import Generator
from lpdirs.models.trial import first_layers, weighted

MOST_FEATURES = 8192


def unit(rows: Tensor) -> Tensor:
    """Rows (K, d) divided by their length."""
    return rows / rows.norm(dim=1, keepdim=True)


def random(k: int, latent_dim: int, seed: int = 0, orthonormal: bool = False) -> Tensor:
    """k directions drawn uniformly from the unit sphere, or the rows of a random rotation: what any method has to beat."""
    matrix = torch.randn(k, latent_dim, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(matrix.T)[0].T if orthonormal else unit(matrix)


@method("random", "random", "chance: a random rotation, or random vectors where K is larger than latent_dim")
def by_chance(generator: Generator, k: int, seed: int) -> Tensor:
    """`random`, orthonormal where that is possible."""
    return random(k, generator.latent_dim, seed, orthonormal=k <= generator.latent_dim)


@method("coordinate", "coordinate", "the axes of z", at_most_d=True)
def coordinate(generator: Generator, k: int, seed: int) -> Tensor:
    """The first k axes of z, (k, d)."""
    return torch.eye(generator.latent_dim)[:k]


@torch.no_grad()
def sefa(generator: Generator, k: int | None = None, seed: int = 0, normalised: bool = False) -> Tensor:
    """The first k (default: all d) eigenvectors of A^T A, largest first, (k, d); A maps z to what its first layers make of it (Shen and
    Zhou 2021, eq. 5).

    `normalised` gives each unit of those layers the same weight, as the authors' released code does and their equation does not.

    First layers are those with weights that see z before any nonlinearity; they are found by feeding z, so that it holds for any generator,
    and what comes after them is not computed. UserError where there is none.
    """
    d, first = generator.latent_dim, first_layers(generator)
    if not first:
        raise UserError("SeFa needs a first layer that is linear in z, and none can be seen in this generator: choose another method")
    z = torch.cat([torch.zeros(1, d), torch.eye(d)])
    responses: dict[int, list[Tensor]] = {i: [] for i in range(len(first))}
    for part in z.split(64):
        for i, out in enumerate(_outputs_of(first, generator, part)):
            responses[i].append(out.flatten(1).double().cpu())
    a = torch.cat([out[1:] - out[:1] for out in map(torch.cat, responses.values())], 1)
    if normalised:
        a = a / a.norm(dim=0).clamp(min=1e-12)
    return sorted_eigenvectors(a @ a.T)[:k]


method("sefa", "SeFa", "what the first layer amplifies most, by the paper's equation", at_most_d=True)(sefa)
method(
    "sefa-released", "SeFa, as released", "the same with the units of the layer normalised, as its authors released it", at_most_d=True
)(partial(sefa, normalised=True))  # fmt: skip


class _Enough(BaseException):
    """Stops a generator when all layers that are watched have been called; a module that catches exceptions does not catch it."""


@contextmanager
def _watch(layers: list[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """The first output of each of `layers`, by its place; what runs inside is stopped when all have been called."""
    seen: dict[int, Tensor] = {}

    def note(i: int, output: Tensor) -> None:
        seen.setdefault(i, output)
        if len(seen) == len(layers):
            raise _Enough

    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(lambda _, __, output, i=i: note(i, output)).remove)
        with suppress(_Enough):
            yield seen


def _outputs_of(layers: list[nn.Module], generator: Generator, z: Tensor) -> list[Tensor]:
    """What `layers` make of z (B, d), without noise."""
    with _watch(layers) as seen:
        generator.but(noise="none")(z)
    return [seen[i] for i in range(len(layers))]


@method("pca", "PCA", "principal components of features (GANSpace)")
@torch.no_grad()
def pca(generator: Generator, k: int, seed: int = 0, samples: int | None = None) -> Tensor:
    """GANSpace (Harkonen et al. 2020): principal components of features in mid-depth, and for each the z that goes with it.

    Features are the outputs of the layer with weights halfway through the generator, or its images where none can be seen, for
    `samples` random z (default: 2,048 or, in more than 256 dimensions, eight a dimension); each component is regressed on z. Largest
    variance first. More than 8,192 features are reduced to that many by a random projection.
    """
    z, scores, scale = components(generator, k, k + 8, samples, seed)
    return unit((scores[:, :k] * scale[:k]).T @ (z - z.mean(0)))


def features_of(generator: Generator) -> Callable[[Tensor], Tensor]:
    """The function from z (B, d) to the outputs of the layer with weights halfway through the generator, or to its images where none is
    seen, or where it draws noise of its own."""
    order: list[nn.Module] = []

    def note(module: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor) and out.ndim and len(out) == 3 and out.is_floating_point() and not torch.equal(out[0], out[1]):
            order.append(module)  # features: of each image its own

    with ExitStack() as stack:
        for module in weighted(generator.module):
            stack.callback(module.register_forward_hook(note).remove)
        generator(generator.draw(3))
    if not order or generator.noise != "none":
        return generator
    middle = [order[len(order) // 2]]

    def features(z: Tensor) -> Tensor:
        return _outputs_of(middle, generator, z)[0]

    return features


def components(generator: Generator, k: int, wanted: int, samples: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random z (N, d), and the first `wanted` principal components of their features, k of which must vary: scores of unit length
    (N, wanted), and their scale (wanted,)."""
    z = generator.draw(samples or max(2048, 8 * generator.latent_dim), seed)
    of, features, project = features_of(generator), [], None
    for part in z.split(128):
        out = of(part).flatten(1).float()
        if out.shape[1] > MOST_FEATURES:
            if project is None:
                project = torch.randn(out.shape[1], MOST_FEATURES, generator=torch.Generator().manual_seed(seed)).to(out.device)
            out = out @ project / MOST_FEATURES**0.5
        features.append(out.cpu())
    x = finite(torch.cat(features))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores, scale, _ = torch.pca_lowrank(x, q=min(wanted, *x.shape), niter=3)
    if scores.shape[1] < k or scale[k - 1] < 1e-6 * scale[0]:
        raise UserError(f"the features vary in {int((scale > 1e-6 * scale[0]).sum())} ways, fewer than the {k} directions asked for")
    return z, scores, scale


@method("pca-encoded", "PCA of encoded slices", "principal axes of encoded patients (VAE)", at_most_d=True, needs=("known",))
def pca_encoded(generator: Generator, k: int, seed: int, known: object = None) -> Tensor:
    """Principal axes of encoded slices (N, d), largest first, (k, d)."""
    d = generator.latent_dim
    known = torch.from_numpy(known).float() if isinstance(known, np.ndarray) and known.dtype.kind == "f" else known
    if not isinstance(known, Tensor):
        raise UserError(f"pca-encoded needs an encoder: known= the means of q(z|x) for real images, a tensor (N, {d})")
    if known.ndim != 2 or known.shape[1] != d:
        raise UserError(f"pca-encoded needs latents (N, {d}), as this generator takes them, not {tuple(known.shape)}")
    if not known.isfinite().all():
        raise UserError("pca-encoded needs finite latents: some of these are NaN or infinite")
    if k > len(known) - 1:
        raise UserError(f"{len(known)} latents have at most {max(len(known) - 1, 0)} principal axes: ask for as many, or give more")
    return sorted_eigenvectors(torch.cov(known.double().T).reshape(d, -1))[:k]


@method("jacobian", "Jacobian", "what changes most pixels most", gradients=True, at_most_d=True)
def jacobian(generator: Generator, k: int | None = None, seed: int = 0, samples: int = 64, batch: int = 16) -> Tensor:
    """Eigenvectors of E[J^T J] over random z, largest first, (d, d): what changes most pixels most (as Ramesh et al. 2019).

    By products J^T (J v), so that no Jacobian is ever held. The first `k` alone, (k, d), are found with 4 (k + 8) products in place of d
    where that is fewer: subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4).
    """
    d = generator.latent_dim
    z = generator.draw(samples, seed).to(generator.device)

    def products(vectors: Tensor) -> Tensor:
        """E[J^T J] v for each row v of (m, d)."""
        found = torch.zeros(len(vectors), d, dtype=torch.float64)
        # attention has forward derivatives in its plain form alone; the warning is torch's own, when it first loads forward mode
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings(action="ignore", category=FutureWarning):
            for part in z.split(batch):
                found += pulled(generator, part, vectors).double().cpu()
        return found

    if k is None or 4 * (k + 8) >= d:
        gram = products(torch.eye(d))
        return sorted_eigenvectors((gram + gram.T) / 2)[:k]
    vectors = torch.randn(k + 8, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for _ in range(3):
        vectors = torch.linalg.qr(products(vectors).T)[0].T
    small = products(vectors) @ vectors.T
    return (sorted_eigenvectors((small + small.T) / 2).double() @ vectors)[:k].float()


def pulled(generator: Generator, z: Tensor, vectors: Tensor) -> Tensor:
    """J^T (J v), summed over z (B, d), for each row v of (m, d): forward and back, or back three times."""
    vectors = vectors.to(z)
    try:
        with torch.enable_grad():
            _, pull = vjp(generator, z)  # type: ignore[misc]
        with torch.no_grad():  # else every row keeps the graph over the generator's weights: five times the memory, twice the time
            return torch.stack([pull(jvp(generator, (z,), (v.expand_as(z),))[1])[0].sum(0) for v in vectors])
    except (RuntimeError, NotImplementedError):
        pass
    try:
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            x = generator(point)
            dual = torch.zeros_like(x, requires_grad=True)
            (back,) = torch.autograd.grad(x, point, dual, create_graph=True)
            rows = []
            for v in vectors:
                (pushed,) = torch.autograd.grad(back, dual, v.expand_as(z), retain_graph=True)
                rows.append(torch.autograd.grad(x, point, pushed, retain_graph=True)[0].sum(0))
        return torch.stack(rows)
    except (RuntimeError, NotImplementedError) as error:
        reason = first_line(error, 120)
        raise UserError(f"jacobian needs derivatives that a layer of the generator does not have ({reason}): use pca or sefa") from error


def oracle(z: Tensor, factors: Tensor, k: int | None = None, alone: bool = False, seed: int = 0) -> Tensor:
    """k directions (default: one a factor) by least squares of factors (N, F) on z (N, d): what the others may not use.

    The i-th is for factor i modulo F. Plain, the direction in which the linear prediction of a factor grows fastest, w_i; `alone`, that
    in which it grows while those of all other factors hold still, the i-th row of the pseudoinverse of W (d, F). The first F are fitted
    to all rows, further ones to bootstrap resamples, so that a best of k can be compared with a best of k. Rows with a factor that is not
    finite are left out.
    """
    measured = torch.isfinite(factors).all(1)
    d, n_factors = z.shape[1], factors.shape[1]
    if measured.sum() <= d:
        raise UserError(f"the oracle needs more than {d} slices with known factors, and has {int(measured.sum())}")
    x, y = z[measured].double(), factors[measured].double()
    y = (y - y.mean(0)) / y.std(0).clamp(min=1e-12)
    rng, rows = torch.Generator().manual_seed(seed), torch.arange(len(x))
    found: list[Tensor] = []
    while len(found) < (k or n_factors):
        w = torch.linalg.lstsq(x[rows] - x[rows].mean(0), y[rows] - y[rows].mean(0)).solution  # (d, F)
        found += list(torch.linalg.pinv(w) if alone else w.T)
        rows = torch.randint(len(x), (len(x),), generator=rng)
    return unit(torch.stack(found[: k or n_factors])).float()


def _of_known(generator: Generator, k: int, seed: int, known: object = None, name: str = "oracle") -> Found:
    """`oracle`, plain or alone, by name, on a table of known factors."""
    z, table = known_factors(known, name, generator.latent_dim)
    names = {i: str(column) for i, column in enumerate(table)}
    if k < len(names):
        raise UserError(f"{name} gives a direction for each of the table's {len(names)} columns: ask for as many, or leave some out")
    values = table.to_numpy(float)
    matrix = oracle(z, torch.tensor(values), k, name == "oracle-alone", seed)
    return Found(matrix, names, {"r2": dict(zip(names.values(), oracle_r2(z, values), strict=True))})


of_factors = "regression of known factors on z, no discovery: where each grows fastest"
method("oracle", "oracle", of_factors, factors=True, needs=("known",))(partial(_of_known, name="oracle"))
method(
    "oracle-alone", "oracle, others held still", factors=True, needs=("known",),
    about="the same with the other factors held still, the higher of the two, though not an upper bound, since factors are not linear in z",
)(partial(_of_known, name="oracle-alone"))  # fmt: skip


def oracle_r2(z: Tensor, factors: np.ndarray, folds: int = 5) -> list[float]:
    """R2 of the oracle's linear prediction of each factor (N, F) from z (N, d), on rows that were left out: 1 is linear in z, 0 is none."""
    kept, x = np.isfinite(factors).all(1), z.double().cpu().numpy()
    guessed = cross_val_predict(LinearRegression(), x[kept], factors[kept], cv=folds)
    return [round(float(r2), 3) for r2 in r2_score(factors[kept], guessed, multioutput="raw_values")]


def known_factors(known: object, method: str, d: int) -> tuple[Tensor, pd.DataFrame]:
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


def sorted_eigenvectors(gram: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix (d, d) as rows, largest first, the largest entry of each positive."""
    values, vectors = torch.linalg.eigh(finite(gram))
    vectors = vectors[:, values.argsort(descending=True)].T
    sign = torch.sign(vectors.gather(1, vectors.abs().argmax(1, keepdim=True)))  # which of the two ends is up is a convention
    return (vectors * sign).float().contiguous()


def finite(values: Tensor) -> Tensor:
    """The same; UserError where something is not finite."""
    if not values.isfinite().all():
        raise UserError("what the generator gives is not finite: it cannot draw from every z of its prior, or its weights are not finite")
    return values
