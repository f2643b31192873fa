"""Steering: from an image to one in which some factors are changed and the others hold, by what is measured on the way.

A straight direction moves several factors at once. Here z goes step by step: what is still missing of the target is turned into a step
by the factors' Jacobian, the image is drawn and measured anew, and what was measured corrects both step and Jacobian. The Jacobian is that
of a small network that has learned z -> factors from samples, set right by central differences of the measures where a path stalls; a
rank-one update (Broyden 1965) takes in what each step did. No gradient is needed. StyleFlow (Abdal et al. 2021), IALS (Han et al. 2021) and
Zhuang et al. (2021) learn where to go from z with labels, and do not measure what they did; Plumerault et al. (2020), Wang and Ponce (2021)
and Chen et al. (2022) describe how images bend with z.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lpdirs.base.checked import Count, Number, Numbers, Seed, Whole, checked
from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.progress import Progress
from lpdirs.measures.measures import Measures
from lpdirs.models.files import read_header
from lpdirs.models.generators import Generator, tensor_of
from lpdirs.scores.response import Responses, spread_of

LEAST = 20  # samples on which a factor must have been measured
HIDDEN, EPOCHS, BATCH = 256, 150, 256  # of the network z -> factors, and of its training
DAMPING = 5e-3  # of the pseudoinverse, relative to the mean square of the Jacobian's rows
LONGEST = 1.2  # of a step, in units of z
MISSING = 0.7  # SDs of a factor that one step tries to make good
REACHED, CLOSE = 0.1, 0.03  # SDs within which a target is reached, and within which a path ends
OTHERS = 2.0  # weight of the mean of what else moved, beside what is missing
LEAST_GAIN = 1e-3  # SDs by which a step must get nearer
NEAR = 0.3  # units of z by which central differences go
TYPICAL = 0.02  # share of each step by which z goes back towards the prior's middle, where that moves no factor
ROUNDS, PROBES = 40, 5  # of a path to one target, at most: images that are drawn, and times that slopes are measured
FARTHEST = 1e-4  # share of the prior that lies further out, below which a path has left it


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
    """Paths of N images: `z` (T, N, d) from their start, `factors` (T, N, F) measured on the way, in their units; each step got nearer to
    what was asked, else it was not taken. `asked` (N, F): the change that was wanted, of several the last, 0 where a factor was to hold
    and NaN where it was free; `why` (N,) each ended: reached, no progress, left the prior or cannot be measured; `stops`: where on the
    paths each of the changes that were asked one after another was reached or given up."""

    z: Tensor
    factors: np.ndarray
    names: tuple[str, ...]
    spread: np.ndarray
    asked: np.ndarray
    why: tuple[str, ...]
    stops: tuple[int, ...]

    @property
    def start(self) -> Tensor:
        """z (N, d) at the start."""
        return self.z[0]

    @property
    def end(self) -> Tensor:
        """z (N, d) at the end of each path."""
        return self.z[-1]

    @property
    def rounds(self) -> np.ndarray:
        """How many rounds each path (N,) took, until it moved no more."""
        moved = (self.z[1:] != self.z[:-1]).any(-1).numpy()
        return (moved * np.arange(1, len(moved) + 1)[:, None]).max(0, initial=0)

    @property
    def change(self) -> pd.DataFrame:
        """What changed of each factor from start to end, in its unit, a row an image."""
        return pd.DataFrame(self.factors[-1] - self.factors[0], columns=list(self.names))

    def table(self) -> pd.DataFrame:
        """A row an image: of each factor that was to change how much was asked and reached, in its unit; of those that were to hold the
        mean |change|, in SDs, and how many could be measured at the start alone; and why the path ended."""
        lost = np.isfinite(self.factors[0]) & ~np.isfinite(self.factors[-1]) & (self.asked == 0)
        change, asked, rows = self.change, self.asked, pd.DataFrame(index=range(self.factors.shape[1]))
        for i, name in enumerate(self.names):
            if np.nanmax(np.abs(asked[:, i]), initial=0) > 0:
                rows[f"{name}, asked"], rows[f"{name}, reached"] = asked[:, i], change[name]
        rows["others, SDs"] = pd.DataFrame(np.abs(change.to_numpy()) / self.spread).where(asked == 0).mean(axis=1)
        return rows.assign(**{"others, lost": lost.sum(1)}, why=self.why)


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
    changes: Mapping[str, Number | Numbers],
    measures: InstanceOf[Measures] | None = None,
    *,
    hold: str | tuple[str, ...] = "others",
    absolute: bool = False,
    unit: Literal["own", "sd"] = "own",
    rounds: Count = ROUNDS,
    steering: InstanceOf[Steering] | None = None,
    seed: Seed = 0,
    probes: Whole = PROBES,
) -> Steered:
    """From z (N, d) to images in which the factors in `changes` have changed so much, {"thickness": 20}, and the others hold.

    `changes` are in the measures' units, or with unit="sd" in SDs of samples; with `absolute` they are the values to reach. Several,
    {"thickness": (10, 20)}, are gone to one after another on one path. `hold` says which factors are to stay as they are: "others" (all
    that are not changed), "none", or some by name. `steering` is what `fit_steering` gave (else it is fitted first).
    Each of at most `rounds` rounds draws and measures one image a path. A step that comes no nearer is not taken: the next is half as
    long, and after two of these the slopes are measured again, at most `probes` times on the way to each change; a path ends when it has
    reached its target or makes no progress, cannot be measured or has left the prior. One on which a factor that was to hold can no longer
    be measured has not reached it. The same arguments give the same paths.
    UserError for factors that are not there, or a steering of another generator.
    """
    measures = measures or generator.measures
    steering = steering or fit_steering(generator, measures, seed=seed)
    amounts = {name: value if isinstance(value, tuple) else (value,) for name, value in changes.items()}
    hold = (hold,) if isinstance(hold, str) and hold not in ("others", "none") else hold
    _check(generator, measures, steering, amounts, hold)
    z, names, spread = tensor_of(z), steering.factors, steering._unit
    walk = _Walk(generator, measures, steering, z[None] if z.ndim == 1 else z, [names.index(name) for name in changes])
    held = [name for name in names if name not in changes] if hold == "others" else () if hold == "none" else hold
    asked = np.full((len(next(iter(amounts.values()))), *walk.start.shape), np.nan)
    asked[..., [names.index(name) for name in held]] = 0.0
    for name, values in amounts.items():
        i = names.index(name)
        sds = np.array(values) / (spread[i] if unit == "own" else 1.0)
        asked[:, :, i] = sds[:, None]
        if absolute:
            asked[:, :, i] += (0.0 if unit == "own" else steering.mean[i] / spread[i]) - walk.start[:, i]
    why = [walk.to(wanted, rounds, probes) for wanted in asked][-1]
    scale = np.where(np.isfinite(spread), spread, np.nan)
    path, factors = torch.stack(walk.path), np.stack(walk.factors) * scale
    return Steered(path, factors, names, scale, asked[-1] * scale, tuple(why), tuple(walk.stops))


class _Walk:
    """Paths of N images, and what is known of the slopes where they are: those of the network, and a `correction` by what was measured."""

    def __init__(self, generator: Generator, measures: Measures, steering: Steering, z: Tensor, changed: list[int]):
        self.generator, self.measures, self.steering, self.changed = generator, measures, steering, changed
        self.z, self.now = z, self.read(z)
        self.start, self.first = self.now, steering.network(z).double().numpy()
        self.correction = torch.zeros_like(steering.jacobian(z))
        self.path, self.factors = [z], [self.now]
        self.stops: list[int] = []

    def read(self, z: Tensor) -> np.ndarray:
        """The factors (N, F) of z (N, d), in SDs."""
        return self.measures.of(self.generator, z)[list(self.steering.factors)].to_numpy(float) / self.steering._unit

    def away(self, asked: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far each image is from what was asked, in SDs, (N,) each: the most that a change lacks, inf where it cannot be measured,
        and the mean of what else moved."""
        off = np.abs(self.start + asked - now)
        own, held = off[:, self.changed], np.delete(off, self.changed, axis=1)
        known = np.isfinite(held).sum(1)
        return np.where(np.isfinite(own).all(1), own.max(1), np.inf), np.nansum(held, axis=1) / np.maximum(known, 1)

    def probe(self, which: Tensor, seeds: np.ndarray) -> None:
        """Measure the slopes of some images along what the known ones span, and as many random ways more: 4 images a factor."""
        known = self.steering.jacobian(self.z[which]) + self.correction[which]
        shape = max(0, min(known.shape[1], known.shape[2] - known.shape[1])), known.shape[2]
        more = [torch.randn(shape, generator=stream(0, 9, int(seed))) for seed in seeds]  # the same whatever else is steered beside
        ways = torch.cat([known, torch.stack(more)], 1)
        ways = torch.linalg.qr(ways.transpose(1, 2)).Q.transpose(1, 2)  # (n, m, d), orthonormal
        around = self.z[which][:, None, None] + NEAR * torch.stack([ways, -ways], 1)  # (n, 2, m, d)
        read = torch.from_numpy(self.read(around.flatten(0, 2))).float().unflatten(0, around.shape[:3])
        slopes = (read[:, 0] - read[:, 1]).transpose(1, 2) / (2 * NEAR)
        self.correction[which] += torch.nan_to_num(slopes - known @ ways.transpose(1, 2)) @ ways

    def to(self, asked: np.ndarray, rounds: int, probes: int) -> np.ndarray:
        """Go on until each path is where `asked` (N, F) is reached, or gets no nearer: why it ended, (N,)."""
        n, home = len(self.z), self.generator.prior.middle(self.generator.latent_dim)[0]
        own, others = self.away(asked, self.now)
        longest, refused, asked_again = np.full(n, LONGEST), np.zeros(n, int), np.zeros(n, int)
        why = np.where(np.isfinite(own), np.where(own + others < CLOSE, "reached", ""), "cannot be measured").astype(object)
        for _ in range(rounds):
            going = why == ""
            if not going.any():
                break
            learned = self.steering.jacobian(self.z)
            guess = self.start + self.steering.network(self.z).double().numpy() - self.first  # for what cannot be measured just now
            missing = self.start + asked - np.where(np.isfinite(self.now), self.now, guess)
            step = _step(learned + self.correction, missing, home - self.z) * torch.from_numpy(going)[:, None]
            step = step * (torch.from_numpy(longest).float() / step.norm(dim=1).clamp(min=1e-12)).clamp(max=1)[:, None]
            z, now = self.z + step, self.now.copy()
            now[going] = self.read(z[torch.from_numpy(going)])
            there, moved = self.away(asked, now)
            inside = self.generator.typicality(z) >= FARTHEST
            taken = going & inside & (there + OTHERS * moved < own + OTHERS * others - LEAST_GAIN)
            refused = np.where(taken, 0, refused + going)
            longest = np.where(taken, np.minimum(1.5 * longest, LONGEST), np.where(going, step.norm(dim=1).numpy() / 2, longest))
            slopes, at = _updated(learned + self.correction, step, now - self.now), torch.from_numpy(taken)
            self.z = torch.where(at[:, None], z, self.z)
            self.correction = slopes - self.steering.jacobian(self.z)
            self.now, own, others = (
                np.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in ((now, self.now), (there, own), (moved, others))
            )
            self.path.append(self.z)
            self.factors.append(self.now)
            again = going & (refused == 2) & (asked_again < probes)
            if again.any():
                self.probe(torch.from_numpy(again), asked_again[again])
                longest, refused, asked_again = np.where(again, LONGEST / 2, longest), np.where(again, 0, refused), asked_again + again
            ended = np.where(~inside, "left the prior", np.where(np.isfinite(there), "no progress", "cannot be measured"))
            why = np.where(going & (own + others < CLOSE), "reached", np.where(going & (refused > 2), ended, why))
        self.stops.append(len(self.path) - 1)
        lost = (np.isfinite(self.start) & ~np.isfinite(self.now) & (asked == 0)).any(1)  # what was to hold, and nobody knows whether it did
        why = np.where(own + others < REACHED, "reached", np.where(why == "", "no progress", why))
        return np.where((why == "reached") & lost, "cannot be measured", why)


