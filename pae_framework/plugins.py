"""Discovery of plugins. No torch.

pluggy's own loader loads all entry points at once and stops at the first error. This one records a
plugin that fails to load as broken, with the reason, and continues. If two plugins register one
name, recipes select one with ``distribution/name``.
"""

from __future__ import annotations

import difflib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import Distribution, EntryPoint, distributions
from inspect import Parameter, signature
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import pluggy

from pae_framework import hookspecs
from pae_framework.errors import PluginError
from pae_framework.file_plugins import file_digest, import_file
from pae_framework.kinds import KINDS
from pae_framework.plugin_code import HEAVY_SECONDS, LIGHT_SECONDS, describe, guarded
from pae_framework.registry import DISTRIBUTION, ComponentSpec, Plugin, Registry, normalized
from pae_framework.system.files import absolute

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_REQUIREMENT = re.compile(r"[^A-Za-z0-9._-]")
_REGISTER = signature(hookspecs.Register.__call__)
_ANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin of the ``pae_framework`` entry-point group.

    Args:
        points: entry points to load instead of the installed ones (tests).
    """
    registry = Registry()
    found = installed_points(registry) if points is None else points
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        _load(point, registry)
    return registry


def without_entry_point() -> list[str]:
    """Names of installed distributions that require this one but register no plugin."""
    found = []
    for distribution in distributions():
        try:
            needs = [
                normalized(_REQUIREMENT.split(text, 1)[0]) for text in distribution.requires or ()
            ]
            if DISTRIBUTION in needs and not _points(distribution):
                found.append(distribution.name)
        except Exception:  # damaged metadata are listed as broken
            continue
    return sorted(set(found))


def with_files(registry: Registry, files: Iterable[Path]) -> Registry:
    """The registry with plugins of one file each, which need not be installed.

    A file is imported as a module of its name. One that fails to load is broken, like any plugin.
    """
    paths = list(dict.fromkeys(absolute(path.expanduser()) for path in files))
    known = {Path(plugin.file).resolve() for plugin in registry.plugins if plugin.file}
    if known.issuperset(path.resolve() for path in paths):
        return registry
    extended = registry.copy()
    for path in paths:
        if path.resolve() not in known:
            known.add(path.resolve())
            loaded = Plugin(path.stem, path.stem, path.name, file_digest(path), file=str(path))
            _register(loaded, partial(import_file, path), extended)
    return extended


def installed_points(registry: Registry | None = None) -> Iterator[EntryPoint]:
    """The installed entry points.

    Distributions whose metadata are damaged are added to the registry as broken.

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
            if points and not all(_name_and_version(distribution)):
                raise PluginError("METADATA names no distribution or version")
        except Exception as error:
            reason = f"its metadata are damaged, install it again: {describe(error)}"
            detail = "".join(traceback.format_exception(error))
            if registry is not None:
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


_identities: WeakKeyDictionary[Distribution, tuple[str, str]] = WeakKeyDictionary()
"""Names and versions; reading one parses all metadata of the distribution."""


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    if distribution not in _identities:
        metadata = distribution.metadata
        _identities[distribution] = metadata["Name"], metadata["Version"]
    return _identities[distribution]


def _load(point: EntryPoint, registry: Registry) -> None:
    distribution, version = _name_and_version(point.dist) if point.dist else ("unknown", "")
    loaded = Plugin(point.name, point.value, distribution, version)
    _register(loaded, lambda: _module_of(point), registry)


def _register(loaded: Plugin, module: Callable[[], ModuleType], registry: Registry) -> None:
    """Import a plugin and add its components; a plugin that fails to load is added as broken."""
    torch_before = "torch" in sys.modules
    limit = None if loaded.built_in else LIGHT_SECONDS
    if loaded.file:  # components and their registration in one: it may import torch
        limit = HEAVY_SECONDS
    start = time.perf_counter()
    try:
        with guarded(f"plugin {loaded.name} ({loaded.distribution})", limit):
            found, follows = _collect(module(), loaded.name)
    except PluginError as error:
        detail = "".join(traceback.format_exception(error.__cause__))
        took = time.perf_counter() - start
        registry.plugins.append(replace(loaded, error=str(error), detail=detail, seconds=took))
        return
    heavy = not torch_before and "torch" in sys.modules
    took = time.perf_counter() - start
    empty = not found and not follows
    plugin = replace(loaded, heavy=heavy, empty=empty, follows=follows, seconds=took)
    registry.plugins.append(plugin)
    for registration in found:
        registry.add(ComponentSpec(*registration, plugin))


