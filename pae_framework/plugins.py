"""Discovery of plugins. No torch.

pluggy's own loader loads all entry points at once and stops at the first error. This one records a
plugin that fails to load as broken, with the reason, and continues. If two plugins register one
name, recipes select one with ``distribution/name``.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

import pluggy

from pae_framework import hookspecs
from pae_framework.errors import PluginError
from pae_framework.kinds import KINDS
from pae_framework.registry import ComponentSpec, Plugin, Registry

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin of the ``pae_framework`` entry-point group.

    Args:
        points: entry points to load instead of the installed ones (tests).
    """
    registry = Registry()
    if points is None:
        points = entry_points(group=hookspecs.PROJECT)
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        _load(point, registry)
    return registry


def _load(point: EntryPoint, registry: Registry) -> None:
    distribution = point.dist.name if point.dist else "unknown"
    version = point.dist.version if point.dist else ""
    torch_before = "torch" in sys.modules
    try:
        found = _collect(point)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        detail = traceback.format_exc()
        broken = Plugin(point.name, point.value, distribution, version, reason, detail)
        registry.plugins.append(broken)
        return
    heavy = not torch_before and "torch" in sys.modules
    plugin = Plugin(point.name, point.value, distribution, version, heavy=heavy)
    registry.plugins.append(plugin)
    for registration in found:
        registry.add(ComponentSpec(*registration, plugin))


_Registration = tuple[str, str, str, str, str]
"""kind, name, target, config, summary"""


def _collect(point: EntryPoint) -> list[_Registration]:
    """The registrations of one plugin, if none of them fails."""
    module = point.load()
    api = getattr(module, "pae_api", None)
    if api != hookspecs.PAE_API:
        fact = "does not set `pae_api`" if api is None else f"was written for plugin API {api}"
        raise PluginError(f"{fact}; set `pae_api = {hookspecs.PAE_API}`")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=point.name)
    manager.check_pending()
    found: list[_Registration] = []
    for kind in KINDS.values():
        getattr(manager.hook, kind.hook)(register=_register_into(found, kind.name))
    return found


def _register_into(found: list[_Registration], kind: str) -> hookspecs.Register:
    """The ``register`` argument of a hook."""

    def register(name: str, *, target: str, config: str, summary: str) -> None:
        if not _NAME.fullmatch(name):
            raise PluginError(
                f"registers {kind} {name!r}; a name must be lower case, words joined by '_' or '-'"
            )
        for role, reference in (("target", target), ("config", config)):
            if not _REFERENCE.fullmatch(reference):
                raise PluginError(
                    f"the {role} of {kind} {name!r} is {reference!r}, not 'package.module:Class'"
                )
        if (kind, name) in {registration[:2] for registration in found}:
            raise PluginError(f"registers {kind} {name!r} twice")
        found.append((kind, name, target, config, summary))

    return register
