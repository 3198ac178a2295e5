"""Rates that GPUs achieved, and the hours that they mean for a stage.

``rates.json`` beside this file has them by the name that torch gives a GPU, then by stage and type
of its arithmetic: FLOPs as :mod:`pae_framework.dry_run.flops` counts them, over the measured time.
What those do not count, such as the discriminator, is thus part of the time.
``python scripts/gpu_check.py --rates FILE`` measures a GPU and adds it to a file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, RootModel

from pae_framework.recipe.models import Recipe, RuntimeSettings
from pae_framework.recipe.stage_table import trainings

RATES = Path(__file__).with_name("rates.json")


class CardRates(BaseModel):
    """Rates of one GPU: when and with which torch they were measured, and FLOPs per second."""

    measured: str
    torch: str
    flops_per_second: dict[str, dict[str, float]]


class _Cards(RootModel[dict[str, CardRates]]):
    pass


def read_rates(path: Path = RATES) -> dict[str, CardRates]:
    """Rates by GPU; none if there is no such file.

    Raises:
        ValueError: it has another content.
    """
    return _Cards.model_validate_json(path.read_bytes()).root if path.is_file() else {}


def rates_text(cards: dict[str, CardRates]) -> str:
    """The content of a file of rates."""
    return _Cards(dict(sorted(cards.items()))).model_dump_json(indent=2) + "\n"


def card_at_hand(runtime: RuntimeSettings) -> str | None:
    """Name of the GPU on which the stages would run here; None: there is none, or not on it."""
    on_gpu = runtime.device in ("cuda", "auto") and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else None


def arithmetic(recipe: Recipe, stage: str) -> str:
    """Type of most arithmetic of a stage on a GPU: ``bf16``, ``tf32`` or ``float32``."""
    settings = {"latents": recipe.latents, "sample": recipe.sample, **trainings(recipe)}.get(stage)
    if getattr(settings, "precision", None) == "bf16":
        return "bf16"
    return "tf32" if recipe.runtime.tf32 else "float32"


def hours_of(
    recipe: Recipe, stage: str, flops: float | None, rates: CardRates | None, processes: int
) -> float | None:
    """Hours of a stage with one GPU for each process; None if its rate was not measured."""
    if flops is None or rates is None:
        return None
    rate = rates.flops_per_second.get(stage, {}).get(arithmetic(recipe, stage))
    return None if rate is None else flops / rate / processes / 3600
