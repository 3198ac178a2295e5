"""What a stage that fails for a reason outside of this project tells the user."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pae_framework.launch.stage import _explanation
from pae_framework.preflight import machine

CONTEXT: Any = SimpleNamespace(
    directory=Path("runs/a"), planned=SimpleNamespace(name="tokenizer"), recipe=None
)
KILLED = "DataLoader worker (pid 12) is killed by signal: Killed. "
LOST = "DataLoader worker (pid(s) 12, 13) exited unexpectedly"


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (RuntimeError(KILLED), ["12", "killed", "tokenizer.train.workers", "batch_size"]),
        (RuntimeError(LOST), ["12, 13", "tokenizer.train.workers"]),
        (OSError(errno.EACCES, "Permission denied", "a.png"), ["a.png", "Permission denied"]),
        (OSError(errno.EMFILE, "Too many open files"), ["Too many open files", "runs/a"]),
        (ValueError("odd"), ["ValueError", "odd", "runs/a", "--debug"]),
    ],
)
def test_the_reason_is_in_the_message(error: Exception, facts: list[str]) -> None:
    text = _explanation(error, CONTEXT)
    assert [fact for fact in facts if fact not in text] == []


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max\n", 1 << 34), (f"{1 << 30}\n", 1 << 30), (f"{1 << 62}\n", 1 << 34)],
)
def test_the_memory_of_a_container_is_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit, encoding="ascii")
    pages = {"SC_PHYS_PAGES": 1 << 22, "SC_PAGE_SIZE": 1 << 12}
    monkeypatch.setattr(machine.os, "sysconf", lambda name: pages[name])
    monkeypatch.setattr(machine, "_LIMIT_FILES", (file, tmp_path / "absent"))
    assert machine.this_machine().memory == expected
