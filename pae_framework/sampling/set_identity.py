"""What drawn images depend on, as one hash: sets of equal identity hold the same images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from pae_framework.data.statistics import SAFE_NAME
from pae_framework.execution.context import StageContext
from pae_framework.execution.latent_statistics import tokenizer_identity
from pae_framework.files import file_identity
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.stage_table import STAGES, generator_weights

_NOT_HASHED = SampleSettings.without_effect | {"count", "labels", "at_steps", "few_steps"}
"""The first two are in the labels themselves, the last two name other sets."""


def set_identity(
    context: StageContext, weights: Path, labels: Tensor, settings: SampleSettings
) -> str:
    """A hash of all that images 0 to M - 1 of a set depend on.

    Args:
        context: of the run; its stages' fingerprints stand for its networks and their code.
        weights: file of the generator that is drawn from.
        labels: (M,) int64.
        settings: of this one set. The run that guides counts by its weights, not by its path.
    """
    weak = settings.guidance.autoguidance
    content: dict[str, Any] = {
        "version": STAGES["sample"].version,
        "generator": context.plan["generator"].fingerprint,  # stands for the stages it reads, too
        "weights": file_identity(weights),
        "tokenizer": tokenizer_identity(context),
        "statistics": file_identity(context.require("latents") / SAFE_NAME),
        "autoguidance": None if weak is None else file_identity(generator_weights(weak)),
        "labels": labels.tolist(),
        "settings": settings.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={**dict.fromkeys(_NOT_HASHED, True), "guidance": {"autoguidance"}},
        ),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
