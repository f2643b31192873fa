"""What a module that draws images does, found out by drawing a few; and which of its layers see z first."""

import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lpdirs.base.errors import UserError, first_line
from lpdirs.models.generators import SAME, Generator, GeneratorInfo
from lpdirs.models.priors import Prior

if TYPE_CHECKING:
    from lpdirs.models.wrapping import Wrapped

TRIAL = 8  # images that are drawn
LARGE = 256  # numbers of a tensor: smaller ones, such as a mean and an SD, may be constants


def try_out(wrapped: "Wrapped", latent_dim: int, prior: Prior, name: str, noise: str) -> Generator:
    """Draw a few images, in all the ways in which they will be drawn; the generator with what is known of it, but for a fingerprint."""
    generator = Generator(wrapped, latent_dim, prior)
    z = generator.draw(TRIAL, 0).to(generator.device)
    width = wrapped.value_range[1] - wrapped.value_range[0]
    apart = lambda a, b: float((a - b).abs().max()) / width
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        x = _images(wrapped, z)
        if not x.isfinite().all():
            share = f"{float((~x.isfinite()).float().mean()):.0%}"
            raise UserError(f"the module's images hold values that are not finite: {share} of their pixels")
        if not (x - x[:1]).any():
            raise UserError("the module draws the same image whatever z is: is z given to the right input?")
        if (away := apart(x, _images(wrapped, z))) > SAME:
            if noise == "refuse":
                raise UserError(
                    f"the same z gives different images (by {away:.2g} of value_range): the module draws noise. "
                    f"Switch it off in the module, or give noise='fix' to hold it the same for every z"
                )
            generator = _fixed(generator, z)
            if float((generator(z) - generator(z)).abs().max()) > 2 * SAME:
                raise UserError("the same z gives different images also with noise='fix': its noise is not torch's; switch it off")
        drawn = generator(z)
        if max(float((generator(z[i : i + 1]) - drawn[i : i + 1]).abs().max()) for i in (0, TRIAL - 1)) > 20 * SAME:
            raise UserError(
                "an image depends on the others in its batch, or on its place there: give BatchNorm running statistics or "
                "another norm, and switch off noise, also of a fixed seed"
            )
    colour = "" if x.shape[1] == 1 else "averaged" if wrapped.grey else "kept"
    info = GeneratorInfo(
        name=name, size=x.shape[-1], channels=drawn.shape[1], differentiable=_differentiable(generator, wrapped, z[:2]),
        value_range=wrapped.value_range, lowest=_end(x, 0.001), highest=_end(x, 0.999),
        dtype=str(wrapped.dtype).removeprefix("torch."), colour=colour, layers=len(first_layers(generator)),
    )  # fmt: skip
    return generator.but(info=info)


def _end(x: Tensor, share: float) -> float:
    """The value of images (B, C, S, S) that so large a share of their pixels lies below: of both ends alike, so that a stray pixel of
    either side counts as little."""
    flat = x.flatten()
    return float(flat[:: 1 + len(flat) // 10**7].quantile(share))


def _images(wrapped: "Wrapped", z: Tensor) -> Tensor:
    try:
        x = wrapped.own_images(z)
    except UserError:
        raise
    except Exception as error:
        known = [f"{name} {tuple(value.shape)}" for name, value in wrapped.inputs.items() if isinstance(value, Tensor)]
        with_inputs = f", with {', '.join(known)}" if known else ""
        raise UserError(
            f"the module does not take z of shape {(len(z), *wrapped.latent_shape)}{with_inputs} ({first_line(error)}): "
            f"give its own latent_dim or latent_shape, and its further inputs by name in inputs={{...}}; it must take batches of any size"
        ) from error
    given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != len(z) or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        hint = "; of a volume give the slice to look at with project=" if isinstance(x, Tensor) and x.ndim == 5 else ""
        shape = (len(z), *wrapped.latent_shape)
        raise UserError(f"a generator must map z (B, {z.shape[1]}) to images (B, 1 or 3, S, S); z {shape} gave {given}{hint}")
    return x


def _fixed(generator: Generator, z: Tensor) -> Generator:
    """The same with fixed noise: all images at once where torch can (vmap), else one by one."""
    for one_by_one in (False, True):
        fixed = generator.but(noise="fix", one_by_one=one_by_one)
        try:
            fixed(z)
            return fixed
        except UserError:
            raise
        except Exception as error:  # whatever a module makes torch raise
            reason = first_line(error)
    raise UserError(f"the module cannot be drawn with its noise held fixed ({reason}): switch it off in the module")


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
    if any(isinstance(part, odd) for part in wrapped.modules()):
        return True
    held = [part for part in tree_flatten([z, [vars(part) for part in wrapped.modules()]])[0] if isinstance(part, Tensor)]
    seen = []
    with torch.no_grad(), suppress(Exception):
        for _ in range(2):  # what a call makes anew outside torch is elsewhere in the next one
            with _Foreign(held) as mode:
                wrapped.own_images(z)
            seen.append(mode)
    return len(seen) < 2 or not seen[0].foreign & seen[1].foreign


def _differentiable(generator: Generator, wrapped: "Wrapped", z: Tensor) -> bool:
    z = z.clone().requires_grad_()
    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
            x = generator(z)
            elsewhere = generator.noise == "none" and not _holds_all(wrapped, z.detach())
            if _leaves(x.grad_fn) - {id(z)} or elsewhere:
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


@torch.no_grad()
def first_layers(generator: Generator) -> list[nn.Module]:
    """Modules with weights of their own whose input is z itself, or a part of it beside what does not depend on z.

    Where there is none (z is turned or mixed without weights first), those whose input is linear in z: 0, two random z, and their sum tell.
    """
    generator = generator.but(noise="none")
    v, w = torch.randn(2, 1, generator.latent_dim, generator=torch.Generator().manual_seed(0)).to(generator.device)
    z, found, itself = torch.cat([torch.zeros_like(v), v, w, v + w]), dict[nn.Module, None](), dict[nn.Module, None]()
    values = (v * generator.unit).flatten()

    def look(module: nn.Module, inputs: tuple, given: Any) -> None:
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        if x is None or not x.ndim or not isinstance(given, Tensor) or len(x) != len(z) or not x.is_floating_point():
            return
        of_v, of_w, of_both = (x[1:] - x[0]).float()
        if of_v.any() and x.isfinite().all() and torch.allclose(of_both, of_v + of_w, rtol=1e-2, atol=1e-2 * float(of_v.abs().max())):
            found[module] = None
            seen = of_v[of_v != 0].flatten()
            if len(seen) <= 32 * len(values) and torch.cdist(seen[:, None], values[:, None]).amin(1).max() < 1e-2 * values.abs().max():
                itself[module] = None

    holders = weighted(generator.module)
    innermost = [m for m in holders if not any(part in set(holders) for part in m.modules() if part is not m)]
    hooks = [module.register_forward_hook(look) for module in innermost]  # blocks may have weights of their own beside their layers'
    try:
        with warnings.catch_warnings(action="ignore"), suppress(Exception):  # 0 and sums may be no z of its: then what was seen counts
            generator(z)
    finally:
        for hook in hooks:
            hook.remove()
    return list(itself or found)


def weighted(module: nn.Module) -> list[nn.Module]:
    """Modules with weights of their own; of scripted ones nothing can be seen."""
    scripted = torch.jit.ScriptModule
    return [m for m in module.modules() if not isinstance(m, scripted) and any(p is not None for p in m._parameters.values())]
