"""Writes the logged metrics of each training for TensorBoard. No torch before the first line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pae_framework import hookimpl
from pae_framework.lifecycle import LoggedMetrics, StageInfo
from pae_framework.metrics_file import METRICS, read_log

FOLDER = "tensorboard"
"""Folder of its files in the folder of a stage."""


class _Board:
    """The open files of one stage.

    Earlier lines of the log are written too, if another process did not: those of a training that
    continues a shorter one, or one of another folder.
    """

    def __init__(self, stage: Path, resumed_from: int):
        from torch.utils.tensorboard import SummaryWriter

        folder = stage / FOLDER
        is_new = not any(folder.glob("events.*"))
        self._restore_hook = _silence_threads()
        self._writer = SummaryWriter(str(folder), purge_step=resumed_from + 1)
        for record in read_log(stage / METRICS) if is_new and resumed_from else ():
            if record["step"] <= resumed_from:
                self.write(int(record["step"]), record)

    def write(self, step: int, values: Any) -> None:
        for name, value in values.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._restore_hook()


_boards: dict[Path, _Board] = {}


@hookimpl
def pae_metrics_logged(stage: StageInfo, metrics: LoggedMetrics) -> None:
    """Write the values of a line; the first opens the files."""
    if stage.path not in _boards:
        _boards[stage.path] = _Board(stage.path, metrics.resumed_from)
    _boards[stage.path].write(metrics.step, metrics.values)


@hookimpl
def pae_stage_finished(stage: StageInfo) -> None:
    """Close the files."""
    if (board := _boards.pop(stage.path, None)) is not None:
        board.close()


@hookimpl
def pae_stage_failed(stage: StageInfo) -> None:
    """Close the files."""
    pae_stage_finished(stage)


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
