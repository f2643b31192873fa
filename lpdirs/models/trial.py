"""What a module that draws images does, found out by drawing a few."""

import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lpdirs.base.errors import UserError
from lpdirs.models.generators import device_of, draw_z, latent_dim_of

if TYPE_CHECKING:
    from lpdirs.models.wrapping import Wrapped

TRIAL = 8  # images that are drawn
LARGE = 256  # numbers of a tensor: smaller ones, such as a mean and an SD, may be constants
SAME = 1e-3  # of value_range: images that differ by less are the same
BEYOND = 0.02  # of value_range: images that go further out leave it


@dataclass(frozen=True)
class Report:
    """What a trial found: `lowest` and `highest` are of the module's own images, `layers` the first ones that see z."""

    name: str
    latent_dim: int
    prior: str
    size: int
    lowest: float
    highest: float
    value_range: tuple[float, float]
    dtype: str
    differentiable: bool
    noise: str
    layers: int
    channels: int = 1  # 0: of colour, averaged to grey

    @property
    def in_range(self) -> bool:
        """Whether value_range is about that of the images."""
        low, high = self.value_range
        width = high - low
        return self.lowest >= low - BEYOND * width and self.highest <= high + BEYOND * width

    def __str__(self) -> str:
        needed_by = "reconstructor, jacobian, local-basis, hessian, latentclr and disco"
        gradient = "differentiable" if self.differentiable else f"without gradients, which {needed_by} need"
        noise = {"none": "no noise", "fix": "noise, held fixed"}[self.noise]
        colour = {0: " in colour, averaged to grey", 3: " in colour"}.get(self.channels, "")
        line = f"{self.name}: z ({self.latent_dim}, {self.prior}) to images of {self.size} px{colour}, "
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        line += f"{self.lowest:.3g} to {self.highest:.3g}, {self.dtype}; {gradient}; {noise}; z enters at {layers}"
        low, high = self.value_range
        if not self.in_range:
            line += f". Its images leave value_range ({low:g}, {high:g}): give the range that they have"
        elif low < 0 <= self.lowest + SAME:
            line += (
                f". Its images hold nothing below 0, and value_range is ({low:g}, {high:g}): if it is theirs from 0 on, give value_range"
            )
        elif self.highest - self.lowest < 0.1 * (high - low):
            line += f". Its images fill little of value_range ({low:g}, {high:g}): is that theirs?"
        return line


def try_out(wrapped: "Wrapped", name: str, noise: str, keep: bool) -> Report:
    """Draw a few images, in all the ways in which they will be drawn."""
    z = draw_z(wrapped, TRIAL, 0).to(device_of(wrapped))
    width = wrapped.value_range[1] - wrapped.value_range[0]
    apart = lambda a, b: float((a - b).abs().max()) / width
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        x = _images(wrapped, z)
        if not x.isfinite().all():
            raise UserError(f"the module's images hold values that are not finite: {_share(~x.isfinite())} of their pixels")
        if not (x - x[:1]).any():
            raise UserError("the module draws the same image whatever z is: is z given to the right input?")
        if apart(x, _images(wrapped, z)) > SAME:
            if noise == "refuse":
                raise UserError(
                    f"the same z gives different images (by {apart(x, _images(wrapped, z)):.2g} of value_range): the module draws noise. "
                    f"Switch it off in the module, or give noise='fix' to hold it the same for every z"
                )
            wrapped.noise = "fix"
            x = _fixed(wrapped, z)
            if apart(x, _images(wrapped, z)) > SAME:
                raise UserError("the same z gives different images also with noise='fix': its noise is not torch's; switch it off")
        wrapped.channels = x.shape[1] if keep else 1
        if max(apart(_images(wrapped, z[i : i + 1]), x[i : i + 1]) for i in (0, TRIAL - 1)) > 10 * SAME:
            raise UserError(
                "an image depends on the others in its batch, or on its place there: give BatchNorm running statistics or "
                "another norm, and switch off noise, also of a fixed seed"
            )
    layers = len(first_layers(wrapped))
    low, high = float(x.quantile(0.001)) if x.numel() < 10**7 else float(x.min()), float(x.max())
    dtype = str(wrapped.dtype).removeprefix("torch.")
    gradient = _differentiable(wrapped, z[:2])
    return Report(
        name, wrapped.latent_dim, wrapped.prior.name, x.shape[-1], low, high, wrapped.value_range, dtype, gradient, wrapped.noise, layers,
        x.shape[1] if keep or x.shape[1] == 1 else 0,
    )  # fmt: skip


def _images(wrapped: "Wrapped", z: Tensor) -> Tensor:
    try:
        x = wrapped.images(z)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the module does not take z of shape {(len(z), *wrapped.latent_shape)} ({first_line(error)}): "
            f"give its own latent_dim or latent_shape, and its further inputs by name; it must take batches of any size"
        ) from error
    given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != len(z) or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        d = wrapped.latent_dim
        hint = "; of a volume give the slice to look at with project=" if isinstance(x, Tensor) and x.ndim == 5 else ""
        shape = (len(z), *wrapped.latent_shape)
        raise UserError(f"a generator must map z (B, {d}) to images (B, 1 or 3, S, S); z {shape} gave {given}{hint}")
    return x


def _fixed(wrapped: "Wrapped", z: Tensor) -> Tensor:
    """Images with fixed noise: all at once where torch can (vmap), else one by one."""
    try:
        return _images(wrapped, z)
    except UserError:
        wrapped.one_by_one = True
        return _images(wrapped, z)


