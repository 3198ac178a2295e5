"""The place of this process among those that a launcher started, from the environment. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pae_framework.errors import UsageError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Set by torchrun and by every launcher that starts ``pae run`` once per process."""
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
"""Where rank 0 listens; set by the same launchers."""


@dataclass(frozen=True)
class Place:
    """The place of one process.

    Args:
        rank: its index.
        size: number of processes.
        local_rank: its index among those of its machine.
        local_size: their number.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def place_of_process(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that the launcher of this process gave it; None if it was started alone.

    Raises:
        UsageError: the launcher's variables are incomplete or contradict each other, or Slurm
            started several tasks that do not know their place.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        _reject_lonely_tasks(environment)
        return None
    numbers = {name: _number(name, environment) for name in VARIABLES}
    place = Place(*numbers.values())
    if not place.rank < place.size or not place.local_rank < place.local_size <= place.size:
        stated = ", ".join(f"{name}={value}" for name, value in numbers.items())
        raise UsageError(f"the launcher's variables contradict each other: {stated}")
    if missing := [name for name in ADDRESS if not environment.get(name)]:
        raise UsageError(
            f"WORLD_SIZE is {place.size}, but not set: {', '.join(missing)}; every process needs "
            "the address where rank 0 listens"
        )
    return place


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit()):
        found = f"is {text!r}" if text else "is not set"
        raise UsageError(
            f"{name} {found}, but other variables of a launcher are set; it must be a number. "
            f"A launcher of several processes sets {', '.join((*VARIABLES, *ADDRESS))}"
        )
    return int(text)


def _reject_lonely_tasks(environment: Mapping[str, str]) -> None:
    """Each of several Slurm tasks would run the recipe alone, in the same directory."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "SLURM_PROCID" in environment and tasks not in ("", "0", "1"):
        raise UsageError(
            f"srun started {tasks} tasks, but RANK and WORLD_SIZE are not set, so each would run "
            "the recipe alone; start one task per machine with torchrun, or set "
            f"{', '.join((*VARIABLES, *ADDRESS))} for each task"
        )
