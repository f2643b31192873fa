"""What is done to a generator to make it fast, or to bring it here, does not change what it draws."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.discovery.deformator import open_old_directions
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.thorax import thorax
from lpdirs.models.dcgan import Generator
from lpdirs.models.frozen import fold_batchnorm
from lpdirs.models.generators import generate
from lpdirs.models.legacy import open_old_generator
from lpdirs.models.vae import VAE, Decoder
from lpdirs.models.wrapping import as_generator
from lpdirs.scores.response import respond
from tests.show.test_explorer import lively

Z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def norms(module):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


@pytest.mark.parametrize("generator", [Generator(32, 6, 8), Decoder(64, 6, 8)], ids=["gan", "vae"])
def test_folding_batchnorm_changes_nothing_but_the_time(generator):
    generator = lively(generator)
    folded = fold_batchnorm(generator)
    assert norms(generator) > 2 and norms(folded) == 0
    assert torch.allclose(folded(Z), generator(Z), atol=1e-5) and folded.latent_dim == 6
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_layer_that_is_used_twice_or_cannot_be_traced_is_left_alone():
    class Twice(nn.Module):
        latent_dim = 6

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
            self.norm.running_mean.fill_(0.3)

        def forward(self, z):
            h = self.conv(z[:, :, None, None])
            return self.norm(self.conv(h)) + h

    class Branching(Twice):
        def forward(self, z):
            return super().forward(z if z.sum() > 1e9 else -z)

    for module in (Twice().eval(), Branching().eval()):
        assert torch.allclose(fold_batchnorm(module)(Z), module(Z), atol=1e-6)


class StyleLike(nn.Module):
    """Several inputs, a spatial latent, three channels in [0, 1], and two outputs."""

    def __init__(self):
        super().__init__()
        self.inner = lively(Generator(32, 24, 4))

    def forward(self, z, label, truncation=1.0, noise=True):
        assert z.shape[1:] == (6, 2, 2) and label.shape == (len(z), 10)
        x = self.inner(truncation * z.flatten(1))
        return (x.expand(-1, 3, -1, -1) + 1) / 2 * torch.tensor([0.5, 1.0, 1.5])[:, None, None], z


def test_any_module_becomes_a_generator_and_goes_all_the_way():
    module = StyleLike()
    theirs = as_generator(module, 24, latent_shape=(6, 2, 2), value_range=(0, 1), label=torch.zeros(1, 10), truncation=0.7)
    z = torch.randn(3, 24)
    assert torch.allclose(generate(theirs, z), module.inner(0.7 * z), atol=1e-5)
    for method in ("jacobian", "sefa", "pca", "reconstructor"):
        found = discover(theirs, method, 4, settings=DiscoverySettings(batch=4, steps=2))
        assert found.matrix.shape == (4, 24)
    table = respond(theirs, found, thorax((-1000.0, 1000.0), 6.0), shifts=(-1, 0, 1), samples=4).table()
    assert len(table) == 4 * 6


def test_what_is_no_generator_is_refused():
    with pytest.raises(UserError, match="holds 24 numbers, and latent_dim is 25"):
        as_generator(StyleLike(), 25, latent_shape=(6, 2, 2))
    with pytest.raises(UserError, match=r"images \(B, 1 or 3, S, S\).*gave \(8, 6\)"):
        as_generator(nn.Linear(6, 6), 6)


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_is_near_and_finite(precision):
    losses = {}
    for p in ("fp32", precision):
        search = Discovery(lively(Generator(32, 6, 8)), DiscoverySettings(n_directions=4, batch=8, precision=p))
        losses[p] = [search.step(i)["loss"] for i in range(3)]
    assert np.allclose(losses["fp32"], losses[precision], rtol=0.1) and losses["fp32"] != losses[precision]
    with pytest.raises(UserError, match="precision must be 'fp32' or 'bf16', not 'fp8'"):
        DiscoverySettings(precision="fp8")
    with pytest.raises(UserError, match="compile must be 'off' or 'default'"):
        DiscoverySettings(compile="on")


COMPILED = """
import torch
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.dcgan import Generator
torch.manual_seed(0)
generator = Generator(32, 6, 8).eval()
for mode in ("off", "default"):
    paper = {"lr_directions": 1e-4, "lr_reconstructor": 1e-4}
    search = Discovery(generator, DiscoverySettings(n_directions=4, batch=8, compile=mode, **paper))
    print(*(search.step(i)["loss"] for i in range(3)))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_steps_are_those_of_plain_ones():
    ran = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=400)  # torch warns while it compiles
    assert ran.returncode == 0, ran.stderr[-2000:]
    off, default = ([float(value) for value in line.split()] for line in ran.stdout.splitlines()[-2:])
    assert np.allclose(off, default, rtol=1e-3)


