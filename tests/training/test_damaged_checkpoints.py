"""Damaged checkpoints: a training resumes from a sound one, or says that there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from toy_training import (
    KilledError,
    killed_at,
    read_metrics,
    regression,
    regression_batches,
    same_tensors,
    train_context,
    train_settings,
)

from pae_framework.errors import CheckpointError
from pae_framework.system.files import read_json, write_json
from pae_framework.training.checkpoint import Checkpoints
from pae_framework.training.loop import train

STEPS = 12
OLDER, NEWEST = "step-00000003", "step-00000006"
FILES = ("model", "optimizer", "ema")


def run(directory: Path, kill_at: int | None = None, **changes: object) -> None:
    task = replace(regression(), batches=killed_at(kill_at, regression_batches))
    given = train_settings(STEPS, **{"ema": 0.8, "checkpoint_every": 3, "log_every": 2, **changes})
    train(task, given, STEPS, train_context(directory))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed after step 7, with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KilledError):
        run(folder, kill_at=7)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {OLDER, NEWEST}
    return folder


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "weights.safetensors")


# --- random damage --------------------------------------------------------------------------------

Damage = Callable[[Path], None]
"""Changes the folder of a checkpoint."""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from([3, 6, 9, "6", 6.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
GARBAGE = st.binary(max_size=40) | st.sampled_from(
    [b"", b"null", b"[]", b"{}", b'"text"', b"6", b"[" * 100_000, b"9" * 5000, b'{"step": 6}']
)


def entries(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all entries in a JSON value."""
    pairs: Any = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    inner = [found for key, item in pairs for found in entries(item, (*path, key))]
    return [path, *inner] if path else inner


@st.composite
def edited_entry(draw: st.DrawFn) -> Damage:
    """Removes, replaces or adds one entry of state.json at any depth."""
    number, value, key = draw(st.integers(0, 10**6)), draw(VALUES), draw(st.text(max_size=8))
    action = draw(st.sampled_from(["remove", "replace", "shift", "add"]))

    def damage(folder: Path) -> None:
        content = read_json(folder / "state.json")
        paths = entries(content)
        *parents, last = paths[number % len(paths)]
        holder = content
        for parent in parents:
            holder = holder[parent]
        if action == "remove":
            del holder[last]
        elif action == "add" and isinstance(holder, dict):
            holder[key] = value
        elif action == "shift" and isinstance(holder[last], int | float):
            holder[last] += 1 + number % 5
        else:
            holder[last] = value
        (folder / "state.json").write_text(json.dumps(content), encoding="utf-8")

    return damage


@st.composite
def replaced_state(draw: st.DrawFn) -> Damage:
    content = draw(GARBAGE)
    return lambda folder: (folder / "state.json").write_bytes(content) and None


