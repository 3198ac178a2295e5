"""Checkpoints of a training: folders of safetensors, each written completely or not at all.

``checkpoints/step-00000200/`` holds ``model`` and ``optimizer`` as safetensors; ``ema`` if there is
an EMA; ``ema-LENGTH`` for each average with snapshots; ``opponent`` and ``opponent_optimizer`` if
there is a discriminator; and ``state.json`` with the step, the last losses, the loss terms that are
not in the log yet, a digest of each file and one of its own content. The two newest checkpoints are
kept. If the newest is damaged, the one before it is used, with a warning; if all are damaged, the
training does not start. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from torch import Tensor, nn

from pae_framework.errors import CheckpointError, WriteError
from pae_framework.system.file_errors import writing
from pae_framework.system.files import (
    file_digest,
    json_digest,
    make_folder,
    publish,
    read_json,
    replacing,
    require_regular_file,
    write_json,
)
from pae_framework.tensor_files import load_tensors, require_state, save_tensors
from pae_framework.training.ema import EMA, PowerEMA
from pae_framework.training.parallel import part, part_like, parts_like

MAX_CHECKPOINTS = 2
MAX_LOSSES = 100
"""Number of last losses that are stored, to detect a jump."""

STATE = "state.json"
_OLD_KEYS = {"step", "losses", "digests"}
"""Keys of a ``state.json`` without a digest of its own, as earlier versions wrote it."""
_NAME = re.compile(r"step-\d{8,}")

OPTIMIZER_FILES = {"model": "optimizer", "opponent": "opponent_optimizer"}
"""Name of a network -> file of its optimizer's state. The file of its weights has its name."""

Files = dict[str, dict[str, Tensor]]
"""File -> name -> tensor."""

XXH3 = "xxh3:"
"""Begins the digest of a file. Digests of earlier versions, of BLAKE2b, have no such beginning."""

logger = logging.getLogger(__name__)


