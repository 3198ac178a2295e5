"""Settings of flow matching: times, objective, guidance, solvers, sample sets. No torch."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from pae_framework.config import LatentShape, Settings, Steps


class ShiftSettings(Settings):
    """The shift of times: a number, or computed from the size of the latents."""

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
        """The same settings with the shift as a number (RAE's is 1 / s: its time is reversed)."""
        if self.shift_base is None:
            return self
        values = latent.channels * latent.side**2
        shift = math.sqrt(self.shift_base / values)
        return self.model_copy(update={"shift": shift, "shift_base": None})


class TimeSettings(ShiftSettings):
    """Distribution of the training time t (0 noise, 1 data), before the shift."""

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


class Guidance(Settings):
    """Guidance g + scale (c - g) for times t inside the interval.

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
    """Steps of the stochastic solvers; the defaults are those of GAE and PAE."""

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


FixedSolver = Literal["euler", "heun", "ab2"]
"""Deterministic, on a grid of times."""
StochasticSolver = Literal["euler_maruyama", "sde_heun"]
"""Adds noise at each step."""
AdaptiveSolver = Literal["dopri5"]
"""Chooses its own steps."""
SolverName = Literal[FixedSolver, StochasticSolver, AdaptiveSolver]


class SolverSettings(ShiftSettings):
    """How the flow is integrated from noise (t=0) to data (t=1)."""

    solver: SolverName = Field(
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
        """Every number of steps that is used."""
        return (self.steps,)

    @property
    def stochastic(self) -> bool:
        """Whether the solver adds noise."""
        return self.solver in get_args(StochasticSolver)

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps."""
        return self.solver in get_args(AdaptiveSolver)

    def missing(self) -> str | None:
        """A message if the solver needs a package that is not installed, else None."""
        if self.adaptive and find_spec("torchdiffeq") is None:
            return "dopri5 needs torchdiffeq: pip install 'pae-framework[ode]'"
        return None


class SampleSettings(SolverSettings):
    """Which images the sample stage generates."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "processes"})

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
        """Every number of steps that is used."""
        return (self.steps, *self.few_steps)
