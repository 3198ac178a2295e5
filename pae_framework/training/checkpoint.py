"""Checkpoints of a training: safetensors in a folder that appears whole or not at all.

``checkpoints/step-00000200/`` holds ``model``, ``ema`` and ``optimizer`` as safetensors and
``state.json`` with the step and a digest of each file. The two newest are kept; a damaged newest
one is passed over with a warning. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.files import read_json, write_json
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.ema import EMA

KEPT = 2
logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What a training needs to go on exactly: weights, average, optimiser."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMA | None

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything as named tensors, by file."""
        files = {"model": dict(self.module.state_dict())}
        files["optimizer"] = {
            f"{index}.{key}": torch.as_tensor(value)
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        if self.ema:
            files["ema"] = self.ema.state_dict()
        return files

    def restore(self, files: Mapping[str, dict[str, Tensor]]) -> None:
        """Take what :meth:`tensors` gave."""
        self.module.load_state_dict(files["model"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in files["optimizer"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.ema:
            self.ema.load_state_dict(files["ema"])


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, directory: Path):
        self.directory = directory

    def save(self, step: int, state: TrainingState) -> None:
        """Write a checkpoint after ``step`` optimiser steps, then drop all but the newest two."""
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self._folder(step)
        aside = final.with_suffix(".new")
        for leftover in (aside, final):
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir()
        digests = {}
        for name, tensors in state.tensors().items():
            path = aside / f"{name}.safetensors"
            save_tensors(tensors, path)
            digests[name] = _digest(path)
        write_json(aside / "state.json", {"step": step, "digests": digests})
        aside.rename(final)
        for folder in self._whole()[KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)

    def restore(self, state: TrainingState) -> int:
        """Load the newest undamaged checkpoint; returns its step, 0 where there is none."""
        for folder in self._whole():
            try:
                files = self._read(folder)
            except CheckpointError as error:
                logger.warning("%s; using the checkpoint before it", error)
                continue
            state.restore(files)
            return int(read_json(folder / "state.json")["step"])
        return 0

    def _read(self, folder: Path) -> dict[str, dict[str, Tensor]]:
        try:
            digests = read_json(folder / "state.json")["digests"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} has no readable state.json") from error
        files = {}
        for name, digest in digests.items():
            path = folder / f"{name}.safetensors"
            if not path.is_file() or _digest(path) != digest:
                raise CheckpointError(f"{path} is damaged")
            files[name] = load_tensors(path)
        return files

    def _folder(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def _whole(self) -> list[Path]:
        folders = [path for path in self.directory.glob("step-*") if path.suffix != ".new"]
        return sorted(folders, reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
