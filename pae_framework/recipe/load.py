"""Loads a recipe: its file, its parents and overrides. Reports all errors at once. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pae_framework.errors import Problem, RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe import library
from pae_framework.recipe.loaded import LoadedRecipe, build
from pae_framework.recipe.merge import merge, override
from pae_framework.recipe.nodes import COMMAND_LINE, Node
from pae_framework.recipe.plugin_files import plugin_nodes, with_plugin_files, with_plugins
from pae_framework.recipe.suggestions import describe, suggestion
from pae_framework.recipe.sweep import variant_problems
from pae_framework.recipe.yaml_source import parse, read_file
from pae_framework.registry import Registry
from pae_framework.system.files import file_problem


def load_recipe(
    reference: str | Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    plugins: Sequence[Path] = (),
) -> LoadedRecipe:
    """Read a recipe and its parents, apply overrides and check the result.

    Args:
        reference: path of a recipe, or name of a shipped one.
        overrides: ``key.path=value`` with the value in YAML; null removes the key.
        registry: known components; by default those of the installed plugins. Those of the plugin
            files that the recipe names are added.
        plugins: more plugin files.

    Raises:
        UsageError: there is no such recipe.
        RecipeError: the recipe is invalid; lists every problem.
        PluginError: a plugin file does not load, or the recipe is valid but needs a broken plugin.
    """
    registry = load_registry() if registry is None else registry
    source = library.find(reference)
    problems: list[Problem] = []
    root, text = _read(source, (), problems)
    for text_of_override in overrides:
        root = _apply_override(root, text_of_override, problems)
    files = [Node(str(path), COMMAND_LINE, COMMAND_LINE) for path in plugins]
    root = with_plugins(root, Path(), files)
    try:
        registry = with_plugin_files(root, registry)
        loaded = build(root, source, text, tuple(overrides), registry)
        problems.extend(variant_problems(loaded))
    except RecipeError as error:
        problems.extend(error.problems)
    if problems:
        raise RecipeError(problems)
    return loaded


def _read(path: Path, children: tuple[Path, ...], problems: list[Problem]) -> tuple[Node, str]:
    """The tree of a file merged into that of its parent, and the file's text."""
    root, text, found = read_file(path)
    problems.extend(found)
    entries = dict(root.map or {})
    extends = entries.pop("extends", None)
    root = with_plugins(replace(root, value=entries), path.parent)
    if extends is None:
        return root, text
    parent = _find_parent(path, (*children, path.resolve()), extends)
    base = _read(parent, (*children, path.resolve()), problems)[0]
    return merge(base, with_plugins(root, Path(), plugin_nodes(base))), text


def _find_parent(path: Path, descendants: tuple[Path, ...], extends: Node) -> Path:
    """The file named by ``extends``: a path relative to this file, or a shipped recipe."""
    name = extends.value

    def problem(message: str, hint: str = "") -> RecipeError:
        return RecipeError([Problem(message, "extends", extends.where, hint)])

    if not isinstance(name, str):
        raise problem(f"expected the path or name of a recipe, found {describe(extends.plain())}")
    beside = path.parent / name
    parent = beside if library.is_file(beside) else library.shipped_file(name)
    if parent is None and library.exists(beside):
        raise problem(str(file_problem(beside)))
    if parent is None:
        names = [shipped for shipped, _, _ in library.shipped()]
        message = f"no recipe {describe(name)}: no such file in {path.parent} or shipped recipe"
        raise problem(message, suggestion(name.removesuffix(".yaml"), names))
    if parent.resolve() in descendants:
        raise problem(f"circular: {name!r} extends this recipe")
    return parent


def _apply_override(root: Node, text: str, problems: list[Problem]) -> Node:
    key_path, equals, value_text = text.partition("=")
    try:
        if not equals:
            raise ValueError(f"{text!r} is not of the form key.path=value")
        value, found = parse(value_text, position=lambda line, column: COMMAND_LINE)
        problems.extend(replace(problem, path=key_path) for problem in found)
        value = value or Node(None, COMMAND_LINE, COMMAND_LINE)
        return merge(root, override(key_path.strip(), value))
    except ValueError as error:
        problems.append(Problem(str(error), where=COMMAND_LINE))
    except RecipeError as error:
        problems.extend(replace(problem, path=key_path) for problem in error.problems)
    return root
