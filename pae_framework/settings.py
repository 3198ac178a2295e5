"""Settings of the engine's own parts: training, objectives, sampling, latents, runtime.

Light (no torch); the rooms that use them import them from here, recipes compose them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from pae_framework.config import Settings

Precision = Literal["float32", "bf16"]


def _distinct(steps: tuple[int, ...]) -> tuple[int, ...]:
    twice = sorted({step for step in steps if steps.count(step) > 1})
    if twice:
        raise ValueError(f"names {', '.join(map(str, twice))} more than once")
    return steps


Steps = Annotated[tuple[PositiveInt, ...], AfterValidator(_distinct)]
"""Counts of steps, each once."""

Beta = Annotated[float, Field(ge=0, lt=1)]


class Length(Settings):
    """A point in a training, in steps or in epochs."""

    steps: int | None = Field(None, ge=0, description="optimiser steps; or give `epochs`")
    epochs: float | None = Field(None, ge=0, description="passes over the data; or give `steps`")

    @model_validator(mode="after")
    def _one_unit(self) -> Length:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`")
        return self

    def in_steps(self, steps_per_epoch: float) -> int:
        """The same point in optimiser steps."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return round(self.epochs * steps_per_epoch)


class OptimizerSettings(Settings):
    """AdamW and its schedule."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW betas")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay (matrices only)")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="after the warm-up")
    final_lr: float = Field(0.1, ge=0, le=1, description="last learning rate, as a share of `lr`")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null: no clipping")


class TrainSettings(OptimizerSettings):
    """How a stage trains: length, batch, optimiser, schedule, averaging, checkpoints."""

    steps: int | None = Field(None, gt=0, description="optimiser steps; or give `epochs`")
    epochs: float | None = Field(None, gt=0, description="passes over the data; or give `steps`")
    batch_size: int = Field(64, gt=0, description="images per optimiser step")
    accumulate: int = Field(1, gt=0, description="micro-batches a step's batch is split into")
    lr_factors: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="part of the model -> factor of its learning rate; a part is the beginning of "
        "its weights' names (`decoder`); 0 freezes it",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the weight average per step; null: none is kept"
    )
    precision: Precision = Field("float32", description="bf16: autocast; weights stay float32")
    compile: bool = Field(False, description="torch.compile of the transformer blocks")
    activation_checkpointing: bool = Field(
        False, description="compute the blocks' activations again in the backward pass: less memory"
    )
    jump: float | None = Field(
        None,
        gt=1,
        description="stop where the loss exceeds this many times its median of late; null: only "
        "where a term is not finite",
    )
    workers: int = Field(0, ge=0, description="processes that load data; 0: the main one")
    log_every: int = Field(20, gt=0, description="steps between lines of the metrics log")
    checkpoint_every: int = Field(200, gt=0, description="steps between checkpoints")
    keep_steps: Steps = Field(
        (), description="steps at which the (averaged) weights are kept besides the last"
    )
    seed: int | None = Field(None, ge=0, description="seed of this stage; null: the recipe's")

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"`accumulate` {self.accumulate} does not divide `batch_size` {self.batch_size}"
            )
        return self

    def total_steps(self, images: int) -> int:
        """Optimiser steps for a data set of ``images`` images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch_size))


class TimeSettings(Settings):
    """Distribution of the training time t (0 noise, 1 data)."""

    distribution: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", description="logit_normal: the sigmoid of a normal"
    )
    mean: float = Field(0.0, description="location of the normal under the sigmoid")
    std: float = Field(1.0, gt=0, description="scale of the normal under the sigmoid")
    shift: float = Field(
        1.0, gt=0, description="s of t' = s t / (1 + (s-1) t); below 1 moves towards noise"
    )


class FlowSettings(Settings):
    """Flow-matching objective of a generator."""

    time: TimeSettings = TimeSettings()
    cosine_weight: float = Field(1.0, ge=0, description="weight of the direction term 1 - cos")
    label_drop: float = Field(0.1, ge=0, le=1, description="share of labels replaced by null")