def module_of(plugin: Plugin) -> ModuleType:
    """The module of a plugin that was loaded before.

    Raises:
        PluginError: the module of a plugin of one file cannot be imported again.
    """
    if plugin.file:
        return import_file(Path(plugin.file))
    return _module_of(EntryPoint(plugin.name, plugin.module, hookspecs.PROJECT))


def _module_of(point: EntryPoint) -> ModuleType:
    if not point.pattern.match(point.value):
        raise PluginError(f"its entry point is {point.value!r}, not an importable module")
    module: ModuleType = point.load()
    return module


_Registration = tuple[str, str, str, str, str]
"""kind, name, target, config, summary"""


def _collect(module: ModuleType, name: str) -> tuple[list[_Registration], tuple[str, ...]]:
    """The registrations of one plugin, if none of them fails, and its life-cycle hooks."""
    _require_api(module)
    manager = _hook_manager()
    implemented = _known_hooks(manager, module)
    found: list[_Registration] = []
    try:
        manager.register(module, name=name)
        for kind in KINDS.values():
            if kind.hook in implemented:
                getattr(manager.hook, kind.hook)(register=_register_into(found, kind.name))
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error).splitlines()[-1]) from error
    finally:
        manager.unregister(name=name)
    return found, tuple(name for name in hookspecs.LIFE_CYCLE if name in implemented)


class _ModuleManager(pluggy.PluginManager):
    """Takes modules as plugins, whose attributes other than functions it need not examine."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """The options of a hook's implementation; None if it is none."""
        if isinstance(vars(plugin).get(name), FunctionType):
            return super().parse_hookimpl_opts(plugin, name)
        return None


@cache
def _hook_manager() -> pluggy.PluginManager:
    """Knows the hooks; holds one plugin at a time."""
    manager = _ModuleManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


@cache
def _hook_arguments() -> dict[str, list[str]]:
    """The arguments of every hook, by its name."""
    hooks = [*(kind.hook for kind in KINDS.values()), *hookspecs.LIFE_CYCLE]
    return {name: list(signature(getattr(hookspecs, name)).parameters) for name in hooks}


def _known_hooks(manager: pluggy.PluginManager, module: ModuleType) -> set[str]:
    """The hooks that a module implements.

    Raises:
        PluginError: it implements none, or one that does not exist or lacks an argument; suggests
            the name that is meant.
    """
    known, found = _hook_arguments(), set()
    for attribute, hook in vars(module).items():
        if (options := manager.parse_hookimpl_opts(module, attribute)) is None:
            continue
        name = options["specname"] or attribute
        if name not in known:
            hint = _meant(name, list(known), "hooks")
            raise PluginError(f"implements the hook {name}, which does not exist; {hint}")
        found.add(name)
        for argument, parameter in signature(hook).parameters.items():
            is_needed = parameter.default is parameter.empty and parameter.kind not in _ANY
            if is_needed and argument not in known[name]:
                hint = _meant(argument, known[name], "its arguments")
                raise PluginError(f"the hook {name} has no argument {argument!r}; {hint}")
    if not found:
        raise PluginError("implements no hook; mark its hooks with @hookimpl")
    return found


def _meant(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"{what} are {', '.join(known)}"


def _require_api(module: ModuleType) -> None:
    """Reject plugins for a version of the hooks and contracts outside of the window."""
    api = getattr(module, "pae_api", None)
    oldest, ours = hookspecs.OLDEST_API, hookspecs.PAE_API
    if api is None:
        raise PluginError(f"does not set `pae_api`; set `pae_api = {ours}`")
    if type(api) is not int:
        raise PluginError(f"sets `pae_api` to {api!r}, not an integer; set `pae_api = {ours}`")
    if not oldest <= api <= ours:
        newer = "pae-framework" if api > ours else "the plugin"
        window = str(ours) if oldest == ours else f"{oldest} to {ours}"
        raise PluginError(
            f"was written for plugin API {api}, this pae-framework has {window}; update {newer}"
        )


def _register_into(found: list[_Registration], kind: str) -> hookspecs.Register:
    """The ``register`` argument of a hook."""

    def register(*given: Any, **named: Any) -> None:
        try:
            arguments = _REGISTER.bind(None, *given, **named).arguments
        except TypeError as error:
            raise PluginError(
                f"calls register with wrong arguments: {error}; call register(name, target=..., "
                "config=..., summary=...)"
            ) from None
        add(**{name: arguments[name] for name in arguments if name != "self"})

    def add(name: str, *, target: str, config: str, summary: str) -> None:
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
