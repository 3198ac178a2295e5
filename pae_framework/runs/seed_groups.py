"""Runs that differ only by their seeds, and how the recipes of others differ. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pae_framework.errors import PaeError
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.registry import Registry
from pae_framework.runs.cards import NamedCard
from pae_framework.runs.changes import Change, difference
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.runs.plan import plan

_SEED_OF_A_MEMBER = re.compile(r"-seed\d+$")


@dataclass(frozen=True)
class SeedGroup:
    """Cards of runs that differ only by their seeds, or one card.

    Args:
        name: what to call it.
        cards: of its runs.
        seeds: of each run, where they differ; empty for one card.
        changes: how the recipe differs from that of the first group, without seeds; None: there
            is no recipe to compare.
        apart: why its values are not averaged with those of another group from which it differs
            only by seeds and evaluators, in words; None: there is no such group.
    """

    name: str
    cards: tuple[NamedCard, ...]
    seeds: tuple[str, ...]
    changes: tuple[Change, ...] | None
    apart: str | None = None


@dataclass(frozen=True)
class _Run:
    """A card with its run; None if it has none, or its recipe does not load."""

    named: NamedCard
    opened: OpenedRun | None


def group_by_seed(
    cards: Sequence[NamedCard], registry: Registry, warn: Callable[[str], None]
) -> list[SeedGroup]:
    """Group cards, in the order of their first run.

    Args:
        cards: of runs, or read from files, which are groups of one.
        registry: the installed plugins.
        warn: told which recipes do not load and so are not compared.
    """
    groups: list[list[_Run]] = []
    for named in cards:
        run = _Run(named, _opened(named, registry, warn))
        for group in groups:
            if all(_differ_only_by_seed(member, run) for member in group):
                group.append(run)
                break
        else:
            groups.append([run])
    described = [_described(group, groups[0][0]) for group in groups]
    return [
        replace(described[i], apart=_apart(groups[i], zip(groups[:i], described[:i], strict=True)))
        for i in range(len(groups))
    ]


def recipe_changes(first: OpenedRun, other: OpenedRun) -> list[Change]:
    """How the recipe, code and images of a run differ from those of the first.

    Without what has no effect on results. Stages without a record of their settings are compared
    by the recipes, and their images by their paths.
    """
    old, new = _hashed(first), _hashed(other)
    if not all((*old.values(), *new.values())):
        old, new = _planned(first), _planned(other)
    found: dict[KeyPath, Change] = {}
    for change in _stage_changes(old, new, other):
        found.setdefault(change.key, change)
    return list(found.values())


def _opened(named: NamedCard, registry: Registry, warn: Callable[[str], None]) -> OpenedRun | None:
    if named.run is None:
        return None
    try:
        return open_run(named.run, registry)
    except PaeError as error:
        warn(f"the recipe of {named.name} is not compared: {error}")
        return None


def _differ_only_by_seed(one: _Run, other: _Run) -> bool:
    if one.opened is None or other.opened is None:
        return False
    changes = recipe_changes(one.opened, other.opened)
    return bool(changes) and all(_is_seed(change.key) for change in changes)


def _apart(group: Sequence[_Run], others: Iterable[tuple[Sequence[_Run], SeedGroup]]) -> str | None:
    """Why a group is not one with another from which only seeds and evaluators set it apart."""
    for other, described in others:
        if other[0].opened is None or group[0].opened is None:
            continue
        found = recipe_changes(other[0].opened, group[0].opened)
        changes = [change for change in found if not _is_seed(change.key)]
        if changes and all(change.key[0] == "evaluate" for change in changes):
            told = ", ".join(map(str, changes))
            return f"not averaged with {described.name}, whose evaluators differ: {told}"
    return None


def _is_seed(key: KeyPath) -> bool:
    return key[-1] == "seed" and key[0] != "data"


def _described(group: Sequence[_Run], first: _Run) -> SeedGroup:
    changes = None
    if first.opened is not None and group[0].opened is not None:
        found = recipe_changes(first.opened, group[0].opened)
        changes = tuple(change for change in found if not _is_seed(change.key))
    names = [run.named.name for run in group]
    variants = {_SEED_OF_A_MEMBER.sub("", name) for name in names}
    name = variants.pop() if len(names) > 1 and len(variants) == 1 else ", ".join(names)
    return SeedGroup(name, tuple(run.named for run in group), tuple(_seeds(group)), changes)


def _seeds(group: Sequence[_Run]) -> Iterator[str]:
    """The seeds of each run that are not the same in all."""
    first, *others = group
    changed = [
        {change.key: change for change in recipe_changes(first.opened, run.opened)}
        for run in others
        if first.opened is not None and run.opened is not None
    ]
    keys = dict.fromkeys(key for changes in changed for key in changes)
    values = [
        {key: next(c[key].old for c in changed if key in c) for key in keys},
        *({key: c[key].new for key in c} for c in changed),
    ]
    for own in values if keys else ():
        seeds = {key: own.get(key, values[0][key]) for key in keys}
        yield ", ".join(
            str(seed) if len(keys) == 1 else f"{dotted(key)} {seed}" for key, seed in seeds.items()
        )


def _hashed(run: OpenedRun) -> dict[str, Mapping[str, Any]]:
    """What the fingerprints of the stages are hashes of, as recorded; empty where it is not."""
    return {
        name: run.directory.stage(stage).info.get("hashed") or {}
        for name, stage in run.plan.items()
    }


def _planned(run: OpenedRun) -> dict[str, Mapping[str, Any]]:
    return {stage.name: stage.hashed for stage in plan(run.loaded.recipe, run.loaded.registry)}


def _stage_changes(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]], run: OpenedRun
) -> Iterator[Change]:
    for name, stage in STAGES.items():
        if name == "report":  # it also depends on name and description
            continue
        if name in old and name in new:
            yield from difference(name, old[name], new[name], run.loaded.recipe).changes
        elif name in old or name in new:
            key = stage.train_path[:-1] if stage.train_path else (name,)
            yield Change(key, "not set -> set" if name in new else "set -> not set")
