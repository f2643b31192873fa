"""Steering: from an image to one in which some factors are changed and the others hold, by what is measured on the way.

A straight direction moves several factors at once. Here z goes step by step: what is still missing of the target is turned into a step
by the factors' Jacobian, the image is drawn and measured anew, and what was measured corrects both step and Jacobian. The Jacobian is that
of a small network that has learned z -> factors from samples of the generator (StyleFlow, Abdal et al. 2021, and IALS, Han et al. 2021,
learn where to go from z; both need labelled attributes and neither measures what it did), set right by central differences of the measures
at the start; a rank-one update (Broyden 1965) takes in what each step did. No gradient is needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lpdirs.base.checked import Count, Numbers, Positive, Seed, Whole, checked
from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.progress import Progress
from lpdirs.measures.measures import Measures
from lpdirs.models.files import read_header
from lpdirs.models.generators import Generator
from lpdirs.scores.response import Responses, spread_of

LEAST = 20  # samples on which a factor must have been measured
HIDDEN, EPOCHS, BATCH = 256, 150, 256  # of the network z -> factors, and of its training
DAMPING = 5e-3  # of the pseudoinverse, relative to the mean square of the Jacobian's rows
LONGEST = 1.2  # of a step, in units of z
MISSING = 0.7  # SDs of a factor that one step tries to make good
REACHED, CLOSE = 0.1, 0.03  # SDs within which a target is reached, and within which a path ends
OTHERS = 2.0  # weight of the mean of what else moved, beside what is missing, where a path is nearest
NEAR, PART = 0.3, 8  # units of z by which central differences go, and images whose neighbours are drawn at once
TYPICAL = 0.02  # share of each step by which z goes back towards the prior's middle, where that moves no factor
FARTHEST = 1e-4  # share of the prior that lies further out, below which a path has left it
LOST = 2  # rounds that a path may go on without being measured
AGAIN, STALLED = 3, 6  # rounds without progress after which slopes are measured again, and after which a path ends


@dataclass(frozen=True, eq=False)
class Steering:
    """What `fit_steering` learned of a generator: `network` (z to factors in SDs), and their `mean` and `spread` over samples."""

    network: nn.Module
    factors: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray
    r2: dict[str, float]
    generator: str

    @property
    def can_move(self) -> tuple[str, ...]:
        """The factors that vary in samples, so that they can be steered."""
        return tuple(name for name, spread in zip(self.factors, self.spread, strict=True) if spread > 0)

    def jacobian(self, z: Tensor) -> Tensor:
        """How each factor, in SDs, goes with each coordinate of z (B, d): (B, F, d)."""
        return torch.func.vmap(torch.func.jacrev(self.network))(z).detach()

    def slopes(self, generator: Generator, z: Tensor, measures: Measures | None = None) -> Tensor:
        """The same as measured, by central differences: (N, F, d) at z (N, d), NaN where a neighbour cannot be measured; 2 d images a z."""
        steps, measures, found = NEAR * torch.eye(z.shape[1]), measures or generator.measures, []
        for part in z.split(PART):
            around = torch.stack([part[:, None] + steps, part[:, None] - steps], 1)  # (n, 2, d, d)
            read = measures.of(generator, around.flatten(0, 2))[list(self.factors)].to_numpy(float) / self._unit
            up, down = torch.from_numpy(read).float().unflatten(0, around.shape[:3]).unbind(1)
            found.append((up - down).transpose(1, 2) / (2 * NEAR))
        return torch.cat(found)

    @property
    def _unit(self) -> np.ndarray:
        """SDs of the factors, infinite for one that does not vary."""
        return np.where(self.spread > 0, self.spread, np.inf)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors."""
        about = {"factors": ",".join(self.factors), "generator": self.generator, "format": "lpdirs.steering/1"}
        tensors = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        tensors |= {name: torch.from_numpy(getattr(self, name)).contiguous() for name in ("mean", "spread")}
        tensors["r2"] = torch.tensor([self.r2[name] for name in self.factors])
        write_atomic(path, save(tensors, {"lpdirs": json.dumps(about)}))  # one key: several are written in any order

    @classmethod
    def load(cls, path: str | Path) -> "Steering":
        """Read what `save` wrote."""
        about = read_header(path)
        if about.get("format") != "lpdirs.steering/1":
            raise UserError(f"{Path(path).name} holds no steering: fit it again")
        tensors, factors = load_file(path), tuple(about["factors"].split(","))
        mean, spread, r2 = (tensors.pop(name).double().numpy() for name in ("mean", "spread", "r2"))
        network = _network(tensors["0.weight"].shape[1], len(factors))
        network.load_state_dict(tensors)
        return cls(network.requires_grad_(False), factors, mean, spread, dict(zip(factors, r2.tolist(), strict=True)), about["generator"])


