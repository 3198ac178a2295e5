"""Discovery of plugins. No torch.

pluggy's own loader loads all entry points at once and stops at the first error. This one records a
plugin that fails to load as broken, with the reason, and continues. If two plugins register one
name, recipes select one with ``distribution/name``.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType

import pluggy

from pae_framework import hookspecs
from pae_framework.errors import PluginError
from pae_framework.kinds import KINDS
from pae_framework.plugin_code import LIGHT_SECONDS, describe, guarded
from pae_framework.registry import ComponentSpec, Plugin, Registry, normalized

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin of the ``pae_framework`` entry-point group.

    Args:
        points: entry points to load instead of the installed ones (tests).
    """
    registry = Registry()
    found = _installed(registry) if points is None else points
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        _load(point, registry)
    return registry


def _installed(registry: Registry) -> Iterator[EntryPoint]:
    """The installed entry points; distributions whose metadata are damaged count as broken.

    Of two distributions with one name, the first on ``sys.path`` counts. Those that start with
    ``~`` are what an interrupted pip left behind; pip ignores them, too.
    """
    seen: set[str] = set()
    for distribution in distributions():
        name = "unknown"
        try:
            name = _normalized_name(distribution)
            if name in seen or name.startswith("~"):
                continue
            seen.add(name)
            points = _points(distribution)
            if points and not (distribution.name and distribution.version):
                raise PluginError("METADATA names no distribution or version")
        except Exception as error:
            reason = f"its metadata are damaged, install it again: {describe(error)}"
            detail = "".join(traceback.format_exception(error))
            registry.plugins.append(Plugin(name, "", name, "", reason, detail))
            continue
        yield from points


def _normalized_name(distribution: Distribution) -> str:
    """From the folder's name if possible, because parsing all metadata is slow."""
    found = getattr(distribution, "_normalized_name", None) or normalized(distribution.name)
    return str(found).replace("_", "-")


def _points(distribution: Distribution) -> set[EntryPoint]:
    text = (distribution.read_text("entry_points.txt") or "").strip()
    if text and "[" not in text:  # importlib would read it as an empty file
        raise PluginError("entry_points.txt has no section")
    return {point for point in distribution.entry_points if point.group == hookspecs.PROJECT}


def _load(point: EntryPoint, registry: Registry) -> None:
    distribution = point.dist.name if point.dist else "unknown"
    version = point.dist.version if point.dist else ""
    torch_before = "torch" in sys.modules
    loaded = Plugin(point.name, point.value, distribution, version)
    limit = None if loaded.built_in else LIGHT_SECONDS
    start = time.perf_counter()
    try:
        with guarded(f"plugin {point.name} ({distribution})", limit):
            found = _collect(point)
    except PluginError as error:
        detail = "".join(traceback.format_exception(error.__cause__))
        took = time.perf_counter() - start
        registry.plugins.append(replace(loaded, error=str(error), detail=detail, seconds=took))
        return
    heavy = not torch_before and "torch" in sys.modules
    plugin = replace(loaded, heavy=heavy, seconds=time.perf_counter() - start)
    registry.plugins.append(plugin)
    for registration in found:
        registry.add(ComponentSpec(*registration, plugin))


_Registration = tuple[str, str, str, str, str]
"""kind, name, target, config, summary"""


def _collect(point: EntryPoint) -> list[_Registration]:
    """The registrations of one plugin, if none of them fails."""
    if not point.pattern.match(point.value):
        raise PluginError(f"its entry point is {point.value!r}, not an importable module")
    module = point.load()
    _require_api(module)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=point.name)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise PluginError("implements no hook; mark its hooks with @hookimpl")
    found: list[_Registration] = []
    for kind in KINDS.values():
        getattr(manager.hook, kind.hook)(register=_register_into(found, kind.name))
    return found


def _require_api(module: ModuleType) -> None:
    """Reject plugins for another version of the hooks and contracts."""
    api = getattr(module, "pae_api", None)
    ours = hookspecs.PAE_API
    if api is None:
        raise PluginError(f"does not set `pae_api`; set `pae_api = {ours}`")
    if type(api) is not int:
        raise PluginError(f"sets `pae_api` to {api!r}, not an integer; set `pae_api = {ours}`")
    if api != ours:
        newer = "pae-framework" if api > ours else "the plugin"
        raise PluginError(
            f"was written for plugin API {api}, this pae-framework has {ours}; update {newer}"
        )


def _register_into(found: list[_Registration], kind: str) -> hookspecs.Register:
    """The ``register`` argument of a hook."""

    def register(name: str, *, target: str, config: str, summary: str) -> None:
        if not _matches(_NAME, name):
            raise PluginError(
                f"registers {kind} {name!r}; a name must be lower case, words joined by '_' or '-'"
            )
        if (kind, name) in {registration[:2] for registration in found}:
            raise PluginError(f"registers {kind} {name!r} twice")
        for role, reference in (("target", target), ("config", config)):
            if not _matches(_REFERENCE, reference):
                raise PluginError(
                    f"the {role} of {kind} {name!r} is {reference!r}, not 'package.module:Class'"
                )
        if not (isinstance(summary, str) and summary.strip() and summary.isprintable()):
            raise PluginError(f"the summary of {kind} {name!r} is {summary!r}, not one line")
        found.append((kind, name, target, config, summary))

    return register


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether a value is text that matches; plugins may pass anything."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None
