"""What ``pae status`` says of each stage of a run. Nothing is trained: records are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from plan_helpers import FROM_TOKENIZER, REGISTRY
from quickstart_stages import QUICKSTART_STAGES
from safetensors.torch import save_file

from pae_framework.errors import RecipeError, UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import expand
from pae_framework.runs.changes import difference
from pae_framework.runs.data_record import found_contents, remember
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.locks import holding
from pae_framework.runs.plan import PlannedStage, plan
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.runs.stage_status import StageStatus
from pae_framework.runs.status import Comparison, run_status
from pae_framework.testing.pytest import Pae

Rows = dict[str, StageStatus]


def finish(path: Path, loaded: LoadedRecipe, state: str = "done", store: Path | None = None):
    """Write the records of a run of the recipe."""
    directory = RunDirectory.at(path, store)
    found = found_contents(loaded.recipe)
    stages = planned_stages(loaded, directory.store, found)
    directory.write(loaded, list(stages.values()), "pae run", starts=True)
    remember(loaded.recipe, directory.store, found)
    for stage in stages.values():
        record = directory.stage(stage)
        if record.done:
            continue
        train = STAGES[stage.name].train(loaded.recipe)
        inputs = {name: stages[name].fingerprint for name in stage.inputs}
        with record.lock(lambda: None), record.working(inputs, None, stage.hashed) as update:
            if train is not None and train.steps is not None:
                update(progress={"done": train.steps, "total": train.steps})
                folder = record.path / "checkpoints" / f"step-{train.steps:08d}"
                folder.mkdir(parents=True)
        if state != "done":
            record.update(state=state)


def rows(path: Path, *overrides: str, recipe: Path | str | None = None) -> Rows:
    compared = Comparison(REGISTRY, None if recipe is None else str(recipe), overrides)
    (found,) = run_status(path, compared).values()
    return {row.stage: row for row in found}


def stale(found: Rows) -> set[str]:
    return {name for name, row in found.items() if row.state == "stale"}


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of the tiny recipe."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "run"
    finish(path, load_recipe(tiny_recipe, (), REGISTRY))
    return path


def test_nothing_is_stale_after_a_run(run: Path):
    found = rows(run)
    assert {row.state for row in found.values()} == {"done"}
    assert not any(
        (*row.changes, *row.stale_inputs, row.outlook) != ("",) for row in found.values()
    )


CHANGES = {
    "data.image_size=32": ("extractor", "data.image_size (16 -> 32)"),
    "data.flip=true": ("encoder", "data.flip (false -> true)"),
    "data.train={use: shapes, count: 64}": ("tokenizer", "data.train.use (digits -> shapes)"),
    "data.test_images=61": ("evaluate", "data.test_images (60 -> 61)"),
    "seed=3": ("encoder", "seed (0 -> 3)"),
    "extractor.width=16": ("extractor", "extractor.width (8 -> 16)"),
    "extractor.train.steps=7": ("extractor", "extractor.train.steps (6 -> 7)"),
    "tokenizer.encoder.train.seed=3": ("encoder", "tokenizer.encoder.train.seed (null -> 3)"),
    "tokenizer.encoder.depth=3": ("encoder", "tokenizer.encoder.depth (2 -> 3)"),
    "tokenizer.refinement.centre=true": ("refine", "tokenizer.refinement.centre (false -> true)"),
    "tokenizer.refinement.train.lr=0.5": ("refine", "tokenizer.refinement.train.lr (0.002 -> 0.5)"),
    "tokenizer.modulator={use: none}": ("tokenizer", "tokenizer.modulator.use (dam -> none)"),
    "tokenizer.decoder.depth=2": ("tokenizer", "tokenizer.decoder.depth (1 -> 2)"),
    "tokenizer.noise=0.5": ("tokenizer", "tokenizer.noise (0.0 -> 0.5)"),
    "tokenizer.target=raw": ("tokenizer", "tokenizer.target (refined -> raw)"),
    "tokenizer.regularizers.ssr.weight=0.75": (
        "tokenizer",
        "tokenizer.regularizers.ssr.weight (0.2 -> 0.75)",
    ),
    "tokenizer.regularizers.more={use: vf, weight: 1}": (
        "tokenizer",
        "tokenizer.regularizers.more (not set -> vf)",
    ),
    "tokenizer.reconstruction.l1=0.5": (
        "tokenizer",
        "tokenizer.reconstruction.l1 (1.0 -> 0.5)",
    ),
    "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1}}": (
        "tokenizer",
        "tokenizer.adversarial (null -> set)",
    ),
    "tokenizer.train.ema=null": ("tokenizer", "tokenizer.train.ema (0.98 -> null)"),
    "latents.dtype=bfloat16": ("latents", "latents.dtype (float32 -> bfloat16)"),
    "generator.width=64": ("generator", "generator.width (32 -> 64)"),
    "generator.objective.label_drop=0.5": (
        "generator",
        "generator.objective.label_drop (0.1 -> 0.5)",
    ),
    "generator.train.keep_steps=[3, 5]": (
        "generator",
        "generator.train.keep_steps ([3] -> [3, 5])",
    ),
    "sample.steps=9": ("sample", "sample.steps (4 -> 9)"),
    "sample.guidance.scale=4": ("sample", "sample.guidance.scale (1.5 -> 4.0)"),
    "evaluate.manifold.images=21": ("evaluate", "evaluate.manifold.images (20 -> 21)"),
    "evaluate.manifold=null": ("evaluate", "evaluate.manifold (manifold -> not set)"),
    "description=another": ("report", "description"),
}


@pytest.mark.parametrize("override", CHANGES)
def test_a_changed_setting_is_named_as_the_recipe_writes_it(tiny_recipe: Path, override: str):
    stage, change = CHANGES[override]
    (_, before), (recipe, now) = planned(tiny_recipe), planned(tiny_recipe, override)
    changed = {x for x in STAGES if fingerprint(before, x) != fingerprint(now, x)}
    for name in before.keys() & now.keys():
        found = difference(name, before[name].hashed, now[name].hashed, recipe)
        assert bool(found.changes or found.inputs) == (name in changed)
        assert set(found.inputs) == changed & {*before[name].inputs, *now[name].inputs}
        if name == stage:
            texts = [str(x) for x in found.changes]
            assert any(text.startswith(change) for text in texts), texts


def planned(recipe: Path, *overrides: str) -> tuple[Recipe, dict[str, PlannedStage]]:
    loaded = load_recipe(recipe, overrides, REGISTRY).recipe
    return loaded, {stage.name: stage for stage in plan(loaded, REGISTRY)}


def fingerprint(stages: Mapping[str, PlannedStage], name: str) -> str | None:
    return stages[name].fingerprint if name in stages else None


def test_what_reads_a_stale_stage_is_stale(run: Path):
    found = rows(run, "tokenizer.noise=0.5")
    assert stale(found) == FROM_TOKENIZER
    assert found["tokenizer"].changes == ("tokenizer.noise (0.0 -> 0.5)",)
    assert found["latents"].stale_inputs == ("tokenizer",)
    assert not any(found[name].changes for name in FROM_TOKENIZER - {"tokenizer"})


def test_settings_without_effect_make_nothing_stale(run: Path):
    overrides = ("generator.train.log_every=7", "runtime.threads=2", "latents.batch_size=3")
    assert not stale(rows(run, *overrides))


def test_the_edited_file_of_the_run_is_found(run: Path, tiny_recipe: Path, tiny_text: str):
    tiny_recipe.write_text(tiny_text.replace("sample: {count: 20", "sample: {count: 30"))
    found = rows(run)
    assert stale(found) == {"sample", "evaluate", "report"}
    assert found["sample"].changes == ("sample.count (20 -> 30)",)
    assert found["evaluate"].stale_inputs == ("sample",)


def test_the_overrides_of_the_run_count(tmp_path: Path, tiny_recipe: Path):
    finish(tmp_path / "run", load_recipe(tiny_recipe, ("sample.count=17",), REGISTRY))
    assert not stale(rows(tmp_path / "run"))
    found = rows(tmp_path / "run", recipe=tiny_recipe)
    assert found["sample"].changes == ("sample.count (17 -> 20)",)


OTHER = "extends: quickstart\nname: other"


@pytest.mark.parametrize("fate", ["gone", "broken", "another recipe"])
def test_without_the_file_the_recipe_as_it_was_run_counts(
    run: Path, tiny_recipe: Path, fate: str, caplog: pytest.LogCaptureFixture
):
    if fate == "gone":
        tiny_recipe.unlink()
    else:
        tiny_recipe.write_text({"broken": "pae: [", "another recipe": OTHER}[fate])
    assert {row.state for row in rows(run).values()} == {"done"}
    assert (str(tiny_recipe) in caplog.text) == (fate == "broken")
    assert rows(run, "sample.count=12")["sample"].changes == ("sample.count (20 -> 12)",)


def test_a_recipe_that_does_not_load_anymore_hides_no_state(run: Path, tiny_recipe: Path):
    tiny_recipe.unlink()
    (run / "resolved.yaml").write_text("pae: 1\n")
    assert {row.state for row in rows(run).values()} == {"done"}


def test_what_was_asked_for_must_load_and_be_of_this_run(run: Path, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(OTHER)
    with pytest.raises(UsageError, match="other"):
        rows(run, recipe=other)
    with pytest.raises(RecipeError, match=r"sample\.stepz"):
        rows(run, "sample.stepz=3")
    with pytest.raises(UsageError, match="nowhere"):
        rows(run, recipe="nowhere")


def test_a_new_version_of_code_is_named(run: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = load_recipe(run / "resolved.yaml", (), REGISTRY).recipe
    monkeypatch.setattr(type(recipe.tokenizer.decoder.config), "version", 7)
    (change,) = rows(run)["tokenizer"].changes
    assert "tokenizer.decoder" in change
    assert "version 1 -> 7" in change


def test_other_weights_are_named(tmp_path: Path, tiny_recipe: Path):
    weights, run = tmp_path / "weights.safetensors", tmp_path / "run"
    override = f"tokenizer.weights={weights}"
    save_file({}, weights)
    finish(run, load_recipe(tiny_recipe, (override,), REGISTRY))
    assert not stale(rows(run))
    weights.write_bytes(weights.read_bytes() + b" " * 8)
    assert rows(run)["tokenizer"].changes == ("tokenizer.weights (other contents)",)
    found = rows(run, recipe=tiny_recipe)
    assert found["tokenizer"].changes == ("tokenizer.weights (no longer set)",)


@pytest.fixture
def images(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, and a finished run on them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for name in "abc":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (16, 16), ord(name) + number).save(folder / f"{number}.png")
    sources = tuple(
        f"data.{split}={{use: image_folder, folder: {tmp_path}/data/{split}}}"
        for split in ("train", "test")
    )
    overrides = (*sources, "evaluate.manifold.ssc=false", "data.test_images=null")
    finish(tmp_path / "run", load_recipe(tiny_recipe, overrides, REGISTRY))
    return tmp_path / "data"


def test_changed_images_are_named(images: Path):
    run = images.parent / "run"
    assert not stale(rows(run))
    (images / "train" / "b" / "1.png").unlink()
    Image.new("L", (16, 16), 3).save(images / "train" / "c" / "0.png")
    (change,) = rows(run)["encoder"].changes
    assert all(fact in change for fact in ("data.train", "deleted: b/1.png", "replaced: c/0.png"))
    assert rows(run)["report"].changes == ()


def test_moved_or_touched_images_make_nothing_stale(images: Path):
    run = images.parent / "run"
    (images / "train" / "b" / "1.png").touch()
    assert not stale(rows(run))
    images.rename(images.with_name("away"))
    assert not stale(rows(run))


def test_a_look_writes_nothing(images: Path):
    run = images.parent / "run"
    (images / "train" / "b" / "1.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")}
    rows(run)
    assert {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")} == before


# --- trainings of other lengths -------------------------------------------------------------------


def test_more_steps_go_on_with_a_constant_schedule(tmp_path: Path, tiny_recipe: Path):
    constant = "generator.train.schedule=constant"
    finish(tmp_path / "run", load_recipe(tiny_recipe, (constant,), REGISTRY))
    row = rows(tmp_path / "run", "generator.train.steps=9")["generator"]
    assert row.changes == ("generator.train.steps (6 -> 9)",)
    assert row.progress == "6/6"
    assert row.outlook == f"goes on from step 6 of {Path(row.folder).name}"


def test_more_steps_start_anew_with_a_cosine_schedule_and_the_reason(run: Path):
    outlook = rows(run, "generator.train.steps=9")["generator"].outlook
    assert outlook.startswith("starts anew")
    assert "generator.train.schedule is cosine: step 6 of 6 is not step 6 of 9" in outlook


def test_nothing_is_said_of_the_length_if_more_has_changed(run: Path):
    assert rows(run, "generator.train.steps=9", "generator.width=64")["generator"].outlook == ""


# --- unfinished stages ----------------------------------------------------------------------------


def test_unfinished_stages(run: Path):
    (run / "stages").rename(run / "elsewhere")
    assert {row.state for row in rows(run).values()} == {"pending"}


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_stopped_or_failed_stage_can_be_stale_too(tmp_path: Path, tiny_recipe: Path, state: str):
    finish(tmp_path / "run", load_recipe(tiny_recipe, (), REGISTRY), state)
    assert {row.state for row in rows(tmp_path / "run").values()} == {state}
    assert rows(tmp_path / "run", "generator.width=64")["generator"].state == "stale"


def test_a_running_stage_is_running_although_the_recipe_was_edited(
    run: Path, tiny_recipe: Path, tiny_text: str
):
    tiny_recipe.write_text(tiny_text.replace("width: 32", "width: 64"))
    (folder,) = run.glob("stages/generator-*")
    StageRecord(folder).update(state="running")
    with holding(folder):
        row = rows(run)["generator"]
        assert row.state == "running"
        assert "process" in row.process
        assert " on " in row.process
    assert rows(run)["generator"].state == "stale"


def test_after_an_edited_recipe_was_started_the_earlier_stages_still_count(
    run: Path, tiny_recipe: Path
):
    """A run with another generator was stopped before any of its stages began."""
    edited = load_recipe(tiny_recipe, ("generator.width=64",), REGISTRY)
    directory = RunDirectory.at(run)
    directory.write(edited, plan(edited.recipe, REGISTRY), "pae run", starts=True)
    row = rows(run)["generator"]
    assert (row.state, row.changes) == ("stale", ("generator.width (32 -> 64)",))


def test_the_nearest_of_several_earlier_stages_counts(run: Path, tiny_recipe: Path):
    several = ("generator.width=64", "generator.depth=2", "generator.train.lr=0.5")
    finish(run, load_recipe(tiny_recipe, several, REGISTRY))
    edited = load_recipe(tiny_recipe, ("generator.width=96",), REGISTRY)
    RunDirectory.at(run).write(edited, plan(edited.recipe, REGISTRY), "pae run", starts=True)
    assert rows(run)["generator"].changes == ("generator.width (32 -> 96)",)


def test_stages_of_other_runs_in_a_shared_store_are_not_this_runs(run: Path, tiny_recipe: Path):
    other = run.with_name("other")
    shared = RunDirectory.at(other, run / "stages")
    loaded = load_recipe(tiny_recipe, ("sample.count=17",), REGISTRY)
    shared.write(loaded, plan(loaded.recipe, REGISTRY), "pae run", starts=True)
    found = rows(other)
    assert found["sample"].state == "pending"
    assert found["generator"].state == "done"


def test_a_stage_that_is_to_run_again_has_not_begun(run: Path, tiny_recipe: Path):
    finish(run, load_recipe(tiny_recipe, ("generator.width=64",), REGISTRY))
    finish(run, load_recipe(tiny_recipe, (), REGISTRY))
    StageRecord(run / "stages" / RunDirectory.at(run).plan["generator"].folder).outdate()
    assert rows(run)["generator"].state == "pending"


def without_hashed(run: Path) -> None:
    """Make the records those of an earlier version."""
    for file in run.glob("stages/*/stage.json"):
        content = json.loads(file.read_bytes())
        for key in ("hashed", "process", "digest"):
            content.pop(key)
        file.write_text(json.dumps(content))
    content = json.loads((run / "run.json").read_bytes())
    content.pop("recipe")
    (run / "run.json").write_text(json.dumps(content))


def test_stages_of_an_earlier_version_are_compared_by_the_recipe_of_the_run(run: Path):
    without_hashed(run)
    assert not stale(rows(run))
    found = rows(run, "sample.steps=9")
    assert found["sample"].changes == ("sample.steps (4 -> 9)",)


def test_without_that_recipe_the_reason_is_unknown(run: Path, tiny_recipe: Path):
    without_hashed(run)
    edited = load_recipe(tiny_recipe, ("sample.steps=9",), REGISTRY)
    RunDirectory.at(run).write(edited, plan(edited.recipe, REGISTRY), "pae run", starts=True)
    row = rows(run)["sample"]
    assert row.state == "stale"
    assert "earlier version" in row.changes[0]


# --- sweeps ---------------------------------------------------------------------------------------

SWEEP = """
sweep:
  variants: {small: {generator.width: 16}, large: {generator.width: 64}}