@dataclass(frozen=True, eq=False)
class Steered:
    """Paths of N images: `z` (T, N, d) from their start, `factors` (T, N, F) measured on the way, in their units; `asked` (N, F), the
    change that was wanted, 0 where a factor was to hold and NaN where it was free; `why` each ended: reached, no progress, left the prior
    or cannot be measured; `rounds` (N,) where on its path each is nearest to what was asked."""

    z: Tensor
    factors: np.ndarray
    names: tuple[str, ...]
    spread: np.ndarray
    asked: np.ndarray
    why: tuple[str, ...]
    rounds: np.ndarray

    @property
    def start(self) -> Tensor:
        """z (N, d) at the start."""
        return self.z[0]

    @property
    def end(self) -> Tensor:
        """z (N, d) where each path is nearest to what was asked."""
        return self.z[torch.from_numpy(self.rounds), torch.arange(self.z.shape[1])]

    @property
    def change(self) -> pd.DataFrame:
        """What changed of each factor from start to end, in its unit, a row an image."""
        n = np.arange(self.factors.shape[1])
        return pd.DataFrame(self.factors[self.rounds, n] - self.factors[0], columns=list(self.names))

    def table(self) -> pd.DataFrame:
        """A row an image: of each factor that was to change how much was asked and reached, in its unit; `others`, the mean |change| of
        those that were to hold, in SDs; and why the path ended."""
        change, rows = self.change, pd.DataFrame(index=range(self.factors.shape[1]))
        for i, name in enumerate(self.names):
            if np.nanmax(np.abs(self.asked[:, i]), initial=0) > 0:
                rows[f"{name}, asked"], rows[f"{name}, reached"] = self.asked[:, i], change[name]
        held = np.where(self.asked == 0, np.abs(change.to_numpy()) / self.spread, np.nan)
        with np.errstate(invalid="ignore"):
            known = np.isfinite(held).sum(1)
            rows["others, SDs"] = np.where(known > 0, np.nansum(held, 1) / np.maximum(known, 1), np.nan)
        return rows.assign(why=self.why)


def _network(d: int, factors: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, factors))


