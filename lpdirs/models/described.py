"""What a user's own function or option is, as text: two that would draw other images differ in it."""

import functools
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

OF_TORCH = frozenset(vars(nn.Module())) | {"training"}  # what every module has; weights and buffers are taken in by themselves
DEPTH = 6


def described(value: Any, depth: int = DEPTH) -> str:
    """Numbers and text as they are, arrays by their hash, functions by their code and what it refers to, all else by its type."""
    if depth < 0:
        return "..."
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        try:
            held = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
        except (TypeError, RuntimeError):  # sparse, quantised or of a type that numpy has not
            return f"{type(value).__name__} {tuple(value.shape)}"
        return f"{held.dtype} {held.shape} {hashlib.sha256(np.ascontiguousarray(held).tobytes()).hexdigest()[:16]}"
    inner = functools.partial(described, depth=depth - 1)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(key)}: {inner(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return (
            f"{type(value).__name__}["
            + ", ".join(map(inner, sorted(value, key=repr) if isinstance(value, set | frozenset) else value))
            + "]"
        )
    if isinstance(value, functools.partial):
        return f"partial {inner(value.func)} {inner(value.args)} {inner(value.keywords)}"
    if isinstance(value, nn.Module):  # its weights stand among the module's own where it is a part of it
        return type(value).__qualname__
    code = getattr(value, "__code__", None)
    if code is None:
        return getattr(value, "__qualname__", type(value).__qualname__)
    globals_of = {name: value.__globals__[name] for name in code.co_names if name in value.__globals__}
    plain = {
        name: held
        for name, held in globals_of.items()
        if isinstance(held, bool | int | float | str | bytes | list | tuple | dict | Tensor | np.ndarray)
    }
    closed = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
    consts = [held for held in code.co_consts if not hasattr(held, "co_code")]
    own = (_written(value, code), code.co_names, consts, value.__defaults__, value.__kwdefaults__, plain, closed)
    return f"function {hashlib.sha256(inner(own).encode()).hexdigest()[:16]}"


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _written(function: Any, code: Any) -> str:
    """Its source, which other versions of Python leave as it is; the bytecode of what has no name, since a line may hold several."""
    try:
        if code.co_name == "<lambda>":
            return code.co_code.hex()
        return inspect.getsource(function)
    except (OSError, TypeError):
        return code.co_code.hex()
