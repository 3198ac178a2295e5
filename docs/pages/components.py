"""docs/reference/components.md: every built-in component, generated from its config model."""

from __future__ import annotations

import inspect
from itertools import groupby

from pae_framework.plugins import load_registry
from pae_framework.recipe.emit import inline as yaml
from pae_framework.recipe.reference import example, parameters
from pae_framework.registry import ComponentSpec
from pages.markdown import block, code, inline, table

_INTRODUCTION = """\
# Components

Every built-in component by kind: the name to write after `use:`, and its parameters. Other packages
can add more ([plugins.md](../plugins.md)). `pae list-plugins` lists all installed components, and
`pae show-plugin KIND:NAME` prints the entry of one. *required* means that you must set the
parameter."""


def title(kind: str) -> str:
    """A kind as a heading."""
    return "Data source (`dataset`)" if kind == "dataset" else kind.capitalize()


def page() -> str:
    """The page."""
    built_in = [spec for spec in load_registry().specs() if spec.built_in]
    parts = [_INTRODUCTION]
    for kind, specs in groupby(built_in, key=lambda spec: spec.kind):
        parts += [f"## {title(kind)}", *map(_component, specs)]
    return "\n\n".join(parts)


def _component(spec: ComponentSpec) -> str:
    config = spec.config_class()
    rows = [
        (
            code(found.name),
            found.type,
            "*required*" if found.required else code(yaml(found.default)),
            inline(found.description),
        )
        for found in parameters(config)
    ]
    return "\n\n".join(
        [
            f"### `{spec.reference}`",
            f"{spec.summary[:1].upper()}{spec.summary[1:]}.",
            inline(inspect.getdoc(config) or ""),
            table(("parameter", "type", "default", ""), rows) if rows else "No parameters.",
            block(example(spec.kind, spec.name, config), "yaml"),
        ]
    )