@checked
def fit_steering(
    generator: InstanceOf[Generator],
    measures: InstanceOf[Measures] | None = None,
    samples: Count = 4000,
    seed: Seed = 0,
) -> Steering:
    """Learn how the factors go with z from `samples` random images: about a minute at 128 px on two cores.

    What cannot be measured of an image is left out, factor by factor. `r2` says how much of each factor the network predicts on a tenth
    of the samples that it has not seen. UserError where no factor varies.
    """
    measures = measures or generator.measures
    z, parts = generator.draw(samples, seed), []
    bar = Progress("measuring samples")
    for i, part in enumerate(z.split(BATCH)):
        parts.append(measures.of(generator, part))
        bar(min((i + 1) * BATCH, samples), samples)
    table = pd.concat(parts, ignore_index=True).astype(float)
    y, known = table.to_numpy(), table.notna().sum() >= LEAST
    mean = table.mean().where(known).to_numpy(copy=True)
    spread = spread_of(generator, measures, table)[0].where(known).to_numpy(copy=True)
    if not (spread > 0).any():
        raise UserError(
            f"nothing can be steered: no factor varies, or could be measured on {LEAST} of these {samples} samples; give more samples, or "
            f"other measures"
        )
    target = (y - mean) / np.where(spread > 0, spread, np.nan)
    measured, wanted = torch.tensor(np.isfinite(target)).float(), torch.tensor(np.nan_to_num(target)).float()
    train = max(1, int(samples * 0.9))
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        network = _network(generator.latent_dim, len(measures.factors))
        optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=3e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=EPOCHS * -(-train // BATCH))
        for epoch in range(EPOCHS):
            for rows in torch.randperm(train, generator=stream(seed, 8, epoch)).split(BATCH):
                error = (network(z[rows]) - wanted[rows]) ** 2 * measured[rows]
                optimiser.zero_grad()
                (error.sum() / measured[rows].sum().clamp(min=1)).backward()
                optimiser.step()
                schedule.step()
    network.requires_grad_(False)
    off = (((network(z[train:]) - wanted[train:]) ** 2) * measured[train:]).sum(0) / measured[train:].sum(0).clamp(min=1)
    r2 = dict(zip(measures.factors, (1 - off).double().tolist(), strict=True))
    return Steering(network, measures.factors, mean, spread, r2, generator.info.fingerprint)


@checked
def steer(
    generator: InstanceOf[Generator],
    z: Any,
    changes: Mapping[str, float],
    measures: InstanceOf[Measures] | None = None,
    *,
    hold: Literal["others", "none"] | tuple[str, ...] = "others",
    absolute: bool = False,
    unit: Literal["own", "sd"] = "own",
    rounds: Count = 20,
    steering: InstanceOf[Steering] | None = None,
    seed: Seed = 0,
    longest: Positive = LONGEST,
    probes: Whole = 1,
    slopes: Tensor | None = None,
) -> Steered:
    """From z (N, d) to images in which the factors in `changes` have changed so much, {"thickness": 20}, and the others hold.

    `changes` are in the measures' units, or with unit="sd" in SDs of samples; with `absolute` they are the values to reach. `hold` says
    which factors are to stay as they are: "others" (all that are not changed), "none", or some by name. `steering` is what `fit_steering`
    gave (else it is fitted first). Each round draws and measures N images; a path ends when it has reached its target, cannot be measured,
    has left the prior or makes no progress, and the result is its nearest point. The same arguments give the same paths.
    `probes` is how often slopes are measured around an image of a path, 2 latent_dim images each time: at its start (unless they are given
    as `slopes`, of `Steering.slopes`), and with 2 again where it stalls, which gets nearer to what was asked and moves a little more else;
    0 leaves it to what was learned.
    UserError for factors that are not there, or a steering of another generator.
    """
    measures = measures or generator.measures
    steering = steering or fit_steering(generator, measures, seed=seed)
    _check(generator, measures, steering, changes, hold)
    z = torch.as_tensor(z, dtype=torch.float32)
    z = z[None] if z.ndim == 1 else z
    names, spread = steering.factors, steering._unit
    read = lambda z: measures.of(generator, z)[list(names)].to_numpy(float) / spread
    now = start = read(z)
    held = [name for name in names if name not in changes] if hold == "others" else () if hold == "none" else hold
    asked = np.full(start.shape, np.nan)
    asked[:, [names.index(name) for name in held]] = 0.0
    for name, value in changes.items():
        i = names.index(name)
        amount = value if unit == "sd" else value / spread[i]
        asked[:, i] = (value / spread[i] if unit == "own" else value + steering.mean[i] / spread[i]) - start[:, i] if absolute else amount
    changed = [names.index(name) for name in changes]
    middle = generator.prior.middle(generator.latent_dim)[0]
    path, factors, first = [z], [start], steering.network(z).double().numpy()
    learned = steering.jacobian(z)
    if slopes is None and probes:
        slopes = steering.slopes(generator, z, measures)
    correction = torch.zeros_like(learned) if slopes is None else torch.nan_to_num(slopes - learned)  # of what was learned
    why, (still, lost), asked_again = [""] * len(z), np.zeros((2, len(z)), int), np.full(len(z), probes < 2)
    own, others = _away(asked, now, start, changed)
    best, nearest, reached = np.zeros(len(z), int), own + OTHERS * others, own + others < REACHED
    for i in range(rounds):
        going = np.array([not w for w in why])
        if not going.any():
            break
        wanted = start + np.nan_to_num(asked) * np.where(np.isin(np.arange(len(names)), changed), min(1.0, (i + 1) / 3), 1.0)
        guess = start + (steering.network(z).double().numpy() - first)  # the network's word for what cannot be measured just now
        missing = np.where(np.isfinite(asked), wanted - np.where(np.isfinite(now), now, guess), np.nan)
        step = _step(learned + correction, missing, middle - z) * torch.from_numpy(going).float()[:, None]
        step = step * (longest / step.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        z = z + step
        before, now = now, now.copy()
        now[going] = read(z[torch.from_numpy(going)])
        learned = steering.jacobian(z)
        correction = _updated(learned + correction, step, now - before) - learned
        path.append(z)
        factors.append(now)
        own, others = _away(asked, now, start, changed)
        better = going & (own + OTHERS * others < nearest - 1e-3)
        best, nearest = np.where(better, i + 1, best), np.where(better, own + OTHERS * others, nearest)
        reached = np.where(better, own + others < REACHED, reached)
        still = np.where(better, 0, still + 1)
        stalls = torch.from_numpy(going & (still == AGAIN) & ~asked_again)
        if stalls.any():
            asked_again |= stalls.numpy()
            correction[stalls] = torch.nan_to_num(steering.slopes(generator, z[stalls], measures) - learned[stalls])
        out = generator.typicality(z) < FARTHEST
        for n in np.flatnonzero(going):
            lost[n] = 0 if np.isfinite(now[n, changed]).all() else lost[n] + 1
            unmeasured = lost[n] > LOST or not np.isfinite(start[n, changed]).all()
            close = i >= 2 and own[n] + others[n] < CLOSE
            why[n] = "cannot be measured" if unmeasured else "left the prior" if out[n] else "reached" if close else ""
            why[n] = why[n] or ("no progress" if still[n] >= STALLED and i >= 4 else "")
    ended = ["reached" if close else w or "no progress" for w, close in zip(why, reached, strict=True)]
    scale = np.where(np.isfinite(spread), spread, np.nan)
    return Steered(torch.stack(path), np.stack(factors) * scale, names, scale, asked * scale, tuple(ended), best)


@checked
def respond_steered(
    generator: InstanceOf[Generator],
    steering: InstanceOf[Steering],
    measures: InstanceOf[Measures] | None = None,
    *,
    amounts: Numbers = (-1.5, -0.75, 0, 0.75, 1.5),
    samples: Whole = 16,
    seed: Seed = 0,
    rounds: Count = 20,
    probes: Whole = 1,
) -> Responses:
    """What `respond` measures of directions, of steering: k is the factor that was to change while the others held, shifts are `amounts`
    in SDs.

    From `samples` random images that no path was learned on; each path is measured where it is nearest to what was asked. So its table
    has the same selectivity and r, and a factor that cannot be measured at a start is missing there.
    """
    measures = measures or generator.measures
    rng = torch.Generator().manual_seed(seed + 1_000_003)
    z, n = generator.draw(samples, rng), np.arange(samples)
    values = np.full((len(steering.factors), len(amounts), samples, len(steering.factors)), np.nan)
    bar = Progress("steering")
    slopes = steering.slopes(generator, z, measures) if probes else None
    for k, name in enumerate(steering.factors):
        if name not in steering.can_move:
            continue
        for i, amount in enumerate(amounts):
            if not amount:
                values[k, i] = measures.of(generator, z)[list(steering.factors)].to_numpy(float)
                continue
            change = {name: amount}
            found = steer(generator, z, change, measures, unit="sd", rounds=rounds, steering=steering, probes=probes, slopes=slopes)
            values[k, i] = found.factors[found.rounds, n]
            bar(k * len(amounts) + i + 1, values.shape[0] * len(amounts))
    spread = pd.Series(steering.spread, list(steering.factors))
    return Responses(
        values, np.asarray(amounts, float), spread, measures.levels, None, measures.units, measures, generator.info.fingerprint
    )


def _check(generator: Generator, measures: Measures, steering: Steering, changes: Mapping[str, float], hold: Any) -> None:
    if steering.generator and generator.info.fingerprint and steering.generator != generator.info.fingerprint:
        raise UserError(f"this steering was fitted on another generator (fingerprint {steering.generator}): fit it again")
    wrong = [name for name in (*changes, *(hold if isinstance(hold, tuple) else ())) if name not in steering.factors]
    if wrong or not changes or not set(steering.factors) <= set(measures.factors):
        raise UserError(f"steer changes and holds {', '.join(steering.factors)}, not {', '.join(map(str, wrong)) or 'nothing'}")
    still = [name for name in changes if name not in steering.can_move]
    if still:
        raise UserError(f"{', '.join(still)} cannot be measured, or does not vary, in samples of this generator")


def _away(asked: np.ndarray, now: np.ndarray, start: np.ndarray, changed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """How far each image is from what was asked, in SDs, (N,) each: the most that a change lacks, and the mean of what else moved."""
    off = np.abs(start + asked - now)
    own = off[:, changed]
    held = np.delete(off, changed, axis=1)
    known = np.isfinite(held).sum(1)
    others = np.where(known > 0, np.nansum(held, axis=1) / np.maximum(known, 1), 0.0)
    return np.where(np.isfinite(own).all(1), own.max(1), np.inf), others


def _step(jacobian: Tensor, missing: np.ndarray, home: Tensor) -> Tensor:
    """The step (N, d) that makes good what is `missing` (N, F, NaN where nothing is asked) by the damped pseudoinverse of the Jacobian
    (N, F, d), and where that moves no factor goes `home`, towards the prior's middle."""
    known = torch.from_numpy(np.isfinite(missing)).float()
    target = torch.from_numpy(np.nan_to_num(missing).clip(-MISSING, MISSING)).float()
    j = jacobian * known[:, :, None]
    gram = j @ j.transpose(1, 2)
    gram = gram + DAMPING * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(gram.shape[1])
    gram = gram + 1e-8 * torch.eye(gram.shape[1])
    pull = lambda rows: (j.transpose(1, 2) @ torch.linalg.solve(gram, rows[..., None]))[..., 0]
    free = home - pull((j @ home[..., None])[..., 0])
    return 0.8 * pull(target) + TYPICAL * free


def _updated(jacobian: Tensor, step: Tensor, change: np.ndarray) -> Tensor:
    """The Jacobian (N, F, d) after what a step did: Broyden's rank-one update, of the factors that were measured at both ends."""
    did = torch.from_numpy(np.where(np.isfinite(change), change, np.nan)).float()
    off = torch.nan_to_num(did - (jacobian @ step[..., None])[..., 0])
    return jacobian + off[:, :, None] * step[:, None, :] / step.square().sum(1).clamp(min=1e-6)[:, None, None]
