"""A record that cannot be written does not hide why its stage failed."""

from __future__ import annotations

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
    with pytest.raises(RunError, match="the term 'fit' is nan"), stage.working({}):
        monkeypatch.setattr(record, "write_json", refuse)
        raise RunError("the term 'fit' is nan")
    assert stage.state == "stopped"  # not running: nobody holds it
