"""A pytest fixture for plugin authors: ``pae`` runs one command in an empty folder.

Activate it in the ``conftest.py`` at the root of your tests, then use ``pae``::

    pytest_plugins = ["pae_framework.testing.pytest"]


    def test_a_recipe_may_use_my_term(pae):
        term = "tokenizer.regularizers.neighbors"
        assert pae("check", "quickstart", f"{term}.weight=0.1").ok().out == "quickstart: valid\\n"
        assert term in pae("check", "quickstart", f"{term}.weight=-1").fails(2).err
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Pae", "Result", "pae", "run_process"]


@dataclass(frozen=True)
class Result:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, parsed."""
        return json.loads(self.out)

    def ok(self) -> Result:
        """This result.

        Raises:
            AssertionError: the exit code is not 0, or there is a traceback.
        """
        return self.fails(0)

    def fails(self, code: int) -> Result:
        """This result.

        Raises:
            AssertionError: the exit code is not ``code``, or there is a traceback.
        """
        report = f"exit code {self.code}, expected {code}\n{self.out}{self.err}"
        assert self.code == code, report
        assert "Traceback" not in self.err, report
        return self


Pae = Callable[..., Result]
"""The fixture: takes the words of a command line, without ``pae``."""


@pytest.fixture
def pae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pae:
    """Run one command in this process, in an empty folder: the test's ``tmp_path``."""
    from pae_framework.cli.app import main

    monkeypatch.chdir(tmp_path)

    def pae(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["pae", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        else:
            code = 0
        return Result(code, *capsys.readouterr())

    return pae


def run_process(
    *arguments: str | Path,
    cwd: Path,
    timeout: float = 60,
    python: str = sys.executable,
    **options: Any,
) -> Result:
    """Run Python in a new process, in the folder ``cwd``.

    Args:
        *arguments: What follows ``python``; ``"-m", "pae_framework", ...`` is the command line.
        cwd: The working directory.
        timeout: Seconds after which the process is killed.
        python: The interpreter.
        **options: Passed to :func:`subprocess.run`, such as ``env``.
    """
    done = subprocess.run(
        [python, *map(str, arguments)],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)
