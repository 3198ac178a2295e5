"""Checks of what a tokenizer that is one component can do. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.errors import Inconsistency
from pae_framework.recipe.components import TokenizerComponent
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES

_OF_TOKENIZER = frozenset({"latents", "reconstructions"})
"""Needs of evaluators that the tokenizer computes from the test images."""


def check_tokenizer(recipe: Recipe) -> Iterator[Inconsistency]:
    """Nothing needs latents that it does not encode, or images that it does not decode."""
    tokenizer = recipe.tokenizer
    if not isinstance(tokenizer, TokenizerComponent):
        return
    if not tokenizer.encodes and STAGES["latents"].exists(recipe) and recipe.latents.written:
        message = f"the tokenizer {tokenizer.use!r} does not encode the training images"
        yield Inconsistency(("latents",), message, "set latents.folder=<folder of its latents>")
    if not tokenizer.decodes and STAGES["sample"].exists(recipe):
        message = f"the tokenizer {tokenizer.use!r} does not decode the samples"
        yield Inconsistency(("sample",), message, "set sample=null")
    yield from _check_evaluators(recipe, tokenizer)


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
