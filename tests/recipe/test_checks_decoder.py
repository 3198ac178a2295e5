"""A decoder that rejects the latents is reported when the recipe loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import SMALL

from pae_framework.config import DecoderConfig, LatentShape
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin


class SixteenConfig(DecoderConfig):
    """A decoder for latents of 16 channels."""

    def image_size(self, grid: int) -> int:
        return 2 * grid

    def check_latent(self, latent: LatentShape) -> None:
        if latent.channels != 16:
            raise ValueError(f"takes 16 channels, but the latents are {latent}")


def test_latents_that_the_decoder_rejects_are_reported_at_its_key(tmp_path: Path) -> None:
    registry = load_registry()
    plugin = Plugin("sixteen", __name__, "sixteen", "1")
    config = f"{__name__}:SixteenConfig"
    registry.add(ComponentSpec("decoder", "sixteen", "absent:x", config, "", plugin))
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["tokenizer.decoder={use: sixteen}"], registry)
    (problem,) = caught.value.problems
    assert problem.path == "tokenizer.decoder"
    assert "8 x 4 x 4" in problem.message
    wide = ["tokenizer.decoder={use: sixteen}", "tokenizer.bottleneck.channels=16"]
    assert load_recipe(path, wide, registry).recipe.tokenizer.decoder.use == "sixteen"
