"""Snapshots of averages in a training, and other averages reconstructed from them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_training import (
    KilledError,
    read_metrics,
    regression,
    same_tensors,
    train_context,
    train_settings,
)

from pae_framework.errors import UsageError
from pae_framework.interop.posthoc_ema import (
    combination_of,
    export_ema,
    stored_profiles,
    weighted_sum,
)
from pae_framework.runs.results import StageResults
from pae_framework.training.loop import train
from pae_framework.training.power_profiles import Profile, exponent
from pae_framework.training.train_settings import EmaSnapshots

STEPS = 12


def run(folder: Path, kill_at: int | None = None, steps: int = STEPS, **changes: object) -> None:
    settings = train_settings(steps, **changes)
    train(regression(kill_at=kill_at), settings, steps, train_context(folder))


def snapshots(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {path.name: load_file(path) for path in sorted((folder / "snapshots").iterdir())}


def test_there_is_a_snapshot_of_each_length_at_the_cadence_and_the_last_step(tmp_path: Path):
    run(tmp_path, ema_snapshots={"every": 5, "lengths": [0.05, 0.2]})
    found = {EmaSnapshots.read_name(f"snapshots/{name}") for name in snapshots(tmp_path)}
    assert found == {(length, step) for length in (0.05, 0.2) for step in (5, 10, 12)}


def test_a_snapshot_is_the_power_weighted_mean_of_all_weights(tmp_path: Path):
    """(sum over k of (k^(g+1) - (k-1)^(g+1)) w_k) / t^(g+1), of weights kept at every step."""
    kept = list(range(1, STEPS))
    run(tmp_path, keep_steps=kept, ema_snapshots={"every": STEPS, "lengths": [0.1]})
    files = [f"weights-step{step:06d}" for step in kept] + ["weights"]
    all_weights = [load_file(tmp_path / f"{name}.safetensors") for name in files]
    power = exponent(0.1) + 1
    (found,) = snapshots(tmp_path).values()
    for name, value in found.items():
        parts = [
            ((k / STEPS) ** power - ((k - 1) / STEPS) ** power) * weights[name].double()
            for k, weights in enumerate(all_weights, 1)
        ]
        torch.testing.assert_close(value.double(), sum(parts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kill_at", [1, 5, 9, 11])
def test_a_killed_training_ends_with_the_same_snapshots(tmp_path: Path, kill_at: int):
    changes = {"ema_snapshots": {"every": 3}}
    run(tmp_path / "whole", **changes)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", kill_at, **changes)
    run(tmp_path / "killed", **changes)
    whole, killed = snapshots(tmp_path / "whole"), snapshots(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(same_tensors(whole[name], killed[name]) for name in whole)


def test_snapshots_do_not_change_the_training(tmp_path: Path):
    run(tmp_path / "with", ema=0.8, ema_snapshots={"every": 2})
    run(tmp_path / "without", ema=0.8)
    weights = [load_file(tmp_path / x / "weights.safetensors") for x in ("with", "without")]
    assert same_tensors(*weights)
    assert read_metrics(tmp_path / "with") == read_metrics(tmp_path / "without")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that also tracked other lengths directly, over its last step."""
    folder = tmp_path_factory.mktemp("tracked")
    run(folder, steps=200, checkpoint_every=200, ema_snapshots={"every": 10})
    direct = folder / "direct"
    lengths = [0.07, 0.15, 0.2]
    run(direct, steps=200, checkpoint_every=200, ema_snapshots={"every": 200, "lengths": lengths})
    return folder


@pytest.mark.parametrize("length", [0.07, 0.15, 0.2])
def test_a_reconstructed_average_is_near_the_tracked_one(tracked: Path, length: float):
    """By Cauchy and Schwarz: |sum of x_i a_i - a| <= error |p| sqrt(sum of w_k^2) for each weight.

    |p|^2 = (g + 1)^2 / ((2 g + 1) t); no weight of this training exceeds the bound ``most``.
    """
    results = StageResults(tracked, None, "")
    stored = stored_profiles(results, "generator")
    combination = combination_of(stored, length, "generator")
    assert combination.error < 0.02
    found = weighted_sum(results, dict(zip(stored, combination.factors, strict=True)))
    exact = load_file(tracked / "direct" / EmaSnapshots.file(length, 200))
    g, most = exponent(length), 4.0
    norm = ((g + 1) ** 2 / (2 * g + 1)) ** 0.5
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert value.abs().max() < most
        torch.testing.assert_close(
            found[name], value.double(), rtol=0, atol=combination.error * norm * most + 1e-5
        )


