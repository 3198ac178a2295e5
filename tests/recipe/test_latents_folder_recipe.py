"""``latents.folder`` and ``latents.workers``: checks, requirements, fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, Problems, unfinished_only

from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.registry import Registry
from pae_framework.runs.plan import plan

FOLDER = "latents.folder=theirs"
SHARD = "latents_rank00_shard000.safetensors"
LATER = {"latents", "generator", "sample", "evaluate"}
READY = (
    "tokenizer.weights=tokenizer.pt",
    "extractor=null",
    "evaluate=null",
    "tokenizer.encoder={use: dinov2, model: vit_small_patch14_reg4_dinov2, weights: none}",
    "tokenizer.decoder.patch=16",
    "data.image_size=256",
)
"""Overrides after which only the generator is trained."""
NOWHERE = "data.train={use: image_folder, folder: nowhere, images: 120, classes: 10}"


@pytest.fixture
def fingerprints(load: Load, registry: Registry):
    def fingerprints(*overrides: str) -> dict[str, str]:
        text = (
            SMALL.replace(", train: {steps: 10, lr: 1e-4}}", "}") if READY[0] in overrides else None
        )
        loaded = load(*overrides, text=text) if text else load(*overrides)
        return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, registry)}

    return fingerprints


@pytest.fixture
def theirs(load: Load) -> Path:
    """A folder with two shards and statistics, whose contents are not read here."""
    folder = Path("theirs")
    folder.mkdir()
    for name in (SHARD, "latents_rank01_shard000.safetensors", "latents_stats.pt"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in after if before[name] != after[name]} - {"report"}


# --- checks and requirements ----------------------------------------------------------------------


def test_folder_and_statistics_exclude_each_other(problems: Problems) -> None:
    (problem,) = problems(FOLDER, "latents.statistics=latents_stats.pt")
    assert problem.path == "latents"
    assert "`folder`" in problem.message
    assert "`statistics`" in problem.message


def test_the_folder_must_exist_and_hold_latents(load: Load, theirs: Path, tmp_path: Path) -> None:
    assert missing_requirements([load(FOLDER)]) == []
    (problem,) = missing_requirements([load("latents.folder=nowhere")])
    assert (problem.path, problem.where) == ("latents.folder", "command line")
    assert "nowhere" in problem.message
    assert "latents_rank00" in problem.message
    nowhere = load("latents.folder=nowhere")
    assert missing_requirements([nowhere], unfinished_only(nowhere, tmp_path, "sample")) == []
    for path in theirs.glob("*shard*"):
        path.unlink()
    assert [problem.path for problem in missing_requirements([load(FOLDER)])] == ["latents.folder"]


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        ((FOLDER, "sample=null"), False),
        ((FOLDER,), True),  # their number gives the last step of the generator that is sampled
        ((), True),
        ((FOLDER, "tokenizer.weights=null"), True),
        (  # how many classes?
            (FOLDER, "sample=null", "data.train={use: image_folder, folder: nowhere}"),
            True,
        ),
    ],
    ids=str,
)
def test_training_images_are_not_needed_for_a_generator_alone(
    load: Load, theirs: Path, overrides: tuple[str, ...], needed: bool
) -> None:
    Path("tokenizer.pt").touch()
    text = SMALL.replace(", train: {steps: 10, lr: 1e-4}}", "}")
    loaded = load(*READY, NOWHERE, *overrides, text=text)
    assert ("data.train" in [problem.path for problem in missing_requirements([loaded])]) is needed


def test_the_smoke_version_writes_its_own_latents(load: Load) -> None:
    small = smoke_recipe(load(FOLDER, "latents.workers=8"))
    assert (small.recipe.latents.folder, small.recipe.latents.workers) == (None, 0)
    assert missing_requirements([small]) == []


# --- the plan -------------------------------------------------------------------------------------


def test_stages_depend_on_the_contents_of_the_folder_not_on_its_path(
    fingerprints, theirs: Path
) -> None:
    before = fingerprints(FOLDER)
    assert changed(fingerprints(), before) == LATER
    theirs.rename("moved")
    assert changed(before, fingerprints("latents.folder=moved")) == set()
    (Path("moved") / "stage.json").write_text("{}", encoding="utf-8")
    assert changed(before, fingerprints("latents.folder=moved")) == set()


@pytest.mark.parametrize(
    "name", [SHARD, "latents_rank01_shard001.safetensors", "latents_stats.pt"], ids=str
)
def test_every_shard_and_the_statistics_count(fingerprints, theirs: Path, name: str) -> None:
    before = fingerprints(FOLDER)
    (theirs / name).write_text("others", encoding="utf-8")
    assert changed(before, fingerprints(FOLDER)) == LATER


def test_settings_for_writing_latents_do_not_count_but_mirroring_does(
    fingerprints, theirs: Path
) -> None:
    before = fingerprints(*READY, FOLDER)
    writing = ("latents.dtype=bfloat16", "latents.shard_size=7", "latents.processes=2")
    images = ("data.train={use: digits, mask_threshold: 0.2}",)
    assert changed(before, fingerprints(*READY, FOLDER, *writing, *images)) == set()
    mirrored = changed(before, fingerprints(*READY, FOLDER, "data.flip=true"))
    assert mirrored == {"latents", "generator", "sample"}


def test_loader_processes_change_no_fingerprint(fingerprints) -> None:
    assert changed(fingerprints(), fingerprints("latents.workers=8")) == set()
