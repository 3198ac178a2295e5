"""Drawing images from a finished generator: shared by the sample stage and ``pae sample``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.contracts import Generator
from pae_framework.data.latents import LatentDataset
from pae_framework.data.pixels import to_uint8
from pae_framework.data.statistics import LatentStatistics, load_statistics
from pae_framework.flow.sampling import draw
from pae_framework.flow.solvers import evaluations
from pae_framework.settings import SampleSettings
from pae_framework.stages.context import StageContext
from pae_framework.stages.parts import new_generator, trained_tokenizer
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer


@dataclass(frozen=True)
class Sampler:
    """A generator with the tokenizer and the statistics its latents need to become images."""

    model: Generator
    tokenizer: Tokenizer
    statistics: LatentStatistics

    @classmethod
    def of(cls, context: StageContext) -> Sampler:
        """The run's own, with the generator's last weights."""
        latents = context.require("latents")
        shape = LatentDataset(latents).shape
        model = new_generator(context, shape, len(context.train_source.class_names))
        sampler = cls(
            model.requires_grad_(False).eval().to(context.device),
            trained_tokenizer(context),
            load_statistics(latents),
        )
        sampler.load(context.require("generator") / "weights.safetensors")
        return sampler

    def load(self, weights: Path) -> None:
        """Take other weights of the same generator."""
        load_weights(self.model, weights)

    @torch.no_grad()
    def images(self, labels: Tensor, indices: Tensor, settings: SampleSettings) -> Tensor:
        """Images (M, 3, S, S) uint8 of the labels (M,); image i depends on (seed, indices[i])."""
        latents = draw(self.model, labels, indices, settings, settings.seed, self.tokenizer.latent)
        decoded = self.tokenizer.decode(self.statistics.denormalize(latents))
        return to_uint8(decoded).cpu()


def describe(settings: SampleSettings) -> dict[str, Any]:
    """How images were drawn, for the protocol of what is measured on them."""
    guidance = settings.guidance
    return {
        "solver": settings.solver,
        "steps": settings.steps,
        "evaluations": evaluations(settings.solver, settings.steps),
        "shift": settings.shift,
        "guidance": guidance.scale,
        "guidance_channels": guidance.channels,
        "guidance_interval": list(guidance.interval),
        "sample_seed": settings.seed,
    }
