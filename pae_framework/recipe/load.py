"""Loads a recipe: its file, its parents and overrides. Reports all errors at once. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path

from pae_framework.errors import Problem, RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe import library
from pae_framework.recipe.earlier_defaults import is_of_run, with_former_defaults
from pae_framework.recipe.extending import Ancestors, Layer
from pae_framework.recipe.loaded import LoadedRecipe, build
from pae_framework.recipe.merge import merge, override
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import COMMAND_LINE, Node
from pae_framework.recipe.plugin_files import plugin_nodes, with_plugin_files, with_plugins
from pae_framework.recipe.suggestions import describe, suggestion
from pae_framework.recipe.sweep import variant_problems
from pae_framework.recipe.yaml_source import display, parse, read_file
from pae_framework.registry import Registry
from pae_framework.system.files import file_problem


def load_recipe(
    reference: str | Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    plugins: Sequence[Path] = (),
) -> LoadedRecipe:
    """Read a recipe and its parents, apply overrides and check the result.

    Settings that are newer than a run are what its version did if its ``resolved.yaml`` is read.

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
    written = read_recipe(reference, overrides, plugins)
    if written.is_fragment:
        raise RecipeError([*written.problems, _fragment_problem(written.source)])
    problems = list(written.problems)
    try:
        root = written.root
        registry = with_plugin_files(root, registry)
        root = with_former_defaults(root, registry) if is_of_run(written.source) else root
        loaded = build(root, written.source, written.text, tuple(overrides), registry)
        problems.extend(variant_problems(loaded))
    except RecipeError as error:
        problems.extend(error.problems)
    if problems:
        raise RecipeError([_for_own_recipe(problem, written.source) for problem in problems])
    return loaded


def _for_own_recipe(problem: Problem, source: Path) -> Problem:
    """A problem with a value of a shipped recipe is solved in the recipe that extends it."""
    where = problem.where.rpartition(":")[0].rpartition(":")[0]
    if not _is_shipped(Path(where)) or _is_shipped(source):
        return problem
    hint = problem.hint or f"set {problem.path}=<value>"
    return replace(problem, hint=f"{hint} in {display(source)}" if "set " in hint else hint)


def _is_shipped(file: Path) -> bool:
    return file.resolve().is_relative_to(library.folder().resolve())


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe or fragment as its file, its parents and overrides say, not yet validated."""

    source: Path
    """The file it was read from."""
    text: str
    """Contents of that file."""
    root: Node
    """All of them, merged into one tree with positions."""
    problems: tuple[Problem, ...]
    """Of single keys and overrides."""
    parents: Node | None = None
    """What it extends, merged into one tree; None if it extends nothing."""

    @property
    def is_fragment(self) -> bool:
        """Whether it is a part for recipes to extend: it sets no key that every recipe must set."""
        fields = Recipe.model_fields.items()
        required = {key for key, field in fields if field.is_required()}
        entries = self.root.map or {}
        return bool(entries) and required.isdisjoint(entries)


def read_recipe(
    reference: str | Path, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()
) -> WrittenRecipe:
    """Read a recipe or fragment and its parents, apply overrides, and add plugin files.

    Raises:
        UsageError: there is no such recipe.
        RecipeError: a file cannot be read, or extends what it cannot extend.
    """
    source = library.find(reference)
    problems: list[Problem] = []
    layers, text = _read(source, problems)
    root = reduce(_merge_layers, layers)
    for text_of_override in overrides:
        root = _apply_override(root, text_of_override, problems)
    files = [Node(str(path), COMMAND_LINE, COMMAND_LINE) for path in plugins]
    root = with_plugins(root, Path(), files)
    parents = reduce(_merge_layers, layers[:-1]) if len(layers) > 1 else None
    return WrittenRecipe(source, text, root, tuple(problems), parents)


def _merge_layers(base: Node, layer: Node) -> Node:
    return merge(base, with_plugins(layer, Path(), plugin_nodes(base)))


def _fragment_problem(source: Path) -> Problem:
    required = ", ".join(key for key, f in Recipe.model_fields.items() if f.is_required())
    message = f"is a fragment, not a recipe: it sets none of {required}"
    hint = f"write a recipe with `extends: [RECIPE, {library.name_of(source)}]`"
    return Problem(message, where=f"{display(source)}:1:1", hint=hint)


def _read(path: Path, problems: list[Problem]) -> tuple[list[Node], str]:
    """The trees of the files that a file extends, then its own, and the file's text."""
    texts: list[str] = []

    @cache
    def layer(file: Path) -> Layer:
        root, text, found = read_file(file)
        texts.append(text)
        problems.extend(found)
        own = with_plugins(root, file.parent)
        return Layer.of(file.resolve(), own, "extends", file.parent)

    def parent(child: Layer, name: Node) -> Layer:
        return layer(_find_parent(child, name))

    layers = Ancestors(parent, "the path or name of a recipe").order(layer(path))
    return [each.tree for each in layers], texts[0]


def _find_parent(child: Layer, name: Node) -> Path:
    """The file of a name in ``extends``: a path relative to its file, or a shipped recipe."""
    written = str(name.value)
    beside = child.folder / written
    parent = beside if library.is_file(beside) else library.shipped_file(written)
    if parent is None and library.exists(beside):
        raise child.problem(name, str(file_problem(beside)))
    if parent is None:
        message = f"no recipe {describe(written)}: no such file in {child.folder} or shipped recipe"
        known = [*library.names(), *library.fragments()]
        hint = suggestion(written.removesuffix(".yaml"), known)
        raise child.problem(name, message, hint)
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
