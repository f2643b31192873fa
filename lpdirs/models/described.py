"""What a user's own function or option is, as text: two that would draw other images differ in it."""

import functools
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

OF_TORCH = frozenset(vars(nn.Module())) | {"training"}  # what every module has; weights and buffers are taken in by themselves
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def described(value: Any, depth: int = 6) -> str:
    """Numbers and text as they are, arrays by their hash, functions by their code and what it refers to, all else by its type."""
    if depth < 0:
        return "..."
    inner = functools.partial(described, depth=depth - 1)
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        try:
            array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
        except (TypeError, RuntimeError):  # sparse, quantised or of a type that numpy has not
            return f"{type(value).__name__} {tuple(value.shape)}"
        return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(key)}: {inner(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, set | frozenset):
        return f"set[{', '.join(map(inner, sorted(value, key=repr)))}]"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(inner, value))}]"
    if isinstance(value, functools.partial):
        return f"partial {inner(value.func)} {inner(value.args)} {inner(value.keywords)}"
    code = getattr(value, "__code__", None)
    if code is None or isinstance(value, nn.Module):  # a module's weights stand among those of what it is a part of
        return getattr(value, "__qualname__", type(value).__qualname__)
    outside = {name: value.__globals__[name] for name in code.co_names if name in value.__globals__}
    held = {name: v for name, v in outside.items() if isinstance(v, (*PLAIN, list, tuple, dict, Tensor, np.ndarray))}
    closed = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) else {}
    consts = [const for const in code.co_consts if not hasattr(const, "co_code")]
    own = (_written(value, code), code.co_names, consts, value.__defaults__, value.__kwdefaults__, held, closed)
    return f"function {hashlib.sha256(inner(own).encode()).hexdigest()[:16]}"


def _written(function: Any, code: Any) -> str:
    """Its source, which other versions of Python leave as it is; the bytecode of what has no name, since a line may hold several."""
    try:
        return code.co_code.hex() if code.co_name == "<lambda>" else inspect.getsource(function)
    except (OSError, TypeError):
        return code.co_code.hex()
