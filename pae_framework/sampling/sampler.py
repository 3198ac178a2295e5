"""Drawing images from a finished generator: shared by the sample stage and ``pae sample``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.build import build_generator
from pae_framework.contracts import Generator
from pae_framework.data.pixels import to_uint8
from pae_framework.data.statistics import LatentStatistics
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.latent_statistics import run_statistics
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.integrate import planned_evaluations
from pae_framework.flow.sampling import EvaluationCount, draw
from pae_framework.recipe.derived import latent_shape
from pae_framework.sampling.weak_generator import load_weak_generator
from pae_framework.tensor_files import load_weights
from pae_framework.tokenizer.model import Tokenizer


@dataclass(frozen=True)
class Sampler:
    """A generator with the tokenizer and the statistics its latents need to become images.

    ``weak`` is the second network of autoguidance, where the recipe names one; ``tf32`` tells
    whether float32 products round their factors; ``count`` adds up the velocity evaluations of
    everything drawn.
    """

    model: Generator
    tokenizer: Tokenizer
    statistics: LatentStatistics
    weak: Generator | None = None
    tf32: bool = False
    count: EvaluationCount = field(default_factory=EvaluationCount)

    @classmethod
    def of(cls, context: StageContext) -> Sampler:
        """The run's own, with the generator's last weights.

        Raises:
            UsageError: the run that autoguidance names is not finished, or is over other latents.
        """
        component, shape = context.recipe.generator, latent_shape(context.recipe)
        assert component is not None
        model = build_generator(component, shape, context.num_classes, context.registry)
        sampler = cls(
            model.requires_grad_(False).eval().to(context.device),
            trained_tokenizer(context),
            run_statistics(context),
            load_weak_generator(context, shape, model.num_classes),
            context.machine["tf32"],
        )
        sampler.load(context.require("generator") / "weights.safetensors")
        return sampler

    def load(self, weights: Path) -> None:
        """Take other weights of the same generator."""
        load_weights(self.model, weights)

    @torch.no_grad()
    def images(self, labels: Tensor, indices: Tensor, settings: SampleSettings) -> Tensor:
        """Images (M, 3, S, S) uint8 of the labels (M,); image i depends on (seed, indices[i])."""
        latents = draw(
            self.model,
            labels,
            indices,
            settings,
            settings.seed,
            self.tokenizer.latent,
            weak=self.weak,
            count=self.count,
        )
        decoded = self.tokenizer.decode(self.statistics.denormalize(latents))
        return to_uint8(decoded).cpu()

    def describe(self, settings: SampleSettings) -> dict[str, Any]:
        """How :meth:`images` draws, or has drawn, with these settings."""
        found = describe(settings.for_latent(self.tokenizer.latent), self.count)
        return {**found, "tf32": self.tf32}


def describe(settings: SampleSettings, count: EvaluationCount | None = None) -> dict[str, Any]:
    """How images are drawn, for the protocol of what is measured on them.

    Args:
        settings: the solver and its guidance. Of a shift that is not a number yet (see
            ``for_latent``) it is said how it is made, and not where guidance falls.
        count: evaluations as they happened, for dopri5, which chooses its steps; others' are known.
    """
    shift = (
        {"shift_base": settings.shift_base} if settings.shift_base else {"shift": settings.shift}
    )
    return {
        "solver": settings.solver,
        **_cost(settings, count),
        **shift,
        **_solver_details(settings),
        **_guidance_details(settings),
        "sample_seed": settings.seed,
    }


def _cost(settings: SampleSettings, count: EvaluationCount | None) -> dict[str, Any]:
    """Steps, and velocity evaluations of one image: a guided one is two network passes."""
    if settings.adaptive:
        if count is None or count.samples == 0:
            return {"evaluations": "as many as the tolerances ask for"}
        total, guided = count.mean
        return {"evaluations": round(total, 2), "guided_evaluations": round(guided, 2)}
    planned = planned_evaluations(settings.model_copy(update={"shift_base": None}))
    assert planned is not None
    cost = {"steps": settings.steps, "evaluations": planned.total}
    return cost if settings.shift_base else {**cost, "guided_evaluations": planned.guided}


def _solver_details(settings: SampleSettings) -> dict[str, Any]:
    """What only some solvers have."""
    if settings.adaptive:
        return {"end": settings.end, "rtol": settings.rtol, "atol": settings.atol}
    if settings.stochastic:
        sde = settings.sde
        size = {} if sde.last_step == "none" else {"last_step_size": sde.last_step_size}
        return {
            "diffusion": sde.diffusion,
            "start": sde.start,
            "last_step": sde.last_step,
            **size,
        }
    return {"end": settings.end} if settings.end < 1 else {}


def _guidance_details(settings: SampleSettings) -> dict[str, Any]:
    guidance = settings.guidance
    weak = {"autoguidance": guidance.autoguidance} if guidance.autoguidance else {}
    return {
        "guidance": guidance.scale,
        "guidance_channels": guidance.channels,
        "guidance_interval": list(guidance.interval),
        **weak,
    }
