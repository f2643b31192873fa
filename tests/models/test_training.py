import errno
import os

import pytest
import torch

from lpdirs.base.checkpoints import load_checkpoint, train
from lpdirs.base.errors import SettingsDiffer, UserError
from lpdirs.data.store import open_dataset
from lpdirs.models.training import GANSettings, GANTraining, VAESettings, VAETraining, halve, steepness, update_average

TASKS = {
    "gan": (GANTraining, GANSettings(size=32, latent_dim=4, width=4, batch=8, noise=0.2, noise_steps=10, ema=0.9)),
    "gan-sn": (GANTraining, GANSettings(size=32, latent_dim=4, width=4, batch=8, spectral_norm=True)),
    "gan-r1": (GANTraining, GANSettings(size=32, latent_dim=4, width=4, batch=8, r1=0.5, halving=3, diffaugment=True)),
    "vae": (VAETraining, VAESettings(size=32, latent_dim=4, width=4, batch=8, halving=3)),
    "vae-calibrated": (VAETraining, VAESettings(size=32, latent_dim=4, width=4, batch=8, loss="calibrated", kl_weight=1.0)),
}


def same(a, b):
    """Equal bit for bit, through dicts, lists and tensors."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(params=TASKS)
def make(request, dataset):
    task, settings = TASKS[request.param]
    return lambda: task(open_dataset(dataset, "train"), settings)


def test_a_resumed_run_ends_as_an_undisturbed_one(make, tmp_path):
    whole = make()
    history = train(whole, 7, tmp_path / "whole", {})
    for stop in (2, 5, 7):
        parts = make()
        resumed = train(parts, stop, tmp_path / "parts", {}, save_every=2)
    assert resumed == history
    assert same(parts.state_dict(), whole.state_dict())


def test_a_finished_run_says_so_and_does_nothing(make, tmp_path):
    task = make()
    train(task, 2, tmp_path, {})
    seen = []
    assert len(train(make(), 2, tmp_path, {}, report=lambda done, total, losses: seen.append((done, total)))) == 2
    assert seen == [(2, 2)]


def test_training_leaves_torch_s_own_random_state_alone(make, tmp_path):
    before = torch.get_rng_state()
    train(make(), 1, tmp_path, {})
    assert torch.equal(before, torch.get_rng_state())


def test_a_damaged_checkpoint_is_passed_over(make, tmp_path):
    task = make()
    train(task, 4, tmp_path, {}, save_every=2)
    newest = tmp_path / "checkpoint.pt"
    for damaged in (newest.read_bytes()[:-500], b"", bytes(1000)):
        newest.write_bytes(damaged)
        assert len(load_checkpoint(tmp_path)["history"]) == 2
    again = make()
    train(again, 4, tmp_path, {}, save_every=2)
    assert same(again.state_dict(), task.state_dict())


def test_other_settings_are_refused_by_name(make, tmp_path):
    task = make()
    train(task, 1, tmp_path, task.settings.model_dump())
    with pytest.raises(SettingsDiffer, match="lr was .* and is now 0.5"):
        train(make(), 2, tmp_path, task.settings.model_dump() | {"lr": 0.5})


def test_divergence_stops_with_the_step(make, tmp_path):
    task = make()
    step = task.step
    task.step = lambda index: step(index) if index < 2 else {"loss": float("nan")}
    with pytest.raises(UserError, match="not finite at step 3.*smaller learning rate"):
        train(task, 5, tmp_path, {}, save_every=1)
    assert len(load_checkpoint(tmp_path)["history"]) == 2


def test_the_vae_learns(dataset, tmp_path):
    settings = VAESettings(size=32, latent_dim=8, width=8, batch=16, lr=2e-3)
    history = train(VAETraining(open_dataset(dataset, "train"), settings), 40, tmp_path, {})
    assert history[-1]["squared_error"] < 0.5 * history[0]["squared_error"]


def test_the_gan_s_two_sides_both_learn(dataset, tmp_path):
    task = GANTraining(open_dataset(dataset, "train"), TASKS["gan"][1])
    before = {k: v.clone() for k, v in task.generator.state_dict().items()}
    history = train(task, 30, tmp_path, {})
    assert history[-1]["loss_d"] < history[0]["loss_d"]
    moved = [k for k, v in task.generator.state_dict().items() if not torch.equal(v, before[k])]
    assert len(moved) == len(before), "every weight and statistic of G has moved"


def test_the_moving_average_is_what_it_says():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.75 * a.weight + 0.25 * b.weight
    update_average(a, b, 0.75)
    assert torch.allclose(a.weight, expected)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UserError, match="vae_loss must be 'paper' or 'calibrated', not 'l2'"):
        VAESettings(size=32, loss="l2")


def test_fewer_steps_than_were_trained_are_refused_and_more_go_on(make, tmp_path):
    train(make(), 4, tmp_path, {})
    with pytest.raises(SettingsDiffer, match="was trained for 4 steps, and 2 are asked for: ask for at least as many"):
        train(make(), 2, tmp_path, {})
    assert len(train(make(), 5, tmp_path, {})) == 5


def test_a_checkpoint_of_other_code_is_put_aside_and_training_begins_again(make, tmp_path, capsys):
    first = make()
    history = train(first, 3, tmp_path, {"code": "a"})
    again = make()
    assert train(again, 3, tmp_path, {"code": "b"}) == history and same(again.state_dict(), first.state_dict())
    assert "kept as checkpoint.a.pt: begun again" in capsys.readouterr().out and (tmp_path / "checkpoint.a.pt").exists()
    for code in ("b", "a"):  # neither was lost
        seen = []
        train(make(), 3, tmp_path, {"code": code}, report=lambda done, total, losses, seen=seen: seen.append(done))
        assert seen == [3], "nothing was trained"
    (tmp_path / "checkpoint.previous.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    train(make(), 1, tmp_path, {"code": "c"})
    assert load_checkpoint(tmp_path)["settings"]["code"] == "c"
    (tmp_path / "checkpoint.a.pt").rename(tmp_path / "checkpoint.pt")
    assert len(load_checkpoint(tmp_path)["history"]) == 3, "the good one was kept, not the torn one"


def test_a_flipped_bit_is_noticed_or_makes_no_difference(make, tmp_path, rng):
    task = make()
    train(task, 2, tmp_path, {}, save_every=2)
    path = tmp_path / "checkpoint.pt"
    whole, good = path.read_bytes(), load_checkpoint(tmp_path)
    damaged = 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            assert same(load_checkpoint(tmp_path), good)
        except UserError as error:
            assert "cannot be read" in str(error) and "\n" not in str(error)
            damaged += 1
    assert damaged > 40


def test_the_last_good_checkpoint_outlives_a_damaged_one_and_a_full_disk(make, tmp_path, capsys, monkeypatch):
    train(make(), 4, tmp_path, {}, save_every=2)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:2000])

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="disk is full"):
            train(make(), 6, tmp_path, {}, save_every=1)
    assert "checkpoint.pt is damaged and kept as checkpoint.damaged.pt; going on from step 2" in capsys.readouterr().out
    assert len(load_checkpoint(tmp_path)["history"]) == 2
    assert len(train(make(), 6, tmp_path, {})) == 6


def test_where_all_are_damaged_nothing_begins_again_in_silence(make, tmp_path):
    train(make(), 4, tmp_path, {}, save_every=2)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"x" * 500)
    with pytest.raises(UserError, match="checkpoint.pt and checkpoint.previous.pt cannot be read"):
        train(make(), 6, tmp_path, {})
    assert len(train(make(), 6, tmp_path, {})) == 6, "asked again, it begins again"


def test_rights_that_are_missing_are_no_damage(make, tmp_path, monkeypatch):
    train(make(), 2, tmp_path, {})

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        load_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()


def test_r1_is_the_squared_gradient():
    """Of a D that is linear it is the squared length of its weights; of one that is flat, nothing."""
    x, weights = torch.randn(5, 1, 4, 4, requires_grad=True), torch.arange(16.0)
    assert steepness(x.flatten(1) @ weights, x).item() == pytest.approx(float(weights.square().sum()))
    assert steepness(x.flatten(1) @ (0 * weights), x).item() == 0


def test_the_learning_rate_halves_and_does_not_depend_on_the_number_of_steps():
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.8)
    seen = []
    for index in (0, 10, 20, 30):
        halve(optimiser, 0.8, 10, index)
        seen.append(optimiser.param_groups[0]["lr"])
    assert seen == pytest.approx([0.8, 0.4, 0.2, 0.1])
    halve(optimiser, 0.8, 0, 10**6)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1), "0 leaves it as it is"
