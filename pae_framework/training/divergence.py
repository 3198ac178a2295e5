"""Stops a training that has gone wrong: terms or weights that are not finite, a loss that jumps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from pae_framework.errors import RunError
from pae_framework.training.checkpoint import Checkpoints, TrainingState

SEEN = 20
"""Losses a median is taken of, at least."""

DERIVED = frozenset({"loss", "grad_norm", "opponent_loss", "opponent_grad_norm"})
"""Not finite where a term is not: named only where no other is."""


class DivergenceGuard:
    """Looks at every step, in order, before a checkpoint of it is written.

    Args:
        state: what is trained; its ``losses`` are those of the steps before, and looked-at steps
            are added to them.
        jump: how many times the median of the last losses a step's loss may be; None: any. A median
            that is not positive tells nothing and stops nothing.
        checkpoints: named in messages.
        signed: terms that do not count in the losses (:class:`TrainTask`).
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

    def look(self, step: int, terms: Mapping[str, float]) -> None:
        """Look at what the training logged of ``step`` (the first is 1).

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
        loss, losses = self._watched(terms), self._state.losses
        if self._jump and len(losses) >= SEEN:
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

    def _watched(self, terms: Mapping[str, float]) -> float:
        return terms["loss"] - math.fsum(terms.get(name, 0.0) for name in self._signed)

    def look_at_weights(self, step: int) -> None:
        """Look at what a checkpoint after ``step`` would hold.

        Raises:
            RunError: a weight, an average or the optimiser's state is not finite.
        """
        if (name := self._state.not_finite()) is not None:
            self._stop(
                f"after step {step} {name} holds numbers that are not finite",
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
            f"{what}; {good}. Training is deterministic: going on from there ends here again "
            f"unless a setting is changed ({remedy})"
        )
