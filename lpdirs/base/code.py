"""Which code a result depends on: a fingerprint of the package's modules that some code imports, directly or through others."""

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import lpdirs

ROOT = Path(lpdirs.__file__).resolve().parent


def fingerprint_of_code(*sources: str, without: tuple[str, ...] = ()) -> str:
    """A short hash of the lpdirs modules that Python `sources` import, themselves or through others.

    Comments, docstrings and layout do not count, nor do modules whose names begin with one of `without`.
    """
    wanted, reached = list(_imports(ast.parse("\n".join(sources)))), dict[str, str]()
    while wanted:
        module = wanted.pop()
        if module not in reached and not (without and module.startswith(without)):
            path = _path(module)
            more, reached[module] = _read(path, path.stat().st_mtime_ns) if path else ((), "")
            wanted += more
    return hashlib.sha256(repr(sorted(reached.items())).encode()).hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The file of a module of the package; None where the name is no module of it."""
    place = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if module != "lpdirs" and p.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    """The package's modules that code imports, also through the front door (`lp.discover`, `from lpdirs import discover`)."""
    nodes = list(ast.walk(tree))
    plain = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    doors = {alias.asname or alias.name for alias in plain if alias.name == "lpdirs"}
    names = [alias.name for alias in plain]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            through = [lpdirs.WHERE.get(alias.name, "") for alias in node.names] if node.module == "lpdirs" else []
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names), *through]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in doors:
            names.append(lpdirs.WHERE.get(node.attr, ""))
    yield from (name for name in names if name.startswith("lpdirs.") and _path(name))


@lru_cache(maxsize=512)
def _read(path: Path, _: int) -> tuple[tuple[str, ...], str]:
    """What a module imports, and a hash of its code and of the page that lies beside it; read again when the file has changed."""
    source, page = path.read_text(encoding="utf-8"), path.with_suffix(".html")
    content = code_alone(source) + (page.read_text(encoding="utf-8") if page.exists() else "")
    return tuple(_imports(ast.parse(source))), hashlib.sha256(content.encode()).hexdigest()


def code_alone(source: str) -> str:
    """Python without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[0].value.value = None
    return ast.unparse(tree)