@pytest.mark.parametrize("profile", [Profile(0.05, 200), Profile(0.1, 200)])
def test_a_stored_average_is_reconstructed(tracked: Path, profile: Profile):
    results = StageResults(tracked, None, "")
    stored = stored_profiles(results, "generator")
    combination = combination_of(stored, profile.length, "generator")
    found = weighted_sum(results, dict(zip(stored, combination.factors, strict=True)))
    file = EmaSnapshots.file(profile.length, profile.step)
    for name, value in load_file(tracked / file).items():
        torch.testing.assert_close(found[name], value.double(), rtol=1e-6, atol=1e-7)


def test_the_written_file_has_the_names_and_buffers_of_the_stages_file(tracked: Path):
    """The names of a tokenizer are those in its training without `tokenizer.`."""
    results = StageResults(tracked, None, "")
    average = load_file(tracked / EmaSnapshots.file(0.1, 200))
    saved = {f"tokenizer.{name}": value for name, value in average.items()}
    folder = tracked / "tokenizer-stage"
    for name, tensors in ((EmaSnapshots.file(0.1, 200), saved), ("tokenizer.safetensors", {})):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        buffers = {"count": torch.tensor([3]), **{x: torch.zeros_like(average[x]) for x in average}}
        save_file(tensors or buffers, folder / name)
    stages = {"generator": results, "tokenizer": StageResults(folder, None, "")}
    recipe = SimpleNamespace(generator=None, tokenizer=None)
    context = SimpleNamespace(results=stages.__getitem__, recipe=recipe)

    for stage in stages:
        export_ema(context, stage, 0.1, tracked / f"{stage}.safetensors")  # type: ignore[arg-type]
    written = load_file(tracked / "tokenizer.safetensors")
    assert written.pop("count").tolist() == [3]
    for found in (written, load_file(tracked / "generator.safetensors")):
        assert found.keys() == average.keys()
        for name, value in average.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_a_length_that_the_snapshots_cannot_reproduce_is_refused():
    stored = [Profile(0.05, 100), Profile(0.1, 100)]
    with pytest.raises(UsageError, match=r"0\.28.*generator\.train\.ema_snapshots\.every"):
        combination_of(stored, 0.28, "generator")


def test_a_training_without_snapshots_is_refused(tmp_path: Path):
    run(tmp_path, ema=0.8)
    with pytest.raises(UsageError, match=r"tokenizer\.train\.ema_snapshots"):
        stored_profiles(StageResults(tmp_path, None, ""), "tokenizer")


def stage_folder(store: Path, name: str, *files: str) -> StageResults:
    for file in files:
        (store / name / file).parent.mkdir(parents=True, exist_ok=True)
        (store / name / file).touch()
    return StageResults(store / name, None, "")


def test_loaded_weights_have_no_snapshots_but_those_of_other_trainings_are_named(tmp_path: Path):
    snapshot = EmaSnapshots.file(0.1, 5)
    loaded = stage_folder(tmp_path, "generator-1", "weights.safetensors")
    stage_folder(tmp_path, "generator-2", snapshot)
    stage_folder(tmp_path, "generator-3", "weights.safetensors")
    stage_folder(tmp_path, "tokenizer-4", snapshot)
    with pytest.raises(UsageError) as caught:
        stored_profiles(loaded, "generator", "ema.safetensors")
    message = str(caught.value)
    assert "generator.weights=ema.safetensors" in message
    assert str(tmp_path / "generator-2") in message
    assert "generator-3" not in message
    assert "tokenizer-4" not in message


@given(st.floats(0.005, 0.28), st.integers(1, 10**9))
def test_the_name_of_a_snapshot_tells_its_length_and_step(length: float, step: int):
    assert EmaSnapshots.read_name(EmaSnapshots.file(length, step)) == (length, step)


@pytest.mark.parametrize("name", ["weights.safetensors", "snapshots/ema-0.1.safetensors", ""])
def test_other_files_are_no_snapshots(name: str):
    assert EmaSnapshots.read_name(name) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"every": 0},
        {"lengths": [0.05]},
        *({"every": 5, "lengths": x} for x in ([], [0.1, 0.1], [0.3], [0.0], [0.05, "long"])),
    ],
)
def test_impossible_snapshots_are_refused(changes: dict[str, object]):
    with pytest.raises(ValidationError, match="ema_snapshots"):
        train_settings(ema_snapshots=changes)
