"""Checkpoints: restored state, damaged files, checkpoints of older versions."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch
import xxhash
from torch import nn

from pae_framework.errors import CheckpointError
from pae_framework.system.files import read_json, write_json
from pae_framework.tensor_files import load_tensors, load_weights, save_tensors
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState
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
    return TrainingState({"model": NetworkState(module, optimizer)}, ema)


def fresh_state() -> TrainingState:
    module = nn.Linear(4, 2)
    network = NetworkState(module, torch.optim.AdamW(module.parameters(), lr=0.1))
    return TrainingState({"model": network}, EMA(module, 0.9))


def same(a: TrainingState, b: TrainingState) -> bool:
    files, others = a.tensors(), b.tensors()
    return all(
        files[name].keys() == others[name].keys()
        and all(torch.equal(value, others[name][key]) for key, value in files[name].items())
        for name in files
    )


def rewrite_as_old(folder: Path, **changes: object) -> None:
    """Rewrite state.json as earlier versions wrote it: without a digest of its own."""
    record = read_json(folder / "state.json") | changes
    kept = ("step", "losses", "digests")
    write_json(folder / "state.json", {k: record[k] for k in kept if record[k] is not None})


def hex_digest(path: Path, algorithm: str) -> str:
    """Of a whole file: XXH3, or the BLAKE2b of 16 bytes that earlier versions recorded."""
    content = path.read_bytes()
    if algorithm == "xxh3":
        return xxhash.xxh3_128(content).hexdigest()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def test_weights_ema_and_optimizer_are_restored_exactly(tmp_path: Path):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    checkpoints.save(3, state)
    restored = fresh_state()
    assert checkpoints.restore(restored) == 3
    assert same(state, restored)


def with_discriminator(state: TrainingState, seed: int) -> TrainingState:
    torch.manual_seed(seed)
    module = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainingState({**state.networks, "opponent": NetworkState(module, optimizer)}, state.ema)


def test_a_discriminator_and_its_optimizer_are_restored(tmp_path: Path):
    state, checkpoints = with_discriminator(trained_state(), seed=1), Checkpoints(tmp_path)
    checkpoints.save(3, state)
    files = sorted(path.stem for path in (tmp_path / "step-00000003").glob("*.safetensors"))
    assert files == ["ema", "model", "opponent", "opponent_optimizer", "optimizer"]
    restored = with_discriminator(fresh_state(), seed=2)
    assert not same(state, restored)
    checkpoints.restore(restored)
    assert same(state, restored)


def test_a_discriminator_missing_from_the_checkpoint_starts_fresh(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, trained_state())
    state, untouched = (
        with_discriminator(fresh_state(), seed=2),
        with_discriminator(fresh_state(), seed=2),
    )
    assert checkpoints.restore(state) == 3
    assert torch.equal(
        state.networks["opponent"].module.state_dict()["weight"],
        untouched.networks["opponent"].module.state_dict()["weight"],
    )
    assert same(trained_state(), TrainingState({"model": state.networks["model"]}, state.ema))


def test_checkpoints_with_weights_by_index_still_restore(tmp_path: Path):
    """As version 0.1 wrote them: optimizer entries named 0.exp_avg, no losses."""
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    files = state.tensors()
    names = {"weight": "0", "bias": "1"}
    by_index = {}
    for entry, value in files["optimizer"].items():
        name, key = entry.split(".")
        by_index[f"{names[name]}.{key}"] = value
    restored = fresh_state()
    restored.restore({**files, "optimizer": by_index})
    assert same(state, restored)

    checkpoints.save(3, state)
    rewrite_as_old(tmp_path / "step-00000003", losses=None)
    assert checkpoints.restore(fresh_state()) == 3


def test_each_file_has_its_xxh3_digest(tmp_path: Path):
    Checkpoints(tmp_path).save(3, trained_state())
    folder = tmp_path / "step-00000003"
    files = {path.stem: path for path in folder.glob("*.safetensors")}
    assert files.keys() == {"model", "ema", "optimizer"}
    assert read_json(folder / "state.json")["digests"] == {
        name: f"xxh3:{hex_digest(path, 'xxh3')}" for name, path in files.items()
    }


@pytest.mark.parametrize("damaged", ["", "model", "ema", "optimizer"])
def test_digests_of_an_earlier_version_are_checked(tmp_path: Path, damaged: str):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    checkpoints.save(3, state)
    folder = tmp_path / "step-00000003"
    files = {path.stem: path for path in folder.glob("*.safetensors")}
    digests = {name: hex_digest(path, "blake2b") for name, path in files.items()}
    rewrite_as_old(folder, digests=digests)
    if damaged:
        content = bytearray(files[damaged].read_bytes())
        content[-1] ^= 1
        files[damaged].write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{damaged}.safetensors is damaged"):
            checkpoints.restore(fresh_state())
    else:
        restored = fresh_state()
        assert checkpoints.restore(restored) == 3
        assert same(state, restored)


def test_an_ema_missing_from_the_checkpoint_starts_at_the_weights(tmp_path: Path):
    state = trained_state()
    Checkpoints(tmp_path).save(3, TrainingState(state.networks))
    restored = fresh_state()
    Checkpoints(tmp_path).restore(restored)
    assert restored.ema
    weights = restored.networks["model"].module.state_dict()
    assert all(torch.equal(weights[name], v) for name, v in restored.ema.state_dict().items())


def test_optimizer_state_follows_names_of_weights_not_their_order(tmp_path: Path):
    """Other groups (another factor of one part's learning rate) change the order of weights."""
    Checkpoints(tmp_path).save(3, trained_state())
    module = nn.Linear(4, 2)
    groups = [{"params": [module.bias]}, {"params": [module.weight]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    Checkpoints(tmp_path).restore(TrainingState({"model": NetworkState(module, optimizer)}))
    saved = load_tensors(tmp_path / "step-00000003" / "optimizer.safetensors")
    for name, weight in module.named_parameters():
        assert torch.equal(optimizer.state[weight]["exp_avg"], saved[f"{name}.exp_avg"])


def test_the_last_hundred_losses_are_restored(tmp_path: Path):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    state.losses.extend(float(n) / 3 for n in range(130))
    checkpoints.save(3, state)
    restored = fresh_state()
    restored.losses.append(7.0)
    checkpoints.restore(restored)
    assert list(restored.losses) == [n / 3 for n in range(30, 130)]


class TestFindNonfinite:
    def test_returns_none_if_all_is_finite(self):
        assert trained_state().find_nonfinite() is None

    def test_a_weight_is_named(self):
        state = trained_state()
        with torch.no_grad():
            state.networks["model"].module.bias[1] = float("inf")
        assert state.find_nonfinite() == "model: bias"

    def test_an_average_and_a_moment_are_checked(self):
        state = trained_state()
        assert state.ema
        state.ema.state_dict()["weight"][0, 0] = float("nan")
        assert state.find_nonfinite() == "ema: weight"
        network = state.networks["model"]
        network.optimizer.state[network.module.bias]["exp_avg_sq"][0] = float("inf")
        assert state.find_nonfinite() == "optimizer: bias.exp_avg_sq"

    def test_a_mask_may_hold_infinities(self):
        state = trained_state()
        state.networks["model"].module.register_buffer("mask", torch.tensor(-float("inf")))
        assert state.find_nonfinite() is None


def test_without_a_checkpoint_the_step_is_0(tmp_path: Path):
    assert Checkpoints(tmp_path / "none").restore(fresh_state()) == 0


def test_the_two_newest_are_kept(tmp_path: Path):
    state, checkpoints = trained_state(), Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("damage", ["flip a byte", "cut the file", "remove the file", "no state"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
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


def test_an_unfinished_checkpoint_is_ignored(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trained_state(1))
    (tmp_path / "step-00000002.new").mkdir()
    assert checkpoints.restore(fresh_state()) == 1


def test_weights_of_another_shape_are_rejected_and_named(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_tensors(nn.Linear(3, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"(?s)weights\.safetensors.*weight"):
        load_weights(nn.Linear(4, 2), path)


def test_a_file_that_is_not_safetensors_is_rejected(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(nn.Linear(4, 2), path)
