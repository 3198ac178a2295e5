"""Stops a training that diverges: loss terms or weights are not finite, or the loss jumps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from pae_framework.errors import RunError
from pae_framework.training.checkpoint import Checkpoints, TrainingState

MIN_LOSSES = 20
"""Fewer losses give no median."""

DERIVED = frozenset({"loss", "grad_norm", "opponent_loss", "opponent_grad_norm"})
"""Not finite whenever a term is not, so another term is named if there is one."""


class DivergenceGuard:
    """Checks every step, in order, before a checkpoint of it is written.

    Args:
        state: what is trained; the loss of each checked step is appended to its ``losses``.
        jump: largest loss of a step, as a multiple of the median of the last losses; None: no
            limit. A median that is not positive stops nothing.
        checkpoints: messages name the newest.
        signed: terms left out of the loss that is measured (:class:`TrainTask`).
    """

    def __init__(
        self,
        state: TrainingState,
        jump: float | None,
        checkpoints: Checkpoints,
        signed: Sequence[str] = (),
    ):
        self._state, self._jump, self._checkpoints = state, jump, checkpoints
        self._signed = signed

    def check(self, step: int, terms: Mapping[str, float]) -> None:
        """Check the loss terms of ``step`` (the first is 1).

        Raises:
            RunError: a term is not finite, or the loss jumps.
        """
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        if bad:
            name = min(bad, key=lambda name: name in DERIVED)
            self._stop(
                f"at step {step} the term {name!r} is {terms[name]}",
                "a lower `lr`, a smaller `clip`, `precision: float32`",
            )
        loss, losses = self._unsigned_loss(terms), self._state.losses
        if self._jump and len(losses) >= MIN_LOSSES:
            usual = median(losses)
            if 0 < usual * self._jump < loss:
                without = f" without {', '.join(self._signed)}" if self._signed else ""
                self._stop(
                    f"at step {step} the loss{without} jumps to {loss:.6g}: more than "
                    f"{self._jump:g} times {usual:.6g}, its median over the {len(losses)} steps "
                    "before",
                    "a lower `lr`, a smaller `clip`, more `warmup_steps`, a larger `jump`",
                )
        losses.append(loss)

    def _unsigned_loss(self, terms: Mapping[str, float]) -> float:
        return terms["loss"] - math.fsum(terms.get(name, 0.0) for name in self._signed)

    def check_weights(self, step: int) -> None:
        """Check what a checkpoint after ``step`` would hold.

        Raises:
            RunError: a weight, its average or the optimizer's state is not finite.
        """
        if (name := self._state.not_finite()) is not None:
            self._stop(
                f"after step {step} {name} is not finite",
                "a lower `lr`, a smaller `clip`",
            )

    def _stop(self, what: str, remedy: str) -> None:
        newest = self._checkpoints.newest()
        good = (
            "there is no checkpoint yet"
            if newest is None
            else f"the last good checkpoint is {newest}"
        )
        raise RunError(
            f"{what}; {good}. Training is deterministic: resuming from there fails again unless "
            f"you change a setting ({remedy})"
        )
