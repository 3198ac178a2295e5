"""Finds profiles: built in, in the user's file, or in a recipe's ``launch``. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from pathlib import Path

from pae_framework.errors import Problem, ProfileError, RecipeError
from pae_framework.recipe.checks.launch_checks import contradictions, unknown_stages
from pae_framework.recipe.extending import Ancestors, Layer
from pae_framework.recipe.loaded import DEFAULT, LoadedRecipe
from pae_framework.recipe.merge import long_form, merge, resolve_removals
from pae_framework.recipe.nodes import COMMAND_LINE, KeyPath, Node, dotted
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.schema import PROFILE
from pae_framework.recipe.suggestions import describe, suggestion
from pae_framework.recipe.validate import validate_as
from pae_framework.recipe.yaml_source import display, read_file

BUILT_IN = "built in"
LAUNCH = "launch"
"""Name of a profile that is written in a recipe."""

EXAMPLE = """\
# Profiles: where recipes run. `pae run RECIPE --on cluster` uses the one named cluster.
# `pae profiles cluster` shows every value and where it is from.

cluster:
  executor: slurm
  partition: gpu            # `sinfo` lists the partitions
  account: my_project       # remove it if your site has none
  gpus_per_node: 4
  cpus_per_task: 8          # of each process; there is one process for each GPU
  memory: 200GB             # of each node
  time: 12:00:00            # of each job; a longer training resumes in the next one
  signal_before: 300        # seconds that saving may take before that limit
  setup:                    # lines of shell that run before the processes start
    - module load cuda
  # flags: {exclusive: true}          # more options of sbatch, without dashes
  # srun_args: [--container-image=x]  # more arguments of srun
  stages:                   # what differs for single stages
    generator: {nodes: 2, time: 2-00:00:00}
    report: {gpus_per_node: 1, memory: 16GB, time: 00:30:00}

# The same site, for short tests.
cluster_test:
  extends: cluster
  time: 00:30:00
  stages: {generator: {nodes: 1, time: 00:30:00}}
"""
"""A file of profiles to copy."""


def profiles_file() -> Path:
    """The user's file of profiles, which need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    return _expanded(home if home.is_absolute() else Path("~/.config")) / (
        "pae_framework/profiles.yaml"
    )


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # a user without a home directory
        return path


@dataclass(frozen=True)
class FoundProfile:
    """A valid profile and where it is written."""

    name: str
    profile: Profile
    root: Node
    """The profile merged with those that it extends, with positions."""
    where: str
    """Position of its name: ``file:line:column``, or ``built in``."""

    def origin(self, path: KeyPath) -> str:
        """Where the value at a key path was set: a position, ``built in`` or ``default``."""
        found = self.root.find(path)
        return DEFAULT if found is None else found.where

    def problem(self, message: str, key: str, stage: str | None = None, hint: str = "") -> Problem:
        """A problem with what a stage asks for, at the position of the value to change.

        Args:
            message: what is wrong.
            key: key of the value: ``memory``, ``flags.gres``.
            stage: the stage.
            hint: the remedy.
        """
        path: KeyPath = tuple(key.split("."))
        if stage is not None and self.root.find(("stages", stage, *path)) is not None:
            path = ("stages", stage, *path)
        return Problem(message, dotted((self.name, *path)), self._position(path), hint)

    def _position(self, path: KeyPath) -> str:
        where = self.root.position(path) if self.root.find(path) is not None else self.where
        return "" if where == BUILT_IN else where


class Profiles:
    """The profiles that are built in, and those of the user's file."""

    def __init__(self, file: Path | None = None):
        self.file = profiles_file() if file is None else file

    @property
    def names(self) -> list[str]:
        """All names, those built in first.

        Raises:
            ProfileError: the file cannot be read.
        """
        return [*_BUILT_IN, *self._written]

    def find(self, name: str, where: str = "", key: str = "") -> FoundProfile:
        """The profile of a name.

        Args:
            name: its name.
            where: position of the name, for messages.
            key: key path of the name, for messages.

        Raises:
            ProfileError: there is none, or it is invalid; lists every problem.
        """
        node = self._node(name, where, key)
        return self._found(name, Layer.of(name, node, dotted((name, "extends"))), node.key_where)

    def of_launch(self, node: Node) -> FoundProfile:
        """The profile of a recipe's ``launch``, a name or a map.

        Raises:
            ProfileError: it, or a profile that it extends, is missing or invalid.
        """
        layer = Layer.of(None, long_form(node, PROFILE), dotted((LAUNCH, "extends")))
        parent = layer.extends
        if not layer.tree.map and parent is not None and isinstance(parent.value, str):
            return self.find(parent.value, parent.where, LAUNCH)
        return self._found(LAUNCH, layer, node.key_where)

    def all(self) -> tuple[list[FoundProfile], list[Problem]]:
        """Every valid profile, and the problems of the others.

        Raises:
            ProfileError: the file cannot be read.
        """
        found, problems = [], list[Problem]()
        for name in self.names:
            try:
                found.append(self.find(name))
            except ProfileError as error:
                problems.extend(error.problems)
        return found, list(dict.fromkeys(problems))

    @cached_property
    def _written(self) -> Mapping[str, Node]:
        """The profiles of the file by name; empty if there is no file."""
        if not os.path.lexists(self.file):
            return {}
        try:
            root, _, found = read_file(self.file, "a map of profiles")
        except RecipeError as error:
            raise ProfileError(error.problems) from None
        entries = root.map or {}
        reserved = [
            Problem("this name is built in", name, node.key_where, "choose another name")
            for name, node in entries.items()
            if name in _BUILT_IN
        ]
        problems = [*found, *reserved]
        if problems:
            raise ProfileError(problems)
        return entries

    def _node(self, name: str, where: str, key: str) -> Node:
        node = _BUILT_IN.get(name) or self._written.get(name)
        if node is None:
            message = f"no profile {describe(name)} in {display(self.file)}"
            if not self._written:
                message += ", which does not exist" if not self.file.exists() else ""
            hint = f"{suggestion(name, self.names)} (`pae profiles` lists them)"
            raise ProfileError([Problem(message, key, where, hint)])
        if node.map is None:
            message = f"expected a map with keys of a profile, found {describe(node.plain())}"
            raise ProfileError([Problem(message, dotted((name,)), node.key_where)])
        return node

    def _found(self, name: str, layer: Layer, where: str) -> FoundProfile:
        parents = Ancestors(self._parent, "the name of a profile")
        try:
            layers = parents.order(layer)
        except RecipeError as error:
            raise ProfileError(error.problems) from None
        trees = (_layer(each.tree) for each in layers)
        root = resolve_removals(reduce(partial(merge, schema=PROFILE), trees), None, PROFILE)
        try:
            profile = validate_as(Profile, root)
        except RecipeError as error:
            raise ProfileError([_below(name, problem) for problem in error.problems]) from None
        conflicts = [*unknown_stages(profile), *contradictions(profile)]
        if conflicts:
            raise ProfileError(
                [
                    Problem(c.message, dotted((name, *c.path)), root.position(c.path), c.hint)
                    for c in conflicts
                ]
            )
        return FoundProfile(name, profile, root, where)

    def _parent(self, child: Layer, name: Node) -> Layer:
        parent = str(name.value)
        node = self._node(parent, name.where, child.key)
        return Layer.of(parent, node, dotted((parent, "extends")))


def chosen_profile(loaded: LoadedRecipe, on: str | None) -> FoundProfile | None:
    """The profile with which a recipe runs; None: in this process.

    Args:
        loaded: the recipe.
        on: name of a profile, which replaces the recipe's ``launch``.

    Raises:
        ProfileError: the profile, or one that it extends, is missing or invalid.
    """
    if on is not None:
        return Profiles().find(on, COMMAND_LINE, "--on")
    launch = loaded.root.child(LAUNCH)
    if loaded.recipe.launch is None or launch is None:
        return None
    return Profiles().of_launch(launch)


def _layer(node: Node) -> Node:
    """The tree without marks of overrides, which replace what the recipe says, not the profile."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _layer(child) for key, child in value.items()}
    return replace(node, value=value, replaces=False)


def _below(name: str, problem: Problem) -> Problem:
    return replace(problem, path=f"{dotted((name,))}.{problem.path}".rstrip("."))


def _built_in(executor: str) -> Node:
    value = Node(executor, BUILT_IN, BUILT_IN)
    return Node({"executor": value}, BUILT_IN, BUILT_IN)


_BUILT_IN = {executor: _built_in(executor) for executor in ("local", "debug")}
