"""The recipe written down plainly, as the other side of the benchmarks: what lpdirs does not do, step by step.

Generator parameters keep their gradients, the unshifted image is made with a graph, shifts are filled in a loop, and the host
waits for the device four times a step. The random numbers and the start are those of lpdirs, so that losses can be compared.
"""

import torch
from torch.nn import functional as F

from lpdirs.base.checkpoints import stream
from lpdirs.discovery.objective import DirectionMatrix, DiscoverySettings, draw_shifts, make_reconstructor
from lpdirs.models.generators import Generator
from lpdirs.models.networks import VAE, Discriminator, GeneratorNetwork, kl_per_dimension


class NaiveDiscovery:
    def __init__(self, generator: Generator, settings: DiscoverySettings):
        self.settings, self.generator = settings, generator
        generator.module.requires_grad_(True)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.matrix = DirectionMatrix(settings.n_directions, generator.latent_dim, settings.basis)
            self.reconstructor = make_reconstructor(settings.reconstructor, settings.n_directions)
        self.optimiser_a = torch.optim.Adam(self.matrix.parameters(), settings.lr_directions)
        self.optimiser_r = torch.optim.Adam(self.reconstructor.parameters(), settings.lr_reconstructor)

    def step(self, index: int) -> dict[str, float]:
        s, rng = self.settings, stream(self.settings.seed, 4, index)
        for module in (self.generator.module, self.matrix, self.reconstructor):
            module.zero_grad()
        k, eps = draw_shifts(s.batch, s, rng)
        z = torch.randn(s.batch, self.generator.latent_dim, generator=rng)
        basis = torch.zeros(s.batch, s.n_directions)
        for i, (which, value) in enumerate(zip(k, eps, strict=True)):
            basis[i][which] += value
        shift = self.matrix.linear(basis)
        images, shifted = self.generator(z), self.generator(z + shift)
        logits, eps_hat = self.reconstructor(images, shifted)
        loss_k, loss_eps = F.cross_entropy(logits, k), torch.mean(torch.abs(eps_hat - eps))
        loss = loss_k + s.shift_weight * loss_eps
        loss.backward()
        self.optimiser_a.step()
        self.optimiser_r.step()
        right = torch.mean((torch.argmax(logits, dim=1) == k).to(torch.float32)).detach()
        return {"accuracy": right.item(), "loss": loss.item(), "loss_k": loss_k.item(), "loss_eps": loss_eps.item()}


class NaiveGAN:
    def __init__(self, size: int, latent_dim: int, width: int):
        self.generator, self.discriminator, self.latent_dim = (
            GeneratorNetwork(size, latent_dim, width),
            Discriminator(size, width),
            latent_dim,
        )
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), 2e-4, (0.5, 0.999))
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), 2e-4, (0.5, 0.999))

    def step(self, real: torch.Tensor) -> float:
        self.discriminator.zero_grad()
        label = 0.9 + 0.1 * torch.rand(len(real))
        error_real = F.binary_cross_entropy_with_logits(self.discriminator(real), label)
        error_real.backward()
        fake = self.generator(torch.randn(len(real), self.latent_dim))
        error_fake = F.binary_cross_entropy_with_logits(self.discriminator(fake.detach()), torch.zeros_like(label))
        error_fake.backward()
        self.optimiser_d.step()
        self.generator.zero_grad()
        error = F.binary_cross_entropy_with_logits(self.discriminator(fake), torch.ones_like(label))
        error.backward()
        self.optimiser_g.step()
        return (error_real + error_fake).item() + error.item()


class NaiveVAE:
    def __init__(self, size: int, latent_dim: int, width: int):
        self.vae, self.latent_dim = VAE(size, latent_dim, width), latent_dim
        self.optimiser = torch.optim.Adam(self.vae.parameters(), 1e-4)

    def step(self, x: torch.Tensor) -> float:
        reconstruction, mean, log_variance = self.vae(x, torch.randn(len(x), self.latent_dim))
        loss = torch.log(F.mse_loss(reconstruction, x)) + 0.01 * kl_per_dimension(mean, log_variance).sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()
