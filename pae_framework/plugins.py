"""Discovery of plugins. No torch.

pluggy's own loader loads all entry points at once and stops at the first error. This one records a
plugin that fails to load as broken, with the reason, and continues. If two plugins register one
name, recipes select one with ``distribution/name``.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pluggy

from pae_framework import hookspecs
from pae_framework.errors import PluginError
from pae_framework.kinds import KINDS
from pae_framework.plugin_code import HEAVY_SECONDS, LIGHT_SECONDS, describe, guarded
from pae_framework.registry import DISTRIBUTION, ComponentSpec, Plugin, Registry, normalized
from pae_framework.system.files import absolute, file_problem

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_REQUIREMENT = re.compile(r"[^A-Za-z0-9._-]")
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
            loaded = Plugin(path.stem, path.stem, path.name, _digest(path), file=str(path))
            _register(loaded, partial(import_file, path), extended)
    return extended


def import_file(path: Path) -> ModuleType:
    """Import a plugin of one file as a module of its name; anew if its contents changed.

    Raises:
        PluginError: it cannot be read, or its name is no name of a module, or that of another.
    """
    if (problem := file_problem(path)) is not None:
        raise PluginError(problem)
    name, digest = path.stem, _digest(path)
    if path.suffix != ".py" or not name.isidentifier():
        raise PluginError(f"{path.name} must be a Python file named like a module: my_encoder.py")
    present = sys.modules.get(name)
    identity = path.resolve(), digest
    if present is not None and getattr(present, _DIGEST, None) == identity:
        return present
    if (other := _other_module(name, path)) is not None:
        raise PluginError(f"there is another module {name!r}, {other}; rename {path.name}")
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    setattr(module, _DIGEST, identity)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


_DIGEST = "__pae_file__"
"""Attribute of a module that was imported from a file: its resolved path and its digest."""


def imported_files() -> list[Path]:
    """The plugins of one file that this process has imported, in this order."""
    modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    return [Path(vars(module)[_DIGEST][0]) for module in modules if _DIGEST in vars(module)]


def _other_module(name: str, path: Path) -> str | None:
    """The origin of another module of this name; None if there is none."""
    present = sys.modules.get(name)
    if present is not None:
        own = getattr(present, _DIGEST, (None, ""))[0] == path.resolve()
        return None if own else str(getattr(present, "__file__", None) or "built in")
    found = find_spec(name)
    if found is None or (found.origin and Path(found.origin).resolve() == path.resolve()):
        return None
    return found.origin or "a folder"


def _digest(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
    except OSError:
        return ""


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
            if points and not (distribution.name and distribution.version):
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


def _load(point: EntryPoint, registry: Registry) -> None:
    distribution = point.dist.name if point.dist else "unknown"
    version = point.dist.version if point.dist else ""
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
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=name)
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    _require_known_hooks(manager, module)
    implemented = {caller.name for caller in manager.get_hookcallers(module) or ()}
    if not implemented:
        raise PluginError("implements no hook; mark its hooks with @hookimpl")
    found: list[_Registration] = []
    for kind in KINDS.values():
        getattr(manager.hook, kind.hook)(register=_register_into(found, kind.name))
    return found, tuple(name for name in hookspecs.LIFE_CYCLE if name in implemented)


def _require_known_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """Reject hooks that do not exist; suggest the name that is meant."""
    known = [*(kind.hook for kind in KINDS.values()), *hookspecs.LIFE_CYCLE]
    for name in vars(module):
        if manager.parse_hookimpl_opts(module, name) is None or name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"hooks are {', '.join(known)}"
        raise PluginError(f"implements the hook {name}, which does not exist; {hint}")


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
