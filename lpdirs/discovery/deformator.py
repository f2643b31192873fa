"""Direction matrices of the original code bases: the deformators of Voynov and Babenko (2020) and Schoen et al. (2022)."""

from pathlib import Path

import torch

from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import unit
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.models.legacy import read_checkpoint, weights_in


def open_old_directions(path: str | Path) -> Directions:
    """Directions of a deformator's state dict, or of a checkpoint that holds one under "deformator".

    Linear and projective deformators hold one direction a column of linear.weight; their length is dropped, and so is a bias, since
    with it a direction depends on the shift (the notes tell that there was one, and its length beside that of the columns).
    Orthogonal ones hold the logarithm of the matrix. UserError for the nonlinear kind, which has no directions.
    """
    path = Path(path)
    state = weights_in(read_checkpoint(path), "deformator")
    notes: dict[str, object] = {"file": path.name}
    if "log_mat_half" in state:
        half = state["log_mat_half"].double()
        matrix = torch.linalg.matrix_exp(half - half.T).T
        notes["basis"] = "orthonormal"
    elif "linear.weight" in state:
        matrix = state["linear.weight"].double().T
        notes["basis"] = "unit"
        bias = state.get("linear.bias")
        notes["had_bias"] = bias is not None
        if bias is not None:
            notes["bias_length"] = float(bias.norm())
            notes["median_column_length"] = float(matrix.norm(dim=1).median())
    elif "fc1.weight" in state:
        raise UserError(f"{path.name} is a nonlinear deformator: it has no directions, only paths that bend with the shift")
    else:
        raise UserError(f"{path.name} holds no deformator: expected linear.weight or log_mat_half, found {', '.join(list(state)[:3])}")
    return Directions(unit(matrix).float().contiguous(), DirectionsInfo(method="original code", notes=notes))
