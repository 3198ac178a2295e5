"""The log of a training: JSON lines, and the same figures for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pae_framework.files import write_text


def read_log(path: Path) -> list[dict[str, float]]:
    """Records of a metrics log; a last line cut short by a kill is left out."""
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records


class MetricsLog:
    """Appends records ``{"step": n, ...}`` to ``metrics.jsonl`` and to ``tensorboard/``.

    Opened at the step a training goes on from: records of later steps are cut, none stands twice.
    """

    def __init__(self, directory: Path, step: int):
        self._path = directory / "metrics.jsonl"
        kept = [record for record in read_log(self._path) if record["step"] <= step]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._board.close()
