"""Commands whose output cannot be written: the reader is gone, or the disk is full."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pae_framework.launch import start
from pae_framework.runs.directory import RunDirectory
from pae_framework.system.console import PlainConsole
from pae_framework.system.standard_streams import lasting_output
from pae_framework.testing.pytest import Pae
from pae_framework.training.progress import ProgressLine

PRINTING = [
    ["show", "quickstart"],
    ["check", "quickstart"],
    ["check", "quickstart", "--json"],
    ["list-plugins"],
    ["list-recipes"],
    ["show-plugin", "discriminator:patchgan"],
    ["run", "quickstart", "--help"],
    ["--version"],
]
GONE = [errno.EPIPE, errno.EIO]


class Broken(io.StringIO):
    """A stream that takes the first characters."""

    def __init__(self, number: int, taken: int = 0, terminal: bool = False):
        super().__init__()
        self.number, self.left, self.terminal = number, taken, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
@pytest.mark.parametrize("number", GONE, ids=errno.errorcode.get)
def test_a_reader_that_is_gone_changes_nothing(
    pae: Pae, monkeypatch: pytest.MonkeyPatch, command: list[str], number: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number, taken=20))
    answer = pae(*command).ok()
    assert answer.err == ""


DRY_RUNS = [["run", "quickstart", "--dry-run"], ["-q", "run", "quickstart", "--dry-run", "--json"]]


@pytest.mark.parametrize("command", [*PRINTING, *DRY_RUNS], ids=" ".join)
def test_a_full_disk_under_the_output_is_an_error(
    pae: Pae, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC, taken=5))
    answer = pae(*command).fails(1)
    assert "standard output" in answer.err
    assert "No space left" in answer.err


@pytest.mark.parametrize("options", [[], ["-q"], ["-v", "--no-progress"]], ids=" ".join)
def test_a_finished_run_whose_output_is_lost_is_done(
    pae: Pae, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    done = RunDirectory.at(tmp_path / "done")
    monkeypatch.setattr(start, "run_recipe", lambda *arguments: done)
    monkeypatch.setattr("pae_framework.cli.commands.run._print_results", print)
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    answer = pae(*options, "run", "quickstart").ok()
    assert answer.err.count("No space left") == 1
    assert answer.err.startswith("warning: ")


def test_an_error_keeps_its_exit_code_without_a_reader(
    pae: Pae, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(errno.EPIPE))
    pae("check", "nothing").fails(2)


@pytest.mark.parametrize("number", [*GONE, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_progress_goes_on_without_a_reader(
    monkeypatch: pytest.MonkeyPatch, number: int, terminal: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number, terminal=terminal))
    recorded = []
    with lasting_output():
        console = PlainConsole(force_terminal=terminal)
        progress = ProgressLine("stage", 2, 0, console, lambda **values: recorded.append(values))
        with progress:
            progress.update(2, "note")
        console.print("done")
        console.rule("next")
        print("done")
    assert recorded[-1] == {"progress": {"done": 2, "total": 2}}


def test_streams_are_as_before_after_the_block() -> None:
    before = sys.stdout, sys.stderr
    with lasting_output(), lasting_output():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def test_characters_without_encoding_are_escaped(pae: Pae, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    with lasting_output():
        print("caf\xe9 \udce9")
    assert output.getvalue() == b"caf\\xe9 \\udce9\n"


@pytest.mark.parametrize("redirection", ["| true", ">&-", "2>&-"])
def test_a_process_ends_quietly_with_its_own_result(tmp_path: Path, redirection: str) -> None:
    script = f"set -o pipefail; {sys.executable} -m pae_framework show quickstart {redirection}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
