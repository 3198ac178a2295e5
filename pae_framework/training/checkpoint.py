"""Checkpoints of a training: folders of safetensors, each written completely or not at all.

``checkpoints/step-00000200/`` holds ``model`` and ``optimizer`` as safetensors; ``ema`` if there is
an EMA; ``opponent`` and ``opponent_optimizer`` if there is a discriminator; and ``state.json`` with
the step, the last losses and a digest of each file. The two newest checkpoints are kept. If the
newest is damaged, the one before it is used, with a warning. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.file_errors import writing
from pae_framework.files import read_json, write_json
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.ema import EMA

MAX_CHECKPOINTS = 2
MAX_LOSSES = 100
"""Number of last losses that are stored, to detect a jump."""

OPTIMIZER_FILES = {"model": "optimizer", "opponent": "opponent_optimizer"}
"""Name of a network -> file of its optimizer's state. The file of its weights has its name."""

Files = dict[str, dict[str, Tensor]]
"""File -> name -> tensor."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkState:
    """A network that is trained, and its optimizer."""

    module: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class TrainingState:
    """What a training needs to resume exactly.

    Args:
        networks: ``model`` and, if there is a discriminator, ``opponent``.
        ema: average of the model's weights.
        losses: of the last steps the divergence guard checked, oldest first.
    """

    networks: Mapping[str, NetworkState]
    ema: EMA | None = None
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LOSSES))

    def tensors(self) -> Files:
        """Everything but the losses as named tensors, by file."""
        files: Files = {}
        for name, network in self.networks.items():
            files[name] = dict(network.module.state_dict())
            files[OPTIMIZER_FILES[name]] = _optimizer_tensors(network)
        if self.ema:
            files["ema"] = self.ema.state_dict()
        return files

    def restore(self, files: Mapping[str, dict[str, Tensor]]) -> None:
        """Load what :meth:`tensors` returned.

        A discriminator or an EMA that the files lack starts fresh.
        """
        for name, network in self.networks.items():
            if name in files:
                network.module.load_state_dict(files[name])
                _restore_optimizer(network, files[OPTIMIZER_FILES[name]])
        if self.ema:
            self.ema.load_state_dict(files.get("ema", {}))

    def find_nonfinite(self) -> str | None:
        """Name the first tensor that is not finite, as ``FILE: NAME``; None if all are finite.

        Buffers are not checked: a mask may hold infinities.
        """
        for file, tensors in self.tensors().items():
            buffers: set[str] = set()
            if file in self.networks:
                buffers = {name for name, _ in self.networks[file].module.named_buffers()}
            checked = [name for name in tensors if name not in buffers]
            flags = _fetch_flags([tensors[name].isfinite().all() for name in checked])
            for name, is_finite in zip(checked, flags, strict=True):
                if not is_finite:
                    return f"{file}: {name}"
        return None


def _fetch_flags(flags: list[Tensor]) -> list[bool]:
    """Values of the flags, with one transfer from each device."""
    values: dict[int, bool] = {}
    for device in {flag.device for flag in flags}:
        indices = [index for index, flag in enumerate(flags) if flag.device == device]
        fetched = torch.stack([flags[index] for index in indices]).tolist()
        values |= dict(zip(indices, fetched, strict=True))
    return [values[index] for index in range(len(flags))]


def _optimizer_tensors(network: NetworkState) -> dict[str, Tensor]:
    """The optimizer's state as ``WEIGHT NAME.KEY``, independent of parameter groups."""
    names = _names_by_index(network)
    return {
        f"{names[index]}.{key}": torch.as_tensor(value)
        for index, state in network.optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def _restore_optimizer(network: NetworkState, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of the trained weights; a weight without saved state starts fresh."""
    indices = {name: index for index, name in _names_by_index(network).items()}
    state: dict[int, dict[str, Any]] = {}
    for entry, value in tensors.items():
        name, _, key = entry.rpartition(".")
        # Checkpoints of version 0.1 have the weight's index instead of its name.
        index = int(name) if name not in indices and name.isdigit() else indices.get(name)
        if index is not None:
            state.setdefault(index, {})[key] = value
    groups = network.optimizer.state_dict()["param_groups"]
    network.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _names_by_index(network: NetworkState) -> dict[int, str]:
    """Names of the weights by their index in the optimizer, counted through its groups."""
    names = {id(weight): name for name, weight in network.module.named_parameters()}
    weights = [weight for group in network.optimizer.param_groups for weight in group["params"]]
    return {index: names[id(weight)] for index, weight in enumerate(weights)}


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, directory: Path):
        self.directory = directory

    def save(self, step: int, state: TrainingState) -> None:
        """Write a checkpoint after ``step`` optimizer steps, then delete all but the two newest.

        Raises:
            WriteError: it cannot be written; nothing of it is left.
        """
        final = self.directory / f"step-{step:08d}"
        unfinished = final.with_suffix(".new")
        try:
            with writing(final):
                self._write(step, state, final, unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _write(self, step: int, state: TrainingState, final: Path, unfinished: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for stale in (unfinished, final):
            shutil.rmtree(stale, ignore_errors=True)
        unfinished.mkdir()
        digests = {}
        for name, tensors in state.tensors().items():
            path = unfinished / f"{name}.safetensors"
            save_tensors(tensors, path)
            digests[name] = _digest(path)
        record = {"step": step, "losses": list(state.losses), "digests": digests}
        write_json(unfinished / "state.json", record)
        unfinished.rename(final)
        for folder in self._folders()[MAX_CHECKPOINTS:]:
            shutil.rmtree(folder, ignore_errors=True)

    def restore(self, state: TrainingState) -> int:
        """Load the newest undamaged checkpoint; return its step, or 0 if there is none."""
        for folder in self._folders():
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
        """Folder of the newest checkpoint; None if there is none."""
        return next(iter(self._folders()), None)

    def describe_newest(self) -> str:
        """The newest checkpoint, for a message about a training that failed."""
        newest = self.newest()
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"

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

    def _folders(self) -> list[Path]:
        folders = [path for path in self.directory.glob("step-*") if path.suffix != ".new"]
        return sorted(folders, reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