"""


def test_each_member_of_a_sweep_is_compared_with_its_own_recipe(tmp_path: Path, tiny_text: str):
    recipe, run = tmp_path / "sweep.yaml", tmp_path / "run"
    recipe.write_text(tiny_text + SWEEP)
    loaded = load_recipe(recipe, (), REGISTRY)
    members = expand(loaded)
    info = {"name": "tiny", "command": "pae run", "members": [x.name for x in members]}
    write_description(run, info, loaded, starts=True)
    for member in members:
        finish(run / "members" / member.name, member.loaded, store=run / "stages")
    compared = Comparison(REGISTRY)
    for found in run_status(run, compared).values():
        assert {row.state for row in found} == {"done"}
    recipe.write_text(tiny_text + SWEEP.replace("64", "128"))
    states = {
        name: {row.stage: row.changes for row in found if row.state == "stale"}
        for name, found in run_status(run, compared).items()
    }
    assert states["small-seed0"] == {}
    assert states["large-seed0"]["generator"] == ("generator.width (64 -> 128)",)
    member = rows(run / "members" / "large-seed0")
    assert member["generator"].changes == ("generator.width (64 -> 128)",)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_each_fact_within_80_columns(run: Path, pae: Pae):
    changes = ("generator.width=64", "generator.train.lr=0.5", "tokenizer.encoder.train.steps=9")
    out = pae("status", "run", *changes).ok().out
    assert "generator: generator.width (32 -> 64)" in out.splitlines()
    assert "encoder: starts anew: encoder-" in out
    assert "tokenizer: reads encoder, refine, which changed" in out.splitlines()
    assert max(map(len, out.splitlines())) <= 80
    assert pae("status", "run").ok().out.count("done") == len(QUICKSTART_STAGES)


def test_many_changes_are_counted(run: Path, pae: Pae):
    keys = ("steps", "count", "seed", "shift", "order_seed")[:4]
    changes = [f"sample.{key}=3" for key in keys]
    changes += ["sample.guidance.scale=3", "sample.labels=uniform", "sample.few_steps=[3]"]
    out = pae("status", "run", *changes).ok().out
    assert len([line for line in out.splitlines() if line.startswith("sample: sample.")]) == 5
    assert "sample: and 2 more changes" in out.splitlines()


def test_json_has_the_same_facts(run: Path, pae: Pae, tiny_recipe: Path):
    words = ("status", "run", "generator.width=64", "--recipe", tiny_recipe, "--json")
    found = {row["stage"]: row for row in pae(*words).ok().json["runs"]["tiny"]}
    assert found["generator"]["changes"] == ["generator.width (32 -> 64)"]
    assert found["sample"]["stale_inputs"] == ["generator"]
    assert found["encoder"]["state"] == "done"
    assert isinstance(found["encoder"]["seconds"], float)


# --- differences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICKSTART_STAGES)
def test_every_hashed_value_has_a_place_in_the_recipe(name: str):
    """So that a change of it can be named."""
    recipe = load_recipe("quickstart", (), REGISTRY).recipe
    for key in STAGES[name].hashed_values(recipe):
        value: object = recipe
        for part in STAGES[name].written_at(key, recipe):
            value = getattr(value, str(part))


def test_equal_versions_do_not_differ():
    recipe = load_recipe("quickstart", (), REGISTRY).recipe
    for stage in plan(recipe, REGISTRY):
        found = difference(stage.name, stage.hashed, stage.hashed, recipe)
        assert (found.changes, found.inputs) == ((), ())
