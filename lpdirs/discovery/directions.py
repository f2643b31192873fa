"""Directions: K unit vectors in a latent space, what is known of them, and one file that holds both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lpdirs.base.checked import Settings
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.discovery.registry import title_of
from lpdirs.measures.measures import factor_words
from lpdirs.models.files import read_header
from lpdirs.models.generators import Generator, tensor_of

FORMAT = "lpdirs.directions/4"
MODELS = {"gan": "GAN", "vae": "VAE"}


@dataclass(frozen=True)
class SetId:
    """What a set of directions is: on which generator, by which method, and how many; `label` names files, `title` is for readers."""

    generator: str
    method: str
    k: int
    basis: str = ""
    reconstructor: str = ""
    start: str = ""

    @property
    def label(self) -> str:
        """A name for a folder, such as gan-unit32-lenet; nobody reads anything out of it again."""
        method = self.method.rpartition(":")[2]
        return "-".join(part for part in (self.generator, f"{self.basis or method}{self.k}", self.reconstructor, self._from) if part)

    @property
    def _from(self) -> str:
        return f"from-{self.start}" if self.start not in ("", "random") else ""

    @property
    def model(self) -> str:
        """The generator in words."""
        return MODELS.get(self.generator, self.generator)

    @property
    def search(self) -> str:
        """How they were found, in words."""
        return title_of(self.method, self.basis, self.reconstructor, self.start) + f", K = {self.k}"

    @property
    def title(self) -> str:
        """All of it in words: "GAN, the paper's method (LeNet), K = 32"."""
        return f"{self.model}, {self.search}"


class Best(Settings):
    """The best direction for a factor: that of largest |r| * selectivity (with one factor |r| * |effect|), among those that move it.

    `r` and `selectivity` are chosen on half of the starting images and measured on the other; `slope` is units a unit of shift.
    `chance` is the selectivity that random sets reach in the median, and `p` how likely one of them lies as far out for any factor.
    """

    direction: int = Field(ge=0)
    slope: float | None = None
    r: float | None = None
    selectivity: float | None = None
    chance: float | None = None
    p: float | None = None

    @property
    def beyond_chance(self) -> bool:
        """Whether its selectivity is, at 5 percent, corrected for all factors."""
        return self.p is not None and self.p <= 0.05


class DirectionsInfo(Settings):
    """What is known of a set of directions: how they were found, on which generator, and what was measured along them."""

    method: str = Field("", description="how they were found")
    basis: str = Field("", description="of the paper's search: unit or orthonormal")
    reconstructor: str = Field("", description="that the search trained")
    start: str = Field("", description="what A began at")
    seed: int | None = None
    generator: str = Field("", description="name of the generator that they belong to")
    generator_fingerprint: str = Field("", description="short hash of its weights")
    prior: str = Field("normal", description="what z is drawn from")
    shift_scale: float = Field(6.0, gt=0, description="largest |shift| in the search")
    settings: dict[str, Any] = Field({}, description="of the search")
    cotrained_accuracy: float | None = Field(None, description="of the R that was trained together with A (the paper's RCA)")
    names: dict[int, str] = Field(
        {}, description="of directions that earned one, and of those that were made from known factors (oracle, curved)"
    )
    best: dict[str, Best] = Field({}, description="the best direction for each factor, whether or not it earned the name")
    words: dict[int, str] = Field({}, description="what each does, in words")
    curves: dict[int, list[float]] = Field({}, description="how its main factor goes along each, in SDs")
    notes: dict[str, Any] = Field({}, description="anything else")


@dataclass(frozen=True, eq=False)
class Directions:
    """`matrix` (K, d), a unit vector a row, and `info`, which says where they come from.

    `bends` has those that are curved, {k: (n, 1 + d)}: ways along the curve and the offsets there (`curved.curved`); their row of the
    matrix is the tangent.
    """

    matrix: Tensor
    info: DirectionsInfo = field(default_factory=DirectionsInfo)
    bends: Mapping[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.matrix, Tensor) or not self.matrix.is_floating_point() or self.matrix.ndim != 2 or not len(self.matrix):
            given = f"{self.matrix.dtype} {tuple(self.matrix.shape)}" if isinstance(self.matrix, Tensor) else type(self.matrix).__name__
            raise UserError(f"directions must be a matrix (K, d) of floating-point numbers, a direction a row, not {given}")
        if self.matrix.requires_grad or self.matrix.dtype in (torch.bfloat16, torch.float16):
            object.__setattr__(self, "matrix", self.matrix.detach().float())
        if not isinstance(self.info, DirectionsInfo):
            raise UserError("info must be a DirectionsInfo, such as DirectionsInfo(names={0: 'rotation'})")
        for k, bend in self.bends.items():
            whole = k in range(len(self)) and bend.ndim == 2 and len(bend) > 1 and bend.shape[1] == self.latent_dim + 1
            if not whole or not bend.isfinite().all() or not (bend[1:, 0] > bend[:-1, 0]).all():
                raise UserError(
                    f"the bend of direction {k} must be (n, 1 + {self.latent_dim}) finite numbers, the first of each row growing"
                )
        norms = self.matrix.norm(dim=1)
        if not torch.allclose(norms, torch.ones_like(norms), atol=1e-4):
            raise UserError(f"directions must be unit vectors; lengths run from {norms.min():.4f} to {norms.max():.4f}")

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def latent_dim(self) -> int:
        """d."""
        return self.matrix.shape[1]

    @property
    def id(self) -> SetId:
        """What set it is."""
        info = self.info
        return SetId(info.generator or "own", info.method, len(self), info.basis, info.reconstructor, info.start)

    def shift(self, z: Any, k: Any, shift: Any) -> Tensor:
        """z + shift * a_k, along the curve where direction k bends; z (B, d), k an index or (B,), shift a number or (B,).

        UserError for z of another generator's latent space.
        """
        z = z if isinstance(z, Tensor) and z.is_floating_point() else tensor_of(z)
        if z.shape[-1] != self.latent_dim:
            raise UserError(f"directions of {self.latent_dim} dimensions do not fit z of {z.shape[-1]}: they belong to another generator")
        shift = torch.as_tensor(shift, dtype=z.dtype, device=z.device).reshape(-1, 1)
        moved = z + shift * self.matrix[k.cpu() if isinstance(k, Tensor) else k].to(z)
        for one, bend in self.bends.items():
            bent = torch.as_tensor(k, device=z.device).expand(len(moved)) == one
            if bent.any():
                moved[bent] = z.expand(len(moved), -1)[bent] + along(bend.to(z), shift.expand(len(moved), 1)[bent, 0])
        return moved

    def check(self, generator: Generator) -> None:
        """UserError unless these directions fit the generator: its latent space and, as far as both say, its very weights."""
        d, own, other = generator.latent_dim, self.info.generator_fingerprint, generator.info.fingerprint
        if d != self.latent_dim:
            raise UserError(f"directions of {self.latent_dim} dimensions do not fit z of {d}: they belong to another generator")
        if own and other and own != other:
            raise UserError(f"these directions belong to another generator (fingerprint {own}, not {other})")

    def title(self, k: int) -> str:
        """Direction k's name and number: "rotation (4)"; where it has earned none "best for rotation (4)", or "direction 4"."""
        if name := self.info.names.get(k):
            return f"{factor_words(name)} ({k})"
        best = {factor: found.selectivity or 0.0 for factor, found in self.info.best.items() if found.direction == k}
        return f"best for {factor_words(max(best, key=best.__getitem__))} ({k})" if best else f"direction {k}"

    def words(self, k: int) -> str:
        """What direction k does, with size and unit; "not measured" where nobody has looked."""
        return self.info.words.get(k, "not measured")

    def in_order(self) -> list[int]:
        """All k: the best for each factor first, in the order of the factors, then others that have a name, then the rest."""
        best = [found.direction for found in self.info.best.values()]
        return list(dict.fromkeys([*best, *sorted(self.info.names), *range(len(self))]))

    def with_info(self, **changes: Any) -> "Directions":
        """The same directions with some of what is known of them changed."""
        return replace(self, info=self.info.but(**changes))

    def save(self, path: str | Path) -> None:
        """Write matrix and info to one file, whose name ends with .safetensors; the same set gives the same bytes."""
        if Path(path).suffix != ".safetensors":
            raise UserError(f"directions are written as safetensors: call the file {Path(path).stem}.safetensors, not {Path(path).name}")
        try:
            metadata = self.info.model_dump_json()
        except ValueError as error:
            raise UserError(f"notes must hold what JSON knows: text, numbers, lists, mappings ({error})") from error
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        tensors = {"directions": self.matrix} | {f"bend.{k}": bend for k, bend in self.bends.items()}
        kept = {name: value.detach().contiguous().float().cpu() for name, value in tensors.items()}
        content = save(kept, {"lpdirs": json.dumps({"format": FORMAT, "metadata": metadata})})  # one key: several are written in any order
        write_atomic(path, content)

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote; UserError, in one line, for any other file."""
        header, name = read_header(path), Path(path).name
        if header.get("format") != FORMAT:
            said = f"holds no directions (format {header.get('format')!r}, not {FORMAT!r})"
            old = "; of an earlier lpdirs: convert it with examples/convert.py" if "directions" in header.get("format", "") else ""
            raise UserError(f"{name} {said}{old}")
        try:
            info = DirectionsInfo(**json.loads(header["metadata"]))
            with safe_open(path, "pt") as file:
                bends = {int(key.removeprefix("bend.")): file.get_tensor(key) for key in file.keys() if key.startswith("bend.")}
                return cls(file.get_tensor("directions"), info, bends)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{name} does not hold the directions that it should ({error}): write it again") from error


def along(bend: Tensor, shift: Tensor) -> Tensor:
    """The offset (B, d) after the ways `shift` (B,); beyond the ends it goes on straight."""
    way, offset = bend[:, 0].contiguous(), bend[:, 1:]
    i = (torch.searchsorted(way, shift.contiguous()) - 1).clamp(0, len(way) - 2)
    share = (shift - way[i]) / (way[i + 1] - way[i])
    return offset[i] + share[:, None] * (offset[i + 1] - offset[i])
