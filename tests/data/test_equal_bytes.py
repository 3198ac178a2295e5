"""Equal contents are written as equal bytes, whatever the process and the name of the file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from pae_framework.data.latent_dataset import write_shard
from pae_framework.data.statistics import SAFE_NAME, TORCH_NAME, LatentStatistics
from pae_framework.tensor_files import load_tensors, save_tensors, save_torch_file

TIMES = 20
"""The order of metadata is random: ten equal ones come up by chance once in 2^19 trials."""


def test_shards(tmp_path: Path) -> None:
    latents = torch.randn(3, 4, 2, 2)
    for number in range(TIMES):
        write_shard(tmp_path / f"{number}", latents, -latents, torch.arange(3))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_metadata_and_tensors_are_those_that_were_given(tmp_path: Path) -> None:
    metadata = {"b": 'quote " and \\ and \n and \x1f', "a": "μ 😀", "": "", "c": "x" * 1000}
    tensors = {"w": torch.arange(5.0), "ü": torch.zeros(2, 3, dtype=torch.bfloat16)}
    for number in range(TIMES):
        save_tensors(tensors, tmp_path / f"{number}", metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert file.metadata() == metadata
    found = load_tensors(tmp_path / "0")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_torch_files(tmp_path: Path) -> None:
    for name in ("a.pt", "another name.pt"):
        save_torch_file({"mean": torch.ones(3)}, tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another name.pt").read_bytes()


def test_statistics(tmp_path: Path) -> None:
    statistics = LatentStatistics(torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1))
    for folder in ("a", "b"):
        statistics.save(tmp_path / folder, "tokenizer")
    for name in (SAFE_NAME, TORCH_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
