"""Weights and directions of the original code open by examples/convert.py, and what is none says so."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import Directions
from lpdirs.models.networks import VAE, Decoder, GeneratorNetwork
from tests.conftest import ROOT
from tests.toys import lively

sys.path.insert(0, str(ROOT / "examples"))
from convert import original_directions, original_generator

Z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


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
    gan, decoder = lively(GeneratorNetwork(128, 6, 2)).module, lively(Decoder(128, 6, 4)).module
    main = {name.replace("layers.", "main."): value for name, value in gan.state_dict().items()}
    files = {
        "gan_checkpoint.pt": ({"epoch": 3, "modelG_state_dict": main, "fid": [np.array([1.0, 2.0]).mean()], "lossG": [0.1]}, gan),
        "gan_parallel.pt": ({f"module.{k}": v for k, v in main.items()}, gan),
        "decoder.pt": ({"state_dict": old_names_vae(decoder)}, decoder),
        "vae_checkpoint.pt": ({"epoch": 1, "state_dict": {f"decoder.{k}": v for k, v in old_names_vae(decoder).items()}}, decoder),
    }
    for name, (content, model) in files.items():
        torch.save(content, tmp_path / name)
        opened = original_generator(tmp_path / name)
        assert torch.allclose(opened(Z), model(Z), atol=1e-6) and opened.latent_dim == 6, name


def test_a_whole_vae_of_the_original_opens_as_its_decoder(tmp_path):
    vae = VAE(128, 6, 4).eval()
    lively(vae.decoder)
    state = {f"encoder.conv1.conv1.{k}": v for k, v in vae.encoder.stages[0].conv1.state_dict().items()}
    torch.save({"state_dict": state | {f"decoder.{k}": v for k, v in old_names_vae(vae.decoder).items()}}, tmp_path / "checkpoint.pt")
    assert torch.allclose(original_generator(tmp_path / "checkpoint.pt")(Z), vae.decoder(Z), atol=1e-6)


def test_directions_of_the_original_code_open(tmp_path):
    weight, bias = torch.randn(6, 9), torch.randn(6)
    torch.save({"linear.weight": weight, "linear.bias": bias}, tmp_path / "deformator_0.pt")
    torch.save({"step": 1, "deformator": {"linear.weight": weight}, "shift_predictor": {}}, tmp_path / "checkpoint.pt")
    for name, had in (("deformator_0.pt", True), ("checkpoint.pt", False)):
        found = original_directions(tmp_path / name)
        assert isinstance(found, Directions) and found.matrix.shape == (9, 6) and found.info.notes["had_bias"] is had
        assert torch.allclose(found.matrix, (weight / weight.norm(dim=0)).T, atol=1e-6)
    half = torch.randn(6, 6)
    torch.save({"log_mat_half": half}, tmp_path / "ortho.pt")
    found = original_directions(tmp_path / "ortho.pt").matrix
    shift = torch.linalg.matrix_exp(half - half.T) @ torch.eye(6)[2]  # what the original adds to z for a unit step along 2
    assert torch.allclose(found[2], shift, atol=1e-5) and torch.allclose(found @ found.T, torch.eye(6), atol=1e-5)


def test_other_files_say_what_they_are(tmp_path):
    torch.save({"fc1.weight": torch.zeros(2, 2)}, tmp_path / "fc.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="nonlinear deformator"):
        original_directions(tmp_path / "fc.pt")
    with pytest.raises(UserError, match="holds no deformator.*found a"):
        original_directions(tmp_path / "other.pt")
    with pytest.raises(UserError, match="neither the original DCGAN"):
        original_generator(tmp_path / "other.pt")
    for name in ("module.pt", "text.pt"):
        with pytest.raises(UserError, match="cannot be opened") as caught:
            original_generator(tmp_path / name)
        assert "\n" not in str(caught.value)
