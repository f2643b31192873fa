"""Directions: K unit vectors in a latent space, as a trainable matrix A and as one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.settings import Settings
from lpdirs.base.words import FACTORS, factor_words
from lpdirs.discovery.curved import along
from lpdirs.models.files import read_header
from lpdirs.models.generators import info_of, latent_dim_of

FORMAT, FORMAT_OF_CURVES = "lpdirs.directions/2", "lpdirs.directions/3"


class DirectionsInfo(Settings):
    """What is known of a set of directions: how they were found, on which generator, and what was measured along them."""

    method: str = Field("", description="how they were found")
    seed: int | None = None
    generator: str = Field("", description="name of the generator that they belong to")
    generator_fingerprint: str = Field("", description="short hash of its weights")
    prior: str = Field("normal", description="what z is drawn from")
    shift_scale: float = Field(6.0, gt=0, description="largest |shift| in the search")
    start: str | None = Field(None, description="what A began at")
    settings: dict[str, Any] = Field({}, description="of the search")
    cotrained_accuracy: float | None = Field(None, description="of the R that was trained together with A (the paper's RCA)")
    names: dict[int, str] = Field(
        {}, description="of directions that earned one, and of those that were made from known factors (oracle, curved)"
    )
    best_for: dict[int, str] = Field(
        {}, description="the factor that a direction follows best of all here, whether or not it earned the name"
    )
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

    def shift(self, z: Tensor, k: Any, eps: Any) -> Tensor:
        """z + eps * a_k, along the curve where direction k bends; z (B, d), k an index or (B,), eps a number or (B,).

        UserError for z of another generator's latent space.
        """
        if z.shape[-1] != self.latent_dim:
            raise UserError(f"directions of {self.latent_dim} dimensions do not fit z of {z.shape[-1]}: they belong to another generator")
        eps = torch.as_tensor(eps, dtype=z.dtype, device=z.device).reshape(-1, 1)
        moved = z + eps * self.matrix[k.cpu() if isinstance(k, Tensor) else k].to(z)
        for one, bend in self.bends.items():
            here = torch.as_tensor(k, device=z.device).expand(len(moved)) == one
            if here.any():
                moved[here] = z.expand(len(moved), -1)[here] + along(bend.to(z), eps.expand(len(moved), 1)[here, 0])
        return moved

    def check(self, generator: nn.Module) -> None:
        """UserError unless these directions fit the generator: its latent space and, as far as both say, its very weights."""
        d, other = latent_dim_of(generator), info_of(generator).fingerprint
        if d != self.latent_dim:
            raise UserError(f"directions of {self.latent_dim} dimensions do not fit z of {d}: they belong to another generator")
        if self.info.generator_fingerprint and other and self.info.generator_fingerprint != other:
            raise UserError(f"these directions belong to another generator (fingerprint {self.info.generator_fingerprint}, not {other})")

    def title(self, k: int) -> str:
        """Direction k's name and number: "rotation (4)"; where it has earned none "best for rotation (4)", or "direction 4"."""
        name, best = self.info.names.get(k), self.info.best_for.get(k)
        return f"{factor_words(name)} ({k})" if name else f"best for {factor_words(best)} ({k})" if best else f"direction {k}"

    def words(self, k: int) -> str:
        """What direction k does, with size and unit; "not measured" where nobody has looked."""
        return self.info.words.get(k, "not measured")

    def in_order(self) -> list[int]:
        """All k: the best for each factor first, then others that have a name, then the rest."""
        names, best, order = self.info.names, self.info.best_for, list(FACTORS)
        rank = lambda k: order.index(best[k]) if best.get(k) in order else len(order)
        return sorted(range(len(self)), key=lambda k: (k not in best, k not in names, rank(k), names.get(k, best.get(k, "")), k))

    def with_info(self, **changes: Any) -> "Directions":
        """The same directions with some of what is known of them changed."""
        return replace(self, info=self.info.but(**changes))

    def save(self, path: str | Path) -> None:
        """Write matrix and info to one file, whose name ends with .safetensors."""
        if Path(path).suffix != ".safetensors":
            raise UserError(f"directions are written as safetensors: call the file {Path(path).stem}.safetensors, not {Path(path).name}")
        try:
            header = {"format": FORMAT_OF_CURVES if self.bends else FORMAT, "metadata": self.info.model_dump_json()}
        except ValueError as error:
            raise UserError(f"notes must hold what JSON knows: text, numbers, lists, mappings ({error})") from error
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        tensors = {"directions": self.matrix} | {f"bend.{k}": bend for k, bend in self.bends.items()}
        kept = {name: value.detach().contiguous().float().cpu() for name, value in tensors.items()}
        write_atomic(path, lambda partial: save_file(kept, partial, header))

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote, also by earlier versions; UserError, in one line, for any other file."""
        header, name = read_header(path), Path(path).name
        family, _, number = header.get("format", "").partition("/")
        if family != FORMAT.partition("/")[0]:
            raise UserError(f"{name} holds no directions (format {header.get('format')!r}, not {FORMAT!r})")
        if number not in ("1", "2", "3"):
            here = f"{header['format']!r}, here {FORMAT_OF_CURVES!r}"
            raise UserError(f"{name} is of a newer lpdirs (format {here}): update lpdirs to open it")
        try:
            content = json.loads(header["metadata"])
            info = DirectionsInfo(**(_from_first_format(content) if number == "1" else content))
            with safe_open(path, "pt") as file:
                bends = {int(key.removeprefix("bend.")): file.get_tensor(key) for key in file.keys() if key.startswith("bend.")}
                return cls(file.get_tensor("directions"), info, bends)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{name} does not hold the directions that it should ({error}): write it again") from error


def _from_first_format(metadata: dict[str, Any]) -> dict[str, Any]:
    """The info of a file of format 1, whose metadata was free; what has no place of its own is kept among the notes."""
    old = dict(metadata)
    info = {name: old.pop(name) for name in DirectionsInfo.model_fields if name in old and name != "notes"}
    info["cotrained_accuracy"] = old.get("scores", {}).get("rca_cotrained")
    info["settings"] = {**info.get("settings", {}), **({"steps": old.pop("steps")} if "steps" in old else {})}
    return info | {"notes": {name: value for name, value in old.items() if name not in ("scores", "n_directions", "latent_dim")}}


class DirectionMatrix(nn.Module):
    """The trainable A: `basis` "unit" (unit-length, any K) or "orthonormal" (K <= d, matrix exponential).

    No bias, so that A(-eps) = -A(eps) exactly. The start is random, as in the paper, or a set of k `start` directions, of which
    "orthonormal" takes the nearest orthonormal ones in their order (QR).

    With `start_sd` the start is the original code's: entries of that SD, whose length stays as it is behind the division by it, so that
    Adam turns short columns faster; and for "orthonormal" the exponential of B - B^T with entries of B of SD 1, trained as B.
    """

    def __init__(self, k: int, latent_dim: int, basis: str = "unit", start: Directions | None = None, start_sd: float | None = None):
        super().__init__()
        if basis == "orthonormal" and k > latent_dim:
            raise UserError(
                f"{k} orthonormal directions do not fit in {latent_dim} latent dimensions: "
                f"set n_directions to at most {latent_dim}, or basis to 'unit'"
            )
        self.linear = nn.Linear(k, latent_dim, bias=False)  # columns of its weight (d, K) are the directions
        with torch.no_grad():
            columns = torch.randn(latent_dim, k) if start is None else start.matrix.T
            if columns.shape != (latent_dim, k):
                raise UserError(f"the start holds {columns.shape[1]} directions of {columns.shape[0]} dimensions, not {k} of {latent_dim}")
            length = columns.norm(dim=0) if start_sd is None or start is not None else 1 / start_sd
            self.linear.weight.copy_(columns / length)
        if basis == "orthonormal" and start_sd is not None and start is None:
            parametrize.register_parametrization(self.linear, "weight", SkewExponential(k), unsafe=True)
        elif basis == "unit":
            parametrize.register_parametrization(self.linear, "weight", UnitColumns())
        elif basis == "orthonormal":
            parametrizations.orthogonal(self.linear, orthogonal_map="matrix_exp")
        else:
            raise UserError(f"basis must be 'unit' or 'orthonormal', not {basis!r}")

    def forward(self, k: Tensor, eps: Tensor) -> Tensor:
        """Shifts eps * a_k (B, d) for k (B,) and eps (B,)."""
        return eps[:, None] * self.linear.weight.T[k]

    def directions(self, info: DirectionsInfo | None = None) -> Directions:
        """A as it stands."""
        with torch.no_grad():
            return Directions(self.linear.weight.T.clone().cpu(), info or DirectionsInfo())


class SkewExponential(nn.Module):
    """The first k columns of exp(B - B^T), of a B (d, d) whose entries begin with SD 1."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k

    def forward(self, half: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(half - half.T)[:, : self.k]

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.randn(len(weight), len(weight))


class UnitColumns(nn.Module):
    """Columns divided by their length."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.norm(dim=0, keepdim=True)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight
