"""What a child process trains, to be killed by tests; imported by multiprocessing's forkserver before it forks."""

from pathlib import Path

import torch

from lpdirs.base.checkpoints import train
from lpdirs.data.store import open_dataset
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.models.training import GANSettings, GANTraining, VAESettings, VAETraining
from tests.toys import bare

STEPS = 60


def make(kind: str, dataset: Path):
    """A small training of one kind, always the same."""
    torch.manual_seed(1)
    if kind == "gan":
        settings = GANSettings(size=32, latent_dim=4, width=4, batch=8, noise=0.2, noise_steps=10, ema=0.9)
        return GANTraining(open_dataset(dataset, "train"), settings)
    if kind == "vae":
        return VAETraining(open_dataset(dataset, "train"), VAESettings(size=32, latent_dim=4, width=4, batch=8))
    return Discovery(bare(GeneratorNetwork(32, 4, 4)), DiscoverySettings(n_directions=3, batch=8))


def run(kind: str, dataset: Path, folder: Path, save_every: int, steps_done) -> None:
    """Train to the end, unless something comes between; `steps_done` (a shared integer) counts this process's steps."""
    torch.set_num_threads(1)

    def count(done: int, total: int, losses: dict) -> None:
        steps_done.value += 1

    train(make(kind, dataset), STEPS, folder, {}, save_every, count)
