"""A dry run looks for the parts that ``lr_factors`` name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pae_framework.build import build_encoder, build_networks, build_objective, build_tokenizer
from pae_framework.cli.app import main
from pae_framework.dry_run.lr_factors_check import PATHS, check_lr_factors, trained_module
from pae_framework.errors import UsageError
from pae_framework.recipe.load import load_recipe


def check(stage: str, part: str) -> None:
    path = PATHS[stage]
    loaded = load_recipe("quickstart", [f"{path}.lr_factors={{{part}: 0.1}}"])
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    train = loaded.recipe
    for key in path.split("."):
        train = getattr(train, key)
    check_lr_factors({stage: train}, loaded, networks, 10)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("extractor", "encoder.stages"),
        ("encoder", "encoder"),
        ("refine", "deprojector"),
        ("tokenizer", "decoder.decoder_norm"),
        ("tokenizer", "tokenizer.delta_encoder"),
        ("generator", "blocks.0"),
    ],
)
def test_a_part_that_is_there_is_found(stage: str, part: str) -> None:
    check(stage, part)


@pytest.mark.parametrize("stage", PATHS)
def test_a_part_that_is_not_there_is_reported_with_its_key_and_those_there_are(stage: str) -> None:
    with pytest.raises(UsageError, match=rf"^{PATHS[stage]}\.lr_factors\.decodr: .* it has \w+"):
        check(stage, "decodr")


def test_weights_have_the_names_of_the_tokenizers_objective() -> None:
    """With those of a regularizer: scr, which brings raw features to the latents' channels."""
    loaded = load_recipe("quickstart", ["tokenizer.target=raw"])
    section = loaded.recipe.tokenizer
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    outlined = trained_module("tokenizer", loaded, networks, 10)

    size = loaded.recipe.data.image_size
    encoder = build_encoder(section.encoder, size, loaded.registry)
    tokenizer = build_tokenizer(section, size, loaded.registry, encoder)
    objective = build_objective(tokenizer, section, loaded.registry)
    names = {name for name, _ in objective.named_parameters()}
    assert "regularizers.scr.project.weight" in names
    assert {name for name, _ in outlined.named_parameters()} == names


def test_a_dry_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = "tokenizer.train.lr_factors={decodr: 0.1}"
    monkeypatch.setattr(sys, "argv", ["pae", "run", "quickstart", wrong, "--dry-run"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code
    error = " ".join(capsys.readouterr().err.split())
    assert "tokenizer.train.lr_factors.decodr: the model has no such part" in error


def test_of_a_finetuned_encoder_only_what_learns_counts_as_trained() -> None:
    """Not the head that pools tokens: none of them depends on it."""
    small = "{use: siglip2, weights: none, size: {width: 32, depth: 1, heads: 2}}"
    changes = [f"tokenizer.encoder={small}", "tokenizer.modulator=finetune", "data.image_size=64"]
    loaded = load_recipe("quickstart", [*changes, "tokenizer.decoder.patch=16"])
    finetuned = build_networks(loaded.recipe, loaded.registry, 10).tokenizer.delta_encoder
    frozen = [name for name, p in finetuned.named_parameters() if not p.requires_grad]
    pool = [name for name, _ in finetuned.named_parameters() if "attn_pool" in name]
    assert frozen == pool != []
