"""The jobs that a profile gives: dependencies between stages, and parameters for submitit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from submitit import AutoExecutor

from pae_framework.launch.submission import (
    ARRAY,
    JobsOfLabel,
    by_label,
    chain_jobs,
    direct_inputs,
    most_of,
    planned_run,
    slurm_parameters,
    sweep_jobs,
)
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.sweep import expand
from pae_framework.runs.plan import PlannedStage, plan
from pae_framework.runs.record import StageRecord

PROFILE = Profile.model_validate(
    {"gpus_per_node": 2, "time": 60, "stages": {"generator": {"nodes": 3}}}
)


@pytest.fixture
def tiny(tiny_recipe: Path) -> LoadedRecipe:
    return load_recipe(tiny_recipe)


def finish(loaded: LoadedRecipe, store: Path, *names: str) -> None:
    """Make stages look done."""
    for stage in plan(loaded.recipe, loaded.registry):
        if stage.name in names:
            folder = store / stage.folder
            folder.mkdir(parents=True)
            StageRecord(folder).update(state="done", results={})


def jobs_of(
    loaded: LoadedRecipe, store: Path, again: tuple[str, ...] = (), **queued: str
) -> list[JobsOfLabel]:
    run = planned_run(loaded, store, again)
    return by_label(chain_jobs(run, PROFILE, lambda stage, inputs: queued.get(stage.name)), PROFILE)


def after(loaded: LoadedRecipe, store: Path, **queued: str) -> dict[str, tuple[str, ...]]:
    return {job.stage: job.after for job in jobs_of(loaded, store, **queued)}


def test_every_stage_is_a_job_that_waits_for_the_stages_it_reads(
    tiny: LoadedRecipe, tmp_path: Path
) -> None:
    assert after(tiny, tmp_path) == {
        "extractor": (),
        "encoder": (),
        "refine": ("encoder",),
        "tokenizer": ("refine",),
        "latents": ("tokenizer",),
        "generator": ("latents",),
        "sample": ("generator",),
        "evaluate": ("extractor", "sample"),
        "report": ("evaluate",),
    }


def test_stages_that_are_done_are_no_jobs_and_nothing_waits_for_them(
    tiny: LoadedRecipe, tmp_path: Path
) -> None:
    finish(tiny, tmp_path, "extractor", "encoder", "refine", "tokenizer")
    waits = after(tiny, tmp_path)
    assert list(waits) == ["latents", "generator", "sample", "evaluate", "report"]
    assert (waits["latents"], waits["evaluate"]) == ((), ("sample",))
    again = jobs_of(tiny, tmp_path, again=("tokenizer",))
    assert next(job.stage for job in again) == "tokenizer"


def test_each_job_has_the_resources_of_its_stage(tiny: LoadedRecipe, tmp_path: Path) -> None:
    jobs = {job.stage: job.resources for job in jobs_of(tiny, tmp_path)}
    assert {stage for stage, resources in jobs.items() if resources.nodes == 3} == {"generator"}
    assert jobs["generator"].processes == 6


def test_stages_in_a_job_are_waited_for_and_not_submitted_again(
    tiny: LoadedRecipe, tmp_path: Path
) -> None:
    waits = after(tiny, tmp_path, encoder="7", refine="8", report="9")
    assert waits.keys().isdisjoint({"encoder", "refine", "report"})
    assert waits["tokenizer"] == ("job 8",)
    assert waits["evaluate"] == ("extractor", "sample")


def sweep(tiny_recipe: Path, store: Path, **queued: str) -> dict[str, JobsOfLabel]:
    """The jobs of a sweep of two seeds, whose variants share all up to the latents, by label."""
    variants = "{a: {}, b: {generator.train.steps: 7}}"
    loaded = load_recipe(tiny_recipe, [f"sweep={{seeds: [0, 1], variants: {variants}}}"])
    runs = {member.name: planned_run(member.loaded, store) for member in expand(loaded)}
    profile = PROFILE.model_copy(update={"array_limit": 3})
    jobs = sweep_jobs(runs, profile, lambda stage, inputs: queued.get(stage.name))
    return {job.stage: job for job in by_label(jobs, profile)}


def test_a_sweep_is_its_shared_stages_an_array_of_the_others_and_a_report(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    jobs = sweep(tiny_recipe, tmp_path)
    array = jobs[ARRAY]
    assert list(jobs)[-2:] == [ARRAY, "comparison"]
    assert (jobs["tokenizer"].jobs, jobs["latents"].jobs) == (2, 2)
    assert array.stages == ("generator", "sample", "evaluate", "report")
    assert (array.jobs, array.at_once, array.resources.nodes) == (4, 3, 3)
    assert set(array.after) == jobs.keys() - {ARRAY, "comparison"}
    assert ARRAY in jobs["comparison"].after
    assert "4 tasks of an array, at most 3 at once" in str(array)


def test_of_a_sweep_that_is_done_only_the_report_is_left(tiny_recipe: Path, tmp_path: Path) -> None:
    variants = "{a: {}, b: {generator.train.steps: 7}}"
    loaded = load_recipe(tiny_recipe, [f"sweep={{seeds: [0, 1], variants: {variants}}}"])
    for member in expand(loaded):
        finish(member.loaded, tmp_path, *after(member.loaded, tmp_path))
    assert list(sweep(tiny_recipe, tmp_path)) == ["comparison"]
    assert sweep(tiny_recipe, tmp_path, comparison="5") == {}


def test_a_job_with_several_stages_asks_for_the_most_of_each() -> None:
    """Its processes are those of the stage with the most GPUs, which share all of its work."""
    stages = {
        "generator": {"nodes": 2, "gpus_per_node": 4, "memory": "8GB", "time": 60},
        "sample": {"gpus_per_node": 4, "cpus_per_task": 6, "time": "01:30:00"},
        "report": {"gpus_per_node": 0, "memory": "64GB", "time": 10},
    }
    profile = Profile.model_validate({"time": 5, "stages": stages})
    asked = most_of(profile, list(planned(generator="", sample="", report="").values()))
    assert (asked.nodes, asked.processes, asked.cpus_per_task) == (2, 8, 6)
    assert (asked.memory, asked.minutes) == ("64GB", 90)

    everything = profile.model_copy(update={"memory": "all"})
    asked = most_of(everything, list(planned(generator="", evaluate="").values()))
    assert asked.memory == "all"


def planned(**inputs: str) -> dict[str, PlannedStage]:
    """Stages by name, each with the names of its inputs in one text."""
    return {name: PlannedStage(name, "0", tuple(text.split())) for name, text in inputs.items()}


@pytest.mark.parametrize(
    ("unfinished", "name", "waits"),
    [
        ("a b c d", "a", set()),
        ("a b c d", "c", {"b"}),  # a is implied by b
        ("a c d", "c", {"a"}),  # b is done
        ("c d", "c", set()),
        ("a b d", "d", {"b"}),
        ("a b c d e", "e", {"c", "d"}),
    ],
)
def test_a_job_waits_only_for_what_is_not_done_and_not_implied(
    unfinished: str, name: str, waits: set[str]
) -> None:
    stages = planned(a="", b="a", c="a b", d="a b", e="a b c d")
    assert direct_inputs(stages, name, unfinished.split()) == waits


# --- parameters -----------------------------------------------------------------------------------

FULL = {
    "partition": "gpu",
    "account": "acme",
    "qos": "high",
    "constraint": "a100",
    "nodes": 2,
    "gpus_per_node": 4,
    "cpus_per_task": 8,
    "memory": "64GB",
    "time": "01:00:30",
    "flags": {"exclusive": True, "reservation": "r", "nice": None, "hold": False},
    "setup": ["module load cuda"],
    "srun_args": ["--container-image=x"],
    "signal_before": 90,
    "array_limit": 3,
}


def parameters_of(profile: Profile) -> dict[str, Any]:
    return slurm_parameters(profile, profile.for_stage("tokenizer"))


def test_every_resource_has_its_parameter() -> None:
    assert parameters_of(Profile.model_validate(FULL)) == {
        "slurm_partition": "gpu",
        "slurm_account": "acme",
        "slurm_qos": "high",
        "slurm_constraint": "a100",
        "slurm_nodes": 2,
        "slurm_ntasks_per_node": 4,
        "slurm_gpus_per_node": 4,
        "slurm_cpus_per_task": 8,
        "slurm_mem": "64GB",
        "slurm_time": 61,
        "slurm_signal_delay_s": 90,
        "slurm_array_parallelism": 3,
        "slurm_setup": ["module load cuda"],
        "slurm_srun_args": ["--container-image=x"],
        "slurm_additional_parameters": {"exclusive": True, "reservation": "r"},
    }


def test_what_a_profile_leaves_to_the_site_is_absent() -> None:
    parameters = parameters_of(Profile(time="01:00:00", gpus_per_node=0))
    assert parameters == {
        "slurm_nodes": 1,
        "slurm_ntasks_per_node": 1,
        "slurm_time": 60,
        "slurm_signal_delay_s": 120,
    }


def test_all_memory_is_what_slurm_writes_for_it() -> None:
    profile = Profile.model_validate({"memory": "all", "time": 1})
    assert parameters_of(profile)["slurm_mem"] == "0"


def script_of(profile: Profile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of submitit's script for a profile, without a Slurm."""
    from submitit.slurm import slurm

    monkeypatch.setattr(slurm.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    executor = AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(**parameters_of(profile))
    parameters: dict[str, Any] = executor._executor.parameters
    text: str = slurm._make_sbatch_string(command="true", folder=folder, **parameters)
    return text.splitlines()


def test_submitit_writes_the_options_that_the_profile_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = script_of(Profile.model_validate(FULL), tmp_path, monkeypatch)
    for option in (
        "--partition=gpu",
        "--account=acme",
        "--qos=high",
        "--constraint=a100",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--mem=64GB",
        "--time=61",
        "--signal=USR2@90",
        "--exclusive",
        "--reservation=r",
    ):
        assert f"#SBATCH {option}" in lines
    assert "module load cuda" in lines
    assert not any("nice" in line or "hold" in line for line in lines)
