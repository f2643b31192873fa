"""Steps of training against a loop as PyTorch's examples write it, and against pythae's trainer. python -m tests.benchmarks.steps

The same networks, batch and loss on both sides, with the loader in the step, at the sizes of the profiles demo, chest and paper; then a
step with all that the profile adds (noise, spectral norm, moving average, augmentation). The other sides run in processes of their own.
Without pythae (`pip install --no-deps pythae`) its side is left out; its loss is its own, a squared error and KL.
"""

import re
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from lpdirs.base.compute import cores
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from lpdirs.models.networks import Decoder, Encoder
from lpdirs.models.training import GANSettings, GANTraining, VAESettings, VAETraining
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs.settings import resolve
from tests.benchmarks.bench import Apart, alternate, write
from tests.benchmarks.naive import NaiveGAN, NaiveVAE

PLAIN_GAN = {"noise": 0.0, "ema": 0.0, "spectral_norm": False, "diffaugment": False, "augment": False, "halving": 0}
PLAIN_VAE = {"loss": "paper", "kl_weight": 0.01, "augment": False, "halving": 0}
FP32 = {"precision": "fp32"}
BATCH = {"paper": 8}  # of the others their own
KINDS = {"convolution": "conv", "BatchNorm": "batch_norm", "upsampling": "upsample", "Adam": "adam|_foreach|Optimizer"}


def naive(model: str, settings: GANSettings | VAESettings, folder: Path) -> Callable[[], object]:
    """A step of a plain loop, with the same loader."""
    slices, turn = open_dataset(folder), iter(range(10**6))
    load = (GANTraining(slices, settings) if model == "gan" else VAETraining(slices, settings)).loader
    loop = (NaiveGAN if model == "gan" else NaiveVAE)(settings.size, settings.latent_dim, settings.width)
    return lambda: loop.step(load[next(turn)])


def of_pythae(settings: VAESettings, folder: Path) -> Callable[[], object]:
    """A step of pythae's trainer on the same encoder and decoder."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    slices = open_dataset(folder)

    class TheirEncoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = Encoder(settings.size, settings.latent_dim, settings.width)

        def forward(self, x):
            mean, log_variance = self.net(x)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class TheirDecoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = Decoder(settings.size, settings.latent_dim, settings.width)

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    config = VAEConfig(input_dim=(1, settings.size, settings.size), latent_dim=settings.latent_dim)
    model = VAE(config, TheirEncoder(), TheirDecoder())
    data = BaseDataset(slices.tensor(range(settings.batch)), torch.zeros(settings.batch))
    config = BaseTrainerConfig(str(folder / "trained"), per_device_train_batch_size=settings.batch, no_cuda=True)
    trainer = BaseTrainer(model, data, training_config=config)
    trainer.prepare_training()
    epoch = iter(range(1, 10**6))
    return lambda: trainer.train_step(next(epoch)) and None


def shares(step: Callable[[], object], steps: int = 5) -> dict[str, float]:
    """The share of a step's time on the CPU that its kinds of operations take, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            step()
    taken = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    whole = sum(taken.values())
    return {kind: round(sum(t for op, t in taken.items() if re.search(ops, op)) / whole, 3) for kind, ops in KINDS.items()}


def at(profile: str, folder: Path, rounds: int) -> dict:
    settings = resolve(profile, {})
    gan, vae = settings.gan, settings.vae
    if profile in BATCH:
        gan, vae = gan.but(batch=BATCH[profile]), vae.but(batch=BATCH[profile])
    build_dataset(folder / "dicom", folder / f"data{gan.size}", DataSettings(size=gan.size))
    slices = open_dataset(folder / f"data{gan.size}")
    turn = iter(range(10**6))
    run = lambda training: lambda: training.step(next(turn))
    found = {}
    for name, s, ours in (
        ("gan", gan, [GANTraining(slices, gan.but(**more)) for more in (PLAIN_GAN | FP32, {}, PLAIN_GAN)]),
        ("vae", vae, [VAETraining(slices, vae.but(**more)) for more in (PLAIN_VAE | FP32, {}, PLAIN_VAE)]),
    ):
        load, where = ours[0].loader, folder / f"data{gan.size}"
        sides = [run(ours[0]), Apart(naive, name, s, where), run(ours[1]), lambda x=load: x[next(turn)], run(ours[2])]
        other = Apart(of_pythae, s, where) if name == "vae" and find_spec("pythae") else None
        taken = alternate(*sides, *([other] if other else []), rounds=rounds, block=5)
        found[name] = {
            "what": f"{s.size} px, width {s.width}, batch {s.batch}",
            "seconds": round(taken[0], 4),
            "plain_seconds": round(taken[1], 4),
            "ratio": round(taken[1] / taken[0], 2),
            "precision": ours[2].precision,
            "seconds_chosen": round(taken[4], 4),
            "ratio_chosen": round(taken[1] / taken[4], 2),
            "seconds_with_all_that_the_profile_adds": round(taken[2], 4),
            "loader_share": round(taken[3] / taken[0], 4),
            "shares": shares(sides[0]),
        }
        if other:
            found[name] |= {"pythae_seconds": round(taken[5], 4), "ratio_to_pythae": round(taken[5] / taken[0], 2)}
    return found


def main() -> None:
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        write_cohort(Cohort("bench", 6, 16), Path(name) / "dicom")
        write("steps", {profile: at(profile, Path(name), 2 if profile == "paper" else 4) for profile in ("demo", "chest", "paper")})


if __name__ == "__main__":
    main()
