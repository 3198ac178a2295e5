"""Metrics of a training: averaged over steps, logged as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from pae_framework.contracts import Batch, LossTerms
from pae_framework.system.file_errors import writing
from pae_framework.system.files import write_text
from pae_framework.world import World

logger = logging.getLogger(__name__)


def read_log(path: Path) -> list[dict[str, float]]:
    """Records of a metrics log; none if there is no log.

    A line that is not a record is left out with a warning, except for an incomplete last line,
    which a kill leaves.
    """
    content = path.read_bytes() if path.is_file() else b""
    *lines, last = content.split(b"\n")
    records = [_record(line) for line in lines]
    if damaged := [str(number) for number, found in enumerate(records, start=1) if found is None]:
        logger.warning("%s: damaged lines are left out: %s", path, ", ".join(damaged))
    return [found for found in (*records, _record(last)) if found is not None]


def describe_gap(path: Path, records: Sequence[Mapping[str, float]], logged: int) -> str | None:
    """What is lost of a log that should end at step ``logged``; None if it does not end before.

    Args:
        path: of the log.
        records: its records.
        logged: the last step of the log as it was written; 0: it had no records.
    """
    last = max((int(record["step"]) for record in records), default=0)
    if last >= logged:
        return None
    fact = f"ends at step {last}" if path.is_file() else "is missing"
    return f"{path} {fact}: the lines of steps {last + 1} to {logged} are lost"


def _record(line: bytes) -> dict[str, float] | None:
    """The record in a line: a step and other numbers; None if there is something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    return record if all(_is_number(value) for value in record.values()) else None


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


class MetricsLog:
    """Appends records ``{"step": n, ...}`` to ``metrics.jsonl`` and to ``tensorboard/``.

    Records of steps after the one that a training resumes from are removed, so no step appears
    twice.

    Args:
        directory: of the stage.
        step: the step that the training resumes from.
        logged: the last step up to ``step`` that has a record; None: ``step``.
    """

    def __init__(self, directory: Path, step: int, logged: int | None = None):
        self._path = directory / "metrics.jsonl"
        kept = [record for record in read_log(self._path) if record["step"] <= step]
        if gap := describe_gap(self._path, kept, step if logged is None else logged):
            logger.warning("%s", gap)
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._board_path = directory / "tensorboard"
        with writing(self._path):
            # Without a buffer, so that nothing is left to write when it is closed.
            self._file = self._path.open("ab", buffering=0)
        self._restore_hook = _silence_tensorboard_threads()
        with writing(self._board_path):
            self._board = SummaryWriter(str(self._board_path), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""
        with writing(self._path):
            self._file.write((json.dumps({"step": step, **values}) + "\n").encode())
        with writing(self._board_path):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Wait until the records are on the disk, as a checkpoint of their last step needs them."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close.

        Raises:
            WriteError: the values for TensorBoard cannot be written.
        """
        self._file.close()
        try:
            with writing(self._board_path):
                self._board.close()
        finally:
            self._restore_hook()


def _silence_tensorboard_threads() -> Callable[[], None]:
    """Print no traceback of an error that TensorBoard's thread raises again in the main thread.

    Returns what makes threads print their errors as before.
    """
    print_traceback = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        of_tensorboard = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(arguments.exc_value, OSError)):
            print_traceback(arguments)

    def restore() -> None:
        threading.excepthook = print_traceback

    threading.excepthook = hook
    return restore


class MetricAverages:
    """Collects the loss terms of steps and averages them for a log line; measures the speed.

    Args:
        images_per_step: images of all processes, for ``images_per_s``.
        world: terms are summed over its processes.
    """

    def __init__(self, images_per_step: int, world: World):
        self._images, self._world = images_per_step, world
        self._terms: list[LossTerms] = []
        self._steps = 0
        self._waited = 0.0
        self._since = time.monotonic()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches and measure the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, terms: LossTerms) -> None:
        """Store this process' part of the terms of one step, without waiting for the device."""
        self._terms.append(terms)
        self._steps += 1

    def fetch(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Number and terms of each step since the last fetch, up to ``step``.

        One transfer from the device, after one reduction over the processes. Every process must
        have the same terms at the same step.
        """
        scalars = [value.float() for terms in self._terms for value in terms.values()]
        values = iter(self._world.sum(torch.stack(scalars)).tolist())
        fetched = [{name: next(values) for name in terms} for terms in self._terms]
        self._terms = []
        return list(enumerate(fetched, start=step - len(fetched) + 1))

    def summarize(self, steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Mean terms of ``steps``; images per second and share of data wait since the last summary.

        A term that only some steps have is averaged over those. Steps that an earlier process took
        do not count for the speed.
        """
        names = dict.fromkeys(name for terms in steps for name in terms)
        values = {name: _mean([t[name] for t in steps if name in t]) for name in names}
        now = time.monotonic()
        seconds = max(1e-9, now - self._since)
        values["images_per_s"] = round(self._steps * self._images / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._steps, self._waited, self._since = 0, 0.0, now
        return values

    @staticmethod
    def note(values: Mapping[str, float]) -> str:
        """The summary as text for the progress display."""
        return (
            f"loss {values['loss']:.4f}  {values['images_per_s']:.0f} images/s  "
            f"data wait {values['data_wait']:.0%}"
        )


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)
