"""Writes a recipe as YAML, one value per line. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from pae_framework.recipe.nodes import KeyPath
from pae_framework.recipe.yaml_source import use_core_schema


class _CoreDumper(yaml.SafeDumper):
    """Quotes only strings that our loader would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if len(text.splitlines()) > 1 or text != text.strip() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


use_core_schema(_CoreDumper)
_CoreDumper.add_representer(str, _represent_text)


def lines(data: Any, path: KeyPath = ()) -> Iterator[tuple[str, KeyPath | None]]:
    """Lines of YAML with the key paths of their values; None for a line that starts a map."""
    indent = "  " * len(path)
    for key, value in data.items():
        inner = (*path, key)
        if isinstance(value, dict) and value:
            yield f"{indent}{inline(key)}:", None
            yield from lines(value, inner)
        else:
            yield f"{indent}{inline(key)}: {inline(value)}", inner


def inline(value: Any) -> str:
    """YAML of one value on one line."""
    text = yaml.dump(
        value,
        Dumper=_CoreDumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return str(text).removesuffix("\n...\n").removesuffix("\n")


def to_yaml(data: dict[str, Any]) -> str:
    """YAML of a whole recipe."""
    return "".join(f"{line}\n" for line, _ in lines(data)) or "{}\n"
