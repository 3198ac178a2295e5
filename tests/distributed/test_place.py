"""The place of a process, from the variables of whatever started it."""

from __future__ import annotations

import pytest

from pae_framework.distributed.place import ADDRESS, VARIABLES, Place, place_of_process
from pae_framework.errors import UsageError

TORCHRUN = {
    **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "node7", "MASTER_PORT": "29500"},
}


def test_torchrun_gives_a_place() -> None:
    assert place_of_process(TORCHRUN) == Place(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "8"},  # left over from sbatch; no task of a step
    ],
)
def test_a_process_that_is_started_alone_has_none(environment: dict[str, str]) -> None:
    assert place_of_process(environment) is None


@pytest.mark.parametrize("name", [name for name in (*VARIABLES, *ADDRESS) if name != "WORLD_SIZE"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    environment = {key: text for key, text in TORCHRUN.items() if key != name}
    if value is not None:
        environment[name] = value
    with pytest.raises(UsageError, match=rf"\b{name}\b"):
        place_of_process(environment)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", ["two", "-1", "1.5", " 2", "٢"])
def test_what_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} is '{value}'"):
        place_of_process(TORCHRUN | {name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": "8"},
        {"LOCAL_RANK": "4"},
        {"LOCAL_WORLD_SIZE": "9"},
        {"WORLD_SIZE": "0", "RANK": "0"},
        {"WORLD_SIZE": "3"},
    ],
)
def test_contradictions_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="contradict"):
        place_of_process(TORCHRUN | changes)


def test_tasks_of_srun_that_would_each_run_the_recipe_are_refused() -> None:
    with pytest.raises(UsageError, match="8 tasks"):
        place_of_process({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"})
