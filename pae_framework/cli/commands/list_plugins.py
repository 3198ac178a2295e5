"""``pae list-plugins``: list the installed components."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption
from pae_framework.cli.output import print_json, print_table
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.registry import Registry


def list_plugins(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help=f"one of {', '.join(KINDS)}")
    ] = None,
    as_json: JsonOption = False,
    plugin: PluginOption = None,
    broken: Annotated[
        bool, typer.Option("--broken", help="only plugins that fail to load, with the reason")
    ] = False,
) -> None:
    """List every component a recipe can use, with the package that provides it."""
    from pae_framework.plugins import load_registry, with_files

    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}; one of {', '.join(KINDS)}")
    registry = with_files(load_registry(), plugin or ())
    if as_json:
        print_json(_answer(registry, kind, broken))
    elif broken:
        _print_broken(registry)
    else:
        _print_all(registry, kind)


def _answer(registry: Registry, kind: str | None, broken: bool) -> dict[str, Any]:
    components = [
        {
            "kind": spec.kind,
            "name": registry.use_name(spec),
            "plugin": spec.plugin.name,
            "distribution": spec.plugin.distribution,
            "version": spec.plugin.version,
            "state": spec.plugin.state,
            "summary": spec.summary,
        }
        for spec in registry.specs(kind)
    ]
    plugins = registry.broken if broken else registry.plugins
    return {
        "components": [] if broken else components,
        "plugins": [{**asdict(plugin), "state": plugin.state} for plugin in plugins],
    }


def _print_all(registry: Registry, kind: str | None) -> None:
    rows = [
        (
            spec.kind,
            registry.use_name(spec),
            spec.plugin.name,
            spec.plugin.source,
            spec.plugin.state,
            spec.summary,
        )
        for spec in registry.specs(kind)
    ]
    rows += [
        ("-", "-", plugin.name, plugin.source, "empty", "registers nothing")
        for plugin in registry.plugins
        if plugin.state == "empty"
    ]
    rows += [
        ("-", "-", plugin.name, plugin.source, "broken", plugin.error)
        for plugin in registry.broken
        if plugin.error
    ]
    print_table(("kind", "name", "plugin", "distribution", "state", "summary"), rows)
    for spec in registry.specs(kind):
        if registry.hidden(spec):
            print_line(
                f"`use: {spec.name}` means the built-in {spec.kind}; that of {spec.origin} is "
                f"`use: {registry.use_name(spec)}`"
            )


def _print_broken(registry: Registry) -> None:
    from pae_framework.plugins import without_entry_point

    if not registry.broken:
        print_line("every plugin loads")
    for plugin in registry.plugins:
        if plugin.state == "empty":
            print_line(
                f"{plugin.name} ({plugin.source}): registers nothing; its hooks must call "
                "`register` for each component"
            )
    for name in without_entry_point():
        print_line(
            f"{name}: requires pae-framework but registers nothing; name its registration module "
            "in [project.entry-points.pae_framework]"
        )
    for plugin in registry.broken:
        print_line(f"{plugin.name} ({plugin.source}): {plugin.error}")
        for line in plugin.detail.rstrip().splitlines():
            print_line(f"    {line}")
