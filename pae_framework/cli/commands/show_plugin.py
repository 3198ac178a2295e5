"""``pae show-plugin``: describe one component."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption
from pae_framework.cli.output import installed_registry, print_answer, print_table
from pae_framework.cli.shell_completion import complete_component
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.registry import ComponentSpec, Registry

ALIASES = {"data": "dataset"}
"""Other words for kinds: sections of recipes."""


def show_plugin(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="KIND:NAME",
            autocompletion=complete_component,
            help="for example encoder:tiny_vit, or tiny_vit",
        ),
    ],
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a component: its parameters, and an example to paste into a recipe."""
    from pae_framework.recipe.emit import inline
    from pae_framework.recipe.reference import example, parameters

    registry = installed_registry(plugin or ())
    spec = _find(registry, reference)
    config = spec.config_class()
    found = list(parameters(config))
    block = example(spec.kind, registry.use_name(spec), config)
    if as_json:
        print_answer(
            "show-plugin",
            {
                "kind": spec.kind,
                "name": registry.use_name(spec),
                "summary": spec.summary,
                "plugin": asdict(spec.plugin),
                "target": spec.target,
                "config": spec.config,
                "models": {model: list(tags) for model, tags in config.known_models().items()},
                "parameters": [asdict(parameter) for parameter in found],
                "example": block,
            },
        )
        return
    print_line(f"{spec.reference}: {spec.summary}")
    print_line(f"from {spec.plugin.source}, {spec.target}\n")
    if found:
        rows = [
            (p.name, p.type, "(required)" if p.required else inline(p.default), p.description)
            for p in found
        ]
        print_table(("parameter", "type", "default", "description"), rows)
    else:
        print_line("It has no parameters.")
    if models := config.known_models():
        print_line("")
        print_table(("model", "weights"), [(m, ", ".join(tags)) for m, tags in models.items()])
    print_line(f"\n{block}")


def _find(registry: Registry, reference: str) -> ComponentSpec:
    """The component of ``kind:name``; ``data`` means ``dataset``, and a name alone suffices if
    only one kind has it.
    """
    from pae_framework.registry import UnknownComponentError

    kind, colon, name = reference.partition(":")
    if not colon:
        return _only(registry, reference)
    kind = ALIASES.get(kind, kind)
    if kind not in KINDS:
        near = _nearest(registry, name)
        raise UsageError(_unknown(f"{reference!r} is not KIND:NAME", near))
    try:
        return registry.find(kind, name)
    except UnknownComponentError as error:
        raise UsageError(str(error)) from None


def _only(registry: Registry, name: str) -> ComponentSpec:
    """The component with a name, of whatever kind."""
    from pae_framework.registry import UnknownComponentError

    found = {}
    for kind in KINDS:
        with suppress(UnknownComponentError):
            found[kind] = registry.find(kind, name)
    if not found:
        raise UsageError(_unknown(f"no component is named {name!r}", _nearest(registry, name)))
    if len(found) > 1:
        named = " or ".join(f"{kind}:{name}" for kind in found)
        raise UsageError(f"{name!r} is the name of several components: {named}")
    return next(iter(found.values()))


def _unknown(problem: str, near: list[str]) -> str:
    meant = f"{problem}, did you mean {' or '.join(near)}? Kinds" if near else f"{problem}; kinds"
    return f"{meant}: {', '.join(KINDS)}"


def _nearest(registry: Registry, name: str) -> list[str]:
    """References of the components of all kinds whose names are like ``name``."""
    specs = registry.specs()
    near = difflib.get_close_matches(name, {spec.name for spec in specs}, n=1)
    return [spec.reference for spec in specs if spec.name in near]
