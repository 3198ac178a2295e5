"""Loads a recipe: its file, its parents and overrides. Reports all errors at once. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

EXTENDS = "extends"


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
        overrides: ``key.path=value`` with the value in YAML; null removes the key. ``extends=...``
            replaces what the file extends.
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
    assignments = list(_assignments(overrides, problems))
    extends = next((value for key, value in reversed(assignments) if key == EXTENDS), None)
    layers, text = _read(source, problems, extends)
    root = reduce(_merge_layers, layers)
    for key_path, value in assignments:
        if key_path != EXTENDS:
            root = _assign(root, key_path, value, problems)
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


def _read(path: Path, problems: list[Problem], extends: Node | None) -> tuple[list[Node], str]:
    """The trees of the files that a file extends, then its own, and the file's text.

    ``extends`` replaces what the file itself extends; None: as it is written.
    """
    texts: list[str] = []

    @cache
    def layer(file: Path) -> Layer:
        root, text, found = read_file(file)
        texts.append(text)
        problems.extend(found)
        own = with_plugins(root, file.parent)
        if extends is not None and file == path:
            own = _extending(own, extends)
        return Layer.of(file.resolve(), own, EXTENDS, file.parent)

    def parent(child: Layer, name: Node) -> Layer:
        return layer(_find_parent(child, name))

    layers = Ancestors(parent, "the path or name of a recipe").order(layer(path))
    return [each.tree for each in layers], texts[0]


def _extending(root: Node, extends: Node) -> Node:
    """A recipe that extends something else, or nothing if ``extends`` is null."""
    entries = {key: node for key, node in (root.map or {}).items() if key != EXTENDS}
    return replace(root, value=entries if extends.value is None else {**entries, EXTENDS: extends})


def _find_parent(child: Layer, name: Node) -> Path:
    """The file of a name in ``extends``: a path relative to its file, or a shipped recipe.

    A path that is given on the command line is relative to the current folder.
    """
    written = str(name.value)
    folder = Path.cwd() if name.where == COMMAND_LINE else child.folder
    beside = folder / written
    parent = beside if library.is_file(beside) else library.shipped_file(written)
    if parent is None and library.exists(beside):
        raise child.problem(name, str(file_problem(beside)))
    if parent is None:
        message = f"no recipe {describe(written)}: no such file in {folder} or shipped recipe"
        known = [*library.names(), *library.fragments()]
        hint = suggestion(written.removesuffix(".yaml"), known)
        raise child.problem(name, message, hint)
    return parent


def _assignments(overrides: Sequence[str], problems: list[Problem]) -> Iterator[tuple[str, Node]]:
    """Key path and value of each override that can be read."""
    for text in overrides:
        key_path, equals, value_text = text.partition("=")
        if not equals:
            message = f"{text!r} is not of the form key.path=value"
            problems.append(Problem(message, where=COMMAND_LINE))
            continue
        try:
            value, found = parse(value_text, position=lambda line, column: COMMAND_LINE)
        except RecipeError as error:
            problems.extend(replace(problem, path=key_path) for problem in error.problems)
            continue
        problems.extend(replace(problem, path=key_path) for problem in found)
        yield key_path.strip(), value or Node(None, COMMAND_LINE, COMMAND_LINE)


def _assign(root: Node, key_path: str, value: Node, problems: list[Problem]) -> Node:
    try:
        return merge(root, override(key_path, value))
    except ValueError as error:
        problems.append(Problem(str(error), where=COMMAND_LINE))
    except RecipeError as error:
        problems.extend(replace(problem, path=key_path) for problem in error.problems)
    return root
