"""Checkpoints of a training: safetensors in a folder that appears whole or not at all.

``checkpoints/step-00000200/`` holds ``model``, ``optimizer`` and, where there are such, ``ema``,
``opponent`` and ``opponent_optimizer`` as safetensors, and ``state.json`` with the step, the last
losses and a digest of each file. The two newest are kept; a damaged newest one is passed over with
a warning. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.files import read_json, write_json
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.ema import EMA

KEPT = 2
RECENT = 100
"""Losses of the last steps that are kept, to tell a jump."""

OPTIMIZER_FILES = {"model": "optimizer", "opponent": "opponent_optimizer"}
"""Part of the state -> file of its optimiser; its weights' file is named like the part."""

Files = dict[str, dict[str, Tensor]]
"""Tensors by file and name."""

logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """A network that is trained, and its optimiser."""

    module: nn.Module
    optimizer: torch.optim.Optimizer


def _losses() -> deque[float]:
    return deque(maxlen=RECENT)


@dataclass(frozen=True)
class TrainingState:
    """What a training needs to go on exactly.

    Args:
        parts: ``model`` and, if there is one, ``opponent``.
        ema: average of the model's weights.
        losses: those the watch saw in the last steps, oldest first.
    """

    parts: Mapping[str, Part]
    ema: EMA | None = None
    losses: deque[float] = field(default_factory=_losses)

    def tensors(self) -> Files:
        """Everything but the losses as named tensors, by file."""
        files: Files = {}
        for name, part in self.parts.items():
            files[name] = dict(part.module.state_dict())
            files[OPTIMIZER_FILES[name]] = _optimizer_tensors(part)
        if self.ema:
            files["ema"] = self.ema.state_dict()
        return files

    def restore(self, files: Mapping[str, dict[str, Tensor]]) -> None:
        """Take what :meth:`tensors` gave.

        An opponent or averages that were not kept begin as if they were new.
        """
        for name, part in self.parts.items():
            if name in files:
                part.module.load_state_dict(files[name])
                _restore_optimizer(part, files[OPTIMIZER_FILES[name]])
        if self.ema:
            self.ema.load_state_dict(files.get("ema", {}))

    def not_finite(self) -> str | None:
        """A file of :meth:`tensors` and a name in it that is not finite; None: all is.

        Buffers are left out: a mask may well hold infinities.
        """
        for file, tensors in self.tensors().items():
            buffers: set[str] = set()
            if file in self.parts:
                buffers = {name for name, _ in self.parts[file].module.named_buffers()}
            looked_at = {name: value for name, value in tensors.items() if name not in buffers}
            finite = [value.isfinite().all() for value in looked_at.values()]
            for name, fine in zip(looked_at, _together(finite), strict=True):
                if not fine:
                    return f"{file}: {name}"
        return None


def _together(flags: list[Tensor]) -> list[bool]:
    """The values of flags in one transfer from each device."""
    values: dict[int, bool] = {}
    for device in {flag.device for flag in flags}:
        here = [index for index, flag in enumerate(flags) if flag.device == device]
        values |= dict(zip(here, torch.stack([flags[i] for i in here]).tolist(), strict=True))
    return [values[index] for index in range(len(flags))]


def _optimizer_tensors(part: Part) -> dict[str, Tensor]:
    """The optimiser's state as ``NAME OF THE WEIGHT.KEY``, so that it does not depend on groups."""
    names = _names_by_index(part)
    return {
        f"{names[index]}.{key}": torch.as_tensor(value)
        for index, state in part.optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def _restore_optimizer(part: Part, tensors: Mapping[str, Tensor]) -> None:
    """Take the state of the weights that are trained; those without any begin anew."""
    indices = {name: index for index, name in _names_by_index(part).items()}
    state: dict[int, dict[str, Any]] = {}
    for entry, value in tensors.items():
        name, _, key = entry.rpartition(".")
        # Checkpoints of version 0.1 have the weight's index in place of its name.
        index = int(name) if name not in indices and name.isdigit() else indices.get(name)
        if index is not None:
            state.setdefault(index, {})[key] = value
    groups = part.optimizer.state_dict()["param_groups"]
    part.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _names_by_index(part: Part) -> dict[int, str]:
    """Names of the weights by their index in the optimiser, counted through its groups."""
    names = {id(weight): name for name, weight in part.module.named_parameters()}
    weights = [weight for group in part.optimizer.param_groups for weight in group["params"]]
    return {index: names[id(weight)] for index, weight in enumerate(weights)}


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
        record = {"step": step, "losses": list(state.losses), "digests": digests}
        write_json(aside / "state.json", record)
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
            record = read_json(folder / "state.json")
            state.losses.clear()
            state.losses.extend(record.get("losses", ()))
            return int(record["step"])
        return 0

    def newest(self) -> Path | None:
        """Folder of the newest checkpoint."""
        return next(iter(self._whole()), None)

    def _read(self, folder: Path) -> Files:
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