def steered_ends(
    generator: Generator, z: Tensor, name: str | tuple[str, ...], amounts: Sequence[float], measures: Measures | None = None, **how: Any
) -> tuple[Tensor, np.ndarray]:
    """z (A, N, d) in which factor `name`, or several together, has changed by each of `amounts` SDs, as far as it goes, and all
    factors there (A, N, F): of each image one path to what is above 0, and one to what is below. `how` are further arguments of `steer`."""
    ends, read = [z] * len(amounts), [np.full((len(z), len(how["steering"].factors)), np.nan)] * len(amounts)
    for side in (1, -1):
        way = sorted((side * amount, i) for i, amount in enumerate(amounts) if side * amount >= 0)
        if way:
            to = tuple(side * far for far, _ in way)
            path = steer(generator, z, dict.fromkeys([name] if isinstance(name, str) else name, to), measures, unit="sd", **how)
            for stop, (_, i) in zip(path.stops, way, strict=True):
                ends[i], read[i] = path.z[stop], path.factors[stop]
    return torch.stack(ends), np.stack(read)


@checked
def respond_steered(
    generator: InstanceOf[Generator],
    steering: InstanceOf[Steering],
    measures: InstanceOf[Measures] | None = None,
    *,
    amounts: Numbers = (-1.5, -0.75, 0, 0.75, 1.5),
    samples: Whole = 16,
    seed: Seed = 0,
    rounds: Count = ROUNDS,
    probes: Whole = PROBES,
) -> Responses:
    """What `respond` measures of directions, of steering: k is the factor that was to change while the others held, shifts are `amounts`
    in SDs; `rounds` and `probes` as in `steer`.

    From `samples` random images that no path was learned on. So its table has the same selectivity and r, and a factor that cannot be
    measured at a start is missing there.
    """
    measures = measures or generator.measures
    z = generator.draw(samples, torch.Generator().manual_seed(seed + 1_000_003))
    values = np.full((len(steering.factors), len(amounts), samples, len(steering.factors)), np.nan)
    bar = Progress("steering")
    for k, name in enumerate(steering.factors):
        if name in steering.can_move:
            values[k] = steered_ends(generator, z, name, amounts, measures, steering=steering, rounds=rounds, probes=probes)[1]
        bar(k + 1, len(steering.factors))
    spread = pd.Series(steering.spread, list(steering.factors))
    return Responses(
        values, np.asarray(amounts, float), spread, measures.levels, None, measures.units, measures, generator.info.fingerprint
    )


def _check(generator: Generator, measures: Measures, steering: Steering, changes: Mapping[str, tuple[float, ...]], hold: Any) -> None:
    if steering.generator and generator.info.fingerprint and steering.generator != generator.info.fingerprint:
        raise UserError(f"this steering was fitted on another generator (fingerprint {steering.generator}): fit it again")
    if not set(steering.factors) <= set(measures.factors):
        raise UserError(f"this steering was fitted to {', '.join(steering.factors)}, and the measures have {', '.join(measures.factors)}")
    wrong = [name for name in (*changes, *(hold if isinstance(hold, tuple) else ())) if name not in steering.factors]
    if wrong or not changes:
        raise UserError(f"steer changes and holds {', '.join(steering.factors)}, not {', '.join(map(str, wrong)) or 'nothing'}")
    if len({len(values) for values in changes.values()}) > 1 or not all(changes.values()):
        raise UserError(f"changes of several factors go together: as many amounts for each, one or more, not {dict(changes)}")
    still = [name for name in changes if name not in steering.can_move]
    if still:
        raise UserError(f"{', '.join(still)} cannot be measured, or does not vary, in samples of this generator")


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
