"""The watch: what it stops, what it names, what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pae_framework.errors import RunError
from pae_framework.training.checkpoint import Checkpoints, Part, TrainingState
from pae_framework.training.divergence import SEEN, DivergenceGuard


def watch(
    directory: Path,
    jump: float | None = None,
    losses: list[float] | None = None,
    signed: tuple[str, ...] = (),
) -> DivergenceGuard:
    module = nn.Linear(2, 1)
    part = Part(module, torch.optim.AdamW(module.parameters()))
    state = TrainingState({"model": part})
    state.losses.extend(losses or [])
    return DivergenceGuard(state, jump, Checkpoints(directory), signed)


def test_a_term_is_named_rather_than_the_sums_it_spoils(tmp_path: Path):
    terms = {"loss": float("nan"), "l1": 1.0, "ssr": float("inf"), "grad_norm": float("nan")}
    with pytest.raises(RunError, match="at step 9 the term 'ssr' is inf"):
        watch(tmp_path).look(9, terms)


def test_what_the_opponent_logs_is_looked_at(tmp_path: Path):
    with pytest.raises(RunError, match="'opponent_loss' is nan"):
        watch(tmp_path).look(9, {"loss": 1.0, "opponent_loss": float("nan")})


def test_the_median_not_the_mean_is_what_a_jump_is_measured_by(tmp_path: Path):
    """Median 2 of ten 1s, one 2 and ten 100s: 20 is more than 5 times it; the mean is 48."""
    before = [1.0] * 10 + [2.0] + [100.0] * 10
    watch(tmp_path, jump=5.0, losses=before).look(22, {"loss": 10.0})
    with pytest.raises(RunError, match=r"jumps to 20: more than 5 times 2, .* over the 21 steps"):
        watch(tmp_path, jump=5.0, losses=before).look(22, {"loss": 20.0})


def test_twenty_losses_make_a_median(tmp_path: Path):
    watch(tmp_path, jump=2.0, losses=[1.0] * (SEEN - 1)).look(20, {"loss": 9.0})
    with pytest.raises(RunError, match="jumps"):
        watch(tmp_path, jump=2.0, losses=[1.0] * SEEN).look(21, {"loss": 9.0})


def test_steps_that_were_looked_at_count(tmp_path: Path):
    looking = watch(tmp_path, jump=2.0)
    for step in range(1, SEEN + 1):
        looking.look(step, {"loss": 1.0})
    with pytest.raises(RunError, match=f"at step {SEEN + 1} "):
        looking.look(SEEN + 1, {"loss": 2.5})


@pytest.mark.parametrize("usual", [0.0, -1.0])
def test_a_median_that_is_not_positive_stops_nothing(tmp_path: Path, usual: float):
    watch(tmp_path, jump=2.0, losses=[usual] * 50).look(51, {"loss": 5.0})


@pytest.mark.parametrize("fool", [9.0, -0.9])
def test_a_signed_term_makes_no_jump_whichever_way_it_enters(tmp_path: Path, fool: float):
    """The rest is 1 at each step: of the sum 10 would be a jump, and 1 after 0.1 one, too."""
    looking = watch(tmp_path, jump=5.0, losses=[1.0] * SEEN, signed=("fool",))
    for step in range(SEEN + 1, 3 * SEEN):
        looking.look(step, {"loss": 1.0 + fool, "fit": 1.0, "fool": fool})
    looking.look(3 * SEEN, {"loss": 1.0, "fit": 1.0})


def test_a_signed_term_hides_no_jump_of_the_rest(tmp_path: Path):
    looking = watch(tmp_path, jump=5.0, losses=[1.0] * SEEN, signed=("fool",))
    with pytest.raises(RunError, match="the loss without fool jumps to 6: more than 5 times 1,"):
        looking.look(SEEN + 1, {"loss": 1.0, "fit": 6.0, "fool": -5.0})
