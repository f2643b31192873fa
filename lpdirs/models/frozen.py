"""A frozen generator made faster without changing what it draws."""

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lpdirs.base.compute import compiled
from lpdirs.models.generators import channels_of, copied, prior_of


def fold_batchnorm(generator: nn.Module) -> nn.Module:
    """A copy in eval mode with every BatchNorm that follows a convolution folded into its weights; equal up to rounding.

    A generator whose code cannot be traced is returned as a plain copy.
    """
    generator = copied(generator).eval().requires_grad_(False)
    if getattr(generator, "noise", "none") != "none":  # tracing would make a constant of what is drawn
        return generator
    try:
        traced = fx.symbolic_trace(generator)
    except Exception:  # a user's own module may do anything in its forward
        return generator
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d | nn.BatchNorm1d):
            continue
        before, norm = node.args[0], modules[node.target]
        layer = modules.get(getattr(before, "target", None)) if getattr(before, "op", "") == "call_module" else None
        if not isinstance(layer, nn.modules.conv._ConvNd) or len(before.users) > 1 or calls[before.target] > 1 or norm.running_mean is None:
            continue
        weight, bias = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose=layer.transposed
        )
        layer.weight, layer.bias = nn.Parameter(weight.detach(), False), nn.Parameter(bias.detach(), False)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    traced.latent_dim = generator.latent_dim
    traced.channels = channels_of(generator)  # type: ignore[assignment]
    traced.prior = prior_of(generator)  # type: ignore[assignment]
    return traced


def faster(generator: nn.Module, device: str | torch.device, compile: str = "off") -> nn.Module:
    """The generator on its device with BatchNorm folded, channels last; compiled unless `compile` is "off"."""
    generator = fold_batchnorm(generator).to(device=device)
    if all(p.ndim != 5 for p in generator.parameters()):  # weights of volumes, and StyleGAN2's, have another layout
        generator = generator.to(memory_format=torch.channels_last)
    return compiled(generator, compile)
