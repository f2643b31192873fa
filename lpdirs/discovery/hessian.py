"""Directions that change images independently of each other: the Hessian penalty on a generator that is trained already."""

import torch
from torch import Tensor, nn

from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import jacobian
from lpdirs.models.generators import device_of, draw_z

STEP = 0.5  # of the second differences, in units of z
DRAWS, STARTS = 4, 8  # random signs, and starting points, of a step
RATE = 2e-2


def hessian(generator: nn.Module, k: int, steps: int = 200, seed: int = 0) -> Tensor:
    """k orthonormal directions (k, d), strongest first: a rotation of the Jacobian's k leading ones, trained by the Hessian penalty.

    The penalty is the variance, over random signs v, of the second difference of G along A v, which is 0 where the Hessian in the
    directions is diagonal (Peebles et al. 2020, eq. 6). On a trained generator it is minimised over A, as in the paper's section 4.3.
    Within the leading subspace, since a direction along which nothing changes has no penalty at all.
    """
    device = device_of(generator)
    start = jacobian(generator, k, seed=seed).to(device)
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.enable_grad():
        turn = nn.Linear(len(start), len(start), bias=False).to(device)
        nn.init.eye_(turn.weight)
        nn.utils.parametrizations.orthogonal(turn, orthogonal_map="matrix_exp")
        optimiser = torch.optim.Adam(turn.parameters(), RATE)
        bar = Progress("straightening the Hessian")
        for step in range(steps):
            z = draw_z(generator, STARTS, rng).to(device)
            signs = torch.where(torch.rand(DRAWS, len(start), generator=rng) < 0.5, -1.0, 1.0).to(device)
            way = STEP * signs @ turn.weight @ start  # (DRAWS, d)
            middle = generator(z)
            ends = [generator((z + sign * way[:, None]).flatten(0, 1)).unflatten(0, (DRAWS, STARTS)) for sign in (1, -1)]
            second = (ends[0] + ends[1] - 2 * middle) / STEP**2
            loss = second.var(0).mean()
            optimiser.zero_grad()
            loss.backward(inputs=list(turn.parameters()))  # and not of the generator's weights
            optimiser.step()
            bar(step + 1, steps)
        found = (turn.weight @ start).detach()
    with torch.no_grad():
        z = draw_z(generator, 32, seed).to(device)
        plain = generator(z)
        size = torch.stack([(generator(z + a) - plain).square().mean() for a in found])
    return found[size.argsort(descending=True)].cpu()
