"""The public API as text: one line for each name that a plugin may use, with its signature.

`python tests/api/public_api.py` writes `public_api.txt`; look at the difference in git. A removed
or changed line breaks plugins: see "Keep your plugin working" in docs/plugins.md.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

FILE = Path(__file__).with_suffix(".txt")
MODULES = (
    "pae_framework",
    "pae_framework.config",
    "pae_framework.hookspecs",
    "pae_framework.lifecycle",
    "pae_framework.metrics_file",
    "pae_framework.kinds",
    "pae_framework.contracts",
    "pae_framework.errors",
    "pae_framework.layers",
    "pae_framework.convolutions",
    "pae_framework.convolution_settings",
    "pae_framework.swiglu",
    "pae_framework.swiglu_settings",
    "pae_framework.frozen",
    "pae_framework.seeding",
    "pae_framework.hub",
    "pae_framework.tensor_files",
    "pae_framework.weight_files",
    "pae_framework.testing",
    "pae_framework.testing.pytest",
    "pae_framework.notebook",
)
"""Public modules whose every name is API (docs/plugins.md; the last one is for notebooks)."""
UNCOMPARED = ("data", "metrics", "tokenizer", "flow", "system.files", "system.user_cache")
"""What plugins may import besides, but whose names may change (docs/plugins.md)."""


def public_api() -> list[str]:
    """All lines, sorted within each module."""
    return [line for module in MODULES for line in sorted(set(_lines_of(module)))]


def _lines_of(module: str) -> Iterator[str]:
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name in _defined(found) if not name.startswith("_") and name != "logger"
    ]
    for name in names:
        yield from _lines(f"{module}.{name}", getattr(found, name))


def _defined(module: ModuleType) -> Iterator[str]:
    """Names that a module defines and does not import."""
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _lines(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        yield f"{path}({bases})"
        yield from _members(path, value)
    elif inspect.isfunction(inspect.unwrap(value) if callable(value) else value):
        yield f"{path}{_signature(value)}"
    else:
        yield path


def _members(path: str, owner: type) -> Iterator[str]:
    if dataclasses.is_dataclass(owner) or (
        "__init__" in vars(owner) and not issubclass(owner, BaseModel)
    ):
        yield f"{path}.__init__{_signature(owner.__init__)}"
    if issubclass(owner, BaseModel):
        for name, info in owner.model_fields.items():
            required = "required" if info.is_required() else f"= {info.default!r}"
            yield f"{path}.{name}: {required}"
    names = {*vars(owner), *vars(owner).get("__annotations__", {})}
    for name in names:
        if name.startswith("_") or (issubclass(owner, BaseModel) and name.startswith("model_")):
            continue
        member = vars(owner).get(name)
        plain = getattr(member, "__func__", member)
        yield f"{path}.{name}{_signature(plain) if inspect.isfunction(plain) else ''}"


def _signature(function: Any) -> str:
    """Names, kinds and defaults of arguments; types are left out: mypy checks them."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=parameter.default if _is_plain(parameter.default) else ...,
        )
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def _is_plain(default: Any) -> bool:
    empty = default is inspect.Parameter.empty
    return empty or isinstance(default, int | float | str | bool | None | tuple)


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in public_api()), encoding="utf-8")
