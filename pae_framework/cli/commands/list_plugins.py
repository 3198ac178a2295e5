"""``pae list-plugins``: list the installed components."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption
from pae_framework.cli.output import print_answer, print_table, registry_with, warn
from pae_framework.cli.shell_completion import complete_kind
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.registry import Plugin, Registry


def list_plugins(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", autocompletion=complete_kind, help=f"one of {', '.join(KINDS)}"
        ),
    ] = None,
    of_kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="KIND", autocompletion=complete_kind, help="the same as the argument"
        ),
    ] = None,
    plugin: PluginOption = None,
    long: Annotated[
        bool, typer.Option("--long", help="also plugin, distribution, version and state")
    ] = False,
    broken: Annotated[
        bool, typer.Option("--broken", help="only plugins that fail to load, with the reason")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing", help="the plugins and how long each takes to load")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List every component that a recipe can use.

    Examples:
        pae list-plugins --kind encoder

        pae list-plugins --long
    """
    if kind and of_kind and kind != of_kind:
        raise UsageError(f"two kinds: {kind} and --kind {of_kind}; give one")
    kind = kind or of_kind
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}; one of {', '.join(KINDS)}")
    registry = registry_with(plugin or ())
    if as_json:
        print_answer("list-plugins", _answer(registry, kind, broken))
    elif broken:
        _print_broken(registry)
    elif timing:
        _print_timing(registry)
    else:
        _print_all(registry, kind, long)


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


def _print_all(registry: Registry, kind: str | None, long: bool) -> None:
    specs = registry.specs(kind)
    without = [plugin for plugin in registry.plugins if plugin.state in ("empty", "broken")]
    if long:
        rows = [
            (spec.kind, registry.use_name(spec), *_origin(spec.plugin), spec.summary)
            for spec in specs
        ]
        rows += [
            ("-", "-", *_origin(plugin), f"follows runs: {', '.join(plugin.follows)}")
            for plugin in registry.plugins
            if plugin.follows and not kind
        ]
        rows += [
            ("-", "-", *_origin(plugin), plugin.error or "registers nothing") for plugin in without
        ]
        print_table(("kind", "name", "plugin", "distribution", "state", "summary"), rows)
    else:
        short = ((spec.kind, registry.use_name(spec), spec.summary) for spec in specs)
        print_table(("kind", "name", "summary"), short)
        for plugin in without:
            state = f"is broken: {plugin.error}" if plugin.error else "registers nothing"
            warn(f"plugin {plugin.name} ({plugin.source}) {state}")
    for spec in specs:
        if registry.hidden(spec):
            print_line(
                f"`use: {spec.name}` means the built-in {spec.kind}; that of {spec.origin} is "
                f"`use: {registry.use_name(spec)}`"
            )


def _origin(plugin: Plugin) -> tuple[str, str, str]:
    return plugin.name, plugin.source, plugin.state


def _print_timing(registry: Registry) -> None:
    slowest = sorted(registry.plugins, key=lambda plugin: -plugin.seconds)
    rows = [(f"{1000 * plugin.seconds:.1f}", *_origin(plugin)) for plugin in slowest]
    print_table(("ms", "plugin", "distribution", "state"), rows)


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
