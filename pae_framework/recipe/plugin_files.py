"""The plugin files that a recipe names: ``plugins: [my_encoder.py]``. No torch.

Paths are relative to the file that names them, so they are made absolute before files are merged.
A recipe has the plugin files of the recipes that it extends as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pae_framework.errors import PluginError, Problem, RecipeError
from pae_framework.plugins import with_files
from pae_framework.recipe.nodes import Node, dotted
from pae_framework.registry import Registry
from pae_framework.system.files import absolute, file_problem

KEY = "plugins"


def plugin_nodes(root: Node) -> list[Node]:
    """The entries of ``plugins``; none if it is no list."""
    found = root.child(KEY)
    return found.value if found is not None and isinstance(found.value, list) else []


def with_plugins(root: Node, folder: Path, others: Sequence[Node] = ()) -> Node:
    """The tree with absolute paths in ``plugins``, relative ones being in ``folder``.

    Args:
        root: the tree.
        folder: of the file that names them.
        others: more entries; those of a recipe that it extends come first.
    """
    written = root.child(KEY)
    if (written is None and not others) or root.map is None:
        return root
    if written is not None and not isinstance(written.value, list):
        return root  # null removes them; anything else is reported by validation
    own = [_absolute(node, folder) for node in plugin_nodes(root)]
    united = {repr(node.value): node for node in (*(_absolute(n, Path()) for n in others), *own)}
    first = written or others[0]
    entry = replace(first, value=list(united.values()), key_where=first.key_where)
    return replace(root, value={**root.map, KEY: entry})


def _absolute(node: Node, folder: Path) -> Node:
    if not isinstance(node.value, str) or not node.value:
        return node
    try:
        path = Path(node.value).expanduser()
    except RuntimeError:
        return node
    return replace(node, value=str(absolute(folder / path)))


def with_plugin_files(root: Node, registry: Registry) -> Registry:
    """The registry with the plugin files of a recipe.

    Raises:
        RecipeError: there is no such file.
        PluginError: one does not load; says why.
    """
    nodes = [node for node in plugin_nodes(root) if isinstance(node.value, str) and node.value]
    paths = [Path(str(node.value)) for node in nodes]
    problems = [
        Problem(problem, dotted((KEY, index)), node.where)
        for index, (node, path) in enumerate(zip(nodes, paths, strict=True))
        if (problem := file_problem(path)) is not None
    ]
    if problems:
        raise RecipeError(problems)
    extended = with_files(registry, paths)
    named = {path.resolve() for path in paths}
    broken = [
        plugin for plugin in extended.broken if plugin.file and Path(plugin.file).resolve() in named
    ]
    if broken:
        lines = [f"plugin {plugin.file} does not load: {plugin.error}" for plugin in broken]
        raise PluginError("\n".join(lines))
    return extended
