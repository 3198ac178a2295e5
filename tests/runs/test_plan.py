"""Fingerprints: what changes a stage, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_helpers import FROM_REFINE, FROM_TOKENIZER, QUICKSTART, REGISTRY, fingerprints, from_stage

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import expand
from pae_framework.runs.plan import plan


def changed(recipe: Path, *overrides: str) -> set[str]:
    before, after = fingerprints(recipe), fingerprints(recipe, *overrides)
    return {name for name in after if before.get(name) != after[name]}


STAGES_HERE = [name for name in STAGES if name != "teacher"]  # no teacher is trained
EVERYTHING = set(STAGES_HERE)
FROM_GENERATOR = from_stage("generator", QUICKSTART)
FROM_EVALUATE = from_stage("evaluate", QUICKSTART)


def test_a_full_recipe_has_every_stage_in_order(tiny_recipe: Path):
    assert list(fingerprints(tiny_recipe)) == STAGES_HERE


def test_planning_is_deterministic(tiny_recipe: Path):
    assert fingerprints(tiny_recipe) == fingerprints(tiny_recipe)


@pytest.mark.parametrize(
    ("override", "affected"),
    [
        ("tokenizer.regularizers.ssr.weight=0.3", FROM_TOKENIZER),
        ("tokenizer.train.seed=1", FROM_TOKENIZER),
        ("tokenizer.encoder.depth=3", EVERYTHING - {"extractor"}),
        ("extractor.width=16", from_stage("extractor", QUICKSTART)),
        ("tokenizer.refinement.low_pass=0.1", FROM_REFINE),
        ("generator.objective.cosine_weight=0", FROM_GENERATOR),
        ("generator.train.seed=1", FROM_GENERATOR),
        ("generator.train.noise=device", FROM_GENERATOR),
        ("tokenizer.train.noise=device", FROM_TOKENIZER),
        ("sample.steps=5", from_stage("sample", QUICKSTART)),
        ("sample.precision=bf16", from_stage("sample", QUICKSTART)),
        ("evaluate.manifold.sigma=0.5", FROM_EVALUATE),
        ("data.test_images=30", FROM_EVALUATE),
        ("latents.shard_size=100", from_stage("latents", QUICKSTART)),
        ("latents.precision=bf16", from_stage("latents", QUICKSTART)),
        ("seed=1", EVERYTHING),
        ("data.image_size=32", EVERYTHING),
        ("description=another", {"report"}),
    ],
)
def test_an_edit_changes_its_stage_and_the_downstream_stages(tiny_recipe, override, affected):
    assert changed(tiny_recipe, override) == affected


@pytest.mark.parametrize(
    "override",
    [
        "tokenizer.train.log_every=7",
        "latents.precision=float32",
        "tokenizer.cache_features=true",
        "tokenizer.train.checkpoint_every=3",
        "generator.train.workers=1",
        "latents.batch_size=7",
        "sample.batch_size=3",
        "sample.processes=2",
        "sample.compile=true",
        "runtime.threads=2",
        "runtime.tf32=true",
        "tokenizer.train.compile=true",
        "tokenizer.refinement.train.activation_checkpointing=true",
        "generator.train.activation_checkpointing=true",
        "generator.attention=xformers",
        "tokenizer.attention=xformers",
        "tokenizer.encoder.attention=xformers",
        "tokenizer.modulator.attention=xformers",
        "tokenizer.decoder.attention=xformers",
    ],
)
def test_settings_without_effect_change_no_fingerprint(tiny_recipe, override):
    assert changed(tiny_recipe, override) == set()


@pytest.mark.parametrize(
    ("owner", "first"),
    [
        ("tokenizer.encoder", "encoder"),
        ("tokenizer", "refine"),
        ("tokenizer.modulator", "tokenizer"),
        ("tokenizer.decoder", "tokenizer"),
        ("generator", "generator"),
    ],
)
def test_attention_by_matrix_products_changes_what_attends(
    tiny_recipe: Path, owner: str, first: str
) -> None:
    """Under bf16 it rounds the attention weights to bf16; its own stage and later ones change."""
    assert changed(tiny_recipe, f"{owner}.attention=matmul") == from_stage(first, QUICKSTART)


def test_the_expected_number_of_images_changes_no_fingerprint(tiny_recipe: Path):
    folder = "{use: image_folder, folder: x"
    before = fingerprints(tiny_recipe, f"data.train={folder}}}")
    after = fingerprints(tiny_recipe, f"data.train={folder}, images: 9, classes: 3}}")
    assert before == after
    assert before != fingerprints(tiny_recipe, f"data.train={folder}, split: train}}")


@pytest.mark.parametrize("use", ["image_folder", "parquet", "webdataset"])
def test_a_reduced_size_of_jpeg_files_changes_the_images(tiny_recipe: Path, use: str):
    source = f"data.train={{use: {use}, folder: x"
    before = fingerprints(tiny_recipe, f"{source}}}")
    assert before == fingerprints(tiny_recipe, f"{source}, reduced_jpeg: false}}")
    after = fingerprints(tiny_recipe, f"{source}, reduced_jpeg: true}}")
    assert all(before[stage] != after[stage] for stage in before)


def test_a_late_start_changes_the_tokenizer_and_its_absence_nothing(tiny_recipe: Path):
    start = "tokenizer.regularizers.ssr.start"
    assert changed(tiny_recipe, f"{start}={{steps: 2}}") == FROM_TOKENIZER
    assert changed(tiny_recipe, f"{start}=null") == set()


def test_a_schedule_of_a_weight_changes_the_tokenizer(tiny_recipe: Path):
    weight = "tokenizer.regularizers.ssr.weight"
    schedule = f"{weight}={{to: 0.2, steps: 2}}"
    assert changed(tiny_recipe, schedule) == FROM_TOKENIZER
    stated = fingerprints(tiny_recipe, f"{weight}={{from: 0, to: 0.2, steps: 2, epochs: null}}")
    assert stated == fingerprints(tiny_recipe, schedule)


def test_micro_batches_count(tiny_recipe: Path):
    assert changed(tiny_recipe, "tokenizer.train.accumulate=2") == FROM_TOKENIZER


def test_without_targets_the_tokenizer_does_not_depend_on_the_refinement(tiny_recipe: Path):
    plain = ("tokenizer.regularizers.ssr.weight=0", "tokenizer.regularizers.scr=null")
    without = fingerprints(tiny_recipe, *plain)
    other = fingerprints(tiny_recipe, *plain, "tokenizer.refinement.low_pass=0.1")
    assert without["refine"] != other["refine"]
    assert without["tokenizer"] == other["tokenizer"]


def test_the_sections_of_a_recipe_determine_its_stages(tiny_recipe: Path):
    without = fingerprints(
        tiny_recipe, "generator=null", "sample=null", "evaluate={manifold: {images: 20}}"
    )
    assert list(without) == ["extractor", "encoder", "refine", "tokenizer", "evaluate", "report"]


def test_members_of_a_sweep_share_unchanged_stages(tmp_path: Path, tiny_recipe):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "pae: 1\nextends: tiny.yaml\nname: sweep\n"
        "sweep:\n  seeds: [0, 1]\n  variants:\n"
        "    none: {tokenizer.regularizers: null}\n    full: {}\n",
        encoding="utf-8",
    )
    plans = {
        member.name: {stage.name: stage.folder for stage in plan(member.loaded.recipe, REGISTRY)}
        for member in expand(load_recipe(sweep, (), REGISTRY))
    }
    assert list(plans) == ["none-seed0", "none-seed1", "full-seed0", "full-seed1"]
    for shared in ("extractor", "encoder", "refine"):
        assert len({stages[shared] for stages in plans.values()}) == 1
    for own in FROM_TOKENIZER - {"report"}:
        assert len({stages[own] for stages in plans.values()}) == 4


def test_a_label_named_like_a_training_setting_still_counts(tiny_recipe: Path):
    labeled = "evaluate.workers={use: manifold, sigma: 0.2, images: 20}"
    before = fingerprints(tiny_recipe, labeled)
    after = fingerprints(tiny_recipe, labeled.replace("0.2", "0.4"))
    assert before["evaluate"] != after["evaluate"]


def test_explicit_default_values_change_no_fingerprint(tiny_recipe: Path):
    defaults = ("sample.shift=1.0", "sample.precision=float32", "generator.train.noise=cpu")
    assert changed(tiny_recipe, *defaults, "tokenizer.train.accumulate=1") == set()


def test_the_version_of_a_component_counts(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    from pae_regularizers.config import SSRConfig

    before = fingerprints(tiny_recipe)
    monkeypatch.setattr(SSRConfig, "version", 2)
    after = fingerprints(tiny_recipe)
    assert {name for name in after if before[name] != after[name]} == FROM_TOKENIZER


def test_only_an_evaluation_that_compares_training_latents_reads_them(tiny_recipe: Path):
    before, after = (
        {
            stage.name: stage
            for stage in plan(load_recipe(tiny_recipe, more, REGISTRY).recipe, REGISTRY)
        }
        for more in ((), ("evaluate.interpolation={}",))
    )
    assert "latents" not in before["evaluate"].inputs
    assert "latents" in after["evaluate"].inputs
    changed = {name for name in after if before[name].fingerprint != after[name].fingerprint}
    assert changed == {"evaluate", "report"}


def test_a_tokenizer_alone_has_latents_only_if_they_are_compared(tiny_recipe: Path):
    alone = (
        *("generator=null", "sample=null"),
        *("evaluate.generation=null", "evaluate.few_steps=null"),
    )
    assert "latents" not in fingerprints(tiny_recipe, *alone)
    found = fingerprints(tiny_recipe, *alone, "evaluate.interpolation={}")
    assert found["latents"] == fingerprints(tiny_recipe)["latents"]


def changed_stages(recipe: Path, first: str, second: str) -> set[str]:
    before, after = (fingerprints(recipe, "extractor=null", value) for value in (first, second))
    return {name for name in before if before[name] != after[name]}


def test_a_pretrained_extractor_has_no_stage_and_counts_in_the_evaluation(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    for name in ("a.pth", "b.pth", "c.pth"):
        (tmp_path / name).write_text("other" if name == "c.pth" else "same")
    one, same, other = (
        f"extractor={{use: inception, weights: {tmp_path / name}}}"
        for name in ("a.pth", "b.pth", "c.pth")
    )
    assert "extractor" not in fingerprints(tiny_recipe, "extractor=null", one)
    assert changed_stages(tiny_recipe, one, same) == set()
    assert changed_stages(tiny_recipe, one, other) == {"evaluate", "report"}


def test_the_contents_of_a_reference_count_in_the_evaluation(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    found = []
    for content in ("one", "two", "one"):
        (tmp_path / content).mkdir(exist_ok=True)
        (tmp_path / content / "r.npz").write_text(content)
        reference = f"evaluate.adm={{weights: none, reference: {tmp_path / content / 'r.npz'}}}"
        found.append(fingerprints(tiny_recipe, reference))
    assert found[0] == found[2]
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"evaluate", "report"}
