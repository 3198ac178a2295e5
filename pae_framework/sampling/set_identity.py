"""What drawn images depend on, as one hash: sets of equal identity hold the same images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from pae_framework.data.statistics import SAFE_NAME
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import tokenizer_identity
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.runs.autoguidance_run import generator_weights
from pae_framework.runs.plan import STAGE_VERSIONS, file_identity

WITHOUT_EFFECT = {"count", "labels", "batch_size", "processes", "at_steps", "few_steps"}
"""Settings that change no image; the first two are in the labels themselves."""


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
        "version": STAGE_VERSIONS["sample"],
        "generator": context.plan["generator"].fingerprint,  # stands for the stages it reads, too
        "weights": file_identity(weights),
        "tokenizer": tokenizer_identity(context),
        "statistics": file_identity(context.require("latents") / SAFE_NAME),
        "autoguidance": None if weak is None else file_identity(generator_weights(weak)),
        "labels": labels.tolist(),
        "settings": settings.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={**dict.fromkeys(WITHOUT_EFFECT, True), "guidance": {"autoguidance"}},
        ),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
