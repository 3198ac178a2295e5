"""Files that are written have the permissions of any new file, whoever writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pae_framework.system.files import write_text
from pae_framework.tensor_files import save_tensors, save_torch_file

WRITERS = {
    "weights": lambda path: save_tensors({"x": torch.zeros(2)}, path),
    "weights with metadata": lambda path: save_tensors({"x": torch.zeros(2)}, path, {"a": "b"}),
    "torch file": lambda path: save_torch_file({"x": torch.zeros(2)}, path),
    "text": lambda path: write_text(path, "x"),
}


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("writer", WRITERS)
def test_files_follow_the_umask(tmp_path: Path, umask: int, writer: str):
    WRITERS[writer](tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
