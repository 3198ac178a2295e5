"""Checks of what a tokenizer that is one component can do. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.data.data_settings import LatentsSettings
from pae_framework.errors import Inconsistency
from pae_framework.recipe.components import TokenizerComponent
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES, encodes_in_training

_OF_TOKENIZER = frozenset({"latents", "reconstructions"})
"""Needs of evaluators that the tokenizer computes from the test images."""


def check_tokenizer(recipe: Recipe) -> Iterator[Inconsistency]:
    """Nothing needs latents that it does not encode, or images that it does not decode."""
    tokenizer = recipe.tokenizer
    if not isinstance(tokenizer, TokenizerComponent):
        return
    encoded = STAGES["latents"].exists(recipe) and recipe.latents.encoded
    if not tokenizer.encodes and (encoded or encodes_in_training(recipe)):
        message = f"the tokenizer {tokenizer.use!r} does not encode the training images"
        yield Inconsistency(("latents",), message, _hint(recipe.latents))
    if not tokenizer.decodes and STAGES["sample"].exists(recipe):
        message = f"the tokenizer {tokenizer.use!r} does not decode the samples"
        yield Inconsistency(("sample",), message, "set sample=null")
    yield from _check_evaluators(recipe, tokenizer)


def _hint(latents: LatentsSettings) -> str:
    """How to give latents in place of encoding them; other ways to get them are unset."""
    keys = ["set latents.folder=<folder of its latents>"]
    keys += [f"latents.{key}=true" for key in ("stored", "normalize") if not getattr(latents, key)]
    keys += ["latents.statistics=null"] if latents.statistics is not None else []
    return ", ".join(keys)


def _check_evaluators(recipe: Recipe, tokenizer: TokenizerComponent) -> Iterator[Inconsistency]:
    for label, evaluator in recipe.evaluate.items():
        needs = evaluator.config.needs
        lacking = None
        if not tokenizer.encodes and needs & _OF_TOKENIZER:
            lacking = "encode the test images"
        elif not tokenizer.decodes and "reconstructions" in needs:
            lacking = "decode"
        if lacking is not None:
            message = (
                f"{evaluator.use!r} needs {' and '.join(sorted(needs & _OF_TOKENIZER))}, but the "
                f"tokenizer {tokenizer.use!r} does not {lacking}"
            )
            yield Inconsistency(("evaluate", label), message, f"set evaluate.{label}=null")
