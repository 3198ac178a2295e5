"""Writes the logged metrics of each training for TensorBoard. No torch before the first line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pae_framework import hookimpl
from pae_framework.lifecycle import LoggedMetrics, StageInfo
from pae_framework.metrics_file import METRICS, read_log

FOLDER = "tensorboard"
"""Folder of its files in the folder of a stage."""


class _Board:
    """The open files of one stage."""

    def __init__(self, stage: Path, resumed_from: int):
        from torch.utils.tensorboard import SummaryWriter

        self.has_failed = False
        self._missing = _missing_lines(stage, resumed_from)
        purged = min((record["step"] for record in self._missing), default=resumed_from + 1)
        self._restore_hook = _silence_threads()
        self._writer = SummaryWriter(str(stage / FOLDER), purge_step=int(purged))

    def catch_up(self) -> None:
        """Write earlier lines of the log that are not in the files."""
        for record in self._missing:
            self.write(int(record["step"]), record)

    def write(self, step: int, values: Any) -> None:
        try:
            for name, value in values.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step)
        except OSError:
            self.has_failed = True
            raise

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError:
            self.has_failed = True
            raise
        finally:
            self._restore_hook()


_boards: dict[Path, _Board] = {}


@hookimpl
def pae_metrics_logged(stage: StageInfo, metrics: LoggedMetrics) -> None:
    """Write the values of a line; the first opens the files."""
    if stage.path not in _boards:
        _boards[stage.path] = _Board(stage.path, metrics.resumed_from)
        _boards[stage.path].catch_up()
    _boards[stage.path].write(metrics.step, metrics.values)


@hookimpl
def pae_stage_finished(stage: StageInfo) -> None:
    """Close the files, after another attempt to write the lines that could not be written."""
    if (board := _boards.pop(stage.path, None)) is None:
        return
    with suppress(OSError):
        board.close()
    if board.has_failed:
        steps = [record["step"] for record in read_log(stage.path / METRICS)]
        board = _Board(stage.path, int(max(steps, default=0)))
        try:
            board.catch_up()
        finally:
            board.close()


@hookimpl
def pae_stage_failed(stage: StageInfo) -> None:
    """Close the files."""
    pae_stage_finished(stage)


def _missing_lines(stage: Path, last: int) -> list[dict[str, float]]:
    """Lines of the log up to a step that are not in the files of a stage.

    These are of a training that continues a shorter one, or one of another folder, or they could
    not be written. The last step in the files is among them then, since it may lack values.
    """
    log = [record for record in read_log(stage / METRICS) if record["step"] <= last]
    written = _last_step(stage / FOLDER) if log else None
    if log and written is not None and written >= log[-1]["step"]:
        return []
    return [record for record in log if written is None or record["step"] >= written]


def _last_step(folder: Path) -> int | None:
    """Last step in the files of a stage, which may end within a value; None without any."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    last: int | None = None
    for path in sorted(folder.glob("events.*")):
        for event in EventFileLoader(str(path)).Load():
            if event.HasField("session_log") and last is not None:
                last = min(last, event.step - 1)
            if event.HasField("summary"):
                last = event.step if last is None else max(last, event.step)
    return last


def _silence_threads() -> Callable[[], None]:
    """Print no traceback of an error that TensorBoard's thread raises again in the one that writes.

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
