"""The divergence guard: what it stops, what it names, what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pae_framework.errors import RunError
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState
from pae_framework.training.divergence import MIN_LOSSES, DivergenceGuard


def guard(
    directory: Path,
    jump: float | None = None,
    losses: list[float] | None = None,
    signed: tuple[str, ...] = (),
) -> DivergenceGuard:
    module = nn.Linear(2, 1)
    network = NetworkState(module, torch.optim.AdamW(module.parameters()))
    state = TrainingState({"model": network})
    state.losses.extend(losses or [])
    return DivergenceGuard(state, jump, Checkpoints(directory).describe_newest, signed)


def test_the_error_names_a_term_rather_than_sums_of_terms(tmp_path: Path):
    terms = {"loss": float("nan"), "l1": 1.0, "ssr": float("inf"), "grad_norm": float("nan")}
    with pytest.raises(RunError, match=r"step 9 .*'ssr'.* inf\b"):
        guard(tmp_path).check(9, terms)


def test_the_terms_of_the_discriminator_are_checked(tmp_path: Path):
    with pytest.raises(RunError, match=r"'opponent_loss'.* nan\b"):
        guard(tmp_path).check(9, {"loss": 1.0, "opponent_loss": float("nan")})


def test_a_jump_is_measured_by_the_median_not_the_mean(tmp_path: Path):
    """Median 2 of ten 1s, one 2 and ten 100s: 20 is more than 5 times it; the mean is 48."""
    before = [1.0] * 10 + [2.0] + [100.0] * 10
    guard(tmp_path, jump=5.0, losses=before).check(22, {"loss": 10.0})
    with pytest.raises(RunError, match=r"jumps.* 20\b.*\b5 times 2\b.*\b21 steps"):
        guard(tmp_path, jump=5.0, losses=before).check(22, {"loss": 20.0})


def test_a_jump_needs_twenty_earlier_losses(tmp_path: Path):
    guard(tmp_path, jump=2.0, losses=[1.0] * (MIN_LOSSES - 1)).check(20, {"loss": 9.0})
    with pytest.raises(RunError, match="jumps"):
        guard(tmp_path, jump=2.0, losses=[1.0] * MIN_LOSSES).check(21, {"loss": 9.0})


def test_checked_steps_count_as_earlier_losses(tmp_path: Path):
    guarding = guard(tmp_path, jump=2.0)
    for step in range(1, MIN_LOSSES + 1):
        guarding.check(step, {"loss": 1.0})
    with pytest.raises(RunError, match=f"step {MIN_LOSSES + 1} "):
        guarding.check(MIN_LOSSES + 1, {"loss": 2.5})


@pytest.mark.parametrize("usual", [0.0, -1.0])
def test_there_is_no_jump_if_the_median_is_not_positive(tmp_path: Path, usual: float):
    guard(tmp_path, jump=2.0, losses=[usual] * 50).check(51, {"loss": 5.0})


@pytest.mark.parametrize("fool", [9.0, -0.9])
def test_a_signed_term_causes_no_jump(tmp_path: Path, fool: float):
    """The rest is 1 at each step: of the sum 10 would be a jump, and 1 after 0.1 one, too."""
    guarding = guard(tmp_path, jump=5.0, losses=[1.0] * MIN_LOSSES, signed=("fool",))
    for step in range(MIN_LOSSES + 1, 3 * MIN_LOSSES):
        guarding.check(step, {"loss": 1.0 + fool, "fit": 1.0, "fool": fool})
    guarding.check(3 * MIN_LOSSES, {"loss": 1.0, "fit": 1.0})


def test_a_signed_term_hides_no_jump_of_the_other_terms(tmp_path: Path):
    guarding = guard(tmp_path, jump=5.0, losses=[1.0] * MIN_LOSSES, signed=("fool",))
    with pytest.raises(RunError, match=r"loss without fool jumps.* 6\b.*\b5 times 1\b"):
        guarding.check(MIN_LOSSES + 1, {"loss": 1.0, "fit": 6.0, "fool": -5.0})
