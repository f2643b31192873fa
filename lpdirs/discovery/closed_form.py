"""Directions that need no training: PCA, SeFa, the Jacobian, chance, axes, and a supervised oracle. Each gives (K, d) unit rows."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from torch import Tensor, nn
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from lpdirs.base.errors import UserError
from lpdirs.models.generators import device_of, draw_z, latent_dim_of, typical_z
from lpdirs.models.trial import first_layers, weighted

MOST_FEATURES = 8192


def unit(rows: Tensor) -> Tensor:
    """Rows (K, d) divided by their length."""
    return rows / rows.norm(dim=1, keepdim=True)


def random(k: int, latent_dim: int, seed: int = 0, orthonormal: bool = False) -> Tensor:
    """k directions drawn uniformly from the unit sphere, or the rows of a random rotation: what any method has to beat."""
    matrix = torch.randn(k, latent_dim, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(matrix.T)[0].T if orthonormal else unit(matrix)


@torch.no_grad()
def sefa(generator: nn.Module, normalised: bool = False) -> Tensor:
    """Eigenvectors of A^T A, largest first, (d, d); A maps z to what its first layers make of it (Shen and Zhou 2021, eq. 5).

    `normalised` gives each unit of those layers the same weight, as the authors' released code does and their equation does not.

    First layers are those with weights that see z before any nonlinearity; they are found by feeding z, so that it holds for
    any generator, and what comes after them is not computed. UserError where there is none.
    """
    d, first = latent_dim_of(generator), first_layers(generator)
    if not first:
        raise UserError("SeFa needs a first layer that is linear in z, and none can be seen in this generator: choose another method")
    z = torch.cat([torch.zeros(1, d), torch.eye(d)])
    responses: dict[int, list[Tensor]] = {i: [] for i in range(len(first))}
    for part in z.split(64):
        with _watch(first, generator) as seen:
            generator(part.to(device_of(generator)))
        for i, out in enumerate(seen):
            responses[i].append(out.flatten(1).double().cpu())
    a = torch.cat([out[1:] - out[:1] for out in map(torch.cat, responses.values())], 1)
    if normalised:
        a = a / a.norm(dim=0).clamp(min=1e-12)
    return _sorted_eigenvectors(a @ a.T)


class _Enough(BaseException):
    """All that was wanted has been seen; a module of the user's that catches exceptions does not catch it."""


@contextmanager
def _watch(layers: list[nn.Module], generator: nn.Module) -> Iterator[list[Tensor]]:
    """The first output of each of `layers`, in their order; the generator is stopped when it has called them all."""
    seen: dict[int, Tensor] = {}
    noise = getattr(generator, "noise", None)

    def note(i: int, output: Tensor) -> None:
        seen.setdefault(i, output)
        if len(seen) == len(layers):
            raise _Enough

    hooks = [layer.register_forward_hook(lambda _, __, output, i=i: note(i, output)) for i, layer in enumerate(layers)]
    found: list[Tensor] = []
    try:
        if isinstance(noise, str):
            generator.noise = "none"  # type: ignore[assignment]
        with suppress(_Enough):
            yield found
        found += [seen[i] for i in range(len(layers))]
    finally:
        if isinstance(noise, str):
            generator.noise = noise  # type: ignore[assignment]
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def pca(generator: nn.Module, k: int, samples: int | None = None, seed: int = 0) -> Tensor:
    """GANSpace (Harkonen et al. 2020): principal components of features in mid-depth, and for each the z that goes with it.

    Features are the outputs of the layer with weights halfway through the generator, or its images where none can be seen, for
    `samples` random z (default: 2,048 or, in more than 256 dimensions, eight a dimension); each component is regressed on z. Largest
    variance first. More than 8,192 features are reduced to that many by a random projection.
    """
    z, scores, scale = _components(generator, k + 8, samples, seed)
    if scores.shape[1] < k or scale[k - 1] < 1e-6 * scale[0]:
        raise UserError(f"the features vary in {int((scale > 1e-6 * scale[0]).sum())} ways, fewer than the {k} directions asked for")
    return unit((scores[:, :k] * scale[:k]).T @ (z - z.mean(0)))


@torch.no_grad()
def ica(generator: nn.Module, k: int, samples: int | None = None, seed: int = 0) -> Tensor:
    """FastICA (Hyvarinen 1999) of the first k principal components of features, as `pca` takes them, and for each source the z of it.

    Sources are as independent as can be; they have no order. UserError where the features vary in fewer than k ways.
    """
    z, scores, scale = _components(generator, k, samples, seed)
    if scores.shape[1] < k or scale[k - 1] < 1e-6 * scale[0]:
        raise UserError(f"the features vary in {int((scale > 1e-6 * scale[0]).sum())} ways, fewer than the {k} directions asked for")
    with warnings.catch_warnings(action="ignore"):  # of a rotation that still turns a little after so many rounds
        sources = FastICA(k, whiten="unit-variance", max_iter=500, random_state=seed).fit_transform(
            (scores * scale)[:, :k].double().numpy()
        )
    return unit(torch.from_numpy(sources).T @ (z - z.mean(0)).double()).float()


