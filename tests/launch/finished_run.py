"""A small finished run, and what commands answer there."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from pae_framework.cli.app import main
from pae_framework.testing.pytest import Result

RECIPE = Path(__file__).parents[1] / "guard" / "old_run" / "recipe.yaml"
COMMANDS = {
    "run": ["run", RECIPE, "--run-dir", "run"],
    "status": ["status", "run"],
    "table": ["report", "run", "--markdown"],
    "sample": ["sample", "run", "--count", "2", "--out", "out"],
    "reconstruct": ["reconstruct", "run", "--count", "2", "--out", "out"],
    "export pae": ["export", "pae", "run", "out/tokenizer.safetensors", "--no-encoder"],
    "export generator": ["export", "generator", "run", "out/generator.pt"],
    "report": ["report", "run"],
}
QUICK = [name for name in COMMANDS if name != "report"]


def pae(words: list[str | Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run a command in this process; an exception that is no exit fails the test."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["pae", *map(str, words)])
    out, err, code = StringIO(), StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def answer(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Result, object]:
    """The result of a command, and what it says or writes, as far as other data would change it."""
    (folder / "out").mkdir(exist_ok=True)
    result = pae(COMMANDS[name], folder, monkeypatch)
    if name == "table":
        return result, result.out
    if name == "run":  # the table of metrics
        return result, metrics_table(result.out)
    files = sorted(path for path in (folder / "out").rglob("*") if path.suffix != ".json")
    return result, {path.name: path.read_bytes() for path in files if path.is_file()}


def metrics_table(out: str) -> list[str]:
    """The lines of the table that a run ends with."""
    return [line.rstrip() for line in out.splitlines() if not line.startswith(("report:", "jobs:"))]


class Finished(NamedTuple):
    """A finished run in ``folder / "run"``, and what each command answers there."""

    folder: Path
    expected: dict[str, object]
