"""The cost of all members of a sweep; a stage that several members share counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pae_framework.dry_run.summary import DryRun, StageDryRun
from pae_framework.runs.sweep_size import SweepSize, sweep_size


@dataclass(frozen=True)
class SweepCost:
    """What is still to run of a sweep.

    Args:
        size: of the sweep, with stages that are done.
        done: number of stages that are done.
        flops: of the stages that run; None if those of none are known.
        hours: likewise.
        not_counted: trained stages of which ``flops`` lacks those of a member.
        own: the stages that run first for each member, by its name.
    """

    size: SweepSize
    done: int
    flops: float | None
    hours: float | None
    not_counted: tuple[str, ...]
    own: Mapping[str, tuple[StageDryRun, ...]]

    def plain(self) -> dict[str, Any]:
        """The cost in JSON types, without the stages of each member."""
        totals = {"done": self.done, "flops": self.flops, "hours": self.hours}
        return {**asdict(self.size), **totals, "not_counted": list(self.not_counted)}


def sweep_cost(members: Mapping[str, DryRun]) -> SweepCost:
    """The cost of a sweep from the dry runs of its members, in the order they run."""
    seen: dict[str, StageDryRun] = {}
    own: dict[str, tuple[StageDryRun, ...]] = {}
    for name, member in members.items():
        new = [stage for stage in member.stages if stage.folder not in seen]
        seen |= {stage.folder: stage for stage in new}
        own[name] = tuple(stage for stage in new if stage.state != "done")
    runs = [stage for stages in own.values() for stage in stages]
    trained = [stage for stage in runs if stage.batch_size is not None]
    return SweepCost(
        size=sweep_size([[stage.folder for stage in each.stages] for each in members.values()]),
        done=len(seen) - len(runs),
        flops=total([stage.flops for stage in runs]),
        hours=total([stage.hours for stage in runs]),
        not_counted=tuple(dict.fromkeys(each.stage for each in trained if each.flops is None)),
        own=own,
    )


def total(values: Sequence[float | None]) -> float | None:
    """The sum of the known values; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
