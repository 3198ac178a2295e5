"""A record that cannot be written does not hide why its stage failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RunError, WriteError
from pae_framework.runs import record
from pae_framework.runs.record import StageRecord


def test_the_error_of_the_stage_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: Any) -> None:
        raise WriteError(f"{path} cannot be written: the disk is full")

    stage = StageRecord(tmp_path / "tokenizer-0")
    with pytest.raises(RunError, match="the term 'fit' is nan"):
        fail(stage, lambda: monkeypatch.setattr(record, "write_json", refuse))
    assert stage.state == "stopped"  # not running: nobody holds it


def fail(stage: StageRecord, fill_disk: Callable[[], None]) -> None:
    with stage.working({}):
        fill_disk()
        raise RunError("the term 'fit' is nan")
