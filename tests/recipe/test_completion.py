"""Shell completion of overrides: keys, names of components, values that a key may have."""

from __future__ import annotations

import pytest

from pae_framework.recipe.completion import completions
from pae_framework.recipe.load import load_recipe


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("dinov2_full")


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("tokenizer.enc", ["tokenizer.encoder."]),
        ("tokenizer.bottleneck.ch", ["tokenizer.bottleneck.channels="]),
        ("tokenizer.regularizers.m", ["tokenizer.regularizers.mcr."]),
        (
            "tokenizer.regularizers.mcr.we",
            ["tokenizer.regularizers.mcr.weight=", "tokenizer.regularizers.mcr.weight."],
        ),
        ("tokenizer.regularizers.mcr.weight.fr", ["tokenizer.regularizers.mcr.weight.from="]),
        ("tokenizer.modulator.fusion=s", ["tokenizer.modulator.fusion=sft"]),
        ("data.flip=t", ["data.flip=true"]),
        ("tokenizer.train.prec", ["tokenizer.train.precision="]),
        ("generator.use=l", ["generator.use=lightningdit"]),
        ("nonsense.", []),
        ("tokenizer.nonsense=", []),
    ],
)
def test_completions_of_keys_and_values(recipe, incomplete, expected):
    assert completions(recipe, incomplete) == expected


def test_completions_of_nothing_are_the_top_level_keys(recipe):
    found = completions(recipe, "")
    assert {"tokenizer.", "generator.", "seed=", "data."} <= set(found)


def test_models_of_the_encoder_are_completed(recipe):
    found = completions(recipe, "tokenizer.encoder.model=vit_large")
    assert "tokenizer.encoder.model=vit_large_patch14_reg4_dinov2" in found
    assert not [name for name in found if "dinov3" in name]
