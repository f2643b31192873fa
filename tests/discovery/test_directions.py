import pytest
import torch
from safetensors.torch import save_file

from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.discovery.objective import DirectionMatrix


@pytest.mark.parametrize(("basis", "k"), [("unit", 4), ("unit", 20), ("orthonormal", 4), ("orthonormal", 8)])
def test_a_step_back_is_exactly_minus_a_step_forward(basis, k):
    matrix = DirectionMatrix(k, 8, basis)
    which, eps = torch.arange(k), torch.linspace(0.1, 6, k)
    assert torch.equal(matrix(which, -eps), -matrix(which, eps))


@pytest.mark.parametrize(("basis", "k"), [("unit", 20), ("orthonormal", 5)])
def test_directions_stay_of_unit_length_while_they_are_trained(basis, k):
    matrix = DirectionMatrix(k, 8, basis)
    optimiser = torch.optim.Adam(matrix.parameters(), 0.1)
    target = torch.randn(8)
    for _ in range(20):
        optimiser.zero_grad()
        (matrix(torch.arange(k), torch.ones(k)) @ target).sum().backward()
        optimiser.step()
    found = matrix.directions().matrix
    assert torch.allclose(found.norm(dim=1), torch.ones(k), atol=1e-5)
    if basis == "orthonormal":
        assert torch.allclose(found @ found.T, torch.eye(k), atol=1e-5)


def test_more_orthonormal_directions_than_dimensions_are_refused():
    with pytest.raises(UserError, match="9 orthonormal directions do not fit in 8 .*at most 8"):
        DirectionMatrix(9, 8, "orthonormal")


def test_shift_is_z_plus_eps_a_k_and_nothing_else():
    directions = Directions(random(5, 8))
    z = torch.randn(3, 8)
    assert torch.equal(directions.shift(z, 2, 0.0), z)
    assert torch.allclose(directions.shift(z, 2, -1.5), z - 1.5 * directions.matrix[2])
    k, eps = torch.tensor([0, 4, 1]), torch.tensor([1.0, 2.0, -3.0])
    assert torch.allclose(directions.shift(z, k, eps), z + eps[:, None] * directions.matrix[k])


def test_a_file_gives_back_what_was_saved(tmp_path):
    info = DirectionsInfo(method="test", names={3: "rotation"}, words={3: "rotation, +3 degrees"}, cotrained_accuracy=0.5, notes={"a": [1]})
    saved = Directions(random(5, 8), info)
    saved.save(tmp_path / "d.safetensors")
    loaded = Directions.load(tmp_path / "d.safetensors")
    assert torch.equal(loaded.matrix, saved.matrix) and loaded.info == saved.info
    assert loaded.title(3) == "rotation (3)" and loaded.title(0) == "direction 0"
    assert loaded.words(3) == "rotation, +3 degrees" and loaded.words(0) == "not measured" and loaded.in_order() == [3, 0, 1, 2, 4]


def test_other_files_and_vectors_are_refused(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no directions"):
        Directions.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="unit vectors"):
        Directions(torch.ones(2, 8))


def test_the_paper_s_start_has_the_original_s_length_and_turns_as_fast():
    """The original's columns begin at 0.1 * randn and are trained as they are: a step of Adam turns them by the rate over their length."""

    def turned(basis, sd):
        torch.manual_seed(0)
        matrix = DirectionMatrix(32, 32, basis, start_sd=sd)
        before = matrix.directions().matrix
        optimiser, target = torch.optim.Adam(matrix.parameters(), 1e-4), torch.randn(32, 32)
        for _ in range(60):
            optimiser.zero_grad()
            (matrix.linear.weight * target).sum().backward()
            optimiser.step()
        after = matrix.directions().matrix
        return float(torch.rad2deg(torch.acos((before * after).sum(1).clamp(-1, 1))).mean()), before

    (slow, _), (fast, start) = turned("unit", None), turned("unit", 0.1)
    assert fast / slow == pytest.approx(1 / (0.1 * 32**0.5), rel=0.1)
    assert torch.allclose(start.norm(dim=1), torch.ones(32), atol=1e-5)
    angle, start = turned("orthonormal", 0.1)
    assert torch.allclose(start @ start.T, torch.eye(32), atol=1e-4) and angle > 0
