"""The registry of installed plugins and their components. No torch."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pae_framework.config import ComponentConfig, written_defaults
from pae_framework.errors import PluginError
from pae_framework.kinds import KINDS
from pae_framework.plugin_code import HEAVY_SECONDS, LIGHT_SECONDS, guarded
from pae_framework.system.definitions import undefined

DISTRIBUTION = "pae-framework"
"""The distribution of the built-in components, which short names mean whatever is installed."""


class UnknownComponentError(LookupError):
    """The name is not registered, or registered by more than one distribution."""


@dataclass(frozen=True)
class Plugin:
    """One entry point, its distribution and the error if it failed to load.

    ``seconds`` is the time that its registration took.
    """

    name: str
    module: str
    distribution: str
    version: str
    error: str | None = None
    detail: str = ""
    heavy: bool = False
    seconds: float = field(default=0.0, compare=False)
    empty: bool = False
    """Whether it loads but registers no component and follows no run."""
    follows: tuple[str, ...] = ()
    """Names of the life-cycle hooks that it implements."""
    file: str = ""
    """Absolute path of a plugin of one file; empty if an installed distribution has it."""

    @property
    def source(self) -> str:
        """Where it comes from: distribution and version, or path and digest of the contents."""
        return f"{self.file or self.distribution} {self.version}".rstrip()

    @property
    def built_in(self) -> bool:
        """Whether it comes with the framework."""
        return normalized(self.distribution) == DISTRIBUTION

    @property
    def origin(self) -> str:
        """The plugin and its distribution, as messages name them."""
        return f"plugin {self.name} ({self.distribution})"

    @property
    def state(self) -> str:
        """``ok``, ``heavy`` (it imports torch when it registers), ``empty`` or ``broken``."""
        if self.error:
            return "broken"
        return "empty" if self.empty else ("heavy" if self.heavy else "ok")


@dataclass(frozen=True)
class ComponentSpec:
    """One registered component; its class and its config are imported on demand."""

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
    def built_in(self) -> bool:
        """Whether it comes with the framework."""
        return self.plugin.built_in

    @property
    def origin(self) -> str:
        """The plugin and its distribution, as messages name them."""
        return self.plugin.origin

    def config_class(self) -> type[ComponentConfig]:
        """Import the config model (no torch).

        Raises:
            PluginError: the import fails, or the object is no valid config model of the kind.
        """
        found = self._import(self.config, "config", LIGHT_SECONDS)
        base = KINDS[self.kind].config_class()
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(
                f"{self.origin}: the config of {self.reference}, {self.config}, is not a "
                f"pae_framework.config.{base.__name__}"
            )
        if (problem := _model_problem(found, base, self)) is not None:
            raise PluginError(
                f"{self.origin}: the config of {self.reference}, {self.config}, {problem}"
            )
        return found

    def target_problem(self) -> str | None:
        """Why the component's class cannot exist, without importing it; None if it may."""
        if self.built_in or (found := undefined(self.target)) is None:
            return None
        return f"{self.origin}: the target of {self.reference}, {self.target}, is missing: {found}"

    def component_class(self) -> type[Any]:
        """Import the component's class; this imports torch.

        Raises:
            PluginError: the import fails, or the object is no component of the kind.
        """
        found = self._import(self.target, "target", HEAVY_SECONDS)
        base = KINDS[self.kind].contract_class()
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(
                f"{self.origin}: {self.reference}, {self.target}, is not a "
                f"pae_framework.contracts.{base.__name__}"
            )
        return found

    def _import(self, reference: str, role: str, seconds: float) -> Any:
        module, _, attribute = reference.partition(":")
        loaded = vars(sys.modules[module]) if sys.modules.get(module) else {}
        if attribute in loaded:
            return loaded[attribute]
        try:
            what = f"{self.origin}: the {role} of {self.reference}"
            with guarded(what, None if self.built_in else seconds):
                return getattr(importlib.import_module(module), attribute)
        except PluginError as error:
            raise PluginError(
                f"{self.origin}: the {role} of {self.reference}, {reference}, does not import: "
                f"{error}"
            ) from error.__cause__