def local_basis(generator: nn.Module, k: int) -> Tensor:
    """Right singular vectors of the Jacobian at one z, the typical one, largest first, (k, d) (Choi et al. 2022)."""
    found = _pulled(generator, typical_z(generator)[None].to(device_of(generator)), torch.eye(latent_dim_of(generator)))
    return _sorted_eigenvectors(found.double().cpu())[:k]


def features_of(generator: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function from z (B, d) to the outputs of the layer with weights halfway through the generator, or to its images where none is
    seen, or where it draws noise of its own."""
    order: list[nn.Module] = []

    def note(module: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor) and len(out) == 3 and out.is_floating_point() and not torch.equal(out[0], out[1]):
            order.append(module)  # features: of each image its own

    with ExitStack() as stack:
        for module in weighted(generator):
            stack.callback(module.register_forward_hook(note).remove)
        generator(draw_z(generator, 3).to(device_of(generator)))
    if not order or getattr(generator, "noise", "none") != "none":
        return generator
    middle = order[len(order) // 2]

    def features(z: Tensor) -> Tensor:
        with _watch([middle], generator) as seen:
            generator(z)
        return seen[0]

    return features


def _components(generator: nn.Module, k: int, samples: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random z (N, d), and the first k principal components of their features: scores of unit length (N, k), and their scale (k,)."""
    d, device = latent_dim_of(generator), device_of(generator)
    z = draw_z(generator, samples or max(2048, 8 * d), seed)
    of, features, project = features_of(generator), [], None
    for part in z.split(128):
        out = of(part.to(device)).flatten(1).float()
        if out.shape[1] > MOST_FEATURES:
            if project is None:
                project = torch.randn(out.shape[1], MOST_FEATURES, generator=torch.Generator().manual_seed(seed)).to(device)
            out = out @ project / MOST_FEATURES**0.5
        features.append(out.cpu())
    x = finite(torch.cat(features))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores, scale, _ = torch.pca_lowrank(x, q=min(k, *x.shape), niter=3)
    return z, scores, scale


def pca_encoded(encoded: Tensor) -> Tensor:
    """Principal axes of encoded slices (N, d), largest first, (d, d)."""
    return _sorted_eigenvectors(torch.cov(encoded.double().T).reshape(encoded.shape[1], -1))


def jacobian(generator: nn.Module, k: int | None = None, samples: int = 64, batch: int = 16, seed: int = 0) -> Tensor:
    """Eigenvectors of E[J^T J] over random z, largest first, (d, d): what changes most pixels most (as Ramesh et al. 2019).

    By products J^T (J v), so that no Jacobian is ever held. The first `k` alone, (k, d), are found with 4 (k + 8) products in place of d
    where that is fewer: subspace iteration from random vectors (Halko et al. 2011, algorithm 4.4).
    """
    d, device = latent_dim_of(generator), device_of(generator)
    z = draw_z(generator, samples, seed).to(device)

    def products(vectors: Tensor) -> Tensor:
        """E[J^T J] v for each row v of (m, d)."""
        found = torch.zeros(len(vectors), d, dtype=torch.float64)
        # attention has forward derivatives in its plain form alone; the warning is torch's own, when it first loads forward mode
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings(action="ignore", category=FutureWarning):
            for part in z.split(batch):
                found += _pulled(generator, part, vectors.to(part)).double().cpu()
        return found

    if k is None or 4 * (k + 8) >= d:
        gram = products(torch.eye(d))
        return _sorted_eigenvectors((gram + gram.T) / 2)[:k]
    vectors = torch.randn(k + 8, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for _ in range(3):
        vectors = torch.linalg.qr(products(vectors).T)[0].T
    small = products(vectors) @ vectors.T
    return (_sorted_eigenvectors((small + small.T) / 2).double() @ vectors)[:k].float()


def _pulled(generator: nn.Module, z: Tensor, vectors: Tensor) -> Tensor:
    """J^T (J v), summed over z (B, d), for each row v of (m, d): forward and back, or back three times."""
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
        reason = " ".join(str(error).split())[:120]
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


def oracle_r2(z: Tensor, factors: np.ndarray, folds: int = 5) -> list[float]:
    """R2 of the oracle's linear prediction of each factor (N, F) from z (N, d), on rows that were left out: 1 is linear in z, 0 is none."""
    kept, x = np.isfinite(factors).all(1), z.double().cpu().numpy()
    guessed = cross_val_predict(LinearRegression(), x[kept], factors[kept], cv=folds)
    return [round(float(r2), 3) for r2 in r2_score(factors[kept], guessed, multioutput="raw_values")]


def _sorted_eigenvectors(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(finite(gram))
    vectors = vectors[:, values.argsort(descending=True)].T
    sign = torch.sign(vectors.gather(1, vectors.abs().argmax(1, keepdim=True)))  # which of the two ends is up is a convention
    return (vectors * sign).float().contiguous()


def finite(values: Tensor) -> Tensor:
    """The same; UserError where something is not finite."""
    if not values.isfinite().all():
        raise UserError("what the generator gives is not finite: it cannot draw from every z of its prior, or its weights are not finite")
    return values
