"""The registry of methods: each is one function from a generator to K directions, with what it needs and its words.

    @method("mine", title="mine", about="what it does in a line", gradients=True)
    def mine(generator, k, seed):
        return rows  # (K, d), of any length

registers one; `lp.discover(generator, "mine", 8)` then finds it, and `method: my_methods.py:mine` in a profile takes it from a file.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lpdirs.base.errors import UserError, first_line


@dataclass(frozen=True)
class Found:
    """What a method gives where there is more to say than rows `matrix` (K, d): `names` and `bends` of some, and `notes`."""

    matrix: Tensor
    names: dict[int, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    bends: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """`find(generator, k, seed)` gives rows (K, d), or Found; `known`, `settings` and `folder` are given too where `needs` names them.

    `gradients`: it needs some through the generator. `at_most_d`: it gives at most latent_dim directions. `factors`: it is told known
    factors, so that it is no discovery.
    """

    name: str
    title: str
    about: str
    find: Callable[..., Tensor | Found]
    gradients: bool = False
    at_most_d: bool = False
    factors: bool = False
    needs: tuple[str, ...] = ()


METHODS: dict[str, Method] = {}
RECONSTRUCTORS = {"lenet": "LeNet", "resnet18": "ResNet-18", "resnet18-224": "ResNet-18 at 224 px"}


def method(name: str, title: str, about: str, **needs: Any) -> Callable:
    """A decorator that registers a function as a `Method`."""

    def register(find: Callable) -> Callable:
        METHODS[name] = Method(name, title, about, find, **needs)
        return find

    return register


def is_own(name: str) -> bool:
    """Whether a method's name says where a user's own is: my_methods.py:mine."""
    return ".py:" in name


def method_of(name: str) -> Method:
    """The method of a name, or in a user's file, FILE.py:FUNCTION, which is run; UserError lists those that there are."""
    importlib.import_module("lpdirs.discovery.methods")  # registers those of the package
    if name in METHODS:
        return METHODS[name]
    if not is_own(name):
        raise UserError(f"method must be one of {', '.join(METHODS)}, or FILE.py:FUNCTION of your own, not {name!r}")
    place, _, function = name.rpartition(":")
    if not Path(place).is_file():
        raise UserError(f"there is no file {place}: give FILE.py:FUNCTION")
    before = set(METHODS)
    try:
        spec = importlib.util.spec_from_file_location(f"lpdirs_method_{Path(place).stem}", place)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except Exception as error:  # a user's own file may do anything
        raise UserError(f"{Path(place).name} cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    if not callable(find := getattr(module, function, None)):
        raise UserError(f"{Path(place).name} holds no function {function!r}")
    registered = next((METHODS[one] for one in METHODS if METHODS[one].find is find and one not in before), None)
    return registered or Method(function, function, (find.__doc__ or "").strip().split("\n")[0], find)


def title_of(method: str, basis: str = "", reconstructor: str = "", start: str = "") -> str:
    """A search in words: "the paper's method (LeNet), orthonormal"."""
    importlib.import_module("lpdirs.discovery.methods")  # registers those of the package
    said = METHODS[method].title if method in METHODS else method.rpartition(":")[2]
    said += f" ({RECONSTRUCTORS.get(reconstructor, reconstructor)})" if reconstructor else ""
    said += ", orthonormal" if basis == "orthonormal" else ""
    return said + (f" from {title_of(start)}" if start not in ("", "random") else "")
