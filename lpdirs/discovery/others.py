"""Other people's methods, each one registered function: an example of how to add one's own."""

import warnings
from functools import partial

import torch
from sklearn.decomposition import FastICA
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import components, features_of, jacobian, pulled, sorted_eigenvectors, unit
from lpdirs.discovery.registry import method
from lpdirs.models.generators import Generator

STEP = 0.5  # of the Hessian penalty's second differences, in units of z
SHIFT = 3.0  # of either sign, in LatentCLR and DisCo
AT_ONCE, STARTS = 8, 8  # directions and starting points of a step
TEMPERATURE = 0.5
DOMINATION = 0.1  # weight of DisCo's entropy
SIDE = 16  # px of the images that it looks at


@method("ica", "ICA", "independent components of features (FastICA)")
@torch.no_grad()
def ica(generator: Generator, k: int, seed: int = 0, samples: int | None = None) -> Tensor:
    """FastICA (Hyvarinen 1999) of the first k principal components of features, as `pca` takes them, and for each source the z of it.

    Sources are as independent as can be; they have no order. UserError where the features vary in fewer than k ways.
    """
    z, scores, scale = components(generator, k, k, samples, seed)
    with warnings.catch_warnings(action="ignore"):  # of a rotation that still turns a little after so many rounds
        find = FastICA(k, whiten="unit-variance", max_iter=500, random_state=seed)
        sources = find.fit_transform((scores * scale)[:, :k].double().numpy())
    return unit(torch.from_numpy(sources).T @ (z - z.mean(0)).double()).float()


@method("local-basis", "local basis", "the Jacobian's at one z (Local Basis)", gradients=True, at_most_d=True)
def local_basis(generator: Generator, k: int, seed: int = 0) -> Tensor:
    """Right singular vectors of the Jacobian at one z, the typical one, largest first, (k, d) (Choi et al. 2022)."""
    found = pulled(generator, generator.typical()[None].to(generator.device), torch.eye(generator.latent_dim))
    return sorted_eigenvectors(found.double().cpu())[:k]


@method(
    "hessian", "Hessian penalty", "the Jacobian's, turned until they change images independently (Hessian penalty)", gradients=True,
    at_most_d=True,
)  # fmt: skip
def hessian(generator: Generator, k: int, seed: int = 0, steps: int = 200) -> Tensor:
    """k orthonormal directions (k, d), strongest first: a rotation of the Jacobian's k leading ones, trained by the Hessian penalty.

    The penalty is the variance, over random signs v, of the second difference of G along A v, which is 0 where the Hessian in the
    directions is diagonal (Peebles et al. 2020, eq. 6). On a trained generator it is minimised over A, as in the paper's section 4.3.
    Within the leading subspace, since a direction along which nothing changes has no penalty at all.
    """
    draws, device = 4, generator.device
    start = jacobian(generator, k, seed).to(device)
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.enable_grad():
        turn = nn.Linear(len(start), len(start), bias=False).to(device)
        nn.init.eye_(turn.weight)
        nn.utils.parametrizations.orthogonal(turn, orthogonal_map="matrix_exp")
        optimiser = torch.optim.Adam(turn.parameters(), 2e-2)
        bar = Progress("straightening the Hessian")
        for step in range(steps):
            z = generator.draw(STARTS, rng).to(device)
            signs = torch.where(torch.rand(draws, len(start), generator=rng) < 0.5, -1.0, 1.0).to(device)
            way = STEP * signs @ turn.weight @ start  # (draws, d)
            ends = [generator((z + sign * way[:, None]).flatten(0, 1)).unflatten(0, (draws, STARTS)) for sign in (1, -1)]
            second = (ends[0] + ends[1] - 2 * generator(z)) / STEP**2
            loss = second.var(0).mean()
            optimiser.zero_grad()
            loss.backward(inputs=list(turn.parameters()))  # and not of the generator's weights
            optimiser.step()
            bar(step + 1, steps)
        found = (turn.weight @ start).detach()
    with torch.no_grad():
        z = generator.draw(32, seed).to(device)
        plain = generator(z)
        size = torch.stack([(generator(z + a) - plain).square().mean() for a in found])
    return found[size.argsort(descending=True)].cpu()


def contrast(changes: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent of changes (K, N, n): those of one direction attract each other, those of others repel (LatentCLR, eq. 4)."""
    k, n = changes.shape[:2]
    flat = F.normalize(changes.flatten(0, 1), dim=1)
    likeness = (flat @ flat.T / temperature).masked_fill(torch.eye(k * n, dtype=torch.bool, device=flat.device), -torch.inf)
    same = torch.arange(k, device=flat.device).repeat_interleave(n)
    positive = (same[:, None] == same) & torch.isfinite(likeness)
    attracted = torch.logsumexp(likeness.masked_fill(~positive, -torch.inf), 1)
    return (torch.logsumexp(likeness, 1) - attracted).mean()


def contrastive(generator: Generator, k: int, seed: int = 0, steps: int = 300, unsigned: bool = False) -> Tensor:
    """k directions (k, d) by stochastic descent on `contrast`, from random ones.

    LatentCLR (Yuksel et al. 2021, its global directions): changes are those of features in mid-depth of the generator. `unsigned` is the
    objective of DisCo (Ren et al. 2022): changes without their sign, each pressed by its entropy to concern few places. DisCo's are those
    of an encoder that is trained beside; here they are those of the images themselves, at SIDE px, since with so few steps the encoder
    learned to tell any directions apart.
    """
    device, rng = generator.device, torch.Generator().manual_seed(seed)
    of = features_of(generator) if not unsigned else lambda z: F.adaptive_avg_pool2d(generator(z), SIDE)
    with torch.enable_grad():
        a = unit(torch.randn(k, generator.latent_dim, generator=rng)).to(device).requires_grad_()
        optimiser = torch.optim.Adam([a], 1e-2)
        bar, few = Progress("contrasting changes"), min(AT_ONCE, k)
        for step in range(steps):
            chosen = torch.randperm(k, generator=rng)[:few]
            z = generator.draw(STARTS, rng).to(device)
            sign = torch.where(torch.rand(few, 1, 1, generator=rng) < 0.5, -SHIFT, SHIFT).to(device)
            moved = z + sign * F.normalize(a, dim=1)[chosen][:, None]  # (few, STARTS, d)
            changes = of(moved.flatten(0, 1)).flatten(1).unflatten(0, (few, STARTS)) - of(z).flatten(1)
            changes = changes.abs() if unsigned else changes * sign.sign()
            loss = contrast(changes)
            if unsigned:
                share = changes / changes.sum(2, keepdim=True).clamp(min=1e-12)
                loss = loss - DOMINATION * (share * share.clamp(min=1e-12).log()).sum(2).mean()
            optimiser.zero_grad()
            loss.backward(inputs=[a])  # and not of the generator's weights
            optimiser.step()
            bar(step + 1, steps)
    return F.normalize(a.detach(), dim=1).cpu()


about = "changes of features that are alike from any start, and unlike others (LatentCLR)"
method("latentclr", "LatentCLR", about, gradients=True)(contrastive)
about = "the same in images, without sign, each in few places (DisCo's objective)"
method("disco", "DisCo", about, gradients=True)(partial(contrastive, unsigned=True))
