"""Which function carries out which stage. Import strings: nothing heavy until a stage runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

STAGES = {
    "extractor": "pae_framework.stages.pretrain",
    "encoder": "pae_framework.stages.pretrain",
    "refine": "pae_framework.stages.refine",
    "tokenizer": "pae_framework.stages.tokenizer",
    "latents": "pae_framework.stages.latents",
    "generator": "pae_framework.stages.generator",
    "sample": "pae_framework.stages.sample",
    "evaluate": "pae_framework.stages.evaluate",
    "report": "pae_framework.stages.report",
}


def stage_function(name: str) -> Callable[[Any], None]:
    """The ``run(context)`` of a stage."""
    function: Callable[[Any], None] = importlib.import_module(STAGES[name]).run
    return function
