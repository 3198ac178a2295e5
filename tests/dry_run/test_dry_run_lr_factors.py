"""A dry run checks the prefixes of weight names in ``lr_factors``."""

from __future__ import annotations

import pytest

from pae_framework.build import build_encoder, build_networks, build_objective, build_tokenizer
from pae_framework.dry_run.summary import check_lr_factors, trained_module
from pae_framework.errors import UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.testing.pytest import Pae

PATHS = {name: dotted(stage.train_path) for name, stage in STAGES.items() if stage.train_path}


def check(stage: str, prefix: str) -> list[str]:
    loaded = load_recipe("quickstart", [f"{PATHS[stage]}.lr_factors={{{prefix}: 0.1}}"])
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    return list(check_lr_factors(loaded, networks, 10))


@pytest.mark.parametrize(
    ("stage", "prefix"),
    [
        ("extractor", "encoder.stages"),
        ("encoder", "encoder"),
        ("refine", "deprojector"),
        ("tokenizer", "decoder.decoder_norm"),
        ("tokenizer", "tokenizer.delta_encoder"),
        ("generator", "blocks.0"),
    ],
)
def test_an_existing_prefix_is_valid(stage: str, prefix: str) -> None:
    assert check(stage, prefix) == []


@pytest.mark.parametrize(
    ("stage", "known"),
    [
        ("extractor", "encoder.stages"),
        ("encoder", "encoder.blocks"),
        ("refine", "refiner.deprojector"),
        ("tokenizer", "tokenizer.delta_encoder"),
        ("generator", "model.blocks"),
    ],
)
def test_an_unknown_prefix_is_reported_with_its_key_and_the_known_prefixes(
    stage: str, known: str
) -> None:
    with pytest.raises(UsageError) as refused:
        check(stage, "decodr")
    key, _, message = str(refused.value).partition(": ")
    assert key == f"{PATHS[stage]}.lr_factors.decodr"
    assert known in message


def test_weights_have_the_names_of_the_tokenizers_objective() -> None:
    """With those of a regularizer: scr, which brings raw features to the latents' channels."""
    loaded = load_recipe("quickstart", ["tokenizer.target=raw"])
    section = loaded.recipe.tokenizer
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    module = trained_module("tokenizer", loaded, networks, 10)

    size = loaded.recipe.data.image_size
    encoder = build_encoder(section.encoder, size, loaded.registry)
    tokenizer = build_tokenizer(section, size, loaded.registry, encoder)
    objective = build_objective(tokenizer, section, loaded.registry)
    names = {name for name, _ in objective.named_parameters()}
    assert "regularizers.scr.project.weight" in names
    assert module is not None
    assert {name for name, _ in module.named_parameters()} == names


def test_a_dry_run_reports_it(pae: Pae) -> None:
    wrong = "tokenizer.train.lr_factors={decodr: 0.1}"
    answer = pae("run", "quickstart", wrong, "--dry-run")
    assert answer.code != 0
    error = " ".join(answer.err.split())
    assert "tokenizer.train.lr_factors.decodr: " in error


def test_unused_parameters_of_a_finetuned_encoder_are_frozen() -> None:
    """The pooling head is unused: no token depends on it."""
    small = "{use: siglip2, weights: none, size: {width: 32, depth: 2, heads: 2}}"
    changes = [f"tokenizer.encoder={small}", "tokenizer.modulator=finetune", "data.image_size=64"]
    loaded = load_recipe("quickstart", [*changes, "tokenizer.decoder.patch=16"])
    finetuned = build_networks(loaded.recipe, loaded.registry, 10).tokenizer.delta_encoder
    frozen = [name for name, p in finetuned.named_parameters() if not p.requires_grad]
    pool = [name for name, _ in finetuned.named_parameters() if "attn_pool" in name]
    assert frozen == pool != []
