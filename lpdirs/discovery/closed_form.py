"""Directions that need no training: PCA, SeFa, the Jacobian, chance, axes, and a supervised upper bound. Each gives (K, d) unit rows."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from lpdirs.base.errors import UserError
from lpdirs.models.generators import draw_z, latent_dim_of


def unit(rows: Tensor) -> Tensor:
    """Rows (K, d) divided by their length."""
    return rows / rows.norm(dim=1, keepdim=True)


def random(k: int, latent_dim: int, seed: int = 0, orthonormal: bool = False) -> Tensor:
    """k directions drawn uniformly from the unit sphere, or the rows of a random rotation: what any method has to beat."""
    matrix = torch.randn(k, latent_dim, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(matrix.T)[0].T if orthonormal else unit(matrix)


def sefa(generator: nn.Module) -> Tensor:
    """Eigenvectors of A^T A, largest first, (d, d); A maps z to what its first layers make of it (Shen and Zhou 2021, eq. 5).

    First layers are the linear and convolutional ones that see z before any nonlinearity; they are found by feeding z, so that
    it holds for any generator. UserError where there is none.
    """
    d = latent_dim_of(generator)
    like = _like(generator)
    z = torch.cat([torch.zeros(1, d), torch.eye(d), 2 * torch.eye(d)]).to(like)
    responses = []
    with torch.no_grad(), _watch(generator, (nn.Linear, nn.modules.conv._ConvNd)) as seen:
        generator(z)
    for entered, left in seen:
        if len(entered) == len(z):  # linear in z so far: twice the z gives twice the change
            change = (entered - entered[:1]).flatten(1)
            if torch.allclose(change[1 + d :], 2 * change[1 : 1 + d], rtol=1e-3, atol=1e-4 * float(change.abs().max())):
                responses.append((left - left[:1])[1 : 1 + d].flatten(1))
    if not responses:
        raise UserError("SeFa needs a first layer that is linear in z, and this generator has none: choose another method")
    a = torch.cat(responses, 1).double().cpu()
    return _sorted_eigenvectors(a @ a.T)


def _like(generator: nn.Module) -> Tensor:
    return next(generator.parameters(), torch.zeros(1))


@contextmanager
def _watch(module: nn.Module, kinds: tuple[type, ...]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of the submodules of those kinds, in the order in which they are called."""
    seen: list[tuple[Tensor, Tensor]] = []
    note = lambda _, inputs, output: seen.append((inputs[0], output))
    hooks = [each.register_forward_hook(note) for each in module.modules() if isinstance(each, kinds)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def pca(generator: nn.Module, k: int, samples: int = 2048, seed: int = 0) -> Tensor:
    """GANSpace (Harkonen et al. 2020): principal components of features in mid-depth, and for each the z that goes with it.

    Features are the outputs of the convolution (or linear layer) halfway through the generator, for `samples` random z; each
    component is regressed on z. Largest variance first.
    """
    like = _like(generator)
    z = draw_z(generator, samples, seed)
    features = []
    for part in z.split(128):
        with _watch(generator, (nn.Linear, nn.modules.conv._ConvNd)) as seen:
            generator(part.to(like))
        if not seen:
            raise UserError("PCA of features needs a convolution or linear layer, and this generator has none: choose another method")
        features.append(seen[len(seen) // 2][1].flatten(1).float().cpu())
    x = torch.cat(features)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores, scale, _ = torch.pca_lowrank(x, q=min(k + 8, samples, x.shape[1]), niter=3)
    if scores.shape[1] < k:
        raise UserError(f"the features have {scores.shape[1]} principal components, fewer than n_directions {k}")
    return unit((scores[:, :k] * scale[:k]).T @ (z - z.mean(0)))


def pca_encoded(encoded: Tensor) -> Tensor:
    """Principal axes of encoded slices (N, d), largest first, (d, d)."""
    return _sorted_eigenvectors(torch.cov(encoded.double().T))


def jacobian(generator: nn.Module, samples: int = 64, batch: int = 16, seed: int = 0) -> Tensor:
    """Eigenvectors of E[J^T J] over random z, largest first, (d, d): what changes most pixels most (as Ramesh et al. 2019).

    By products J^T (J e_i), so that no Jacobian is ever held.
    """
    d, like = latent_dim_of(generator), _like(generator)
    z = draw_z(generator, samples, seed).to(like)
    gram = torch.zeros(d, d, dtype=torch.float64)
    for part in z.split(batch):
        with torch.enable_grad():
            _, pull = vjp(generator, part)  # type: ignore[misc]
        for i in range(d):
            tangent = torch.zeros_like(part)
            tangent[:, i] = 1
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own, when it first loads forward mode
                _, pushed = jvp(generator, (part,), (tangent,))  # type: ignore[misc]
            gram[i] += pull(pushed)[0].sum(0).double().cpu()
    return _sorted_eigenvectors((gram + gram.T) / 2)


def oracle(z: Tensor, factors: Tensor) -> Tensor:
    """For each factor the direction that follows it best: least squares of factors (N, F) on z (N, d), (F, d).

    Rows with a factor that is not finite are left out. It uses what the others may not: an upper bound for them.
    """
    rows = []
    for factor in factors.T.double():
        measured = torch.isfinite(factor)
        if measured.sum() <= z.shape[1]:
            raise UserError(f"the oracle needs more than {z.shape[1]} slices with a known factor, and has {int(measured.sum())}")
        x, y = z[measured].double(), factor[measured]
        rows.append(torch.linalg.lstsq(x - x.mean(0), (y - y.mean())[:, None]).solution[:, 0])
    return unit(torch.stack(rows)).float()


def _sorted_eigenvectors(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    vectors = vectors[:, values.argsort(descending=True)].T
    sign = torch.sign(vectors.gather(1, vectors.abs().argmax(1, keepdim=True)))  # which of the two ends is up is a convention
    return (vectors * sign).float().contiguous()
