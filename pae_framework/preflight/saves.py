"""Compares how long saves took with the time that an interrupted job has. No torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from pae_framework.errors import PaeError, Problem
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.runs.record import StageRecord


def short_graces(
    profile: FoundProfile,
    stages: Collection[str],
    store: Path | None,
    kill_wait: int | None = None,
) -> list[Problem]:
    """Stages whose last save took longer than the profile or the site grants; worth a warning.

    Args:
        profile: where they run.
        stages: their names.
        store: folder of the stages, also of those of earlier versions of the recipe.
        kill_wait: seconds between the site's signal and its kill; None: unknown.
    """
    if store is None:
        return []
    return [
        problem
        for stage in stages
        if (last := _last_save(store, stage)) is not None
        for problem in _shorter(profile, stage, last, kill_wait)
    ]


def stop_seconds(save: float) -> float:
    """How long a training that is told to stop may take: it finishes a save, then makes its own."""
    return 2 * save


def _shorter(
    profile: FoundProfile, stage: str, last: float, kill_wait: int | None
) -> Iterator[Problem]:
    granted = profile.profile
    needed = stop_seconds(last)
    enough = 10 * math.ceil(needed / 5)  # twice as long, rounded up
    if needed >= granted.signal_before:
        message = f"{_took(stage, last)} {granted.signal_before} s before the time limit"
        yield profile.problem(message, "signal_before", hint=f"set signal_before={enough}")
    if granted.grace is not None and needed >= granted.grace:
        message = f"{_took(stage, last)} {granted.grace} s when a job is preempted"
        yield profile.problem(message, "grace", hint="set checkpoint_every lower, to lose less")
    elif granted.grace is None and kill_wait is not None and needed >= kill_wait:
        message = f"{_took(stage, last)} {kill_wait} s (KillWait) when a job is preempted"
        yield profile.problem(
            message, "grace", hint="set it if the partition's GraceTime is longer"
        )


def _took(stage: str, last: float) -> str:
    return f"the last save of {stage} took {last:.0f} s, and a stop may take two, but there are"


def _last_save(store: Path, stage: str) -> float | None:
    """Seconds of the last save of any training of a stage; None if none is recorded."""
    found: list[tuple[float, float]] = []
    for file in store.glob(f"{stage}-*/stage.json"):
        with suppress(PaeError, OSError):  # a damaged record is told of where its stage is read
            seconds = StageRecord(file.parent).info.get("save_seconds")
            if isinstance(seconds, int | float):
                found.append((file.stat().st_mtime, seconds))
    return max(found)[1] if found else None
