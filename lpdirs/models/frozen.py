"""A frozen generator made faster without changing what it draws."""

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lpdirs.base.compute import compiled
from lpdirs.models.generators import SAME, Generator, copied
from lpdirs.models.wrapping import Wrapped


def faster(generator: Generator, compile: str = "off") -> Generator:
    """The same with BatchNorm folded into convolutions, channels last; compiled unless `compile` is "off".

    It is tried before it is believed: where it draws other images, or none, the generator is returned as it is. So is one that draws
    noise of its own, of which tracing would make a constant.
    """
    if generator.noise != "none":
        return generator
    module = copied(generator.module)
    if isinstance(module, Wrapped):
        module.module = fold_batchnorm(module.module)
    else:
        module = fold_batchnorm(module)
    if all(p.ndim != 5 for p in module.parameters()):  # weights of volumes, and StyleGAN2's, have another layout
        module = module.to(memory_format=torch.channels_last)
    fast = generator.but(module=module)
    z = generator.draw(3, 0).to(generator.device)
    try:
        with torch.enable_grad():
            drawn = fast(z.requires_grad_(generator.info.differentiable))
            if generator.info.differentiable:
                torch.autograd.grad(drawn.sum(), z)
        same = torch.allclose(drawn.detach(), generator(z).detach(), atol=2 * SAME)
    except Exception:  # a user's own module may do anything in another layout
        return generator
    return generator.but(module=compiled(module, compile)) if same else generator


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """A frozen module in eval mode with every BatchNorm that follows a convolution folded into its weights; equal up to rounding.

    One whose code cannot be traced is returned as it is.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # a user's own module may do anything in its forward
        return module
    parts = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(parts[node.target], nn.BatchNorm2d | nn.BatchNorm1d):
            continue
        before, norm = node.args[0], parts[node.target]
        layer = parts.get(getattr(before, "target", None)) if getattr(before, "op", "") == "call_module" else None
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
    return traced
