"""``generator.weights`` and ``latents.statistics``: checks, requirements, fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, Problems

from pae_framework.preflight.download import fetch_requirements
from pae_framework.preflight.memory import training_memory
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.registry import Registry
from pae_framework.runs.plan import plan

WEIGHTS = ("generator.weights=trained.pt", "sample.at_steps=[]")
STATISTICS = "latents.statistics=latents_stats.pt"
BOTH = (*WEIGHTS, STATISTICS)
WANTED = ["generator.weights", "latents.statistics"]


@pytest.fixture
def fingerprints(load: Load, registry: Registry):
    def fingerprints(*overrides: str) -> dict[str, str]:
        return {stage.name: stage.fingerprint for stage in plan(load(*overrides).recipe, registry)}

    return fingerprints


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in after if before[name] != after[name]} - {"report"}


def put(file: str, content: str) -> None:
    Path(file).write_text(content, encoding="utf-8")


# --- checks and requirements ----------------------------------------------------------------------


def test_statistics_need_a_generator_that_was_trained_elsewhere(problems: Problems) -> None:
    (problem,) = problems(STATISTICS)
    assert problem.path == "latents.statistics"
    assert "generator.weights" in problem.hint
    (problem,) = problems(STATISTICS, "generator=null", "sample=null", "evaluate=null")
    assert problem.path == "latents.statistics"


def test_a_loaded_generator_has_no_weights_of_other_steps(load: Load, problems: Problems) -> None:
    (problem,) = problems(WEIGHTS[0])
    assert (problem.path, problem.hint) == ("sample.at_steps", "set sample.at_steps=[]")
    assert load(*WEIGHTS).recipe.sample is not None


def test_both_files_must_exist(load: Load) -> None:
    loaded = load(*BOTH)

    assert [problem.path for problem in missing_requirements([loaded])] == WANTED
    assert fetched(loaded) == dict.fromkeys(WANTED, "missing")
    put("trained.pt", "")
    (problem,) = missing_requirements([loaded])
    assert "latents_stats.pt" in problem.message
    put("latents_stats.pt", "")
    assert missing_requirements([loaded]) == []
    assert fetched(loaded) == dict.fromkeys(WANTED, "here")


def fetched(loaded: LoadedRecipe) -> dict[str, str]:
    """States of the two files in `pae fetch`."""
    parts = fetch_requirements([loaded], dry_run=True)
    return {part.path: part.state for part in parts if part.path in WANTED}


TOKENIZER = "tokenizer.weights=tokenizer.pt"
READY = (
    *BOTH,
    TOKENIZER,
    "extractor=null",
    "evaluate=null",
    "tokenizer.encoder={use: dinov2, model: vit_small_patch14_reg4_dinov2, weights: none}",
    "tokenizer.decoder.patch=16",
    "data.image_size=256",
)
ABSENT = "{use: image_folder, folder: nowhere, images: 120, classes: 10}"


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        ((), False),
        (("generator.weights=null", "latents.statistics=null"), True),
        (("latents.statistics=null",), True),
        (("tokenizer.weights=null",), True),
        (
            ("data.train={use: image_folder, folder: nowhere}",),
            True,
        ),  # the number of classes is unknown
        (("extractor={use: small_cnn, train: {steps: 1}}",), True),
    ],
    ids=str,
)
def test_training_images_are_required_only_if_a_stage_reads_them(
    load: Load, overrides: Sequence[str], needed: bool
) -> None:
    for file in ("trained.pt", "latents_stats.pt", "tokenizer.pt"):
        put(file, "")
    loaded = load(*READY, f"data.train={ABSENT}", *overrides, text=_without_training(SMALL))
    assert ("data.train" in [problem.path for problem in missing_requirements([loaded])]) is needed


def _without_training(text: str) -> str:
    """The recipe without the training of its encoder, for pretrained encoders."""
    return text.replace(", train: {steps: 10, lr: 1e-4}}", "}")


def test_a_loaded_generator_needs_no_memory_for_training(load: Load) -> None:
    assert "generator" in [stage.stage for stage in training_memory(load().recipe)]
    assert "generator" not in [stage.stage for stage in training_memory(load(*BOTH).recipe)]


def test_the_smoke_version_trains_a_small_generator(load: Load) -> None:
    small = smoke_recipe(load(*BOTH)).recipe
    assert small.generator is not None
    assert (small.generator.weights, small.latents.statistics) == (None, None)
    assert missing_requirements([smoke_recipe(load(*BOTH))]) == []


# --- the plan -------------------------------------------------------------------------------------


def test_stages_depend_on_the_contents_of_the_files_not_on_their_names(fingerprints) -> None:
    for file in ("trained.pt", "twin.pt"):
        put(file, "one")
    for file in ("latents_stats.pt", "twin_stats.pt"):
        put(file, "statistics")
    before = fingerprints(*BOTH)
    twins = ("generator.weights=twin.pt", "latents.statistics=twin_stats.pt", "sample.at_steps=[]")
    assert changed(before, fingerprints(*twins)) == set()
    put("trained.pt", "two")
    later = {"generator", "sample", "evaluate"}
    assert changed(before, fingerprints(*BOTH)) == later
    put("trained.pt", "one")
    put("latents_stats.pt", "other statistics")
    assert changed(before, fingerprints(*BOTH)) == {"latents", *later}


@pytest.mark.parametrize(
    "override",
    [
        "generator.train={steps: 20, seed: 3, lr: 1}",
        "generator.objective={cosine_weight: 0, label_drop: 0.5}",
        "latents.shard_size=7",
    ],
)
def test_training_settings_of_a_loaded_generator_do_not_count(fingerprints, override: str) -> None:
    assert changed(fingerprints(*BOTH), fingerprints(*BOTH, override)) == set()


def test_training_images_do_not_count_if_no_stage_reads_them(
    load: Load, registry: Registry
) -> None:
    def fingerprints(*overrides: str) -> dict[str, str]:
        loaded = load(*READY, *overrides, text=_without_training(SMALL))
        return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, registry)}

    images = ("data.flip=true", "data.train={use: digits, mask_threshold: 0.2}")
    assert changed(fingerprints(), fingerprints(*images)) == set()


def test_the_network_and_the_tokenizer_count(fingerprints) -> None:
    before = fingerprints(*BOTH)
    assert "generator" in changed(before, fingerprints(*BOTH, "generator.qk_norm=true"))
    assert "latents" in changed(before, fingerprints(*BOTH, "tokenizer.modulator.depth=2"))


def test_a_trained_generator_has_another_fingerprint(fingerprints) -> None:
    trained = fingerprints("sample.at_steps=[]")
    assert changed(trained, fingerprints(*WEIGHTS)) == {"generator", "sample", "evaluate"}
