"""A device without a GPU: its tensors compute on the processor, and refuse to meet the processor's own as a GPU's do.

`elsewhere()` is a context in which torch knows a device "spy". What a GPU lets pass, passes: single numbers, copies, indices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

aten = torch.ops.aten
_Plain = torch.Generator
STREAMS: dict[int, torch.Generator] = {}  # the random numbers of "spy", kept so that none is made at the place of another
MAY_MIX = {aten._to_copy, aten.copy_, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)


class _Any(type(torch.Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, _Plain)


class Either(torch.Generator, metaclass=_Any):
    """What torch.Generator makes where there is a device "spy"."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type != "spy":
            return _Plain(device)
        made = _Plain()
        STREAMS[made._cdata] = made
        return made


class Mixture(RuntimeError):
    """Tensors of two devices met."""


class Elsewhere(torch.Tensor):
    """A tensor of the device "spy"; `raw` is where its numbers are."""

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "Elsewhere":
        like = dict(strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device="spy:0")
        return torch.Tensor._make_wrapper_subclass(cls, raw.size(), **like)

    def __init__(self, raw: torch.Tensor):
        self.raw = raw

    def __repr__(self) -> str:
        return f"Elsewhere({self.raw})"

    def tolist(self) -> list:
        return self.raw.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Spy(TorchDispatchMode):
    """Makes what is made on "spy", and looks at every operation."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """The operation on the processor; its result is elsewhere where its inputs were, or where it was asked to be."""
    given: list[torch.Tensor] = []
    tree_map(lambda x: given.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
    here = [x for x in given if not isinstance(x, Elsewhere)]
    there = {id(x.raw): x for x in given if isinstance(x, Elsewhere)}
    asked = kwargs.get("device")
    if not there and (asked is None or torch.device(asked).type != "spy"):
        return func(*args, **kwargs)
    if there and func.overloadpacket not in MAY_MIX and any(x.dim() for x in here):
        raise Mixture(f"{func}: {[(type(x).__name__, tuple(x.shape)) for x in given]}")
    if kwargs.get("generator") is not None and kwargs["generator"]._cdata not in STREAMS:
        raise Mixture(f"{func}: random numbers of the processor's generator, asked for elsewhere")
    if asked is not None and torch.device(asked).type == "spy":
        kwargs = kwargs | {"device": torch.device("cpu")}
    stays = there and asked is None
    if func.overloadpacket is aten.copy_ and not isinstance(args[0], Elsewhere):
        stays = False
    elsewhere = stays or (asked is not None and torch.device(asked).type == "spy")
    raw = lambda x: x.raw if isinstance(x, Elsewhere) else x
    result = func(*tree_map(raw, args), **tree_map(raw, kwargs))
    if not elsewhere:
        return args[0] if func.overloadpacket is aten.copy_ else result
    wrapped = tree_map(lambda x: there.get(id(x)) if id(x) in there else Elsewhere(x) if isinstance(x, torch.Tensor) else x, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


@cache
def _registered() -> None:
    assert setup is not None
    known = backend_registration._DummyBackendModule()
    known.get_rng_state, known.set_rng_state = lambda _=None: torch.get_rng_state(), lambda state, _=None: None
    known.get_amp_supported_dtype = lambda: [torch.bfloat16]
    setup("spy", known)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Within, there is a device "spy"."""
    _registered()
    with pytest.MonkeyPatch.context() as patch, Spy():
        patch.setattr(torch, "Generator", Either)
        yield
