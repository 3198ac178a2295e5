"""Stop a training that diverges: a loss term or a weight is not finite, or the loss jumps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from pae_framework.errors import RunError
from pae_framework.training.checkpoint import TrainingState
from pae_framework.training.train_settings import LOG_COLUMNS
from pae_framework.world import ONE_PROCESS, World

MIN_LOSSES = 20
"""A jump is only detected after so many losses."""


class DivergenceGuard:
    """Checks every step, in order, before a checkpoint of it is written.

    Args:
        state: what is trained; the loss of each checked step is appended to its ``losses``.
        jump: largest loss of a step, as a multiple of the median of the last losses; None: no
            limit. There is no limit either while the median is not positive.
        describe_newest: the newest checkpoint, for error messages.
        signed: terms that are subtracted from the loss before it is compared, see
            :class:`TrainTask`.
        world: if a check of weights fails in one of its processes, it fails in all.
    """

    def __init__(
        self,
        state: TrainingState,
        jump: float | None,
        describe_newest: Callable[[], str],
        signed: Sequence[str] = (),
        world: World = ONE_PROCESS,
    ):
        self._state, self._jump, self._describe_newest = state, jump, describe_newest
        self._signed, self._world = signed, world

    def check(self, step: int, terms: Mapping[str, float]) -> None:
        """Check the loss terms of ``step`` (the first is 1).

        Raises:
            RunError: a term is not finite, or the loss jumps.
        """
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        if bad:
            # Loss and gradient norm are computed from the terms, so a term is the cause.
            name = min(bad, key=lambda name: name in LOG_COLUMNS)
            remedy = "a lower `lr`, a smaller `clip`, `precision: float32`"
            if step == 1:  # no weight has been trained yet
                remedy = "of the term itself or of its input, or its code"
            self._stop(f"at step {step} the term {name!r} is {terms[name]}", remedy)
        loss = terms["loss"] - math.fsum(terms.get(name, 0.0) for name in self._signed)
        losses = self._state.losses
        if self._jump and len(losses) >= MIN_LOSSES:
            typical = median(losses)
            if 0 < typical * self._jump < loss:
                without = f" without {', '.join(self._signed)}" if self._signed else ""
                self._stop(
                    f"at step {step} the loss{without} jumps to {loss:.6g}, more than "
                    f"{self._jump:g} times {typical:.6g}, its median over the last {len(losses)} "
                    "steps",
                    "a lower `lr`, a smaller `clip`, more `warmup_steps`, a larger `jump`",
                )
        losses.append(loss)

    def check_weights(self, step: int) -> None:
        """Check what a checkpoint after ``step`` would hold.

        Raises:
            RunError: a weight, its average or the optimizer's state is not finite.
        """
        name = self._state.find_nonfinite()
        if self._world.any(name is not None):
            bad = name or "a weight of another process"
            self._stop(f"after step {step} {bad} is not finite", "a lower `lr`, a smaller `clip`")

    def _stop(self, problem: str, remedy: str) -> None:
        raise RunError(
            f"{problem}; {self._describe_newest()}. Training is deterministic: "
            f"resuming fails at the same step unless you change a setting ({remedy})"
        )
