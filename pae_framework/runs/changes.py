"""In what a stage of an earlier plan differs from the one that is planned now. No torch.

Both are given as what their fingerprints are hashes of (:attr:`PlannedStage.hashed`). So there is a
difference exactly if the fingerprints differ. Values are named as a recipe writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from pae_framework.config import Settings
from pae_framework.recipe.components import Component
from pae_framework.recipe.emit import inline
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES

_LOADED = ("weights", "statistics", "folder")
"""Hashed values of stages that load results: with or without one of them, all else differs too."""
_FILES = (*_LOADED, "initial_weights", "autoguidance")
"""Hashed values that are identities of files."""
_COMPONENT = {"name", "version", "config"}
_LONGEST = 40
"""Characters of a value that are shown."""


class _Absent:
    """In place of a value that was not hashed and has no default."""


_ABSENT = _Absent()


@dataclass(frozen=True)
class Change:
    """One value that differs."""

    key: KeyPath
    text: str
    """How it differs, e.g. ``400 -> 800``."""
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        return f"{dotted(self.key)} ({self.text})"


@dataclass(frozen=True)
class Difference:
    """How two versions of a stage differ."""

    changes: tuple[Change, ...]
    """Values of the recipe and versions of code."""
    inputs: tuple[str, ...]
    """Stages that it reads of which the versions read different results."""

    def is_only_in(self, *keys: KeyPath) -> bool:
        """Whether only values at these key paths differ."""
        return not self.inputs and all(change.key in keys for change in self.changes)

    def at(self, key: KeyPath) -> Change | None:
        """The change of the value at a key path; None if it is the same."""
        return next((change for change in self.changes if change.key == key), None)


def difference(
    stage: str, old: Mapping[str, Any], new: Mapping[str, Any], recipe: Recipe
) -> Difference:
    """The difference between two versions of a stage.

    Args:
        stage: its name.
        old: what the fingerprint of the earlier one is the hash of.
        new: the same of the later one.
        recipe: that of the later one.
    """
    reads, read = new["inputs"], old.get("inputs", {})
    inputs = [name for name in STAGES if read.get(name) != reads.get(name)]
    found: dict[KeyPath, Change] = {}
    for change in _Comparison(recipe).stages(stage, old, new):
        found.setdefault(change.key, change)
    return Difference(tuple(found.values()), tuple(inputs))


@dataclass(frozen=True)
class _Comparison:
    recipe: Recipe

    def stages(self, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        if old.get("version") != new["version"]:
            yield _code_change((name,), f"stage {name}", old.get("version"), new["version"])
        stage, before, now = STAGES[name], old.get("parts", {}), new["parts"]
        for key in _LOADED:
            if (key in before) != (key in now):
                path = stage.written_at(key, self.recipe)
                yield Change(path, "set now" if key in now else "no longer set")
                return
        for key in {**before, **now}:
            path = stage.written_at(key, self.recipe)
            one, other = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if key in _FILES and one != other:
                yield Change(path, "other contents")
            else:
                yield from self.values(path, one, other)

    def values(self, path: KeyPath, old: Any, new: Any) -> Iterator[Change]:
        """The changes at and below a key path."""
        old, new = self._with_default(path, old, new), self._with_default(path, new, old)
        if old == new:
            return
        if not (isinstance(old, dict) and isinstance(new, dict)):
            yield self._change(path, old, new)
        elif old.keys() >= _COMPONENT and new.keys() >= _COMPONENT:
            yield from self._components(path, old, new)
        elif "contents" in {**old, **new} and old.get("contents") != new.get("contents"):
            yield Change(path, "other images", old.get("contents"), new.get("contents"))
        else:
            for key in {**old, **new}:
                yield from self.values((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))

    def _components(
        self, path: KeyPath, old: dict[str, Any], new: dict[str, Any]
    ) -> Iterator[Change]:
        if old["name"] != new["name"]:
            names = [old["name"], new["name"]]
            short = [name.rpartition("/")[2] for name in names]
            before, now = names if short[0] == short[1] else short
            yield Change((*path, "use"), f"{before} -> {now}", before, now)
            return
        if old["version"] != new["version"]:
            component = new["name"].rpartition("/")[2]
            yield _code_change(path, component, old["version"], new["version"])
        yield from self.values(path, old["config"], new["config"])
        for key in {**old, **new}:
            if key not in _COMPONENT:
                yield from self.values((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))

    def _change(self, path: KeyPath, old: Any, new: Any) -> Change:
        owner = self._at(path[:-1])
        settings = owner.config if isinstance(owner, Component) else owner
        if isinstance(settings, Settings) and path[-1] in settings.files():
            return Change(path, "other contents", old, new)
        return Change(path, f"{_shown(old)} -> {_shown(new)}", old, new)

    def _with_default(self, path: KeyPath, value: Any, other: Any) -> Any:
        """The value; if it was not hashed, its default. ``other`` is that of the other version."""
        if value is not _ABSENT:
            return value
        default = self._default(path)
        if isinstance(default, Settings) and isinstance(other, dict):
            return {}  # the defaults of its values are found one by one
        return to_jsonable_python(default) if default is not _ABSENT else _ABSENT

    def _default(self, path: KeyPath) -> Any:
        owner, key = self._at(path[:-1]), path[-1]
        if isinstance(owner, Component) and key not in type(owner).engine_keys():
            owner = owner.config
        fields = type(owner).model_fields if isinstance(owner, Settings) else {}
        field = fields.get(str(key))
        if isinstance(owner, Settings) and str(key) in owner.former_defaults:
            return owner.former_defaults[str(key)]
        if field is None or field.is_required():
            return _ABSENT
        return field.get_default(call_default_factory=True)

    def _at(self, path: KeyPath) -> Any:
        """The value of the recipe at a key path; None if it has none."""
        found: Any = self.recipe
        for key in path:
            if isinstance(found, dict):
                found = found.get(key)
                continue
            if isinstance(found, Component) and key not in type(found).engine_keys():
                found = found.config
            found = getattr(found, str(key), None)
        return found


def shortened(facts: Sequence[str], shown: int = 5) -> str:
    """The first facts on one line, and how many there are beside."""
    more = f", and {len(facts) - shown} more" if len(facts) > shown else ""
    return ", ".join(facts[:shown]) + more


def _code_change(path: KeyPath, what: str, old: Any, new: Any) -> Change:
    text = f"code of {what}, version {old} -> {new}"
    return Change(path, text, old, new)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    if isinstance(value, dict):
        return value["name"].rpartition("/")[2] if value.keys() >= _COMPONENT else "set"
    text = inline(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