class PerceptualSettings(Settings):
    """A distance in the frozen encoder's own features: a stand-in for LPIPS, not LPIPS."""

    weight: float = Field(1.0, ge=0, description="factor of the term")
    layers: tuple[NonNegativeInt, ...] | None = Field(
        None, min_length=1, description="encoder blocks, from 0, that are compared; null: all"
    )


class LpipsSettings(Settings):
    """LPIPS (Zhang et al. 2018) on VGG-16 features, with its learned channel weights."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0 skips it altogether")
    weights: str = Field(
        "default",
        description="`default`: torch-fidelity's file from its release; a local file in that "
        "layout or LPIPS's own; `none`: random",
    )


class ReconstructionSettings(Settings):
    """Reconstruction terms of the tokenizer's loss."""

    l1: float = Field(1.0, ge=0, description="weight of the mean absolute pixel error")
    perceptual: PerceptualSettings = PerceptualSettings()
    lpips: LpipsSettings = LpipsSettings()


class RefinementSettings(Settings):
    """Prior refinement: compact targets learned from the frozen features (PAE, section 3)."""

    depth: int = Field(4, gt=0, description="blocks of the deprojector")
    width: int | None = Field(
        None, gt=0, multiple_of=4, description="its width; null: the encoder's"
    )
    heads: int | None = Field(
        None, gt=0, description="its heads, which divide its width; null: the encoder's"
    )
    reproduction: float = Field(1.0, ge=0, description="weight of |Q(Z) - H|^2, mean per entry")
    gram: float = Field(
        1.0, ge=0, description="weight of |Gram(Z) - Gram(H_ref)|^2, mean per entry"
    )
    low_pass: float = Field(
        0.4, ge=0, le=1, description="strength of the low-pass spatial normalisation of H_ref"
    )
    centre: bool = Field(
        False, description="subtract the data mean of the features before anything else"
    )
    train: TrainSettings

    @model_validator(mode="after")
    def _something_to_learn(self) -> RefinementSettings:
        if not self.reproduction and not self.gram:
            raise ValueError("`reproduction` and `gram` are both 0; refinement needs one of them")
        return self


class LatentsSettings(Settings):
    """How the latents of the training images are written."""

    shard_size: int = Field(10_000, gt=0, description="images per shard file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="as stored")
    batch_size: int = Field(128, gt=0, description="images encoded at once")


class Guidance(Settings):
    """Classifier-free guidance: u + scale (c - u) where t lies inside the interval."""

    scale: float = Field(1.0, ge=1, description="1: no guidance")
    channels: Literal["all", "first_three"] = Field(
        "all", description="first_three: as released LightningDiT samplers do"
    )
    interval: tuple[float, float] = Field(
        (0.0, 1.0), description="times t (0 noise, 1 data) between which guidance is on"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Guidance:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"the interval [{low}, {high}] is empty or leaves [0, 1]")
        return self


class SolverSettings(Settings):
    """How the flow is integrated from noise (t=0) to data (t=1)."""

    solver: Literal["euler", "heun"] = Field("euler", description="order 1, or order 2")
    steps: int = Field(50, gt=0, description="integration steps; heun evaluates the network twice")
    shift: float = Field(
        1.0, gt=0, description="s of t' = s t / (1 + (s-1) t) on the time grid; 1: even steps"
    )
    guidance: Guidance = Guidance()


class SampleSettings(SolverSettings):
    """Which images the sample stage draws."""

    count: int = Field(1000, ge=2, description="images of every sample set")
    batch_size: int = Field(250, gt=0, description="images drawn at once; changes no image")
    seed: int = Field(
        0,
        ge=0,
        description="sampling's own seed, not the recipe's; noise of image i is a function of "
        "(seed, i)",
    )
    at_steps: Steps = Field(
        (), description="generator steps to sample besides the last; kept by generator.train"
    )
    few_steps: Steps = Field((), description="further step counts drawn from the last weights")


class RuntimeSettings(Settings):
    """The machine's part."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda where there is one"
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads of torch; fixed, since sums depend on it; null: torch's",
    )
