"""Directions that do one thing: each motion that the generator has with the least other change, then what changes without moving."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import finite
from lpdirs.discovery.registry import Found, method
from lpdirs.models.generators import Generator

MOTIONS = ("to the side", "up or down", "turned", "wider", "taller")
STEP = 0.25  # of the finite differences, in units of z
SIDE = 64  # px at most, at which changes are looked at
ROWS = 20_000  # pixels of all images together, over which the rotation is sought
MOVES = 0.1  # of what a direction changes: where less is motion, it is none
APART = 0.05  # of the least singular value of the motions' directions, of unit length: where it is less, one is the others' sum
FAINT = 0.01  # of the largest mean motion: less is rounding
SURE = 2.0  # times the error of a mean motion over samples: less may be chance
ALIKE = 0.2  # of how it grows both ways: where it stretches by less, it grows both ways alike; and the other way round
RIDGE = 0.1  # of the least other change, relative to its mean over all directions


@method(
    "motion",
    "motion",
    "each motion that the generator has with the least other change, then sparse changes without motion: ours",
    at_most_d=True,
)
@torch.no_grad()
def motion(generator: Generator, k: int, seed: int = 0, samples: int = 64) -> Found:
    """k directions (k, d); `notes["motions"]` says of those that are motions which, and how much of what they change is that.

    No labels, no training. At `samples` random z the image's change along each axis of z is taken apart into what five motions of the
    picture would do, by least squares of the change on the gradient (the brightness constancy of Horn and Schunck 1981; that latent spaces
    hold such motions: Jahanian et al. 2020, Plumerault et al. 2020), and a rest. The motions are to the side, up or down, a turn, and wider
    and taller around the middle of what is brighter than the darkest grey; where the generator grows both ways alike, larger.

    The first directions are, for each motion, that in which it grows by one, the others hold still on average, and the rest changes
    least: M^-1 W^T (W M^-1 W^T)^-1, where W (5, d) is the mean motion and M (d, d) the mean square of the rest. A motion that the
    generator does not have, of which less than MOVES of the change is motion, is left out, and so is one that is a sum of the others.
    Then come directions that move nothing on average and change most, turned among themselves so that their changes are sparse over z and
    over space (varimax).

    By finite differences: 2 d images for each z, and no gradients are needed. UserError for images too small to move, or of volumes.
    """
    d, rng = generator.latent_dim, torch.Generator().manual_seed(seed)
    square, by_motion = torch.zeros(2, d, d, dtype=torch.float64).unbind()
    mean, spread = torch.zeros(2, len(MOTIONS), d, dtype=torch.float64).unbind()
    rows = []
    for image, change in _changes(generator, samples, rng):
        fields = _fields(image)
        gram = fields.T @ fields
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(MOTIONS))
        found = torch.linalg.solve(gram, fields.T @ change) if gram.diagonal().min() > 0 else torch.zeros(len(MOTIONS), d).double()
        rest = change - fields @ found
        mean += found / samples
        spread += found.square() / samples
        square += rest.T @ rest / samples
        by_motion += (fields @ found).T @ (fields @ found) / samples
        rows.append(_some(rest, samples, rng))
    if not square.any():
        raise UserError("motion finds nothing in these images that changes with z: use random or coordinate")
    inverse = torch.linalg.inv(square + RIDGE * square.diagonal().mean() * torch.eye(d))
    noise = ((spread - mean.square()).clamp(min=0) / samples).sum(1).sqrt()
    names, mean = _of_size(mean)
    moves = mean.norm(dim=1) > torch.maximum(FAINT * mean.norm(dim=1).max(), SURE * noise[: len(mean)])
    names, mean = [name for name, does in zip(names, moves, strict=True) if does], mean[moves]

    def pure_of(motions: list[int]) -> tuple[Tensor, Tensor]:
        wanted = mean[motions]
        found = torch.linalg.pinv(wanted @ inverse @ wanted.T, rtol=1e-4) @ wanted @ inverse
        part, rest = (((found @ matrix) * found).sum(1) for matrix in (by_motion, square))
        return found, part / (part + rest).clamp(min=1e-30)

    present = [i for i, share in enumerate(pure_of(list(range(len(names))))[1]) if share >= MOVES][:d]
    while len(present) > 1 and (alike := _alike(mean[present])) is not None:  # of what is round a turn is no motion of its own
        present.pop(alike)
    pure, share = pure_of(present)
    still = torch.linalg.svd(mean[present])[2][len(present) :]  # (d - motions, d)
    vectors = torch.linalg.eigh(still @ square @ still.T)[1].flip(1)
    basis = (still.T @ vectors)[:, : max(k - len(present), 0)]  # most change first
    changes = torch.cat(rows) @ basis
    turned = basis @ varimax(changes / changes.norm(dim=0).mean().clamp(min=1e-30)) if basis.shape[1] > 1 else basis
    size = (torch.cat(rows) @ turned).norm(dim=0)
    directions = torch.cat([pure, turned.T[size.argsort(descending=True)]])[:k]
    motions = {names[i]: round(float(part), 3) for i, part in zip(present[:k], share, strict=False)}
    return Found((directions / directions.norm(dim=1, keepdim=True)).float(), notes={"motions": motions})


def _of_size(mean: Tensor) -> tuple[list[str], Tensor]:
    """Names and mean of the motions (n, d): wider and taller are one where the generator does the one with the other alone."""
    wider, taller = mean[3], mean[4]
    larger, stretched = (wider + taller) / 2, (wider - taller) / 2
    for name, one, other in (("larger", larger, stretched), ("wider and less tall", stretched, larger)):
        if other.norm() < ALIKE * one.norm():
            return [*MOTIONS[:3], name], torch.cat([mean[:3], one[None]])
    return list(MOTIONS), mean


def _alike(motions: Tensor) -> int | None:
    """Which row of motions (n, d) is a sum of the others, the last of those that are; None where each goes a way of its own."""
    values, left = torch.linalg.svd((motions / motions.norm(dim=1, keepdim=True).clamp(min=1e-30)).T, full_matrices=False)[1:]
    return None if values[-1] > APART else int((left[-1].abs() > 0.3).nonzero().max())


@method("sparse", "sparse", "the Jacobian's, turned so that their changes are sparse (varimax)", at_most_d=True)
@torch.no_grad()
def sparse(generator: Generator, k: int, seed: int = 0, samples: int = 64) -> Tensor:
    """The k directions that change most pixels most, as the Jacobian's, turned among themselves so that their changes are sparse, (k, d).

    Varimax over the changes at all z and pixels, as `motion` does with what does not move. Most change first.
    """
    d, rng = generator.latent_dim, torch.Generator().manual_seed(seed)
    square, rows = torch.zeros(d, d, dtype=torch.float64), []
    for _, change in _changes(generator, samples, rng):
        square += change.T @ change / samples
        rows.append(_some(change, samples, rng))
    basis = torch.linalg.eigh(square)[1].flip(1)[:, :k]
    changes = torch.cat(rows) @ basis
    turned = varimax(changes / changes.norm(dim=0).mean().clamp(min=1e-30))
    order = (changes @ turned).norm(dim=0).argsort(descending=True)
    return (basis @ turned).T[order].float()


def _changes(generator: Generator, samples: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """At each random z the image (1, H, W) and its change along each axis of z, (pixels, d), by central differences."""
    bar, steps = Progress("taking changes apart"), STEP * torch.eye(generator.latent_dim)
    for i, z in enumerate(generator.draw(samples, rng)):
        image = _small(generator(z[None]).cpu())
        up, down = torch.cat([_small(generator(part).cpu()) for part in torch.cat([z + steps, z - steps]).split(64)]).chunk(2)
        yield image, finite((up - down) / (2 * STEP)).flatten(1).T.double()
        bar(i + 1, samples)


def _some(changes: Tensor, samples: int, rng: torch.Generator) -> Tensor:
    """As many rows of one image's changes as it takes for ROWS of all."""
    return changes[torch.randperm(len(changes), generator=rng)[: max(ROWS // samples, 1)]]


def varimax(loadings: Tensor, turns: int = 200) -> Tensor:
    """The rotation (k, k) that makes loadings (n, k) @ rotation sparse: Kaiser's varimax (1958), by singular values (Horst 1965)."""
    n, k = loadings.shape
    rotation, last = torch.eye(k, dtype=loadings.dtype), 0.0
    for _ in range(turns):
        turned = loadings @ rotation
        left, values, right = torch.linalg.svd(loadings.T @ (turned**3 - turned * turned.square().mean(0)))
        rotation = left @ right
        if values.sum() <= last * (1 + 1e-6):
            break
        last = float(values.sum())
    return rotation


def _small(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as (B, H', W'), their channels averaged, at most SIDE px wide."""
    if images.ndim != 4 or min(images.shape[-2:]) < 8:
        raise UserError(f"motion is of images at least 8 px wide and high, (B, C, H, W), not {tuple(images.shape)}: use jacobian or pca")
    times = -(-max(images.shape[-2:]) // SIDE)
    return F.avg_pool2d(images.mean(1, keepdim=True), times)[:, 0]


def _fields(image: Tensor) -> Tensor:
    """What one image (1, H, W) would change by if it moved by one unit of each of MOTIONS, (pixels, 5); a unit is half a side, or 1 rad."""
    picture = image[0].double()
    down, side = torch.gradient(picture)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in picture.shape), indexing="ij")
    mass = picture - picture.min()
    total, half = mass.sum().clamp(min=1e-12), max(picture.shape) / 2
    x, y = (x - (mass * x).sum() / total) / half, (y - (mass * y).sum() / total) / half
    change = (side, down, x * down - y * side, x * side, y * down)
    return -half * torch.stack([part.flatten() for part in change], 1)
