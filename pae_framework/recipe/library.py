"""Shipped recipes; lookup of recipes by path or name. No torch."""

from __future__ import annotations

from pathlib import Path

import pae_framework
from pae_framework.errors import RecipeError, UsageError
from pae_framework.recipe.suggestions import describe, suggestion
from pae_framework.recipe.yaml_source import display, read_file
from pae_framework.system.files import file_problem

MODELINE = "# yaml-language-server: $schema="
"""A comment that tells an editor's YAML server where the schema of a recipe is."""


def folder() -> Path:
    """Folder of the shipped recipes: in the installed package, or beside it in a checkout."""
    package = Path(pae_framework.__file__).parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped() -> list[tuple[str, Path, str]]:
    """Name, file and one-line description of every shipped recipe, as in :func:`names`."""
    found = ((name, folder() / f"{name}.yaml") for name in names())
    return [(name, path, _text(path, "description")) for name, path in found]


def names() -> list[str]:
    """Names of the shipped recipes, sorted; those in folders, such as ``paper/table2a``, last."""
    return [*_names("*.yaml"), *(name for name in _names("*/*.yaml") if _names_itself(name))]


def fragments() -> list[str]:
    """Names of the shipped fragments, such as ``protocols/adm_50k``; sorted."""
    return [name for name in _names("*/*.yaml") if not _names_itself(name)]


def _names(pattern: str) -> list[str]:
    return sorted(name_of(path) for path in folder().glob(pattern))


def _names_itself(name: str) -> bool:
    """Whether a file in a folder is a recipe: fragments do not set ``name``."""
    return bool(_text(folder() / f"{name}.yaml", "name"))


def find(reference: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one with or without ``.yaml``.

    Raises:
        UsageError: there is no such file or shipped recipe; suggests the closest name.
    """
    path = Path(reference)
    if is_file(path):
        return path
    by_name = shipped_file(str(reference))
    if by_name is not None:
        return by_name
    if exists(path):
        resolved = path / "resolved.yaml"
        suggested = f"; did you mean {resolved}?" if is_file(resolved) else ""
        raise UsageError(f"{file_problem(path)}{suggested}")
    hint = suggestion(str(reference).removesuffix(".yaml"), [*names(), *fragments()])
    raise UsageError(
        f"no recipe {describe(str(reference))}: neither a file nor a shipped recipe ({hint})"
    )


def shipped_file(name: str) -> Path | None:
    """The file of a shipped recipe or fragment, or None if none has that name."""
    stem = name.removesuffix(".yaml")
    return folder() / f"{stem}.yaml" if stem in (*_names("*.yaml"), *_names("*/*.yaml")) else None


def name_of(path: Path) -> str:
    """What names a recipe's file: the name of a shipped one, else its path."""
    if path.is_relative_to(folder()):
        return path.relative_to(folder()).with_suffix("").as_posix()
    return display(path)


def is_file(path: Path) -> bool:
    """Whether a path names a file; False, too, for names that no file can have."""
    return exists(path) and path.is_file()


def exists(path: Path) -> bool:
    """Whether there is something at a path; False, too, for names that nothing can have."""
    try:
        return path.exists()
    except OSError:
        return False


def _text(path: Path, key: str) -> str:
    """The first line of a text in a recipe's file; empty if it has none."""
    try:
        node = read_file(path)[0].child(key)
    except RecipeError:
        return "(cannot be read)"
    return str(node.value).strip().split("\n")[0] if node is not None else ""
