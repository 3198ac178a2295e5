"""Settings of a training: length, optimizer, schedule, checkpoints. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import Field, model_validator

from pae_framework.config import (
    BatchSize,
    Count,
    Distinct,
    Epochs,
    Length,
    Magnitude,
    PathText,
    Precision,
    Seed,
    Settings,
    Side,
    StartStep,
    Steps,
    Weight,
    Workers,
)

Parallel = Literal["ddp", "fsdp"]
Noise = Literal["cpu", "device"]
Beta = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Gt(0), Le(100)]
_SNAPSHOT = re.compile(r"snapshots/ema-(0\.\d+)-step(\d+)\.safetensors")
EmaLength = Annotated[float, Ge(0.005), Le(0.28)]
"""Relative length of a power-function average; the plain mean has sqrt(1/12) = 0.289."""

NETWORK_COLUMNS = ("loss", "grad_norm", "lr")
"""Columns that the training loop logs for each network, in addition to the terms of its loss."""
DISCRIMINATOR_PREFIX = "opponent_"
"""Precedes the discriminator's :data:`NETWORK_COLUMNS` in the log."""
LOG_COLUMNS = (
    *("step", "images_per_s", "data_wait"),
    *NETWORK_COLUMNS,
    *(f"{DISCRIMINATOR_PREFIX}{column}" for column in NETWORK_COLUMNS),
)
"""Columns that the training loop logs in addition to the terms of the losses."""


class EmaSnapshots(Settings):
    """Snapshots of power-function averages, from which others are reconstructed (EDM2)."""

    every: Count = Field(description="steps between snapshots; the last step has one, too")
    lengths: Annotated[tuple[EmaLength, ...], Len(1, 8), Distinct] = Field(
        (0.05, 0.1),
        description="relative lengths of the averages: standard deviation of the weights of the "
        "steps, divided by the number of steps (EDM2: 0.05 and 0.1)",
    )

    def takes(self, step: int, total: int) -> bool:
        """Whether there is a snapshot after ``step`` of ``total`` optimizer steps."""
        return step % self.every == 0 or step == total

    def planned_files(self, up_to: int) -> Iterator[str]:
        """The files of the snapshots after every ``every`` steps, up to a step."""
        for step in range(self.every, up_to + 1, self.every):
            yield from (self.file(length, step) for length in self.lengths)

    @staticmethod
    def file(length: float, step: int) -> str:
        """The file of a snapshot, relative to the folder of the training."""
        return f"snapshots/ema-{length!r}-step{step:08d}.safetensors"

    @staticmethod
    def read_name(file: str) -> tuple[float, int] | None:
        """The length and the step of the snapshot in a file; None: it is no snapshot."""
        found = _SNAPSHOT.fullmatch(file)
        return (float(found[1]), int(found[2])) if found else None


class OptimizerSettings(Settings):
    """Settings of AdamW and its learning-rate schedule."""

    lr: LearningRate = Field(1e-3, description="peak learning rate of AdamW")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW betas")
    weight_decay: Weight = Field(0.0, description="weight decay of AdamW, on matrices only")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    final_lr: float = Field(
        0.1, ge=0, le=1, description="last learning rate, as a fraction of `lr`"
    )
    decay_from: Length | None = Field(
        None,
        description="when the decay of cosine or linear starts; `lr` holds until then; null: after "
        "the warm-up",
    )
    decay_to: Length | None = Field(
        None,
        description="when the decay reaches `final_lr`, which holds from then on; null: at the "
        "last step",
    )
    warmup_steps: StartStep = Field(0, description="steps of the linear warm-up")
    clip: Magnitude | None = Field(1.0, description="maximum gradient norm; null: no clipping")

    @model_validator(mode="after")
    def _decay_in_order(self) -> Self:
        start, end = self.decay_from, self.decay_to
        if self.schedule == "constant" and (start or end):
            raise ValueError(
                "a constant schedule has no decay; set schedule=linear, or leave out `decay_from` "
                "and `decay_to`"
            )
        if start is not None and start.steps is not None and start.steps < self.warmup_steps:
            raise ValueError(
                f"`decay_from` (step {start.steps}) is before the end of the warm-up (step "
                f"{self.warmup_steps})"
            )
        earliest = start or Length(steps=self.warmup_steps)
        if end is not None and end.same_unit(earliest) and not earliest.before(end):
            raise ValueError(f"`decay_to` ({end}) is not after the start of the decay ({earliest})")
        return self

    def rates_depend_on_length(self, step: int) -> bool:
        """Whether the learning rates of the first ``step`` steps depend on how many follow."""
        if self.schedule == "constant" or self.final_lr == 1 or self.decay_to is not None:
            return False
        start = self.decay_from
        held = None if start is None else start.steps
        return step > (self.warmup_steps if held is None else held)


