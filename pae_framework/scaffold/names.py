"""The names in a new plugin: distribution, package, components and classes. No torch."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import yaml

from pae_framework import PAE_API
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS, Kind
from pae_framework.plugins import load_registry
from pae_framework.recipe.checks.loss_checks import RESERVED, label_problem
from pae_framework.registry import normalized

_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""PEP 508; the project name of pyproject.toml."""
_LONGEST = 60


@dataclass(frozen=True)
class Names:
    """The names in a plugin with one component of each of some kinds."""

    distribution: str
    kinds: tuple[str, ...]

    @property
    def package(self) -> str:
        """The import name; also that of the components."""
        return self.distribution.replace("-", "_")

    @property
    def are_usable(self) -> bool:
        """Whether the distribution's name is normalized, and Python can import the package."""
        distribution, package = self.distribution, self.package
        is_normalized = is_distribution(distribution) and normalized(distribution) == distribution
        return is_normalized and package.isidentifier() and not keyword.iskeyword(package)

    def of_package(self) -> Mapping[str, str]:
        """Values of the placeholders in files of the whole package."""
        return {
            "distribution": self.distribution,
            "package": self.package,
            "kinds": ", ".join(self.kinds),
            "api": str(PAE_API),
        }

    def of_kind(self, kind: str) -> Mapping[str, str]:
        """The same in files of one component."""
        words = self.package.split("_")
        if words[-1] != kind:
            words.append(kind)
        return {
            **self.of_package(),
            "kind": kind,
            "module": kind,
            "hook": KINDS[kind].hook,
            "component": self.package,
            "class": "".join(word.capitalize() for word in words),
            "contract": f"{KINDS[kind].contract}Contract",
            "summary": f"{self.distribution}: describe it here, in one line",
        }


def checked_names(name: str, kinds: tuple[str, ...]) -> Names:
    """The names in a new plugin.

    Args:
        name: that of the distribution; case, ``_`` and ``.`` are normalized (PEP 503).
        kinds: of its components.

    Raises:
        UsageError: the name or a kind cannot be used; says why and what can.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        found = f"unknown kind {unknown[0]!r}" if unknown else "no --kind is given"
        raise UsageError(f"{found}; one or more of {', '.join(KINDS)}")
    names = Names(normalized(name), tuple(dict.fromkeys(kinds)))
    if (problem := _problem(name, names.package) or _component_problem(names)) is not None:
        raise UsageError(f"a plugin cannot be named {name!r}: {problem}")
    return names


def _problem(name: str, package: str) -> str | None:
    if not is_distribution(name):
        return "use letters, digits and single '-', and begin and end with a letter or digit"
    if len(name) > _LONGEST:
        return f"it has more than {_LONGEST} characters"
    if not package.isidentifier():
        return f"Python cannot import {package!r}; begin with a letter"
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        return f"{package!r} is a word of Python"
    if package in sys.stdlib_module_names or _is_installed(package):
        return f"a package {package!r} is installed already"
    return None


def _component_problem(names: Names) -> str | None:
    """Why a recipe could not use components of this name."""
    name = names.package
    if yaml.safe_load(name) != name:
        return f"YAML reads {name} as {yaml.safe_load(name)!r}, so a recipe cannot name it"
    if "regularizer" in names.kinds and (problem := label_problem(name, RESERVED)) is not None:
        return problem
    for spec in load_registry().specs():
        if spec.name == name and spec.kind in names.kinds:
            return f"there is {spec.reference} of {spec.origin}; choose another name"
    return None


def is_distribution(name: str) -> bool:
    """Whether a name can be that of a distribution (PEP 508)."""
    return _DISTRIBUTION.fullmatch(name) is not None


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def kinds_of(names: Names) -> list[Kind]:
    """The kinds, in the order of the data flow."""
    return [kind for name, kind in KINDS.items() if name in names.kinds]
