"""Sampling images from a finished generator, with the second network of autoguidance.

Shared by the sample stage and ``pae sample``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.build import build_generator
from pae_framework.config import LatentShape
from pae_framework.contracts import Generator, Tokenizer
from pae_framework.data.pixels import to_uint8
from pae_framework.data.statistics import (
    SAFE_NAME,
    LatentStatistics,
    load_statistics,
    recorded_tokenizer,
)
from pae_framework.errors import UsageError
from pae_framework.execution.artifacts import freeze, trained_generator, trained_tokenizer
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.execution.run_latents import run_statistics
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import EvaluationCount, planned_evaluations, sample_latents
from pae_framework.interop.generator_weights import match_state_dict, read_generator
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.autoguidance_run import autoguidance_problem, latent_mismatch
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.sampling.sample_set import SampleImages
from pae_framework.tensor_files import load_weights
from pae_framework.training.blocks import compile_blocks
from pae_framework.training.frozen_casts import cast_frozen

COUNTED_KEYS = ("evaluations", "guided_evaluations")
"""Protocol entries that an adaptive solver determines while sampling."""
TOLERANCE = 0.05
"""Largest difference between statistics of the same tokenizer's latents, measured on different
images: between means, in deviations; between deviations, relative."""


@dataclass(frozen=True)
class Sampler:
    """A generator, with the tokenizer and the statistics that turn its latents into images.

    ``weak`` is the second network of autoguidance, if the recipe names one; ``tf32`` is recorded in
    the protocol; ``count`` sums the velocity evaluations of all samples.
    """

    model: Generator
    tokenizer: Tokenizer
    statistics: LatentStatistics
    weak: Generator | None = None
    tf32: bool = False
    count: EvaluationCount = field(default_factory=EvaluationCount)

    @classmethod
    def of(cls, context: StageContext) -> Sampler:
        """The run's sampler, with the final weights of its generator.

        The networks are prepared for the precision of the recipe's samples, and compiled if it says
        so.

        Raises:
            UsageError: the run for autoguidance is not finished or uses other latents.
        """
        model = trained_generator(context)
        weak = load_weak_generator(context, latent_shape(context.recipe), model.num_classes)
        settings = context.recipe.sample or SampleSettings()
        for network in (model,) if weak is None else (model, weak):
            if settings.precision == "bf16":
                cast_for_sampling(network)
            if settings.compile:
                compile_blocks(network, dynamic=False)
        tokenizer, statistics = trained_tokenizer(context), run_statistics(context)
        return cls(model, tokenizer, statistics, weak, context.machine["tf32"])

    def load(self, weights: Path) -> None:
        """Load other weights of the same generator."""
        load_weights(self.model, weights)

    @torch.no_grad()
    def images(self, labels: Tensor, indices: Tensor, settings: SampleSettings) -> Tensor:
        """Images (M, 3, S, S) uint8 of labels (M,), on the CPU.

        Image i depends only on its label, the seed and ``indices[i]``.
        """
        latents = sample_latents(
            self.model,
            labels,
            indices,
            settings,
            settings.seed,
            self.tokenizer.latent,
            weak=self.weak if settings.guidance.autoguidance else None,
            count=self.count,
        )  # (M, C, h, w), normalized
        decoded = self.tokenizer.decode(self.statistics.denormalize(latents))  # (M, 3, S, S)
        return to_uint8(decoded).cpu()

    def for_set(self, labels: Tensor, settings: SampleSettings) -> SampleImages:
        """:meth:`images` of a set with labels (M,), as a function of sample numbers (n,)."""
        return lambda indices: self.images(labels[indices], indices, settings)

    def describe(self, settings: SampleSettings) -> dict[str, Any]:
        """The protocol of :meth:`images` with these settings and the evaluations counted so far."""
        protocol = describe(settings.for_latent(self.tokenizer.latent), self.count)
        return {**protocol, "tf32": self.tf32}


def cast_for_sampling(model: Generator) -> None:
    """Cast a generator's weights, once, as bf16 sampling would; see :func:`cast_frozen`."""
    device, shape = next(model.parameters()).device, model.latent
    times = torch.linspace(0.05, 0.95, 3, device=device)  # (3,)
    labels = torch.tensor([0, model.num_classes - 1, model.num_classes], device=device)  # (3,)

    def velocities() -> list[Tensor]:
        x = torch.randn(3, shape.channels, shape.side, shape.side, device=device)
        return [model(x, times, labels)]

    cast_frozen(model, velocities)