class TrainSettings(OptimizerSettings):
    """How a stage trains: length, batch, optimizer, schedule, EMA, checkpoints."""

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {
            *("log_every", "checkpoint_every", "workers", "jump"),
            *("compile", "activation_checkpointing", "parallel", "continue_from"),
        }
    )

    steps: Count | None = Field(None, description="optimizer steps; or set `epochs`")
    epochs: Epochs | None = Field(None, gt=0, description="passes over the data; or set `steps`")
    batch_size: BatchSize = Field(64, description="images per optimizer step")
    accumulate: BatchSize = Field(
        1,
        description="number of micro-batches per step; adaptive weights and batch norm are "
        "computed per micro-batch",
    )
    flip: bool | None = Field(
        None, description="mirror images at random in this training; null: as `data.flip` says"
    )
    crop_from: Side | None = Field(
        None,
        description="read images with this side, px, and crop them at random to `data.image_size`, "
        "anew in each epoch (RAE: 384 for 256); null: read them with that side",
    )
    lr_factors: dict[str, Weight] = Field(
        {},
        description="prefix of weight names (`decoder`) -> factor of their learning rate; 0 "
        "freezes them",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay per step of the EMA of the weights; null: no EMA"
    )
    ema_snapshots: EmaSnapshots | None = Field(
        None,
        description="snapshots of averages of other lengths, from which `pae export ema` "
        "reconstructs any length after the training, of the generator or tokenizer; null: none",
    )
    precision: Precision = Field("float32", description="bf16: autocast; weights stay float32")
    noise: Noise = Field(
        "cpu",
        description="where the random numbers of a step are drawn; device: on the GPU, which is "
        "faster, but its numbers depend on its model",
    )
    compile: bool = Field(False, description="torch.compile of the transformer blocks")
    activation_checkpointing: bool = Field(
        False, description="recompute the activations of blocks in the backward pass: less memory"
    )
    parallel: Parallel = Field(
        "ddp",
        description="with several processes: ddp: each has a copy of the network; fsdp: each has a "
        "part of weights, averages and optimizer, for networks that do not fit",
    )
    jump: float | None = Field(
        None,
        gt=1,
        description="stop if the loss without the adversarial term exceeds this multiple of its "
        "recent median; null: stop only if a term is not finite",
    )
    workers: Workers = Field(0, description="processes that load data; 0: the main process")
    log_every: Count = Field(20, description="steps between lines of the metrics log")
    checkpoint_every: Count = Field(200, description="steps between checkpoints")
    keep_steps: Steps = Field(
        (), description="steps whose weights (EMA, if there is one) are kept, besides the last"
    )
    seed: Seed | None = Field(None, description="seed of this stage; null: that of the recipe")
    continue_from: PathText | None = Field(
        None,
        description="run or folder of a stage to go on from: the same training with fewer steps, "
        "with a constant schedule or `decay_to`; null: look for one among the stages of the run",
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of `steps` and `epochs`")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"`batch_size` {self.batch_size} is not a multiple of `accumulate` "
                f"{self.accumulate}"
            )
        return self

    @property
    def averages(self) -> int:
        """Number of averages of the weights that it keeps."""
        others = len(self.ema_snapshots.lengths) if self.ema_snapshots else 0
        return others + (self.ema is not None)

    def total_steps(self, images: int) -> int:
        """Optimizer steps for a data set of ``images`` images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch_size))

    def epochs_at(self, step: int, images: int) -> float:
        """Passes over a data set of ``images`` images after ``step`` optimizer steps."""
        return step * self.batch_size / images
