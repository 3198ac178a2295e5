"""What a tracker has sent of a run, in the run's directory. No torch.

::

    trackers/wandb-pae/run.json              the id of the tracker's run
    trackers/wandb-pae/tokenizer-12ab.json   the last step sent of a stage, when the stage began,
                                             and the number of rows sent

One process works on a stage at a time, so no two write one file.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from pae_framework.lifecycle import StageInfo
from pae_framework.system.files import make_folder, write_json

FOLDER = "trackers"
_RUN = "run.json"


class SentState:
    """What was sent of one run to one project of a tracker.

    Args:
        run: directory of the run.
        name: of tracker and project; a file name.
    """

    def __init__(self, run: Path, name: str):
        self.folder = run / FOLDER / name
        make_folder(self.folder)

    def id(self) -> str:
        """The id of the tracker's run, the same in every process; made at the first call."""
        path = self.folder / _RUN
        if not (known := _read(path).get("id")):
            made = self.folder / f".{_RUN}.{uuid.uuid4().hex}"
            write_json(made, {"id": uuid.uuid4().hex[:12]})
            try:
                os.link(made, path)  # fails if another process was first
            except FileExistsError:
                if not _read(path).get("id"):  # damaged
                    made.replace(path)
            made.unlink(missing_ok=True)
            known = _read(path)["id"]
        return str(known)

    def rows(self) -> int:
        """Rows sent of all stages."""
        return sum(_number(_read(path), "rows") for path in self.folder.glob("*.json"))

    def last_step(self, stage: StageInfo) -> int:
        """The last step sent of a stage; 0: none since it began."""
        content = _read(self._file(stage))
        return _number(content, "step") if content.get("started") == stage.started else 0

    def add(self, stage: StageInfo, step: int) -> None:
        """Record that a row of a stage was sent."""
        rows = _number(_read(self._file(stage)), "rows") + 1
        write_json(self._file(stage), {"step": step, "started": stage.started, "rows": rows})

    def _file(self, stage: StageInfo) -> Path:
        return self.folder / f"{stage.path.name}.json"


def _read(path: Path) -> dict[str, Any]:
    """The content; empty if there is none or it is damaged, and everything is then sent again."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(content: dict[str, Any], key: str) -> int:
    value = content.get(key)
    return value if type(value) is int else 0