@st.composite
def damaged_bytes(draw: st.DrawFn) -> Damage:
    """Flips a bit of a file, cuts it, empties it, removes it, or puts a folder in its place."""
    name = draw(st.sampled_from(["state.json", *(f"{file}.safetensors" for file in FILES)]))
    action = draw(st.sampled_from(["flip", "cut", "empty", "remove", "folder"]))
    place = draw(st.integers(0, 10**6))

    def damage(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        path.unlink()
        at = place % len(content)
        if action == "flip":
            content[at] ^= 1 << place % 8
            path.write_bytes(content)
        elif action == "cut":
            path.write_bytes(content[:at])
        elif action == "empty":
            path.write_bytes(b"")
        elif action == "folder":
            path.mkdir()

    return damage


@st.composite
def exchanged_files(draw: st.DrawFn) -> Damage:
    """Exchanges two files, or takes one from the other checkpoint."""
    one, other = draw(st.permutations(FILES))[:2]
    from_older = draw(st.booleans())

    def damage(folder: Path) -> None:
        first, second = (folder / f"{name}.safetensors" for name in (one, other))
        if from_older:
            shutil.copy(folder.parent / OLDER / first.name, first)
            return
        content = first.read_bytes()
        shutil.copy(second, first)
        second.write_bytes(content)

    return damage


@st.composite
def forgotten_files(draw: st.DrawFn) -> Damage:
    """Removes files and their entries in state.json."""
    gone = draw(st.lists(st.sampled_from(FILES), min_size=1, unique=True))

    def damage(folder: Path) -> None:
        content = read_json(folder / "state.json")
        for name in gone:
            del content["digests"][name]
            (folder / f"{name}.safetensors").unlink()
        write_json(folder / "state.json", content)

    return damage


@st.composite
def moved_folder(draw: st.DrawFn) -> Damage:
    """The checkpoint of another step, nothing, or a file in its place."""
    action = draw(st.sampled_from(["as step 7", "older", "empty", "file"]))

    def damage(folder: Path) -> None:
        if action == "as step 7":
            folder.rename(folder.with_name("step-00000007"))
            return
        shutil.rmtree(folder)
        if action == "older":
            shutil.copytree(folder.parent / OLDER, folder)
        elif action == "empty":
            folder.mkdir()
        else:
            folder.write_text("a checkpoint", encoding="utf-8")

    return damage


IN_PLACE = edited_entry() | replaced_state() | damaged_bytes() | forgotten_files()
DAMAGE = IN_PLACE | exchanged_files() | moved_folder()


def check_damage(killed: Path, undisturbed: Path, newest: Damage, older: Damage | None) -> None:
    with TemporaryDirectory() as folder:
        directory = Path(folder, "run")
        shutil.copytree(killed, directory)
        newest(directory / "checkpoints" / NEWEST)
        if older:
            older(directory / "checkpoints" / OLDER)
        try:
            run(directory)
        except CheckpointError:
            assert older is not None
            return
        assert same_tensors(weights(undisturbed), weights(directory))
        assert read_metrics(undisturbed) == read_metrics(directory)
        assert len(list((directory / "checkpoints").iterdir())) == 2


@settings(max_examples=70)
@given(DAMAGE)
def test_after_any_damage_to_the_newest_the_training_ends_as_the_undisturbed_one(
    killed: Path, undisturbed: Path, damage: Damage
):
    check_damage(killed, undisturbed, damage, None)


@settings(max_examples=30)
@given(DAMAGE, IN_PLACE)
def test_after_any_damage_to_both_it_ends_as_undisturbed_or_does_not_start(
    killed: Path, undisturbed: Path, newest: Damage, older: Damage
):
    check_damage(killed, undisturbed, newest, older)


@pytest.mark.slow
@settings(max_examples=1000)
@given(DAMAGE, st.none() | IN_PLACE)
def test_a_thousand_damaged_trainings(
    killed: Path, undisturbed: Path, newest: Damage, older: Damage | None
):
    check_damage(killed, undisturbed, newest, older)


# --- chosen damage --------------------------------------------------------------------------------


def test_if_all_are_damaged_the_error_names_each_and_nothing_is_removed(
    killed: Path, tmp_path: Path
):
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    checkpoints = directory / "checkpoints"
    write_json(checkpoints / NEWEST / "state.json", [1, 2])
    (checkpoints / OLDER / "ema.safetensors").unlink()
    with pytest.raises(CheckpointError) as refused:
        run(directory)
    assert str(checkpoints / NEWEST / "state.json") in str(refused.value)
    assert str(checkpoints / OLDER / "ema.safetensors") in str(refused.value)
    assert (checkpoints / NEWEST / "model.safetensors").is_file()
    assert (directory / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()


def as_earlier_version(folder: Path, **changes: Any) -> None:
    """Rewrite state.json without a digest of its own."""
    record = read_json(folder / "state.json") | changes
    write_json(folder / "state.json", {key: record[key] for key in ("step", "losses", "digests")})


def without(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        digests = read_json(folder / "state.json")["digests"]
        del digests[name]
        as_earlier_version(folder, digests=digests)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(without(name) for name in FILES),
        lambda folder: as_earlier_version(folder, step=3),
        lambda folder: as_earlier_version(folder, step="6"),
        lambda folder: as_earlier_version(folder, step=True),
        lambda folder: as_earlier_version(folder, losses={}),
        lambda folder: as_earlier_version(folder, losses=[1.0, "2"]),
        lambda folder: as_earlier_version(folder, losses=[float("nan")]),
        lambda folder: as_earlier_version(folder, digests=[]),
        lambda folder: as_earlier_version(folder, digests={"../model": "0"}),
    ],
)
def test_a_checkpoint_of_an_earlier_version_is_checked_as_far_as_possible(
    killed: Path, undisturbed: Path, damage: Damage
):
    check_damage(killed, undisturbed, damage, None)


def test_a_training_of_an_earlier_version_resumes(killed: Path, undisturbed: Path, tmp_path: Path):
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    shutil.rmtree(directory / "checkpoints" / OLDER)
    as_earlier_version(directory / "checkpoints" / NEWEST)
    run(directory)
    assert same_tensors(weights(undisturbed), weights(directory))


def test_an_ema_that_was_never_saved_starts_at_the_weights_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(KilledError):
        run(tmp_path, kill_at=7, ema=None)
    run(tmp_path)
    assert any("ema" in message and NEWEST in message for message in caplog.messages)


def test_a_checkpoint_of_other_weights_is_refused(killed: Path, tmp_path: Path):
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    task = regression()
    task.module.net[0] = torch.nn.Linear(4, 8, bias=False)
    with pytest.raises(CheckpointError, match=rf"(?s){NEWEST}.*net\.0\.bias"):
        train(task, train_settings(STEPS, ema=0.8), STEPS, train_context(directory))


# --- what kills leave -----------------------------------------------------------------------------


def test_what_kills_left_is_cleared_at_the_start(killed: Path, tmp_path: Path):
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    checkpoints = directory / "checkpoints"
    for name in ("step-00000001", "step-00000002"):
        shutil.copytree(checkpoints / OLDER, checkpoints / name)
    shutil.copytree(checkpoints / OLDER, checkpoints / "step-00000009.new")
    (checkpoints / "step-00000003.bak").mkdir()  # not ours
    with pytest.raises(KilledError):
        run(directory, kill_at=7)
    assert {path.name for path in checkpoints.iterdir()} == {OLDER, NEWEST, "step-00000003.bak"}


def test_only_sound_checkpoints_count_towards_the_two_that_are_kept(killed: Path, tmp_path: Path):
    """With the newest damaged, the next are saved beside the one resumed from, not in its place."""
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    (directory / "checkpoints" / NEWEST / "model.safetensors").write_bytes(b"")
    with pytest.raises(KilledError):
        run(directory, kill_at=5, checkpoint_every=4)
    assert Checkpoints(directory / "checkpoints").newest() == (
        directory / "checkpoints" / "step-00000004"
    )
    kept = {path.name for path in (directory / "checkpoints").iterdir()}
    assert kept == {OLDER, "step-00000004"}
