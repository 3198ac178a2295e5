"""Checkpoints: what comes back, and what happens to damaged ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import load_weights, save_tensors
from pae_framework.training.checkpoint import Checkpoints, TrainingState
from pae_framework.training.ema import EMA


def trained_state(steps: int = 3) -> TrainingState:
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    ema = EMA(module, 0.9)
    for _ in range(steps):
        module(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
    return TrainingState(module, optimizer, ema)


def fresh_state() -> TrainingState:
    module = nn.Linear(4, 2)
    return TrainingState(module, torch.optim.AdamW(module.parameters(), lr=0.1), EMA(module, 0.9))


def same(a: TrainingState, b: TrainingState) -> bool:
    files, others = a.tensors(), b.tensors()
    return all(
        files[name].keys() == others[name].keys()
        and all(torch.equal(value, others[name][key]) for key, value in files[name].items())
        for name in files
    )


def test_weights_average_and_optimiser_come_back_bit_for_bit(tmp_path: Path):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    checkpoints.save(3, state)
    restored = fresh_state()
    assert checkpoints.restore(restored) == 3
    assert same(state, restored)


def test_without_a_checkpoint_training_begins_at_step_0(tmp_path: Path):
    assert Checkpoints(tmp_path / "none").restore(fresh_state()) == 0


def test_the_two_newest_are_kept(tmp_path: Path):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("damage", ["flip a byte", "cut the file", "remove the file", "no state"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trained_state(1))
    checkpoints.save(2, trained_state(2))
    newest = tmp_path / "step-00000002"
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip a byte":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "cut the file":
        weights.write_bytes(content[:-3])
    elif damage == "remove the file":
        weights.unlink()
    else:
        (newest / "state.json").write_text("{", encoding="utf-8")
    restored = fresh_state()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(restored) == 1
    assert same(restored, trained_state(1))
    assert "step-00000002" in caplog.text


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trained_state(1))
    (tmp_path / "step-00000002.new").mkdir()
    assert checkpoints.restore(fresh_state()) == 1


def test_weights_of_another_shape_are_refused_with_the_names(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_tensors(nn.Linear(3, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"(?s)weights\.safetensors.*weight"):
        load_weights(nn.Linear(4, 2), path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(nn.Linear(4, 2), path)
