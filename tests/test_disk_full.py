"""A file that cannot be written completely: one error that names it, and nothing of it is left.

The limit of a process on the size of its files stands for a full disk: writing fails in the same
calls, in the middle of the file.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from pae_framework.data.latent_dataset import write_shard
from pae_framework.data.statistics import LatentStatistics
from pae_framework.errors import WriteError
from pae_framework.report.pictures import save_png
from pae_framework.sampling.sample_set import write_set
from pae_framework.system.files import write_json, write_text
from pae_framework.tensor_files import save_tensors, save_torch_file
from pae_framework.testing.pytest import Pae
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState

LIMIT = 1 << 16
LARGE = torch.rand(1 << 18)
"""Sixteen times the limit."""


@pytest.fixture
def limited() -> Iterator[None]:
    """Files of this process end at LIMIT bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _checkpoint(path: Path) -> None:
    module = nn.Linear(512, 512)
    network = NetworkState(module, torch.optim.AdamW(module.parameters()))
    Checkpoints(path.parent).save(1, TrainingState({"model": network}))


def _shard(path: Path) -> None:
    latents = LARGE.view(64, -1, 8, 8)
    write_shard(path, latents, latents, torch.zeros(64, dtype=torch.int64))


def _statistics(path: Path) -> None:
    values = LARGE.view(1, -1, 1, 1)
    LatentStatistics(values, values + 1).save(path.parent)


def _set(path: Path) -> None:
    def images(numbers: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(numbers), 3, 64, 64, dtype=torch.uint8)

    list(write_set(path.with_suffix(".npz"), torch.zeros(8).long(), images, 4, "identity"))


def _picture(path: Path) -> None:
    pixels = (LARGE.view(256, 256, 4) * 255).to(torch.uint8)
    save_png(Image.fromarray(pixels.numpy()), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * (2 * LIMIT)),
    "JSON": lambda path: write_json(path, ["x" * (2 * LIMIT)]),
    "tensors": lambda path: save_tensors({"a": LARGE}, path),
    "torch file": lambda path: save_torch_file({"a": LARGE}, path),
    "many tensors": lambda path: save_torch_file(
        {str(index): part.clone() for index, part in enumerate(LARGE.split(1000))}, path
    ),
    "shard": _shard,
    "statistics": _statistics,
    "sample set": _set,
    "picture": _picture,
    "checkpoint": _checkpoint,
}


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_is_named_and_removed(tmp_path: Path, name: str) -> None:
    with pytest.raises(WriteError) as caught:
        WRITERS[name](tmp_path / "file")
    assert str(tmp_path) in str(caught.value)
    assert "ulimit" in str(caught.value)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left in ([], ["identity.txt"])


@pytest.mark.usefixtures("limited")
def test_an_existing_file_survives_a_failed_replacement(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "before")
    with pytest.raises(WriteError):
        write_text(path, "x" * (2 * LIMIT))
    assert path.read_text(encoding="utf-8") == "before"


def test_a_copy_that_does_not_fit_is_named_and_removed(pae: Pae, tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(f"pae: 1\n#{'x' * LIMIT}\n", encoding="utf-8")
    (tmp_path / "there").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        answer = pae("copy", "large.yaml", "there").fails(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "there/large.yaml cannot be written" in answer.err
    assert list((tmp_path / "there").iterdir()) == []
