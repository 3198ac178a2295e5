"""What keeps a recipe from running in jobs of a profile: GPUs, memory, batches, time to save."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_cases import Load

from pae_framework.preflight.machine import Machine
from pae_framework.preflight.memory import StageMemory, training_memory
from pae_framework.preflight.processes import Sharing, processes_of
from pae_framework.preflight.profile_checks import JobsPreflight, examine_jobs
from pae_framework.preflight.saves import short_graces
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.profiles import FoundProfile, Profiles
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def profile(tmp_path: Path, **keys: object) -> FoundProfile:
    """A profile named ``site``, with each key on a line of its own from line 2."""
    file = tmp_path / "profiles.yaml"
    lines = (f"  {key}: {json.dumps(value)}" for key, value in {"time": 60, **keys}.items())
    file.write_text("\n".join(["site:", *lines]))
    return Profiles(file).find("site")


def examined(
    loaded: LoadedRecipe, tmp_path: Path, store: Path | None = None, **keys: object
) -> JobsPreflight:
    return examine_jobs([loaded], profile(tmp_path, **keys), store)


def finish(loaded: LoadedRecipe, store: Path, *names: str) -> None:
    """Make stages look done."""
    for name, stage in planned_stages(loaded, store).items():
        if name in names:
            (store / stage.folder).mkdir(parents=True)
            StageRecord(store / stage.folder).update(state="done", results={})


# --- GPUs and memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [Machine(1 << 20, ()), Machine(1 << 20, (1 << 20,))])
def test_the_machine_that_submits_does_not_matter(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    for module in ("requirements", "processes"):
        monkeypatch.setattr(f"pae_framework.preflight.{module}.this_machine", lambda: machine)
    for device in ("cpu", "cuda", "auto"):
        found = examined(load(f"runtime.device={device}"), tmp_path, gpus_per_node=1)
        assert (found.missing, found.refused, found.tight) == ((), (), ())
    assert found.site.startswith("not checked")


@pytest.mark.parametrize(
    ("keys", "without"),
    [
        ({}, {"extractor", "encoder", "tokenizer", "report"}),
        ({"gpus_per_node": 0}, {"extractor", "encoder", "tokenizer", "report"}),
        ({"gpus_per_node": 1}, set()),
        ({"flags": {"gres": "gpu:h100:1"}}, set()),
        ({"gpus_per_node": 1, "stages": {"report": {"gpus_per_node": 0}}}, {"report"}),
    ],
)
def test_a_job_needs_a_gpu_if_the_device_is_one(
    load: Load, tmp_path: Path, keys: dict[str, object], without: set[str]
) -> None:
    refused = examined(load("runtime.device=cuda"), tmp_path, **keys).refused
    named = {stage for stage in without if any(f"job of {stage} " in p.message for p in refused)}
    assert named == without
    assert bool(refused) == bool(without)
    assert all("profiles.yaml:" in problem.where for problem in refused)
    assert examined(load("runtime.device=auto"), tmp_path, **keys).refused == ()


def test_memory_that_is_asked_for_is_compared_with_the_estimate_of_each_stage(
    load: Load, tmp_path: Path
) -> None:
    loaded = load("runtime.device=cpu")
    needed = {
        stage.stage: (stage.total + stage.checkpoint) / (1 << 20)
        for stage in training_memory(loaded.recipe)
    }
    mib = needed["tokenizer"]
    assert mib > needed["encoder"]
    for memory, refused, tight in (
        (f"{int(2 * mib)}MB", 0, 0),
        (f"{int(0.75 * mib)}MB", 0, 1),
        (f"{max(1, int(0.4 * mib))}MB", 1, 0),
        ("all", 0, 0),
    ):
        found = examined(loaded, tmp_path, memory="1GB", stages={"tokenizer": {"memory": memory}})
        assert (len(found.refused), len(found.tight)) == (refused, tight), memory
        for problem in (*found.refused, *found.tight):
            assert problem.path == "site.stages.tokenizer.memory"
            assert problem.where.startswith("profiles.yaml:4:")
            assert memory in problem.message


def test_on_gpus_main_memory_holds_the_copy_that_a_checkpoint_is_written_from(
    load: Load, tmp_path: Path
) -> None:
    loaded = load("runtime.device=auto")
    copies = [stage.checkpoint for stage in training_memory(loaded.recipe)]
    too_large = [copy for copy in copies if copy > 2 << 20]  # twice as much as a job asks for
    assert too_large
    for memory, refused in ((f"{max(copies) // (1 << 20) + 1}MB", 0), ("1MB", len(too_large))):
        found = examined(loaded, tmp_path, memory=memory, gpus_per_node=1).refused
        assert len(found) == refused
        assert all("checkpoint" in problem.message for problem in found)


def test_stages_that_are_done_need_nothing(load: Load, tmp_path: Path) -> None:
    loaded, store = load("runtime.device=cuda"), tmp_path / "stages"
    finish(loaded, store, "extractor", "encoder", "tokenizer")
    refused = examined(loaded, tmp_path, store).refused
    assert refused
    assert not any("tokenizer" in problem.message for problem in refused)


@pytest.mark.parametrize(
    ("processes", "on_one", "sharded", "needed"),
    [
        (1, 1, False, 100 + 80),
        (4, 1, False, 100 + 20),
        (4, 4, False, 400 + 80),
        (8, 4, False, 400 + 40),
        (3, 1, False, 100 + 30),  # the largest part of 8 images is 3
        (16, 1, False, 100 + 10),
        (4, 1, True, 25 + 20),
        (4, 4, True, 100 + 80),
    ],
)
def test_processes_share_images_and_may_share_weights(
    processes: int, on_one: int, sharded: bool, needed: int
) -> None:
    stage = StageMemory("tokenizer", (), 100, 80, 8, 10, 12, sharded=sharded)
    assert stage.needed(processes, on_one) == needed


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "keys", "impossible", "uneven"),
    [
        (4, {}, None, None),
        (4, {"gpus_per_node": 4}, None, None),
        (4, {"gpus_per_node": 5}, "gpus_per_node", None),
        (4, {"gpus_per_node": 3}, None, "gpus_per_node"),
        (4, {"tasks_per_node": 8}, "tasks_per_node", None),
        (4, {"nodes": 2, "gpus_per_node": 4}, "nodes", None),
        (12, {"nodes": 2, "gpus_per_node": 4}, None, "nodes"),
    ],
)
def test_batches_that_processes_cannot_share_are_told_at_their_number(
    load: Load,
    tmp_path: Path,
    images: int,
    keys: dict[str, object],
    impossible: str | None,
    uneven: str | None,
) -> None:
    sizes = [f"{key}.train.batch_size=24" for key in ("extractor", "tokenizer.encoder")]
    loaded = load(
        *sizes, f"tokenizer.train.batch_size={2 * images}", "tokenizer.train.accumulate=2"
    )
    sharing = Sharing([loaded], None, profile(tmp_path, **keys))
    for expected, found in ((impossible, sharing.impossible()), (uneven, sharing.uneven())):
        of_tokenizer = [problem for problem in found if problem.message.startswith("tokenizer")]
        assert [problem.path for problem in of_tokenizer] == (
            [f"site.{expected}"] if expected else []
        )
        assert all(problem.where.startswith("profiles.yaml:") for problem in of_tokenizer)


@pytest.mark.parametrize(
    ("keys", "gpus", "processes"),
    [
        ({"executor": "local"}, 0, 1),
        ({"executor": "local"}, 3, 3),
        ({"executor": "local", "tasks_per_node": 2}, 3, 2),
        ({"executor": "local", "gpus_per_node": 2}, 3, 2),
        ({"executor": "slurm", "nodes": 2, "gpus_per_node": 2, "time": 1}, 3, 4),
        ({"executor": "slurm", "flags": {"gres": "gpu:h100:4"}, "time": 1}, 3, 4),
        ({"executor": "debug"}, 3, 1),
    ],
)
def test_only_local_jobs_have_a_process_for_each_gpu_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], gpus: int, processes: int
) -> None:
    machine = Machine(None, (0,) * gpus)
    monkeypatch.setattr("pae_framework.preflight.processes.this_machine", lambda: machine)
    profile = Profile.model_validate(keys)
    assert processes_of(profile, profile.for_stage("tokenizer")) == processes


# --- time to save ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "keys", "kill_wait", "warned"),
    [
        (None, {}, 1, []),
        (5.0, {}, None, []),
        (59.0, {}, None, []),  # a stop may finish a save and make another one
        (60.0, {}, None, ["signal_before"]),
        (59.0, {"signal_before": 60}, None, ["signal_before"]),
        (25.0, {"grace": 50}, None, ["grace"]),
        (25.0, {"grace": 51}, 10, []),
        (15.0, {}, 30, ["grace"]),
        (14.0, {}, 30, []),
        (500.0, {"grace": 60}, 30, ["signal_before", "grace"]),
    ],
)
def test_a_save_that_took_longer_than_there_is_time_is_warned_about(
    tmp_path: Path,
    last: float | None,
    keys: dict[str, object],
    kill_wait: int | None,
    warned: list[str],
) -> None:
    store = tmp_path / "stages"
    record = StageRecord(store / "generator-0123456789ab")  # of an earlier version of the recipe
    record.path.mkdir(parents=True)
    record.update(state="done", **({} if last is None else {"save_seconds": last}))
    found = short_graces(profile(tmp_path, **keys), ["tokenizer", "generator"], store, kill_wait)
    assert [problem.path for problem in found] == [f"site.{key}" for key in warned]
    assert all(f"{last:.0f} s" in p.message and "generator" in p.message for p in found)
    assert short_graces(profile(tmp_path, **keys), ["tokenizer"], store, kill_wait) == []


def test_of_several_saves_the_last_one_counts(tmp_path: Path) -> None:
    import os

    for number, seconds in enumerate((500.0, 1.0)):
        record = StageRecord(tmp_path / f"generator-{number}")
        record.path.mkdir()
        record.update(state="done", save_seconds=seconds)
        os.utime(record.path / "stage.json", (number, number))
    assert short_graces(profile(tmp_path), ["generator"], tmp_path) == []


def test_a_damaged_record_does_not_stop_a_submission(tmp_path: Path) -> None:
    (tmp_path / "generator-1").mkdir()
    (tmp_path / "generator-1" / "stage.json").write_text("{")
    assert short_graces(profile(tmp_path), ["generator"], tmp_path) == []
