"""Fingerprints of what the tokenizer's loss is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_helpers import FROM_TOKENIZER, fingerprints

from pae_discriminators.config import PatchGANConfig

PATCHES = "tokenizer.adversarial={discriminator: {use: patchgan, layers: 1}}"


def changed(recipe: Path, before: list[str], after: list[str]) -> set[str]:
    one, other = fingerprints(recipe, *before), fingerprints(recipe, *after)
    return {name for name in other if one.get(name) != other[name]}


@pytest.mark.parametrize(
    "edit",
    [
        "tokenizer.adversarial.weight=0.7",
        "tokenizer.adversarial.discriminator.width=8",
        "tokenizer.adversarial.start={steps: 3}",
        "tokenizer.adversarial.optimizer.lr=1e-3",
        "tokenizer.reconstruction.lpips={weight: 1, weights: none}",
        "tokenizer.noise=0.8",
        "tokenizer.target=raw",
    ],
)
def test_every_setting_of_the_loss_counts_for_the_tokenizer(tiny_recipe: Path, edit: str) -> None:
    assert changed(tiny_recipe, [PATCHES], [PATCHES, edit]) == FROM_TOKENIZER


def test_an_adversarial_term_of_weight_0_does_not_count(tiny_recipe: Path) -> None:
    assert changed(tiny_recipe, [], [PATCHES, "tokenizer.adversarial.weight=0"]) == set()
    assert changed(tiny_recipe, [], [PATCHES]) == FROM_TOKENIZER


def test_the_version_of_the_discriminator_counts(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprints(tiny_recipe, PATCHES)
    monkeypatch.setattr(PatchGANConfig, "version", 2)
    after = fingerprints(tiny_recipe, PATCHES)
    assert before["tokenizer"] != after["tokenizer"]
    assert before["encoder"] == after["encoder"]


def test_evaluation_of_a_loaded_tokenizer_depends_on_the_reconstruction_terms(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "tokenizer.safetensors"
    weights.write_bytes(b"of another run")
    loaded = [f"tokenizer.weights={weights}"]
    lpips = [*loaded, "tokenizer.reconstruction.lpips={weight: 1, weights: none}"]
    assert changed(tiny_recipe, loaded, lpips) == {"evaluate", "report"}
