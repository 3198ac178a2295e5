"""Which names a module defines, read from its source: nothing is imported. No torch."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path


def undefined(reference: str) -> str | None:
    """Why ``package.module:name`` cannot exist; None if it may exist.

    It may exist if the source cannot be read, or if the module defines names in ways that only
    running it shows.
    """
    module, _, name = reference.partition(":")
    if module in sys.modules and name in vars(sys.modules[module]):
        return None  # without the module's own __getattr__, which may import anything
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return f"there is no package {top!r}"
    for depth, part in enumerate(inner, 1):
        if spec.origin is None and not spec.submodule_search_locations:
            return None  # compiled
        place = _inside(spec.submodule_search_locations or (), part)
        if place is None:
            return f"there is no module {'.'.join([top, *inner[:depth]])!r}"
        spec = place
    return _undefined_in(spec, module, name)


def _inside(folders: Iterable[str], part: str) -> ModuleSpec | None:
    """The module ``part`` in the folders of a package; None if there is none."""
    for folder in map(Path, folders):
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            return _spec(part, package, [str(package.parent)])
        if module.is_file():
            return _spec(part, module, None)
        if (folder / part).is_dir():  # a namespace package
            return _spec(part, None, [str(folder / part)])
        if any(folder.glob(f"{part}.*")):  # compiled
            return _spec(part, None, None)
    return None


def _spec(name: str, origin: Path | None, folders: list[str] | None) -> ModuleSpec:
    spec = ModuleSpec(name, None, origin=None if origin is None else str(origin))
    spec.submodule_search_locations = folders
    return spec


def _undefined_in(spec: ModuleSpec, module: str, name: str) -> str | None:
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None  # importing it says what is wrong
    names = set(_names(tree.body))
    if name in names or names & {"*", "__getattr__"}:
        return None
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{module} defines no {name!r}{hint}"


def _names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that statements bind, in blocks too; ``*`` if they cannot be known."""
    for statement in body:
        if _has_scope(statement):
            yield from _names_from_inside(statement)
        for node in ast.walk(statement) if not _has_scope(statement) else [statement]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Call) and _is_dynamic(node.func):
                yield "*"


def _has_scope(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _names_from_inside(scope: ast.stmt) -> Iterator[str]:
    """Names of the module that a function or class binds when it runs; ``*`` if unknown."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Global):
            yield from node.names
        elif (isinstance(node, ast.Name) and node.id in ("globals", "exec")) or (
            isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules"
        ):
            yield "*"


def _is_dynamic(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id in ("globals", "vars", "exec", "setattr")
