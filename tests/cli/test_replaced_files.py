"""An option ``--out`` replaces what a command of ours has written, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.cli.extraction import CARD, PAGE, require_writable
from pae_framework.errors import UsageError
from pae_framework.testing.pytest import Pae

COMMANDS = {
    "card": ("evaluate", "--samples", "absent.npz", "--reference", "absent.npz", "--out"),
    "comparison": ("compare", "absent", "--out"),
    "convergence": ("report", "absent", "missing", "--out"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04", b"pae: 1\n", b'{"schema": 1}'])
def test_a_file_of_the_user_stays(command: tuple[str, ...], contents: bytes, pae: Pae) -> None:
    Path("mine").write_bytes(contents)
    assert "mine exists and is not" in pae(*command, "mine").fails(2).err
    assert Path("mine").read_bytes() == contents


@pytest.mark.parametrize(
    ("kind", "contents"),
    [(CARD, '{\n  "card": 1}'), (CARD, '{"card": 2}'), (PAGE, "<!doctype html>\n<html>")],
)
def test_what_a_command_wrote_is_replaced(kind: str, contents: str, tmp_path: Path) -> None:
    file = tmp_path / "out"
    require_writable(file, kind)
    file.write_text(contents)
    require_writable(file, kind)
    with pytest.raises(UsageError, match="is a folder"):
        require_writable(tmp_path, kind)
