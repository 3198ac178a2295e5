"""The files of a new plugin, from templates. No torch.

A template is a file of text in ``templates/``; ``<<name>>`` is a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from pae_framework.scaffold.names import Names, kinds_of

_PLACEHOLDER = re.compile(r"<<(\w+)>>")

_SCAFFOLDING = {
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
    "tests/conftest.py": "conftest.py",
    "tests/test_plugin.py": "test_plugin.py",
}
"""Path in the plugin -> template, of files that are not the author's code."""
_AUTHORS = {"pyproject.toml": "pyproject.toml", "README.md": "README.md"}


def scaffolding(names: Names) -> dict[str, str]:
    """Contents of the files that :mod:`~pae_framework.scaffold.write` may replace, by path."""
    written = {
        path: filled(template, names.of_package()) for path, template in _SCAFFOLDING.items()
    }
    for kind in kinds_of(names):
        values = names.of_kind(kind.name)
        written[f"tests/test_{kind.name}_contract.py"] = filled("test_component.py", values)
    return written


def all_files(names: Names) -> dict[str, str]:
    """Contents of all files of a new plugin, by path."""
    values, package = names.of_package(), names.package
    written = {path: filled(template, values) for path, template in _AUTHORS.items()}
    hooks = [filled("hook.py", names.of_kind(kind.name)) for kind in kinds_of(names)]
    written[f"{package}/__init__.py"] = "".join([filled("init.py", values), *hooks])
    for kind in kinds_of(names):
        for name in (kind.name, f"{kind.name}_config"):
            written[f"{package}/{name}.py"] = filled(f"{name}.py", names.of_kind(kind.name))
    written[f"{package}.yaml"] = _recipe(names)
    return {**written, **scaffolding(names)}


def _recipe(names: Names) -> str:
    recipe: dict[str, Any] = {"pae": 1, "extends": "quickstart", "name": names.package}
    kinds = kinds_of(names)
    if any(kind.path[:1] == ("tokenizer",) < kind.path for kind in kinds):
        kinds = [
            kind for kind in kinds if kind.name != "tokenizer"
        ]  # a recipe has one or the other
    for kind in kinds:
        part = yaml.safe_load(filled(f"{kind.name}.yaml", names.of_kind(kind.name)))
        recipe = _merged(recipe, part)
    body = yaml.safe_dump(recipe, sort_keys=False, width=100)
    return filled("recipe.yaml", names.of_package()) + body


def _merged(base: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in part.items():
        earlier = merged.get(key)
        if isinstance(earlier, dict) and isinstance(value, dict):
            value = _merged(earlier, value)
        merged[key] = value
    return merged


def filled(template: str, values: Mapping[str, str]) -> str:
    """The text of a template with these values in place of its placeholders."""
    text = (files(__package__) / "templates" / f"{template}.tmpl").read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)