class AbandonedError(Exception):
    """A checkpoint is not to be published any more."""


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
        profiles: averages of other profiles, by the names of their files.
        losses: of the last steps the divergence guard checked, oldest first.
        window: loss terms of the checked steps since the last line of the log, oldest first.
    """

    networks: Mapping[str, NetworkState]
    ema: EMA | None = None
    profiles: Mapping[str, PowerEMA] = field(default_factory=dict)
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LOSSES))
    window: list[dict[str, float]] = field(default_factory=list)

    def tensors(self) -> Files:
        """All but the losses as named tensors, by file; sharded ones as they are."""
        files: Files = {}
        for name, network in self.networks.items():
            files[name] = dict(network.module.state_dict())
            files[OPTIMIZER_FILES[name]] = _optimizer_tensors(network)
        if self.ema:
            files["ema"] = self.ema.state_dict()
        return files | {name: average.state_dict() for name, average in self.profiles.items()}

    def restore(
        self, files: Mapping[str, dict[str, Tensor]], source: str = "the checkpoint"
    ) -> None:
        """Load whole tensors; ``source`` names them in errors.

        Communicates nothing: each process takes its parts of sharded tensors.

        A discriminator or an EMA that the files lack starts fresh.

        Raises:
            CheckpointError: the weights of a network have other names or shapes.
        """
        for name, network in self.networks.items():
            if name in files:
                require_state(network.module, files[name], f"{source}: {name}")
                parts = parts_like(network.module.state_dict(), files[name])
                network.module.load_state_dict(parts)
                _restore_optimizer(network, files[OPTIMIZER_FILES[name]])
        if self.ema:
            self.ema.load_state_dict(files.get("ema", {}))
        for name, average in self.profiles.items():
            average.load_state_dict(files.get(name, {}))

    def find_nonfinite(self) -> str | None:
        """Name the first tensor that is not finite, as ``FILE: NAME``; None if all are finite.

        Of sharded tensors, the part of this process is checked. Buffers are not checked: a mask may
        hold infinities.
        """
        for file, tensors in self.tensors().items():
            buffers: set[str] = set()
            if file in self.networks:
                buffers = {name for name, _ in self.networks[file].module.named_buffers()}
            checked = [name for name in tensors if name not in buffers]
            flags = _fetch_flags([part(tensors[name]).isfinite().all() for name in checked])
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
    weights = [weight for group in network.optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for entry, value in tensors.items():
        name, _, key = entry.rpartition(".")
        # Checkpoints of version 0.1 have the weight's index instead of its name.
        index = int(name) if name not in indices and name.isdigit() else indices.get(name)
        if index is not None:
            state.setdefault(index, {})[key] = part_like(weights[index], value)
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
        self._damaged: list[Path] = []
        self._is_abandoned = False

    def save(self, step: int, state: TrainingState, files: Files | None = None) -> None:
        """Write a checkpoint after ``step`` optimizer steps, then delete all but the two newest.

        A sound checkpoint of this step is kept as it is. Nothing is deleted before the new one is
        on the disk, except a damaged one in its place.

        Args:
            step: number of steps.
            state: what is trained.
            files: its whole tensors; None: they are not sharded.

        Raises:
            WriteError: it cannot be written; nothing of it is left.
            AbandonedError: another thread called :meth:`abandon`; nothing of it is left.
        """
        final = self.directory / f"step-{step:08d}"
        unfinished = final.with_suffix(".new")
        try:
            with writing(final):
                files = files or state.tensors()
                if not _is_sound(final, files.keys()):
                    self._write(step, state, files, final, unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for folder in self._damaged:
            if folder != final:
                _remove(folder)
        self._damaged = []
        self.clear(step)

    def _write(
        self, step: int, state: TrainingState, files: Files, final: Path, unfinished: Path
    ) -> None:
        make_folder(self.directory)
        _remove(unfinished)
        unfinished.mkdir()
        digests = {}
        for name, tensors in files.items():
            self._go_on()
            path = unfinished / f"{name}.safetensors"
            save_tensors(tensors, path)
            digests[name] = XXH3 + file_digest(path)
        content = {
            "step": step,
            "losses": list(state.losses),
            "window": state.window,
            "digests": digests,
        }
        write_json(unfinished / STATE, {**content, "digest": json_digest(content)})
        self._go_on()
        _remove(final)
        publish(unfinished, final)

    def abandon(self) -> None:
        """Let a checkpoint that another thread is writing stay unpublished."""
        self._is_abandoned = True

    def _go_on(self) -> None:
        if self._is_abandoned:
            raise AbandonedError

    def restore(self, state: TrainingState, step: int | None = None) -> int:
        """Load the newest undamaged checkpoint; return its step, or 0 if there is none.

        Args:
            state: is filled.
            step: load this step's, which another process found undamaged; None: the newest.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest undamaged one belongs to
                another training, or there is none of ``step``.
        """
        expected = state.tensors().keys()
        problems, self._damaged = [], []
        for folder in self._folders():
            if step is not None and _step(folder) != step:
                continue
            try:
                record, files = _read(folder, expected)
            except CheckpointError as error:
                logger.warning("%s; the checkpoint before it is used", error)
                problems.append(str(error))
                self._damaged.append(folder)
                continue
            if missing := ", ".join(name for name in expected if name not in files):
                logger.warning("%s was written without %s: starts anew", folder, missing)
            state.restore(files, str(folder))
            state.losses.clear()
            state.losses.extend(record.losses)
            state.window[:] = record.window
            return record.step
        listed = "".join(f"\n  {problem}" for problem in problems)
        if problems and step is None:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be used:{listed}\n"
                "remove that folder to start this training from its first step"
            )
        if step is not None:
            raise CheckpointError(
                f"{self.directory} has no sound checkpoint of step {step} for this process, but "
                f"rank 0 resumes from it; all processes must see the folder of the run{listed}"
            )
        return 0

    def clear(self, step: int) -> None:
        """Remove what a kill may leave: unfinished checkpoints, more than two up to ``step``."""
        for unfinished in self.directory.glob("step-*.new"):
            _remove(unfinished)
        usable = [folder for folder in self._folders() if _step(folder) <= step]
        for folder in usable[MAX_CHECKPOINTS:]:
            _remove(folder)

    def copy(self, folder: Path) -> None:
        """Copy a checkpoint of another training, completely or not at all.

        Raises:
            CheckpointError: it is damaged.
            WriteError: it cannot be written; nothing of it is left.
        """
        record, _ = _read_checked(folder)
        final = self.directory / folder.name
        unfinished = final.with_suffix(".new")
        try:
            with writing(final):
                make_folder(self.directory)
                _remove(unfinished)
                unfinished.mkdir()
                for name in (*(f"{file}.safetensors" for file in record.digests), STATE):
                    with replacing(unfinished / name) as temporary:
                        shutil.copyfile(folder / name, temporary)
                publish(unfinished, final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def newest(self) -> Path | None:
        """Folder of the newest checkpoint; None if there is none."""
        return next(iter(self._folders()), None)

    def describe_newest(self) -> str:
        """The newest checkpoint, for a message about a training that failed."""
        newest = self.newest()
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"

    @contextmanager
    def named_in_write_errors(self) -> Iterator[None]:
        """Add the newest checkpoint to the message if a file cannot be written.

        Raises:
            WriteError: as raised inside the block.
        """
        try:
            yield
        except WriteError as error:
            raise WriteError(f"{error}; {self.describe_newest()}") from error

    def _folders(self) -> list[Path]:
        """Newest first."""
        found = (path for path in self.directory.glob("step-*") if _NAME.fullmatch(path.name))
        return sorted(found, key=_step, reverse=True)


class _Record(BaseModel):
    """What ``state.json`` holds beside its own digest."""

    model_config = ConfigDict(strict=True)

    step: int
    digests: dict[str, str]
    losses: list[FiniteFloat] = []
    window: list[dict[str, FiniteFloat]] = []


def _read(folder: Path, expected: Collection[str]) -> tuple[_Record, Files]:
    """Record and tensors of a checkpoint.

    Raises:
        CheckpointError: something in it is not as it was written. A record of an earlier version
            has no digest; it must list every file of ``expected``.
    """
    record, is_covered = _read_checked(folder)
    missing = [name for name in expected if name not in record.digests]
    if missing and not is_covered:
        raise CheckpointError(f"{folder / STATE} is damaged: it lists no {', '.join(missing)}")
    return record, {name: load_tensors(folder / f"{name}.safetensors") for name in record.digests}


def steps_in_log(folder: Path) -> int:
    """The last step of a checkpoint whose loss terms are in a line of the log.

    Raises:
        CheckpointError: the checkpoint's record is damaged.
    """
    record, _ = _read_record(folder / STATE)
    return record.step - len(record.window)


def _read_checked(folder: Path) -> tuple[_Record, bool]:
    """As :func:`_read_record`, after the digests of all files were checked.

    Raises:
        CheckpointError: something in the checkpoint is not as it was written.
    """
    record, is_covered = _read_record(folder / STATE)
    if record.step != _step(folder):
        raise CheckpointError(f"{folder / STATE} is damaged: it has the step {record.step}")
    with ThreadPoolExecutor() as pool:
        problems = pool.map(
            lambda name: _damage(folder / f"{name}.safetensors", record.digests[name]),
            record.digests,
        )
        if problem := next(filter(None, problems), None):
            raise CheckpointError(problem)
    return record, is_covered


def _is_sound(folder: Path, expected: Collection[str]) -> bool:
    """Whether it is an undamaged checkpoint with exactly these files."""
    try:
        _, files = _read(folder, expected)
    except CheckpointError:
        return False
    return files.keys() == set(expected)


def _read_record(path: Path) -> tuple[_Record, bool]:
    """The record, and whether a digest covers it."""
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        digest = content.pop("digest", None)
        is_old = digest is None and content.keys() <= _OLD_KEYS
        if not is_old and digest != json_digest(content):
            raise ValueError("its content does not have its digest")
        return _Record.model_validate(content), not is_old
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _damage(path: Path, digest: str) -> str | None:
    """What is wrong with a file that was written with a digest; None: nothing."""
    try:
        require_regular_file(path)
        found = XXH3 + file_digest(path) if digest.startswith(XXH3) else _old_digest(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None if found == digest else f"{path} is damaged"


def _old_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
