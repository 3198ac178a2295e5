"""Settings of flow matching: times, objective, guidance, solvers, sample sets. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from annotated_types import Gt, Le, Len
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from pae_framework.config import (
    BatchSize,
    Count,
    Distinct,
    LatentShape,
    Magnitude,
    PathText,
    Precision,
    Processes,
    Seed,
    Settings,
    Steps,
    Weight,
)


class ShiftSettings(Settings):
    """Shift of times: a number, or computed from the size of the latents."""

    shift: Magnitude = Field(
        1.0, description="s in t' = s t / (1 + (s-1) t); below 1: towards noise; 1: no shift"
    )
    shift_base: Magnitude | None = Field(
        None,
        description="alternative to `shift`: s = sqrt(shift_base / m) for latents of m values "
        "(RAE: 4096)",
    )

    @model_validator(mode="after")
    def _one_shift(self) -> Self:
        if self.shift_base is not None and self.shift != 1:
            raise ValueError("set only one of `shift` and `shift_base`")
        return self

    def for_latent(self, latent: LatentShape) -> Self:
        """The same settings with the shift as a number. RAE reverses time: its shift is 1 / s."""
        if self.shift_base is None:
            return self
        values = latent.channels * latent.side**2
        shift = math.sqrt(self.shift_base / values)
        return self.model_copy(update={"shift": shift, "shift_base": None})


class TimeSettings(ShiftSettings):
    """Distribution of the training time t (0 noise, 1 data), before the shift."""

    distribution: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", description="logit_normal: sigmoid of a normal variable"
    )
    mean: float = Field(0.0, ge=-100, le=100, description="mean of the normal variable")
    std: Magnitude = Field(1.0, description="standard deviation of the normal variable")
    lowest: float = Field(
        0.0, ge=0, lt=1, description="smallest time, before the shift (RAE: 0.001)"
    )


class FlowSettings(Settings):
    """Flow-matching objective of a generator."""

    time: TimeSettings = TimeSettings()
    cosine_weight: Weight = Field(1.0, description="weight of the direction term 1 - cos")
    label_drop: float = Field(
        0.1, ge=0, le=1, description="fraction of labels replaced by the null label"
    )


class Guidance(Settings):
    """Guidance g + scale (c - g) for times t inside the interval.

    c is the velocity for the label. g is the velocity without a label (classifier-free guidance) or
    that of another network for the same label (autoguidance).
    """

    number_means = "scale"

    scale: float = Field(1.0, ge=1, le=1e6, description="1: no guidance")
    channels: Literal["all", "first_three"] = Field(
        "all", description="guided channels; first_three: as in released LightningDiT samplers"
    )
    interval: tuple[float, float] = Field(
        (0.0, 1.0), description="times t (0 noise, 1 data) with guidance, as [low, high]"
    )
    autoguidance: PathText | None = Field(
        None,
        description="a weaker generator for the same latents, whose velocity replaces the one "
        "without a label: directory of another finished run, or a weights file of the network in "
        "`guide`",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Guidance:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"interval [{low:g}, {high:g}] must have 0 <= low < high <= 1; set e.g. "
                "sample.guidance.interval=[0.25, 1]"
            )
        return self


def _without_autoguidance(guidance: Guidance) -> Guidance:
    if guidance.autoguidance is not None:
        raise ValueError("autoguidance is not available here; set guidance.autoguidance=null")
    return guidance


WithoutAutoguidance = Annotated[Guidance, AfterValidator(_without_autoguidance)]
"""Guidance of sets other than the main one."""

Diffusion = Literal["sbdm", "linear"]
"""Noise strength of the stochastic solvers."""


class SdeSettings(Settings):
    """Steps of the stochastic solvers; the defaults are those of GAE and PAE."""

    diffusion: Diffusion = Field(
        "sbdm", description="noise strength w(t); sbdm: (1-t)/t, linear: 1-t"
    )
    start: float = Field(
        1e-5, gt=0, lt=1, description="first time, before the shift; with sbdm, w(0) is infinite"
    )
    last_step: Literal["mean", "tweedie", "euler", "none"] = Field(
        "mean",
        description="last step, without noise; mean: along the drift; euler, on this path the same "
        "as tweedie: along the velocity; none: noisy steps up to t = 1",
    )
    last_step_size: float = Field(
        0.004, gt=0, lt=1, description="size of the last step, before the shift"
    )

    @model_validator(mode="after")
    def _ordered(self) -> SdeSettings:
        if self.start >= self.end:
            raise ValueError(f"`start` {self.start:g} is not below the end {self.end:g}")
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
SolverSteps = Annotated[int, Gt(0), Le(5000)]
"""Integration steps."""

SteppingSolver = Literal[FixedSolver, StochasticSolver]
"""Takes as many steps as it is told."""
SolverName = Literal[SteppingSolver, AdaptiveSolver]


class SolverSettings(ShiftSettings):
    """Integration of the flow from noise (t=0) to data (t=1)."""

    solver: SolverName = Field(
        "euler",
        description="euler: order 1. heun: order 2, two evaluations per step. ab2: order 2, one "
        "evaluation per step. euler_maruyama, sde_heun: stochastic. dopri5: order 5, adaptive, "
        "needs torchdiffeq",
    )
    steps: SolverSteps = Field(
        50,
        description="integration steps, including the last step of stochastic solvers (250 points "
        "in time are 249 steps); no effect for dopri5",
    )
    end: float = Field(
        1.0,
        gt=0,
        le=1,
        description="last time of deterministic solvers, before the shift (RAE: 0.999)",
    )
    sde: SdeSettings = Field(SdeSettings(), description="steps of euler_maruyama and sde_heun")
    rtol: Magnitude = Field(1e-3, description="relative tolerance of dopri5")
    atol: Magnitude = Field(1e-6, description="absolute tolerance of dopri5")
    guidance: Guidance = Guidance()

    @model_validator(mode="after")
    def _steps_before_the_last(self) -> Self:
        if min(self.all_steps()) < self.fewest_steps:
            raise ValueError(f"{self.solver} needs 2 steps or more, found {min(self.all_steps())}")
        return self

    @property
    def fewest_steps(self) -> int:
        """Smallest number of steps of the solver."""
        return 2 if self.stochastic and self.sde.last_step != "none" else 1

    def all_steps(self) -> tuple[int, ...]:
        """Every number of integration steps in use."""
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


class ConvergenceSettings(SolverSettings):
    """A protocol for samples of every generator step, which does not follow the other samples.

    Runs that share it compare, whatever they sample at the end. What it lacks (precision, labels,
    batch size) is that of the other samples.
    """

    count: Count = Field(1000, ge=2, description="images per sample set")
    seed: Seed = Field(0, description="seed of these samples")

    guidance: WithoutAutoguidance = Guidance()


class VariantSettings(Settings):
    """What one more sample set changes in the settings of the main one; null: nothing."""

    solver: SolverName | None = Field(None, description="another solver")
    steps: SolverSteps | None = Field(None, description="another number of integration steps")
    shift: Magnitude | None = Field(None, description="another shift of times")
    guidance: WithoutAutoguidance | None = Field(
        None, description="another guidance; {scale: 1}: none"
    )

    @model_validator(mode="after")
    def _guidance_is_complete(self) -> VariantSettings:
        guidance = self.guidance
        if guidance is not None and guidance.scale == 1 and guidance != Guidance():
            raise ValueError(
                "a variant's guidance replaces that of the other samples, and at scale 1 "
                "`channels` and `interval` have no effect; write the scale, too, e.g. "
                "{scale: 2.5, interval: [0.3, 1]}"
            )
        return self

    def applied_to(self, main: SampleSettings) -> SampleSettings:
        """The settings of the variant.

        Args:
            main: of one set, see :attr:`SampleSettings.alone`.

        Raises:
            ValueError: the changed settings contradict each other.
        """
        changes = self.model_dump(exclude_none=True)
        if self.shift is not None:
            changes["shift_base"] = None
        return SampleSettings.model_validate({**main.model_dump(), **changes})


Role = Literal["main", "checkpoint", "convergence", "variant", "few_steps"]


class WantedSet(NamedTuple):
    """A sample set that settings ask for: its role, the generator step of its weights (None: the
    unknown last one), the settings of this set alone, and its label if it is a variant."""

    role: Role
    generator_step: int | None
    settings: SampleSettings
    variant: str | None = None


def _without_nulls(value: Any) -> Any:
    """Without entries that are null, as in the maps of components."""
    if not isinstance(value, dict):
        return value
    return {key: entry for key, entry in value.items() if entry is not None}


class SampleSettings(SolverSettings):
    """Sample sets that the sample stage generates."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "compile", "processes"})

    count: Count = Field(1000, ge=2, description="images per sample set")
    batch_size: BatchSize = Field(250, description="images sampled at once; affects only rounding")
    precision: Precision = Field(
        "float32", description="bf16: autocast of the generator; solver and decoder stay float32"
    )
    compile: bool = Field(
        False, description="torch.compile of the generator's blocks, for one batch size"
    )
    processes: Processes = Field(
        1, description="deprecated, without effect: use `pae run --processes`"
    )
    seed: Seed = Field(
        0,
        description="seed of sampling, independent of the recipe's seed; the noise of image i is "
        "a function of (seed, i)",
    )
    at_steps: Steps = Field(
        (), description="earlier generator steps to sample; generator.train must keep their weights"
    )
    few_steps: Annotated[tuple[SolverSteps, ...], Len(0, 20), Distinct] = Field(
        (), description="more numbers of steps, for the last weights"
    )
    few_steps_solvers: Annotated[tuple[SteppingSolver, ...], Len(0, 10), Distinct] = Field(
        (), description="solvers for the numbers in `few_steps`; []: `solver` only"
    )
    convergence: ConvergenceSettings | None = Field(
        None,
        description="smaller sets for `at_steps` and the last step, with settings of their own; "
        "null: sets like the main one",
    )
    variants: Annotated[dict[str, VariantSettings], BeforeValidator(_without_nulls)] = Field(
        {},
        description="label -> what to change for one more set of the last weights, from the same "
        "noise; the label is in the names of its metrics",
    )
    labels: Literal["balanced", "uniform"] = Field(
        "balanced",
        description="balanced: class counts differ by at most 1; uniform: independent labels",
    )

    @model_validator(mode="after")
    def _steps_are_chosen_here(self) -> SampleSettings:
        if self.adaptive and self.few_steps:
            raise ValueError("dopri5 chooses its own steps; set sample.few_steps=[]")
        return self

    @model_validator(mode="after")
    def _solvers_have_steps(self) -> SampleSettings:
        if self.few_steps_solvers and not self.few_steps:
            raise ValueError(
                "few_steps_solvers has no effect without few_steps; set e.g. "
                f"sample.few_steps=[{self.steps}]"
            )
        fewest = min(self.few_steps, default=2)
        for solver in self.few_steps_solvers:
            if SolverSettings(solver=solver, sde=self.sde).fewest_steps > fewest:
                raise ValueError(f"{solver} needs 2 steps or more, few_steps has {fewest}")
        return self

    @model_validator(mode="after")
    def _variants_differ(self) -> SampleSettings:
        found = [("the other samples", self.alone)]
        for label, variant in self.variants.items():
            try:
                own = variant.applied_to(self.alone)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"variants.{label}: {reason}") from None
            for name, other in found:
                if own.in_effect == other.in_effect:
                    raise ValueError(
                        f"variants.{label} has the settings of {name}; set e.g. "
                        f"sample.variants.{label}.guidance.scale=1"
                    )
            found.append((f"variants.{label}", own))
        return self

    def all_steps(self) -> tuple[int, ...]:
        """Every number of integration steps in use by ``solver``."""
        own = not self.few_steps_solvers or self.solver in self.few_steps_solvers
        return (self.steps, *(self.few_steps if own else ()))

    def missing(self) -> str | None:
        """A message if a solver needs a package that is not installed, else None."""
        if (problem := super().missing()) is not None:
            return problem
        others = [variant.applied_to(self.alone) for variant in self.variants.values()]
        problems = [other.missing() for other in (self.convergence, *others) if other is not None]
        return next(filter(None, problems), None)

    @property
    def alone(self) -> Self:
        """The settings of one set, without those that ask for more sets."""
        return self.model_copy(
            update={
                "at_steps": (),
                "few_steps": (),
                "few_steps_solvers": (),
                "convergence": None,
                "variants": {},
            }
        )

    @property
    def in_effect(self) -> Self:
        """The same settings with the defaults of those that have no effect."""
        if self.guidance.scale == 1:
            return self.model_copy(update={"guidance": Guidance()})
        return self

    def sets(self, last: int | None) -> Iterator[WantedSet]:
        """Every set, the main one first.

        Args:
            last: the last step of the generator; None if it is not known.
        """
        yield WantedSet("main", last, self.alone)
        earlier = [step for step in self.at_steps if step != last]
        if self.convergence is None:
            yield from (WantedSet("checkpoint", step, self.alone) for step in earlier)
        else:
            own = self.alone.model_copy(update=dict(self.convergence))
            yield from (WantedSet("convergence", step, own) for step in (*earlier, last))
        for label, variant in self.variants.items():
            yield WantedSet("variant", last, variant.applied_to(self.alone), label)
        for solver in self.few_steps_solvers or (self.solver,):
            for steps in self.few_steps:
                if (solver, steps) != (self.solver, self.steps):
                    own = self.alone.model_copy(update={"solver": solver, "steps": steps})
                    yield WantedSet("few_steps", last, own)