def describe(settings: SampleSettings, count: EvaluationCount | None = None) -> dict[str, Any]:
    """The protocol of sampled images: solver, evaluations, shift, guidance, precision and seed.

    Args:
        settings: the solver and its guidance. If the shift still depends on the shape of the
            latents (see ``for_latent``), ``guided_evaluations`` is left out.
        count: evaluations counted while sampling; used only for dopri5, which chooses its steps.
    """
    shift = (
        {"shift_base": settings.shift_base} if settings.shift_base else {"shift": settings.shift}
    )
    return {
        "solver": settings.solver,
        **_evaluation_counts(settings, count),
        **shift,
        **_solver_details(settings),
        **_guidance_details(settings),
        **({} if settings.precision == "float32" else {"precision": settings.precision}),
        "sample_seed": settings.seed,
    }


def _evaluation_counts(settings: SampleSettings, count: EvaluationCount | None) -> dict[str, Any]:
    """Steps and velocity evaluations per image; a guided evaluation is two network passes."""
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
    if settings.adaptive:
        return {"end": settings.end, "rtol": settings.rtol, "atol": settings.atol}
    if settings.stochastic:
        sde = settings.sde
        details = {"diffusion": sde.diffusion, "start": sde.start, "last_step": sde.last_step}
        size = {} if sde.last_step == "none" else {"last_step_size": sde.last_step_size}
        return details | size
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


# --- autoguidance ---------------------------------------------------------------------------------


def load_weak_generator(
    context: StageContext, latent: LatentShape, num_classes: int
) -> Generator | None:
    """The generator that ``sample.guidance.autoguidance`` names; None if that is not set.

    Raises:
        UsageError: there is no such run, see :func:`weak_generator_of`; or it is a file, and the
            recipe has no ``guide``.
        CheckpointError: the weights are damaged or for another network.
    """
    settings = context.recipe.sample
    if settings is None or settings.guidance.autoguidance is None:
        return None
    path = Path(settings.guidance.autoguidance).expanduser()
    if path.is_file():
        return imported_guide(path, context, latent, num_classes)
    other = open_run(path, context.registry)
    return weak_generator_of(other, context, latent, num_classes)


def imported_guide(
    path: Path, context: StageContext, latent: LatentShape, num_classes: int
) -> Generator:
    """The network in ``guide`` with the weights of a file, frozen, on the device of ``context``.

    The framework cannot verify that it was trained on these latents, with these statistics.

    Raises:
        UsageError: the recipe has no ``guide``.
        CheckpointError: the weights are damaged, not finite or for another network.
    """
    if (problem := autoguidance_problem(context.recipe, context.registry)) is not None:
        raise UsageError(f"sample.guidance.autoguidance: {problem}")
    assert context.recipe.guide is not None
    with initial_weights(0, "generator"):
        model = build_generator(context.recipe.guide, latent, num_classes, context.registry)
    model.load_state_dict(match_state_dict(read_generator(path, model).tensors, model, path))
    return freeze(model, context)


def weak_generator_of(
    other: OpenedRun, context: StageContext, latent: LatentShape, num_classes: int
) -> Generator:
    """The generator of another run, frozen, on the device of ``context``.

    Raises:
        UsageError: the run is not finished, or its latents have another shape or come from another
            tokenizer.
        CheckpointError: its weights are for another number of classes.
    """
    weights = _finished_file(other, "generator", "weights.safetensors")
    _require_same_latents(context, other, latent)
    component = other.loaded.recipe.generator
    assert component is not None
    model = build_generator(component, latent, num_classes, context.registry)
    load_weights(model, weights)
    return freeze(model, context)


def _finished_file(run: OpenedRun, stage: str, name: str) -> Path:
    return run.directory.results(run.finished(stage)).file(name)


def _require_same_latents(context: StageContext, other: OpenedRun, latent: LatentShape) -> None:
    """Reject latents of another shape, of another tokenizer or with other statistics."""
    file, theirs_shape = (
        _finished_file(other, "latents", SAFE_NAME),
        latent_shape(other.loaded.recipe),
    )
    if (mismatch := latent_mismatch(other.directory.path, theirs_shape, latent)) is not None:
        raise UsageError(f"sample.guidance.autoguidance: {mismatch}")
    own = context.file("latents", SAFE_NAME)
    ours, theirs = load_statistics(own), load_statistics(file)
    means = (ours.mean - theirs.mean).abs() / ours.std
    deviations = (theirs.std / ours.std - 1).abs()
    if max(means.max().item(), deviations.max().item()) > TOLERANCE:
        raise UsageError(
            f"autoguidance: the latents of {other.directory.path} have other means and deviations "
            "than this run's: they come from another tokenizer or other images; name a run that "
            "shares this run's `latents` stage"
        )
    if ours.change_nothing and recorded_tokenizer(_stage(own)) != recorded_tokenizer(_stage(file)):
        raise UsageError(
            f"autoguidance: the latents of {other.directory.path} come from another tokenizer than "
            "this run's; name a run that shares this run's `tokenizer` stage"
        )


def _stage(statistics: Path) -> Path:
    """The folder of the stage that wrote :data:`SAFE_NAME`."""
    return statistics.parents[len(Path(SAFE_NAME).parts) - 1]
