"""Plugins of one file: they are imported by path, in other processes too. No torch.

Classes of such a file pickle by the name of its module, which another process does not find.
:class:`Portable` takes the files along.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pae_framework.errors import PluginError
from pae_framework.plugin_code import HEAVY_SECONDS, guarded
from pae_framework.system.files import file_problem

T = TypeVar("T")


@dataclass(frozen=True)
class Portable(Generic[T]):
    """A value that another process unpickles after it has imported the plugin files of this one."""

    value: T

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (_imported_files(), pickle.dumps(self.value))


def _unpacked(files: Mapping[str, str], pickled: bytes) -> Portable[Any]:
    """The value, in another process.

    Raises:
        PluginError: a plugin file cannot be imported, or was edited since the first process
            imported it.
    """
    for path, digest in files.items():
        with guarded(f"plugin {path}", HEAVY_SECONDS):
            import_file(Path(path))
        if file_digest(Path(path)) != digest:
            raise PluginError(f"plugin {path} was edited after the run started; run it again")
    return Portable(pickle.loads(pickled))


def _imported_files() -> dict[str, str]:
    """The plugins of one file that this process has imported, in this order, and their digests."""
    modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    found = [vars(module)[_DIGEST] for module in modules if _DIGEST in vars(module)]
    return {str(path): digest for path, digest in found}


def import_file(path: Path) -> ModuleType:
    """Import a plugin of one file as a module of its name; anew if its contents changed.

    Raises:
        PluginError: it cannot be read, or its name is no name of a module, or that of another.
    """
    if (problem := file_problem(path)) is not None:
        raise PluginError(problem)
    name, digest = path.stem, file_digest(path)
    if path.suffix != ".py" or not name.isidentifier() or name.startswith("__"):
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


def file_digest(path: Path) -> str:
    """A digest of the contents; empty if they cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
    except OSError:
        return ""
