"""docs/reference/hooks.md: hooks, config base classes and contracts, generated from their source.

The source is read, not imported: the contracts need torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pae_framework
from pae_framework.kinds import KINDS
from pages.components import title
from pages.markdown import inline, prose

PACKAGE = Path(pae_framework.__file__).parent
_WORDS = {"dataset": "DataSource"}
"""Kinds whose class names differ from the kind."""

_INTRODUCTION = """\
# Hooks and contracts

The hooks a plugin implements and the interface of each kind of component.
[plugins.md](../plugins.md) has a complete example. A component has two classes: a *config*, which
validates the recipe's keys and imports no torch, and the component itself, which the engine builds
from it."""


def page() -> str:
    """The page."""
    specs, configs, contracts = (
        _read(name) for name in ("hookspecs.py", "config.py", "contracts.py")
    )
    parts = [_INTRODUCTION, "## Hooks", prose(ast.get_docstring(specs) or "")]
    parts.append("\n".join(map(_function, _hooks(specs))))
    (register,) = _methods(_classes(specs)["Register"])
    parts.append(_function(register).replace("__call__", "register"))
    parts += ["## Conventions", prose((ast.get_docstring(contracts) or "").partition("\n\n")[2])]
    lifecycle = _read("lifecycle.py")
    parts += ["## Life of a run", prose(ast.get_docstring(lifecycle) or "")]
    parts += [_class(found, "lifecycle") for found in _classes(lifecycle).values()]
    described: set[str] = set()
    for kind in KINDS:
        name = _WORDS.get(kind, kind.capitalize())
        described |= {name, f"{name}Config"}
        parts += [f"## {title(kind)}", _class(_classes(configs)[f"{name}Config"], "config")]
        parts.append(_class(_classes(contracts)[name], "contracts"))
    rest = [("config", configs), ("contracts", contracts)]
    parts.append("## Inputs and outputs")
    parts += [
        _class(found, module)
        for module, tree in rest
        for name, found in _classes(tree).items()
        if name not in described
    ]
    return "\n\n".join(parts)


def _read(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _hooks(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and "hookspec" in map(
            ast.unparse, node.decorator_list
        ):
            yield node


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Public methods and the special methods that contracts define."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (
            not item.name.startswith("_") or item.name in ("__call__", "__len__", "__getitem__")
        ):
            yield item


def _class(node: ast.ClassDef, module: str) -> str:
    parts = [f"### `pae_framework.{module}.{node.name}`", prose(ast.get_docstring(node) or "")]
    entries = [*_attributes(node), *map(_function, _methods(node))]
    return "\n\n".join([*parts, "\n".join(entries)] if entries else parts)


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """Annotated attributes, with the docstring below them or the pydantic field's description."""
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign):
            continue
        default, text = _default(item.value)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = str(after.value.value)
        declared = f"{ast.unparse(item.target)}: {ast.unparse(item.annotation)}"
        yield _entry(f"{declared} = {default}" if default else declared, text)


def _default(value: ast.expr | None) -> tuple[str, str]:
    """The default as written, and the pydantic field's description."""
    if not isinstance(value, ast.Call):
        return (ast.unparse(value), "") if value is not None else ("", "")
    texts = [word.value for word in value.keywords if word.arg == "description"]
    described = ast.literal_eval(texts[0]) if texts else ""
    return (ast.unparse(value.args[0]) if value.args else ""), str(described)


def _function(node: ast.FunctionDef) -> str:
    """One function or method as an entry of a list."""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    signature = node.name if "property" in marks else f"{node.name}({arguments})"
    # Config models are not abstract classes: methods to be implemented raise.
    abstract = (
        "abstractmethod" in marks or ast.unparse(node.body[-1]) == "raise NotImplementedError"
    )
    text = ast.get_docstring(node) or ""
    return _entry(signature + result, text, " *(required)*" if abstract else "")


def _entry(signature: str, text: str, mark: str = "") -> str:
    words = prose(text).replace("\n\n", "\n\n  ") if "\n" in text else inline(text)
    return f"- `{signature}`{mark}" + (f": {words}" if words else "")
