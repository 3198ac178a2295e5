"""Settings of the engine's own parts: training, objectives, sampling, latents, runtime.

Light (no torch); the rooms that use them import them from here, recipes compose them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from pae_framework.config import LatentShape, Settings
from pae_framework.hub import (
    HubFile,
    UrlFile,
    default_or_file,
    missing_weights,
    weights_files,
    weights_path,
)

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

    def before(self, other: Length) -> bool:
        """Whether it is certainly earlier: both are in one unit, or this one is the beginning."""
        if self.steps is not None and other.steps is not None:
            return self.steps < other.steps
        if self.epochs is not None and other.epochs is not None:
            return self.epochs < other.epochs
        return not (self.steps or self.epochs) and bool(other.steps or other.epochs)

    def reaches(self, other: Length) -> bool:
        """Whether it is certainly not earlier: both are in one unit."""
        return (self.steps is None) == (other.steps is None) and not self.before(other)


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
    accumulate: int = Field(
        1,
        gt=0,
        description="micro-batches a step's batch is split into; adaptive weights and batch norm "
        "work on each by itself",
    )
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
        description="stop where the loss, without the adversarial term, exceeds this many times "
        "its median of late; null: only where a term is not finite",
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


class ShiftSettings(Settings):
    """The shift of times, stated or made from the size of the latents."""

    shift: float = Field(
        1.0, gt=0, description="s of t' = s t / (1 + (s-1) t); below 1 moves towards noise; 1: none"
    )
    shift_base: float | None = Field(
        None,
        gt=0,
        description="instead of `shift`: s = sqrt(shift_base / m) for latents of m values (RAE: "
        "4096)",
    )

    @model_validator(mode="after")
    def _one_shift(self) -> Self:
        if self.shift_base is not None and self.shift != 1:
            raise ValueError("give either `shift` or `shift_base`")
        return self

    def for_latent(self, latent: LatentShape) -> Self:
        """The same settings with the shift as a number (RAE's is 1 / s: its time runs back)."""
        if self.shift_base is None:
            return self
        values = latent.channels * latent.side**2
        shift = math.sqrt(self.shift_base / values)
        return self.model_copy(update={"shift": shift, "shift_base": None})


class TimeSettings(ShiftSettings):
    """Distribution of the training time t (0 noise, 1 data); the shift comes after the draw."""

    distribution: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", description="logit_normal: the sigmoid of a normal"
    )
    mean: float = Field(0.0, description="location of the normal under the sigmoid")
    std: float = Field(1.0, gt=0, description="scale of the normal under the sigmoid")
    lowest: float = Field(
        0.0, ge=0, lt=1, description="times below are not drawn, before the shift (RAE: 0.001)"
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


VGG16 = HubFile("timm/vgg16.tv_in1k")
"""VGG-16 with torchvision's weights: LPIPS's network."""
LPIPS_HEADS = UrlFile(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
)
"""LPIPS's channel weights, version 0.1 for VGG-16."""


class LpipsSettings(Settings):
    """LPIPS (Zhang et al. 2018) on VGG-16 features, with its learned channel weights."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0 skips it altogether")
    weights: Annotated[str, AfterValidator(default_or_file)] = Field(
        "default",
        description="`default`: VGG-16 from the hub with the channel weights of torch-fidelity's "
        "release; a local file that holds both, in torchvision's or LPIPS's names; `none`: random",
    )

    def files(self) -> Mapping[str, Path]:
        """The weights, where they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """Say what is not on this machine; see :meth:`ComponentConfig.missing`."""
        if not self.weight:
            return None
        found = (missing_weights(self.weights, remote) for remote in (VGG16, LPIPS_HEADS))
        problem = next((one for one in found if one), None)
        return f"LPIPS: {problem}" if problem else None

    def fetch(self) -> str | None:
        """Bring the weights here; see :meth:`ComponentConfig.fetch`."""
        if self.missing() is None:
            return None
        for remote in (VGG16, LPIPS_HEADS):
            weights_path(self.weights, remote)
        return "weights of LPIPS"


class ReconstructionSettings(Settings):
    """Reconstruction terms of the tokenizer's loss."""

    l1: float = Field(1.0, ge=0, description="weight of the mean absolute pixel error")
    perceptual: PerceptualSettings = PerceptualSettings()
    lpips: LpipsSettings = LpipsSettings()


class AnyUpSettings(Settings):
    """Where AnyUp, a learned upsampler of features, lies on this machine; none is downloaded."""

    checkout: str = Field(description="folder of its repository, with its hubconf.py")
    weights: str = Field(description="file of its weights")

    def files(self) -> Mapping[str, Path]:
        """The weights."""
        return {"weights": Path(self.weights).expanduser()}

    def missing(self) -> str | None:
        """Say what is not on this machine; None: nothing is."""
        folder = Path(self.checkout).expanduser()
        if not (folder / "hubconf.py").is_file():
            return (
                f"no AnyUp checkout at {folder}: it has no hubconf.py; clone the repository "
                "wimmerth/anyup there, or use the upsampler `bilinear`"
            )
        file = Path(self.weights).expanduser()
        if file.is_file():
            return None
        return f"no AnyUp weights at {file}; save those of the repository's release there"


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
    upsampler: Literal["none", "bilinear", "anyup"] = Field(
        "none",
        description="what makes the features dense before H_ref is normalised and brought back to "
        "the token grid; anyup: a learned one, as the paper has it",
    )
    upsample_size: int | None = Field(
        None, gt=0, description="side of the dense features, px; null: that of the images"
    )
    anyup: AnyUpSettings | None = Field(None, description="where AnyUp lies, for that upsampler")
    low_pass: float = Field(
        0.4, ge=0, le=1, description="strength of the low-pass spatial normalisation of H_ref"
    )
    low_pass_size: float | None = Field(
        None,
        gt=0,
        description="deviation, in tokens, of the Gaussian blur that is the low pass; null: the "
        "mean over the image",
    )
    spatial_norm: float = Field(
        0.0,
        ge=0,
        le=1,
        description="power of each channel's deviation over the image H_ref is divided by after "
        "the low pass; 0: not divided, 1: all deviations 1",
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

    @model_validator(mode="after")
    def _anyup_is_somewhere(self) -> RefinementSettings:
        if self.upsampler == "anyup" and self.anyup is None:
            raise ValueError("the upsampler `anyup` needs `anyup: {checkout: ..., weights: ...}`")
        return self

    def missing(self) -> str | None:
        """Say what is not on this machine; None: nothing is."""
        return self.anyup.missing() if self.upsampler == "anyup" and self.anyup else None

    def smoke(self) -> RefinementSettings:
        """The same refinement made small, with nothing it would need from elsewhere."""
        small = {"depth": 1, "width": None, "heads": None, "upsampler": "none", "anyup": None}
        return self.model_copy(update=small)


class LatentsSettings(Settings):
    """How the latents of the training images are written."""

    shard_size: int = Field(10_000, gt=0, description="images per shard file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="as stored")
    batch_size: int = Field(128, gt=0, description="images encoded at once")
    processes: int = Field(
        1, gt=0, description="processes that share the shards; the files are those of one process"
    )
    workers: int = Field(
        0, ge=0, description="processes that read images ahead, for each of `processes`; 0: none"
    )
    folder: str | None = Field(
        None,
        description="folder of latents of this tokenizer that LightningDiT or another run wrote: "
        "the generator trains on them as they are; none are written",
    )
    statistics: str | None = Field(
        None,
        description="statistics of the latents that `generator.weights` was trained on "
        "(latents_stats.pt or .safetensors): taken as they are; no latents are written",
    )

    @property
    def written(self) -> bool:
        """Whether the run encodes its training images, as it does where nothing stands for them."""
        return self.folder is None and self.statistics is None

    @model_validator(mode="after")
    def _one_source(self) -> LatentsSettings:
        if self.folder is not None and self.statistics is not None:
            raise ValueError("`folder` has statistics of its own; say `folder` or `statistics`")
        return self


class Guidance(Settings):
    """Guidance g + scale (c - g) where t lies inside the interval.

    c is the velocity for the label; g the one without a label (classifier-free), or that of another
    network for the same label (autoguidance).
    """

    scale: float = Field(1.0, ge=1, description="1: no guidance")
    channels: Literal["all", "first_three"] = Field(
        "all", description="first_three: as released LightningDiT samplers do"
    )
    interval: tuple[float, float] = Field(
        (0.0, 1.0), description="times t (0 noise, 1 data) between which guidance is on"
    )
    autoguidance: str | None = Field(
        None,
        description="directory of another finished run over the same latents: its generator, a "
        "weaker one, guides in place of the velocity without a label",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Guidance:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"the interval [{low:g}, {high:g}] is empty or leaves [0, 1]; say [low, high], as "
                "in [0.25, 1]"
            )
        return self


class SdeSettings(Settings):
    """How the stochastic solvers step; the defaults are those of GAE and PAE."""

    diffusion: Literal["sbdm", "linear"] = Field(
        "sbdm", description="strength w(t) of the noise: sbdm (1-t)/t, linear 1-t"
    )
    start: float = Field(
        1e-5, gt=0, lt=1, description="first time, before the shift; sbdm is infinite at 0"
    )
    last_step: Literal["mean", "tweedie", "euler", "none"] = Field(
        "mean",
        description="last step, without noise: mean along the drift, euler (on this path the same "
        "as tweedie) along the velocity; none: noisy steps up to t = 1",
    )
    last_step_size: float = Field(
        0.004, gt=0, lt=1, description="the noisy steps end this far from t = 1, before the shift"
    )

    @model_validator(mode="after")
    def _ordered(self) -> SdeSettings:
        if self.start >= self.end:
            raise ValueError(f"nothing lies between `start` {self.start:g} and {self.end:g}")
        return self

    @property
    def end(self) -> float:
        """Last time of the noisy steps, before the shift."""
        return 1.0 if self.last_step == "none" else 1 - self.last_step_size


class SolverSettings(ShiftSettings):
    """How the flow is integrated from noise (t=0) to data (t=1)."""

    solver: Literal["euler", "heun", "ab2", "euler_maruyama", "sde_heun", "dopri5"] = Field(
        "euler",
        description="euler: order 1. heun: order 2, two evaluations a step. ab2: order 2, one "
        "evaluation a step. euler_maruyama, sde_heun: stochastic. dopri5: order 5, chooses its own "
        "steps, needs torchdiffeq",
    )
    steps: int = Field(
        50,
        gt=0,
        description="integration steps, the last one of stochastic solvers included (250 points in "
        "time are 249 steps); without effect for dopri5",
    )
    end: float = Field(
        1.0,
        gt=0,
        le=1,
        description="last time, before the shift, of the solvers that are not stochastic (RAE: "
        "0.999)",
    )
    sde: SdeSettings = Field(SdeSettings(), description="of euler_maruyama and sde_heun")
    rtol: float = Field(1e-3, gt=0, description="relative tolerance of dopri5")
    atol: float = Field(1e-6, gt=0, description="absolute tolerance of dopri5")
    guidance: Guidance = Guidance()

    @model_validator(mode="after")
    def _steps_before_the_last(self) -> Self:
        few = min(self.all_steps())
        if self.stochastic and self.sde.last_step != "none" and few < 2:
            raise ValueError(f"{self.solver} needs 2 steps or more: noisy ones and the last one")
        return self

    def all_steps(self) -> tuple[int, ...]:
        """Every number of steps that is asked for."""
        return (self.steps,)

    @property
    def stochastic(self) -> bool:
        """Whether the solver adds noise as it goes."""
        return self.solver in ("euler_maruyama", "sde_heun")

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps."""
        return self.solver == "dopri5"

    def missing(self) -> str | None:
        """Say which package of the solver is not here; None: all are."""
        if self.adaptive and find_spec("torchdiffeq") is None:
            return "dopri5 needs torchdiffeq: pip install 'pae-framework[ode]'"
        return None


class SampleSettings(SolverSettings):
    """Which images the sample stage draws."""

    count: int = Field(1000, ge=2, description="images of every sample set")
    batch_size: int = Field(
        250, gt=0, description="images drawn at once; changes no image but for rounding"
    )
    processes: int = Field(
        1,
        gt=0,
        description="processes of the sample stage that share the parts of its sets, 1000 images "
        "each; the sets are those of one process, but dopri5's evaluations are not counted",
    )
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
    labels: Literal["balanced", "uniform"] = Field(
        "balanced",
        description="balanced: class counts differ by 1 at most; uniform: each drawn by itself",
    )

    @model_validator(mode="after")
    def _steps_are_chosen_here(self) -> SampleSettings:
        if self.adaptive and self.few_steps:
            raise ValueError("dopri5 chooses its own steps; remove `few_steps`")
        return self

    def all_steps(self) -> tuple[int, ...]:
        """Every number of steps that is asked for."""
        return (self.steps, *self.few_steps)


class RuntimeSettings(Settings):
    """The machine's part."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda where there is one"
    )
    tf32: bool = Field(
        False, description="on cuda, float32 products round their factors to TF32's 10 bits: faster"
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads of torch; fixed, since sums depend on it; null: torch's",
    )
