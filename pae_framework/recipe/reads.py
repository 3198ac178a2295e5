"""Which parts of a recipe each stage reads, besides what the stages before it left. No torch."""

from __future__ import annotations

from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath

_TRAIN, _TEST = ("data", "train"), ("data", "test")
_NETWORK: tuple[KeyPath, ...] = tuple(
    ("tokenizer", part) for part in ("encoder", "modulator", "bottleneck", "decoder")
)
_READS: dict[str, tuple[KeyPath, ...]] = {
    "extractor": (_TRAIN, ("extractor",)),
    "encoder": (_TRAIN, ("tokenizer", "encoder")),
    "refine": (_TRAIN, *_NETWORK, ("tokenizer", "refinement")),
    "tokenizer": (_TRAIN, ("tokenizer",)),
    "latents": (_TRAIN, *_NETWORK, ("latents",)),
    "generator": (("generator",),),
    "sample": (_TRAIN, *_NETWORK, ("generator",), ("sample",)),
    "evaluate": (_TEST, *_NETWORK, ("extractor",), ("tokenizer", "reconstruction"), ("evaluate",)),
    "report": (_TEST, *_NETWORK),
}
STAGES = frozenset(_READS)
_COUNTS_CLASSES = ("generator", "report")
"""Stages that read the training images only to count or name their classes."""


def reads(stage: str, path: KeyPath, recipe: Recipe) -> bool:
    """Whether a stage reads the part of the recipe at ``path``."""
    parts = _READS[stage]
    if stage in _COUNTS_CLASSES and recipe.data.train.config.expected() is None:
        parts = (*parts, _TRAIN)
    return any(path[: len(part)] == part for part in parts)
