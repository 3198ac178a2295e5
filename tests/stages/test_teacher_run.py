"""Runs that train a teacher in a stage of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pae_encoders.gae_config import GaeTeacherConfig
from pae_encoders.gae_teacher import GaeTeacher
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.system.console import PlainConsole

SIZE = {"width": 24, "depth": 1, "heads": 2, "grid": 2}
SETTINGS = (
    "use: gae_teacher, input_size: 56, channels: 4, size: {width: 24, depth: 1, heads: 2, grid: 2}"
)


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    """Random weights of a tiny DINOv2, by timm's names."""
    config = GaeTeacherConfig.model_validate({"weights": "none", "size": SIZE, "input_size": 56})
    torch.manual_seed(5)
    state = GaeTeacher(config, 8).base.state_dict()
    tensors = {name.removeprefix("vit."): torch.rand_like(tensor) for name, tensor in state.items()}
    position = tensors.pop("class_position")
    tensors["pos_embed"] = torch.cat([position, tensors["pos_embed"]], dim=1)
    save_file(tensors, tmp_path / "dinov2.safetensors")
    return tmp_path / "dinov2.safetensors"


def test_its_network_is_trained_on_features_that_stay(
    tiny_recipe: Path, tmp_path: Path, dinov2: Path
) -> None:
    directory = RunDirectory.at(tmp_path / "run")
    train = "train: {steps: 2, batch_size: 8}"
    changes = (
        f"tokenizer.teacher={{{SETTINGS}, weights: {dinov2}, {train}}}",
        "tokenizer.refinement=null",
        "tokenizer.regularizers=null",
        "tokenizer.regularizers={feature_mse: {}}",
        "tokenizer.train={steps: 2, batch_size: 8, log_every: 1}",
        "tokenizer.encoder.train.steps=1",
        "sample=null",
        "generator=null",
        "evaluate={reconstruction: {}}",
    )
    loaded = load_recipe(tiny_recipe, changes, load_registry())
    launcher = LocalLauncher(PlainConsole(quiet=True))
    launcher.run(loaded, directory, "pae run", until="tokenizer")

    teacher = load_file(directory.path / "teacher" / "encoder.safetensors")
    given = load_file(dinov2)
    base = {name.removeprefix("base.vit."): x for name, x in teacher.items()}
    blocks = [name for name in given if name.startswith("blocks.")]
    assert blocks
    assert all(torch.equal(base[name], given[name]) for name in blocks)
    assert teacher["compressor.weight"].shape == (4, 24)
    log = (directory.path / "tokenizer" / "metrics.jsonl").read_text()
    assert "feature_mse" in log
