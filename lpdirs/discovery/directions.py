"""Directions: K unit vectors in a latent space, as a trainable matrix A and as one file."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from lpdirs.errors import UserError
from lpdirs.files import write_atomic

FORMAT = "lpdirs.directions/1"


@dataclass(frozen=True)
class Directions:
    """`matrix` (K, d), a unit vector a row, and `metadata` that says where they come from (JSON-serialisable)."""

    matrix: Tensor
    metadata: dict = field(default_factory=dict)

    def __post_init__(self):
        norms = self.matrix.norm(dim=1)
        if not torch.allclose(norms, torch.ones_like(norms), atol=1e-4):
            raise UserError(f"directions must be unit vectors; lengths run from {norms.min():.4f} to {norms.max():.4f}")

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def latent_dim(self) -> int:
        return self.matrix.shape[1]

    def shift(self, z: Tensor, k, eps) -> Tensor:
        """z + eps * a_k; z (B, d), k an index or (B,), eps a number or (B,)."""
        step = torch.as_tensor(eps, dtype=z.dtype, device=z.device).reshape(-1, 1)
        return z + step * self.matrix[k].to(z)

    def name(self, k: int) -> str:
        """The direction's name, or its number where it has none."""
        return self.metadata.get("names", {}).get(str(k), f"direction {k}")

    def save(self, path: str | Path) -> None:
        """Write matrix and metadata to one safetensors file."""
        header = {"format": FORMAT, "metadata": json.dumps(self.metadata)}
        matrix = {"directions": self.matrix.detach().contiguous().float().cpu()}
        write_atomic(path, lambda partial: save_file(matrix, partial, header))

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote; UserError for a safetensors file of another kind."""
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise UserError(f"{Path(path).name} holds no directions (format {header.get('format')!r}, not {FORMAT!r})")
            return cls(file.get_tensor("directions"), json.loads(header["metadata"]))


class DirectionMatrix(nn.Module):
    """The trainable A: `basis` "unit" (unit-length, any K) or "orthonormal" (K <= d, matrix exponential).

    No bias, so that A(-eps) = -A(eps) exactly. The start is random, as in the paper, or a set of k `start` directions, of which
    "orthonormal" takes the nearest orthonormal ones in their order (QR).
    """

    def __init__(self, k: int, latent_dim: int, basis: str = "unit", start: Directions | None = None):
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
            self.linear.weight.copy_(columns / columns.norm(dim=0))
        if basis == "unit":
            parametrize.register_parametrization(self.linear, "weight", UnitColumns())
        elif basis == "orthonormal":
            parametrizations.orthogonal(self.linear, orthogonal_map="matrix_exp")
        else:
            raise UserError(f"basis must be 'unit' or 'orthonormal', not {basis!r}")

    def forward(self, k: Tensor, eps: Tensor) -> Tensor:
        """Shifts eps * a_k (B, d) for k (B,) and eps (B,)."""
        return eps[:, None] * self.linear.weight.T[k]

    def directions(self, **metadata) -> Directions:
        with torch.no_grad():
            return Directions(self.linear.weight.T.clone(), metadata)


class UnitColumns(nn.Module):
    """Columns divided by their length."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.norm(dim=0, keepdim=True)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight
