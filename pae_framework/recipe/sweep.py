"""Expands a recipe with a ``sweep`` into its members, each a recipe of its own. No torch.

A member is the recipe without ``sweep``, with the overrides of one variant and with one seed for
tokenizer and generator. Encoder, extractor and refinement keep the seed of the recipe, so members
that do not change them share these stages.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pae_framework.errors import Problem, RecipeError, UsageError
from pae_framework.recipe.emit import inline
from pae_framework.recipe.loaded import LoadedRecipe, build
from pae_framework.recipe.merge import merge, override
from pae_framework.recipe.models import MAX_NAME
from pae_framework.recipe.nodes import KeyPath, Node, dotted
from pae_framework.recipe.suggestions import suggestion

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ABSENT = object()
_FIXED = ("pae", "name", "plugins", "launch", "sweep", "extends")


@dataclass(frozen=True)
class Member:
    """One recipe of a sweep."""

    name: str
    """``<variant>-seed<seed>``."""
    variant: str
    seed: int
    loaded: LoadedRecipe


def expand(loaded: LoadedRecipe) -> list[Member]:
    """Every variant with every seed, in the order of the recipe; empty without a ``sweep``."""
    sweep = loaded.recipe.sweep
    if sweep is None:
        return []
    return [
        Member(f"{variant}-seed{seed}", variant, seed, _member(loaded, variant, seed))
        for variant in sweep.variants
        for seed in sweep.seeds
    ]


def chosen_members(loaded: LoadedRecipe, only: str | None) -> list[Member]:
    """The members of a sweep whose names match the pattern ``only``, e.g. ``ssr-*``; None: all.

    Raises:
        UsageError: no name matches, or the recipe has no ``sweep``.
    """
    members = expand(loaded)
    if not members:
        raise UsageError(f"{loaded.recipe.name} has no sweep")
    chosen = [m for m in members if only is None or fnmatch.fnmatch(m.name, only)]
    if not chosen:
        names = ", ".join(member.name for member in members)
        raise UsageError(f"--only {only!r} matches no member of the sweep; members: {names}")
    return chosen


def base_variant(loaded: LoadedRecipe) -> str:
    """The variant that the others are compared with: the first without overrides, else the first.

    The recipe must have a ``sweep``.
    """
    assert loaded.recipe.sweep is not None
    variants = loaded.recipe.sweep.variants
    return next((name for name, changes in variants.items() if not changes), next(iter(variants)))


def differing_values(members: Sequence[Member]) -> dict[str, list[str]]:
    """Keys in which variants differ, defaults included, with the value of each variant as YAML.

    The variants are in the order of ``members``. A section or component that some variants lack is
    one value: its component, or ``set``. So is a map that is a number in some variants, such as a
    weight with a schedule.
    """
    variants: dict[str, Any] = {}
    for member in members:
        if member.variant not in variants:
            variants[member.variant] = member.loaded.resolved()
    return dict(_differing(list(variants.values())))


def _differing(values: Sequence[Any], path: KeyPath = ()) -> Iterator[tuple[str, list[str]]]:
    if all(value == values[0] for value in values) or path[1:] == ("train", "seed"):
        return
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differing([value.get(key, _ABSENT) for value in values], (*path, key))
    else:
        number = any(isinstance(value, int | float) for value in values)
        yield dotted(path), [_shown(value, whole=number) for value in values]


def _shown(value: Any, whole: bool) -> str:
    if value is _ABSENT:
        return "not set"
    if isinstance(value, dict) and whole:
        return inline({key: entry for key, entry in value.items() if entry is not None})
    if isinstance(value, dict) and value:
        return str(value.get("use", "set"))
    return inline(value)


def variant_problems(loaded: LoadedRecipe) -> Iterator[Problem]:
    """Problems in the variants of an otherwise valid recipe."""
    sweep = loaded.recipe.sweep
    if sweep is None:
        return
    if repeated := [seed for seed, times in Counter(sweep.seeds).items() if times > 1]:
        where = loaded.root.position(("sweep", "seeds"))
        message = f"seeds must be distinct, but {repeated[0]} is repeated"
        yield Problem(message, "sweep.seeds", where)
    yield from _check_names(loaded, list(sweep.variants))
    yield from _check_paper(loaded, list(sweep.variants))
    for variant, changes in sweep.variants.items():
        yield from _check_variant(loaded, variant, changes)


def _check_names(loaded: LoadedRecipe, variants: list[str]) -> Iterator[Problem]:
    """Names of folders are portable, and differ where upper and lower case do not."""
    earlier: dict[str, str] = {}
    for variant in variants:
        key_path = ("sweep", "variants", variant)
        path, where = dotted(key_path), loaded.root.position(key_path)
        if not _NAME.fullmatch(variant) or len(variant) > MAX_NAME:
            message = (
                f"names a folder and may contain only letters, digits, '.', '_' and '-', up to "
                f"{MAX_NAME} of them"
            )
            yield Problem(message, path, where)
        elif (other := earlier.setdefault(variant.lower(), variant)) != variant:
            message = f"names the same folder as {other!r} where upper and lower case are the same"
            yield Problem(message, path, where)


def _check_paper(loaded: LoadedRecipe, variants: list[str]) -> Iterator[Problem]:
    """Published values are of variants of the sweep."""
    sweep = loaded.recipe.sweep
    for variant in sweep.paper.values if sweep and sweep.paper else ():
        if variant not in variants:
            key_path = ("sweep", "paper", "values", variant)
            where, hint = loaded.root.position(key_path), suggestion(variant, variants)
            yield Problem("no variant of this name", dotted(key_path), where, hint)


def _check_variant(
    loaded: LoadedRecipe, variant: str, changes: dict[str, object]
) -> Iterator[Problem]:
    key_path = ("sweep", "variants", variant)
    path, where = dotted(key_path), loaded.root.position(key_path)
    fixed = [key for key in changes if key.split(".")[0] in _FIXED]
    for key in fixed:
        where = loaded.root.position((*key_path, key))
        yield Problem("cannot be changed by a variant", dotted((*key_path, key)), where)
    if fixed:
        return
    try:
        _member(loaded, variant, 0)
    except ValueError as error:
        yield Problem(str(error), path, where)
    except RecipeError as error:
        for problem in error.problems:
            yield replace(problem, message=f"in variant {variant!r}: {problem.message}")


def _member(loaded: LoadedRecipe, variant: str, seed: int) -> LoadedRecipe:
    entries = dict(loaded.root.map or {})
    sweep = entries.pop("sweep")
    root = replace(loaded.root, value=entries)
    changes = sweep.find(("variants", variant))
    for key_path, value in ((changes and changes.map) or {}).items():
        root = merge(root, override(key_path, value))
    where = sweep.position(("seeds",))
    root = _with_seed(root, Node(seed, where, where))
    return build(root, loaded.source, loaded.text, loaded.overrides, loaded.registry)


def _with_seed(root: Node, seed: Node) -> Node:
    """Set the seed of tokenizer and generator, if the member trains them."""
    for section in ("tokenizer", "generator"):
        train = root.find((section, "train"))
        if train is not None and train.map is not None:
            root = merge(root, override(f"{section}.train.seed", seed))
    return root
