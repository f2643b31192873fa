"""Which code a result depends on: a fingerprint of the package's modules that some code imports, directly or through others."""

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import lpdirs

ROOT = Path(lpdirs.__file__).resolve().parent


def fingerprint_of_code(*sources: str) -> str:
    """A short hash of the lpdirs modules that Python `sources` import, themselves or through others; comments and docstrings apart."""
    wanted, reached = list(_imports("\n".join(sources))), set()
    while wanted:
        module = wanted.pop()
        if module not in reached:
            reached.add(module)
            wanted += _imports_of(module)
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(f"{module} {_meaning(module)}\n".encode())
    return digest.hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The file of a module of the package; None where the name is no module of it."""
    place = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if module != "lpdirs" and p.is_file()), None)


def _imports(source: str) -> Iterable[str]:
    """The package's modules that a source imports, also through the front door (`lp.discover`)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("lp", "lpdirs"):
            names = [lpdirs.WHERE.get(node.attr, "")]
        else:
            continue
        yield from (name for name in names if name.startswith("lpdirs.") and _path(name))


@lru_cache(maxsize=256)
def _imports_of(module: str) -> tuple[str, ...]:
    path = _path(module)
    return tuple(_imports(path.read_text(encoding="utf-8"))) if path else ()


@lru_cache(maxsize=256)
def _meaning(module: str) -> str:
    """A hash of what a module does: its syntax tree without docstrings."""
    path = _path(module)
    tree = ast.parse(path.read_text(encoding="utf-8") if path else "")
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                body[0].value.value = ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
