"""Settings of a training: length, optimizer, schedule, checkpoints. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pae_framework.config import Settings, Steps

Precision = Literal["float32", "bf16"]


Beta = Annotated[float, Field(ge=0, lt=1)]


LOG_COLUMNS = (
    *("step", "loss", "lr", "grad_norm", "images_per_s", "data_wait"),
    *("opponent_loss", "opponent_lr", "opponent_grad_norm"),
)
"""Columns that the training loop itself logs, beside the terms of the losses."""


class Length(Settings):
    """A point of a training, in steps or epochs."""

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
        """Whether this is known to be earlier: both have one unit, or this is the start."""
        if self.steps is not None and other.steps is not None:
            return self.steps < other.steps
        if self.epochs is not None and other.epochs is not None:
            return self.epochs < other.epochs
        return not (self.steps or self.epochs) and bool(other.steps or other.epochs)

    def reaches(self, other: Length) -> bool:
        """Whether this is known not to be earlier: both have one unit."""
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

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {"log_every", "checkpoint_every", "workers", "jump", "compile", "activation_checkpointing"}
    )

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
