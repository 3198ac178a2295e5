"""Hashes of the code that runs: of the framework and of the packages of plugins. No torch.

They tell whether code changed between two moments. They are part of no fingerprint: editing a
comment must not outdate results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pae_framework.registry import Registry

_FRAMEWORK = __name__.partition(".")[0]


def source_hashes(registry: Registry) -> dict[str, str]:
    """The hash of all ``*.py`` files of each package, by its name: the framework and the plugins.

    A plugin may have several packages: that of its entry point, and those of its components.
    """
    modules = {_FRAMEWORK, *(plugin.module for plugin in registry.plugins if plugin.module)}
    for spec in registry.specs():
        modules |= {spec.target.partition(":")[0], spec.config.partition(":")[0]}
    packages = {module.partition(".")[0] for module in modules}
    return {package: _hash(_files(package)) for package in sorted(packages) if _folders(package)}


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Packages whose code differs, or that only one of the two has."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _folders(package: str) -> list[Path]:
    """The folders of a package, or the file of a module; none if it cannot be found."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """The code of a package, each file by its path in the package."""
    for folder in _folders(package):
        found = [folder] if folder.is_file() else folder.rglob("*.py")
        for file in sorted(found):
            yield file.relative_to(folder.parent).as_posix(), file


def _hash(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for name, file in files:
        with suppress(OSError):  # removed while it was looked at
            digest.update(name.encode(errors="surrogateescape") + b"\0")
            digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()
