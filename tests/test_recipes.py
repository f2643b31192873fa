"""The recipes run as they stand on the page, on small models of those kinds, and what they make can be searched and measured."""

import re

import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from tests.conftest import ROOT

PAGE = (ROOT / "examples" / "recipes.md").read_text()
AFTER = re.findall(r"```python\n(.*?)```", PAGE.split("\n## ")[0], re.S)  # the same for all of them
RECIPES = {part.split("\n")[0]: re.findall(r"```python\n(.*?)```", part, re.S) for part in PAGE.split("\n## ")[1:]}


class StyleGAN(nn.Module):
    """What NVlabs' generators have: mapping(z, c) -> (B, num_ws, w_dim) and synthesis(ws, noise_mode)."""

    z_dim, w_dim, num_ws = 8, 16, 3

    class Mapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 16)

        def forward(self, z, c):
            return nn.functional.leaky_relu(self.linear(z))[:, None].repeat(1, 3, 1)

    class Synthesis(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 256) for _ in range(3))

        def forward(self, ws, noise_mode="random"):
            assert noise_mode == "const"
            return torch.stack([layer(ws[:, i]) for i, layer in enumerate(self.layers)]).mean(0).view(-1, 1, 16, 16)

    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = self.Mapping(), self.Synthesis()


def monai():
    nets = pytest.importorskip("monai.networks.nets")
    some = {"channels": (16, 16, 32), "latent_channels": 3, "num_res_blocks": 1, "norm_num_groups": 8}
    return nets.AutoencoderKL(spatial_dims=2, attention_levels=(False, False, False), **some)


def unet():
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "norm_num_groups": 8}
    package = pytest.importorskip("diffusers")
    return package.UNet2DModel(16, in_channels=1, out_channels=1, block_out_channels=(16, 16), layers_per_block=1, **blocks)


YOURS = {"StyleGAN2, in W": StyleGAN, "StyleGAN2, in W+": StyleGAN, "MONAI's autoencoder": monai, "A diffusion model, by DDIM": unet}


def test_every_recipe_is_tried():
    assert AFTER and {*RECIPES} == {*YOURS, "A TorchScript file"} and all(RECIPES.values())


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")  # files of others are such
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_as_it_stands(name, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    space = {"lp": lp, "torch": torch, "yours": YOURS[name]() if name in YOURS else None, "slices": torch.rand(40, 1, 32, 32) * 2 - 1}
    torch.jit.trace(nn.Sequential(nn.Linear(16, 256), nn.Sigmoid(), nn.Unflatten(1, (1, 16, 16))), torch.randn(2, 16)).save("decoder.pt")
    before = RECIPES["StyleGAN2, in W"] if name == "StyleGAN2, in W+" else []  # which goes on from there
    for block in (*before, *RECIPES[name], *(AFTER if name == "StyleGAN2, in W" else ())):
        exec(block, space)
    generator = space["generator"]
    directions = lp.discover(generator, "random", 3)
    assert directions.matrix.shape == (3, generator.latent_dim)
    table = lp.respond(generator, directions, samples=6).table()
    assert len(table) and generator.info.differentiable
    if name == "A TorchScript file":
        with pytest.raises(UserError, match="SeFa"):
            lp.discover(generator, "sefa", 3)
    elif name.startswith("StyleGAN2"):
        assert lp.discover(generator, "sefa", 3).matrix.shape[0] == 3
        assert generator.latent_dim == (48 if name.endswith("W+") else 16)