def old_names_vae(decoder: Decoder) -> dict:
    """The decoder's weights under the names of the original code."""
    blocks = ("conv1", "conv12", "conv2", "conv3", "conv4", "conv5", "conv6")[: len(decoder.stages)]
    parts = {"conv1": "conv1", "norm1": "BN1", "conv2": "conv2", "norm2": "BN2", "shortcut": "conv3"}
    out = {}
    for name, value in decoder.state_dict().items():
        if name.startswith("out."):
            out["conv7." + name[4:]] = value
        else:
            _, i, part, leaf = name.split(".")
            out[f"{blocks[int(i)]}.{parts[part]}.{leaf}"] = value
    return out


def test_generators_of_the_original_code_open(tmp_path):
    gan, decoder = lively(Generator(128, 6, 2)), lively(Decoder(128, 6, 4))
    main = {name.replace("layers.", "main."): value for name, value in gan.state_dict().items()}
    files = {
        "gan_checkpoint.pt": ({"epoch": 3, "modelG_state_dict": main, "fid": [np.array([1.0, 2.0]).mean()], "lossG": [0.1]}, gan),
        "gan_parallel.pt": ({f"module.{k}": v for k, v in main.items()}, gan),
        "decoder.pt": ({"state_dict": old_names_vae(decoder)}, decoder),
        "vae_checkpoint.pt": ({"epoch": 1, "state_dict": {f"decoder.{k}": v for k, v in old_names_vae(decoder).items()}}, decoder),
    }
    for name, (content, model) in files.items():
        torch.save(content, tmp_path / name)
        opened = open_old_generator(tmp_path / name)
        assert torch.allclose(opened(Z), model(Z), atol=1e-6) and opened.latent_dim == 6, name


def test_a_whole_vae_of_the_original_opens_as_its_decoder(tmp_path):
    vae = VAE(128, 6, 4).eval()
    lively(vae.decoder)
    state = {f"encoder.conv1.conv1.{k}": v for k, v in vae.encoder.stages[0].conv1.state_dict().items()}
    torch.save({"state_dict": state | {f"decoder.{k}": v for k, v in old_names_vae(vae.decoder).items()}}, tmp_path / "checkpoint.pt")
    assert torch.allclose(open_old_generator(tmp_path / "checkpoint.pt")(Z), vae.decoder(Z), atol=1e-6)


def test_directions_of_the_original_code_open(tmp_path):
    weight, bias = torch.randn(6, 9), torch.randn(6)
    torch.save({"linear.weight": weight, "linear.bias": bias}, tmp_path / "deformator_0.pt")
    torch.save({"step": 1, "deformator": {"linear.weight": weight}, "shift_predictor": {}}, tmp_path / "checkpoint.pt")
    for name, had in (("deformator_0.pt", True), ("checkpoint.pt", False)):
        found = open_old_directions(tmp_path / name)
        assert isinstance(found, Directions) and found.matrix.shape == (9, 6) and found.info.notes["had_bias"] is had
        assert torch.allclose(found.matrix, (weight / weight.norm(dim=0)).T, atol=1e-6)
    half = torch.randn(6, 6)
    torch.save({"log_mat_half": half}, tmp_path / "ortho.pt")
    found = open_old_directions(tmp_path / "ortho.pt").matrix
    shift = torch.linalg.matrix_exp(half - half.T) @ torch.eye(6)[2]  # what the original adds to z for a unit step along 2
    assert torch.allclose(found[2], shift, atol=1e-5) and torch.allclose(found @ found.T, torch.eye(6), atol=1e-5)


def test_other_files_say_what_they_are(tmp_path):
    torch.save({"fc1.weight": torch.zeros(2, 2)}, tmp_path / "fc.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="nonlinear deformator"):
        open_old_directions(tmp_path / "fc.pt")
    with pytest.raises(UserError, match="holds no deformator.*found a"):
        open_old_directions(tmp_path / "other.pt")
    with pytest.raises(UserError, match="neither the original DCGAN"):
        open_old_generator(tmp_path / "other.pt")
    for name in ("module.pt", "text.pt"):
        with pytest.raises(UserError, match="cannot be opened") as caught:
            open_old_generator(tmp_path / name)
        assert "\n" not in str(caught.value)