@dataclass
class Registry:
    """All components by kind and name, and all plugins, including broken ones."""

    plugins: list[Plugin] = field(default_factory=list)
    _specs: dict[tuple[str, str], list[ComponentSpec]] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    """Distributions, with versions, of plugins that a run had and that are not installed now."""

    def add(self, spec: ComponentSpec) -> None:
        """Add a component; a second component of the same name makes the name ambiguous."""
        self._specs.setdefault((spec.kind, spec.name), []).append(spec)

    def specs(self, kind: str | None = None) -> list[ComponentSpec]:
        """All components, or those of one kind, in the order of KINDS and then by name."""
        found = [spec for specs in self._specs.values() for spec in specs]
        if kind is not None:
            found = [spec for spec in found if spec.kind == kind]
        return sorted(found, key=lambda spec: (list(KINDS).index(spec.kind), spec.name))

    def copy(self) -> Registry:
        """A registry to which components can be added without a change of this one."""
        specs = {key: list(found) for key, found in self._specs.items()}
        return Registry(list(self.plugins), specs, self.gone)

    @property
    def broken(self) -> list[Plugin]:
        """Plugins that failed to load."""
        return [plugin for plugin in self.plugins if plugin.error]

    def owner(self, module: str) -> ComponentSpec | None:
        """A component whose class is in the same package as a module; None if there is none."""
        package = module.partition(".")[0]
        specs = (spec for spec in self.specs() if _package(spec.target) == package)
        return next(specs, None)

    def find(self, kind: str, name: str) -> ComponentSpec:
        """Look a component up by ``name`` or ``distribution/name``.

        A built-in component has precedence over those of plugins with its name.

        Raises:
            UnknownComponentError: the name is unknown or ambiguous; lists the closest name, all
                names of the kind and broken plugins, or the distributions that share the name.
        """
        distribution, _, plain = name.rpartition("/")
        found = self._specs.get((kind, plain), [])
        if distribution:
            wanted = normalized(distribution)
            found = [spec for spec in found if normalized(spec.plugin.distribution) == wanted]
        elif built_in := [spec for spec in found if spec.built_in]:
            found = built_in
        if len(found) > 1:
            raise UnknownComponentError(_ambiguous(found))
        if not found:
            raise UnknownComponentError(self._unknown(kind, name))
        return found[0]

    def use_name(self, spec: ComponentSpec) -> str:
        """The value of ``use:`` for a component.

        With its distribution if the name alone is ambiguous or means the built-in component.
        """
        shared = len(self._specs[spec.kind, spec.name]) > 1 and not spec.built_in
        return f"{spec.plugin.distribution}/{spec.name}" if shared else spec.name

    def hidden(self, spec: ComponentSpec) -> bool:
        """Whether the name of this component alone means a built-in one."""
        others = self._specs[spec.kind, spec.name]
        return not spec.built_in and any(other.built_in for other in others)

    def _unknown(self, kind: str, name: str) -> str:
        known = [spec.name for spec in self.specs(kind)]
        message = f"unknown {kind} {name!r}"
        if near := difflib.get_close_matches(name.rpartition("/")[2], known, n=1):
            message += f", did you mean {near[0]!r}?"
        elif others := [other for other in KINDS if (other, name) in self._specs]:
            message += f", which is registered as {others[0]}."
        else:
            message += "." if self.gone else "; is its plugin installed?"
        if self.gone:
            message += f" The run used {', '.join(self.gone)}, not installed now: install it again."
        message += f" Installed: {', '.join(dict.fromkeys(known)) or 'none'}."
        if self.broken:
            failed = ", ".join(plugin.name for plugin in self.broken)
            message += f" Plugins that failed to load: {failed} (see `pae list-plugins --broken`)."
        return message


@cache
def _model_problem(
    model: type[ComponentConfig], base: type[ComponentConfig], spec: ComponentSpec
) -> str | None:
    """Why a config model cannot be used; None if it can be."""
    missing = [
        name
        for name in sorted(base.required_methods)
        if getattr(model, name, None) is getattr(base, name)
    ]
    if missing:
        return f"does not define {' and '.join(missing)}, which every {base.__name__} must"
    try:
        with guarded(f"{spec.origin}: {spec.config}", None if spec.built_in else LIGHT_SECONDS):
            model.model_rebuild()  # raises if the type of a field is undefined
            written_defaults(model)
    except PluginError as error:
        return f"is no valid config model: {error}"
    return None


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]


def _ambiguous(specs: list[ComponentSpec]) -> str:
    kind, name = specs[0].kind, specs[0].name
    owners = sorted({f"{spec.plugin.distribution}/{name}" for spec in specs})
    if len(owners) > 1:
        return f"{kind} {name!r} is registered more than once; set `use:` to {' or '.join(owners)}"
    plugins = " and ".join(spec.plugin.name for spec in specs)
    return (
        f"{kind} {name!r} is registered by both plugins {plugins} of "
        f"{specs[0].plugin.distribution}; one of them must rename it"
    )


def normalized(distribution: str) -> str:
    """The normalized name of a distribution (PEP 503): lower case, words joined by ``-``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
