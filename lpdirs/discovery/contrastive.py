"""Directions whose changes are alike from any starting point and unlike those of other directions: LatentCLR and DisCo."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import features_of, unit
from lpdirs.models.generators import device_of, draw_z, latent_dim_of

SHIFT = 3.0  # of either sign
AT_ONCE, STARTS = 8, 8  # directions and starting points of a step
TEMPERATURE, RATE = 0.5, 1e-2
DOMINATION = 0.1  # weight of DisCo's entropy
SIDE = 16  # px of the images that it looks at


def contrast(changes: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent of changes (K, N, n): those of one direction attract each other, those of others repel (LatentCLR, eq. 4)."""
    k, n = changes.shape[:2]
    flat = F.normalize(changes.flatten(0, 1), dim=1)
    likeness = (flat @ flat.T / temperature).masked_fill(torch.eye(k * n, dtype=torch.bool, device=flat.device), -torch.inf)
    same = torch.arange(k, device=flat.device).repeat_interleave(n)
    positive = (same[:, None] == same) & torch.isfinite(likeness)
    attracted = torch.logsumexp(likeness.masked_fill(~positive, -torch.inf), 1)
    return (torch.logsumexp(likeness, 1) - attracted).mean()


def contrastive(generator: nn.Module, k: int, steps: int = 300, seed: int = 0, unsigned: bool = False) -> Tensor:
    """k directions (k, d) by stochastic descent on `contrast`, from random ones.

    LatentCLR (Yuksel et al. 2021, its global directions): changes are those of features in mid-depth of the generator. `unsigned` is the
    objective of DisCo (Ren et al. 2022): changes without their sign, each pressed by its entropy to concern few places. DisCo's are those
    of an encoder that is trained beside; here they are those of the images themselves, at SIDE px, since with so few steps the encoder
    learned to tell any directions apart.
    """
    d, device = latent_dim_of(generator), device_of(generator)
    rng = torch.Generator().manual_seed(seed)
    of = features_of(generator) if not unsigned else lambda z: F.adaptive_avg_pool2d(generator(z), SIDE)
    with torch.enable_grad():
        a = unit(torch.randn(k, d, generator=rng)).to(device).requires_grad_()
        optimiser = torch.optim.Adam([a], RATE)
        bar, few = Progress("contrasting changes"), min(AT_ONCE, k)
        for step in range(steps):
            chosen = torch.randperm(k, generator=rng)[:few]
            z = draw_z(generator, STARTS, rng).to(device)
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
