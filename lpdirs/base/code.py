"""Which code a result depends on: a fingerprint of the package's modules that some code imports, directly or through others."""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import lpdirs

ROOT = Path(lpdirs.__file__).resolve().parent


def fingerprint_of_code(*sources: str, without: tuple[str, ...] = ()) -> str:
    """A short hash of the lpdirs modules that Python `sources` import, themselves or through others.

    Comments, docstrings and empty lines do not count, nor do modules whose names begin with one of `without`.
    """
    wanted, reached = list(_imports("\n".join(sources))), set()
    while wanted:
        module = wanted.pop()
        if module not in reached and not module.startswith(without or ("-",)):
            reached.add(module)
            wanted += _read(module, _stamp(module))[0]
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(f"{module} {_read(module, _stamp(module))[1]}\n".encode())
    return digest.hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The file of a module of the package; None where the name is no module of it."""
    place = ROOT.joinpath(*module.split(".")[1:])
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if module != "lpdirs" and p.is_file()), None)


def _stamp(module: str) -> tuple[str, int]:
    path = _path(module)
    return (str(path), path.stat().st_mtime_ns) if path else ("", 0)


def _imports(source: str) -> Iterator[str]:
    """The package's modules that a source imports, also through the front door (`lp.discover`, `from lpdirs import discover`)."""
    nodes = list(ast.walk(ast.parse(source)))
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
def _read(module: str, stamp: tuple[str, int]) -> tuple[tuple[str, ...], str]:
    """What a module imports, and a hash of its code and of the page that lies beside it; read again when the file has changed."""
    path = _path(module)
    if path is None:
        return (), ""
    source, page = path.read_text(encoding="utf-8"), path.with_suffix(".html")
    content = code_alone(source) + (page.read_text(encoding="utf-8") if page.exists() else "")
    return tuple(_imports(source)), hashlib.sha256(content.encode()).hexdigest()


def code_alone(source: str) -> str:
    """Python without comments, docstrings, empty lines and indentation; the same for every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or first.lineno) - first.lineno + 1)
    return "\n".join(line.strip() for line in lines if line.strip())