class _Foreign(TorchDispatchMode):
    """Notes the tensors that a module computes with and that it neither holds nor made in that call."""

    def __init__(self, held: Iterable[Tensor]):
        super().__init__()
        self.known, self.made, self.foreign = {tensor.untyped_storage().data_ptr() for tensor in held}, list[Tensor](), set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        tensors = lambda tree: [part for part in tree_flatten(tree)[0] if isinstance(part, Tensor)]
        for tensor in tensors((args, kwargs)):
            where = tensor.untyped_storage().data_ptr()
            if where not in self.known and tensor.ndim >= 2 and tensor.numel() >= LARGE and tensor.is_floating_point():
                self.foreign.add(where)
            self.made.append(tensor)  # kept, so that no other takes its place in memory
        given = func(*args, **(kwargs or {}))
        made = tensors(given)
        self.made += made
        self.known |= {tensor.untyped_storage().data_ptr() for tensor in made}
        return given


def _holds_all(wrapped: "Wrapped", z: Tensor) -> bool:
    """Whether it draws with no network of elsewhere, which would be neither copied nor kept; True where that cannot be seen."""
    odd = (torch.jit.ScriptModule, getattr(torch._dynamo, "OptimizedModule", ()))
    if wrapped.noise != "none" or any(isinstance(part, odd) for part in wrapped.modules()):
        return True
    parts = [vars(part) for part in wrapped.modules()]
    held = [part for part in tree_flatten([z, wrapped.bound, parts])[0] if isinstance(part, Tensor)]
    seen = []
    with torch.no_grad(), suppress(Exception):
        for _ in range(2):  # what a call makes anew outside torch is elsewhere in the next one
            with _Foreign(held) as mode:
                wrapped.images(z)
            seen.append(mode)
    return len(seen) < 2 or not seen[0].foreign & seen[1].foreign


def _differentiable(wrapped: "Wrapped", z: Tensor) -> bool:
    z = z.clone().requires_grad_()
    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            x = wrapped(z)
            if _leaves(x.grad_fn) - {id(z)} or not _holds_all(wrapped, z.detach()):
                raise UserError(
                    "the module draws with weights that it does not hold (of a global, or in a list), so that they cannot be copied and "
                    "frozen: make that network an attribute of the module"
                )
            (gradient,) = torch.autograd.grad(x.square().sum() + x.sum(), z)
    except RuntimeError:  # it detaches, rounds, or computes outside torch
        return False
    return bool(gradient.isfinite().all() and gradient.any())


def _leaves(node: Any) -> set[int]:
    """The tensors, by id, that a graph would give gradients to."""
    found, seen, waiting = set(), set(), [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [after for after, _ in node.next_functions]
    return found


def is_differentiable(generator: nn.Module) -> bool:
    """Whether gradients reach z; only of a wrapped module can it be otherwise."""
    report = getattr(generator, "report", None)
    return report().differentiable if callable(report) else True


@torch.no_grad()
def first_layers(generator: nn.Module) -> list[nn.Module]:
    """Modules with weights of their own whose input is z itself, or a part of it beside what does not depend on z.

    Where there is none (z is turned or mixed without weights first), those whose input is linear in z: 0, two random z, and their sum tell.
    """
    v, w = torch.randn(2, 1, latent_dim_of(generator), generator=torch.Generator().manual_seed(0)).to(device_of(generator))
    z, found, itself = torch.cat([torch.zeros_like(v), v, w, v + w]), dict[nn.Module, None](), dict[nn.Module, None]()
    values = (v * getattr(generator, "unit", 1.0)).flatten()

    def look(module: nn.Module, inputs: tuple, given: Any) -> None:
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        if x is not None and isinstance(given, Tensor) and len(x) == len(z) and x.is_floating_point():
            of_v, of_w, of_both = (x[1:] - x[0]).float()
            if of_v.any() and x.isfinite().all() and torch.allclose(of_both, of_v + of_w, rtol=1e-2, atol=1e-2 * float(of_v.abs().max())):
                found[module] = None
                seen = of_v[of_v != 0].flatten()
                if len(seen) <= 32 * len(values) and torch.cdist(seen[:, None], values[:, None]).amin(1).max() < 1e-2 * values.abs().max():
                    itself[module] = None

    hooks = [module.register_forward_hook(look) for module in _innermost(generator)]
    noise, own_noise = getattr(generator, "noise", None), isinstance(getattr(generator, "noise", None), str)
    try:
        if own_noise:
            generator.noise = "none"  # type: ignore[assignment]
        with warnings.catch_warnings(action="ignore"), suppress(Exception):  # 0 and sums may be no z of its: then what was seen counts
            generator(z)
    finally:
        if own_noise:
            generator.noise = noise  # type: ignore[assignment]
        for hook in hooks:
            hook.remove()
    return list(itself or found)


def weighted(generator: nn.Module) -> list[nn.Module]:
    """Modules with weights of their own; of scripted ones nothing can be seen."""
    scripted = torch.jit.ScriptModule
    return [m for m in generator.modules() if not isinstance(m, scripted) and any(p is not None for p in m._parameters.values())]


def _innermost(generator: nn.Module) -> list[nn.Module]:
    """Those of them that hold no others: blocks may have weights of their own beside their layers'."""
    holders = weighted(generator)
    inner = set(holders)
    return [m for m in holders if not any(part in inner for part in m.modules() if part is not m)]


def _share(mask: Tensor) -> str:
    return f"{float(mask.float().mean()):.0%}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
