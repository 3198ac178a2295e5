"""How many members a sweep has, and how many stages they share. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.data_record import contents_in_cache
from pae_framework.runs.planned import planned_stages


@dataclass(frozen=True)
class SweepSize:
    """Numbers of members, of different stages, and of those stages that several members share."""

    members: int
    stages: int
    shared: int

    def __str__(self) -> str:
        return (
            f"{self.members} member{'' if self.members == 1 else 's'}, {self.stages} stages, "
            f"{self.shared} of them shared by several members"
        )


def sweep_size(members: Sequence[Collection[str]]) -> SweepSize:
    """The size of a sweep from the folders of each member's stages."""
    users = Counter(folder for folders in members for folder in set(folders))
    return SweepSize(len(members), len(users), sum(count > 1 for count in users.values()))


def planned_size(members: Sequence[LoadedRecipe], store: Path) -> SweepSize:
    """The size of a sweep that need not have begun; images are not read.

    Args:
        members: recipes of its members.
        store: folder of their stages; it need not exist.
    """
    plans = [planned_stages(each, store, contents_in_cache(each.recipe)) for each in members]
    return sweep_size([{stage.folder for stage in plan.values()} for plan in plans])
