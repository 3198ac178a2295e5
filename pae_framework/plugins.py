"""Discovery of plugins, and the registry of components they bring. No torch.

Our own loader stands around pluggy, because pluggy loads all entry points at once: here a plugin
that fails to load is kept as a broken one with its reason and stops nobody else; two plugins that
bring one name make that name ambiguous until a recipe says ``distribution/name``.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from pae_framework import hookspecs
from pae_framework.config import ComponentConfig
from pae_framework.engine_components import ENGINE_COMPONENTS
from pae_framework.errors import PluginError

HOOKS = {
    "dataset": "pae_register_datasets",
    "encoder": "pae_register_encoders",
    "decoder": "pae_register_decoders",
    "regularizer": "pae_register_regularizers",
    "generator": "pae_register_generators",
    "evaluator": "pae_register_evaluators",
}
KINDS = (
    "dataset",
    "encoder",
    "modulator",
    "bottleneck",
    "decoder",
    "regularizer",
    "generator",
    "evaluator",
)
"""Kinds in the order an image meets them."""
ENGINE = "pae-framework"

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_Config = TypeVar("_Config", bound=ComponentConfig)


class UnknownComponentError(LookupError):
    """A name that is not registered, or that two distributions registered."""


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from and whether it loaded."""

    name: str
    module: str
    distribution: str
    version: str
    error: str | None = None
    detail: str = ""
    heavy: bool = False

    @property
    def state(self) -> str:
        """``ok``, ``heavy`` (it imports torch to register) or ``broken``."""
        return "broken" if self.error else ("heavy" if self.heavy else "ok")


@dataclass(frozen=True)
class ComponentSpec:
    """One registered component; its class and config are imported only when asked for."""

    kind: str
    name: str
    target: str
    config: str
    summary: str
    plugin: Plugin

    @property
    def reference(self) -> str:
        """``kind:name``, as ``pae show-plugin`` takes it."""
        return f"{self.kind}:{self.name}"

    @property
    def origin(self) -> str:
        """The plugin and its distribution, as messages name them."""
        return f"plugin {self.plugin.name} ({self.plugin.distribution})"

    def config_class(self) -> type[ComponentConfig]:
        """Import the config model (no torch).

        Raises:
            PluginError: the import string leads nowhere or not to a ComponentConfig.
        """
        found = self._import(self.config, "config")
        if not (isinstance(found, type) and issubclass(found, ComponentConfig)):
            raise PluginError(
                f"{self.origin}: the config of "
                f"{self.reference}, {self.config}, is not a pae_framework.config.ComponentConfig"
            )
        return found

    def component_class(self) -> type[Any]:
        """Import the component itself (this is where torch comes in).

        Raises:
            PluginError: the import string leads nowhere or not to a class.
        """
        found = self._import(self.target, "target")
        if not isinstance(found, type):
            raise PluginError(f"{self.origin}: {self.reference} is not a class: {self.target}")
        return found

    def _import(self, reference: str, role: str) -> Any:
        module, _, attribute = reference.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.origin}: the {role} of {self.reference}, {reference}, does not import: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass
class Registry:
    """All components by kind and name, and all plugins, broken ones too."""

    plugins: list[Plugin] = field(default_factory=list)
    _specs: dict[tuple[str, str], list[ComponentSpec]] = field(default_factory=dict)

    def add(self, spec: ComponentSpec) -> None:
        """Add one component; a second one of that name makes the name ambiguous."""
        self._specs.setdefault((spec.kind, spec.name), []).append(spec)

    def specs(self, kind: str | None = None) -> list[ComponentSpec]:
        """All components, of one kind or of all, in the order of KINDS and then by name."""
        found = [spec for specs in self._specs.values() for spec in specs]
        if kind is not None:
            found = [spec for spec in found if spec.kind == kind]
        return sorted(found, key=lambda spec: (KINDS.index(spec.kind), spec.name))

    @property
    def broken(self) -> list[Plugin]:
        """Plugins that did not load."""
        return [plugin for plugin in self.plugins if plugin.error]

    def find(self, kind: str, name: str) -> ComponentSpec:
        """Look a component up by ``name`` or ``distribution/name``.

        Raises:
            UnknownComponentError: with the nearest names, all names of the kind and the plugins
                that failed to load; or with the distributions that share the name.
        """
        distribution, _, plain = name.rpartition("/")
        found = self._specs.get((kind, plain), [])
        if distribution:
            found = [spec for spec in found if _same_name(spec.plugin.distribution, distribution)]
        if len(found) > 1:
            raise UnknownComponentError(_ambiguous(found))
        if not found:
            raise UnknownComponentError(self._unknown(kind, name))
        return found[0]

    def config_class(self, kind: str, name: str, base: type[_Config]) -> type[_Config]:
        """Import the config model of a component.

        Raises:
            UnknownComponentError: as :meth:`find`.
            PluginError: it does not import, or is not a ``base``.
        """
        spec = self.find(kind, name)
        model = spec.config_class()
        if not issubclass(model, base):
            raise PluginError(
                f"{spec.origin}: the config of {spec.reference} is not a {base.__name__}"
            )
        return model

    def use_name(self, spec: ComponentSpec) -> str:
        """What a recipe writes after ``use:`` for this one: with its distribution where it must."""
        shared = len(self._specs[spec.kind, spec.name]) > 1
        return f"{spec.plugin.distribution}/{spec.name}" if shared else spec.name

    def _unknown(self, kind: str, name: str) -> str:
        known = [spec.name for spec in self.specs(kind)]
        message = f"unknown {kind} {name!r}"
        if near := difflib.get_close_matches(name.rpartition("/")[2], known, n=1):
            message += f", did you mean {near[0]!r}?"
        elif others := [other for other in KINDS if (other, name) in self._specs]:
            message += f", which is registered as {others[0]}."
        else:
            message += "; does its plugin need installing?"
        message += f" Installed: {', '.join(dict.fromkeys(known)) or 'none'}."
        if self.broken:
            failed = ", ".join(plugin.name for plugin in self.broken)
            message += f" Plugins that failed to load: {failed} (see `pae list-plugins --broken`)."
        return message


def _ambiguous(specs: list[ComponentSpec]) -> str:
    """Two owners of one name: how to pick one, or, inside one distribution, that nobody can."""
    kind, name = specs[0].kind, specs[0].name
    owners = sorted({f"{spec.plugin.distribution}/{name}" for spec in specs})
    if len(owners) > 1:
        return f"{kind} {name!r} is registered more than once; say {' or '.join(owners)}"
    plugins = " and ".join(spec.plugin.name for spec in specs)
    return (
        f"{kind} {name!r} is registered by both plugins {plugins} of "
        f"{specs[0].plugin.distribution}; one of them has to rename it"
    )


def _same_name(one: str, other: str) -> bool:
    """Whether two distribution names are the same (PEP 503: case and ``-_.`` do not count)."""
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin of the ``pae_framework`` entry-point group, and the engine's components.

    Args:
        points: entry points to load instead of the installed ones (tests).
    """
    from pae_framework import __version__

    registry = Registry()
    engine = Plugin(ENGINE, "pae_framework", ENGINE, __version__)
    for kind, name, target, config, summary in ENGINE_COMPONENTS:
        registry.add(ComponentSpec(kind, name, target, config, summary, engine))
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
    """What one plugin registers; nothing of it counts if any of it fails."""
    module = point.load()
    api = getattr(module, "pae_api", None)
    if api != hookspecs.PAE_API:
        raise PluginError(
            f"written for plugin API {api}, this is {hookspecs.PAE_API}"
            if api is not None
            else f"states no `pae_api` (this is {hookspecs.PAE_API})"
        )
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=point.name)
    manager.check_pending()
    found: list[_Registration] = []
    for kind, hook in HOOKS.items():
        getattr(manager.hook, hook)(register=_register_into(found, kind))
    return found


def _register_into(found: list[_Registration], kind: str) -> hookspecs.Register:
    """The ``register`` a hook of one kind is given."""

    def register(name: str, *, target: str, config: str, summary: str) -> None:
        if not _NAME.fullmatch(name):
            raise PluginError(
                f"registers {kind} {name!r}; a name is lower case, its words joined by '_' or '-'"
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
