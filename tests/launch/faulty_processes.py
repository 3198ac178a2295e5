"""Runs in several real processes, with a plugin that does what a test wants in one of them."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pae_framework.system.files import read_json
from pae_framework.testing.pytest import Result

HOST = platform.node()
LIMIT = 250
"""Seconds for one run; machines may be busy."""

REGISTRATION = """\
from pae_framework import hookimpl

pae_api = 1

@hookimpl
def pae_register_datasets(register):
    target, config = "faulty_digits:FaultyDigits", "pae_datasets.config:DigitsConfig"
    register("faulty", target=target, config=config, summary="digits and a fault")
"""
SOURCE = """\
import os
import signal
import sys
import time
from pathlib import Path

from pae_datasets.digits import Digits
from pae_framework.errors import DataError, PaeError, PluginError, RunError

{on_import}
reads = 0


class FaultyDigits(Digits):
    def __getitem__(self, index):
        global reads
        reads += 1
        if reads == {read} and os.environ.get("RANK", "0") in {ranks}:
            {code}
        return super().__getitem__(index)
"""
METADATA = "Metadata-Version: 2.1\nName: faulty-source\nVersion: 1.0\n"
BASE = Path(__file__).parents[1] / "guard" / "chain_a.yaml"


@dataclass(frozen=True)
class Fault:
    """Code that runs in some ranks, when they read their n-th image.

    Args:
        code: statements on one line.
        ranks: that run it.
        read: number of the image; the first is 1. A rank reads four images per step.
        on_import: code at the top of the component's module.
    """

    code: str = "pass"
    ranks: Sequence[int] = (1,)
    read: int = 20
    on_import: str = ""


class FaultyRun:
    """A run in a folder, of a recipe whose images come from the plugin."""

    def __init__(self, folder: Path, fault: Fault, recipe: dict[str, Any] | None = None):
        self.folder, self.run_dir = folder, folder / "run"
        self.variables: dict[str, str] = {}
        self._write_plugin(fault)
        base = {
            "pae": 1,
            "extends": str(BASE),
            "name": "faulty",
            "data": {"train": {"use": "faulty"}},
            "extractor": {
                "width": 8,
                "train": {"steps": 12, "batch_size": 8, "log_every": 4, "checkpoint_every": 4},
            },
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(base | (recipe or {})))

    def _write_plugin(self, fault: Fault) -> None:
        site = self.folder / "site"
        metadata = site / "faulty_source-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(METADATA)
        (metadata / "entry_points.txt").write_text("[pae_framework]\nfaulty = faulty_source\n")
        (site / "faulty_source.py").write_text(REGISTRATION)
        ranks = tuple(map(str, fault.ranks))
        source = SOURCE.format(
            on_import=fault.on_import, read=fault.read, ranks=ranks, code=fault.code
        )
        (site / "faulty_digits.py").write_text(source)

    @property
    def environment(self) -> dict[str, str]:
        """Marks all processes of the run, and lets them find the plugin."""
        paths = (os.environ.get("PYTHONPATH"), str(self.folder / "site"))
        path = os.pathsep.join(filter(None, paths))
        own = {"PYTHONPATH": path, "TEST_OF": str(self.folder)}
        return {**os.environ, **own, **self.variables}

    def words(self, *more: str, processes: int | None = 2) -> list[str]:
        """The command line."""
        words = ["-m", "pae_framework", "run", "recipe.yaml", "--run-dir", str(self.run_dir), *more]
        return [*words, "--processes", str(processes)] if processes else words

    def start(self, *words: str, program: Sequence[str] = (), **options: Any) -> Any:
        """Start a command in a new process group."""
        return subprocess.Popen(
            [*(program or [sys.executable]), *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_hangups,
            **options,
        )

    def finish(self, process: subprocess.Popen[str]) -> Result:
        """Wait until a command ends."""
        out, err = process.communicate(timeout=LIMIT)
        return Result(process.returncode, out, err)

    def pae(self, *more: str, processes: int | None = 2) -> Result:
        """Run the recipe."""
        return self.finish(self.start(*self.words(*more, processes=processes)))

    def record(self, stage: str = "extractor") -> dict[str, Any]:
        """The record of a stage."""
        (path,) = self.run_dir.glob(f"stages/{stage}-*/stage.json")
        return dict(read_json(path))

    def log(self, rank: int) -> Path:
        """The log of a rank."""
        return self.run_dir / "logs" / f"rank{rank}.log"

    def wait_for(self, name: str) -> None:
        """Wait until the fault has made a file in the run's folder."""
        deadline = time.monotonic() + LIMIT
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"no file {name}"
            time.sleep(0.05)

    def processes(self) -> list[int]:
        """Processes of the run that have not ended."""
        return [int(path.name) for path in Path("/proc").iterdir() if self._is_ours(path)]

    def _is_ours(self, process: Path) -> bool:
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            return f"TEST_OF={self.folder}".encode() in variables
        except OSError:  # no process, or it has ended
            return False

    def rank(self, number: int) -> int:
        """Process of a rank that the run has started."""
        for process in self.processes():
            variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            if f"RANK={number}".encode() in variables:
                return process
        raise AssertionError(f"no rank {number}")

    def require_no_processes(self, seconds: float) -> None:
        """Fail if a process of the run is left after some seconds."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(0.1)


def _heed_hangups() -> None:
    """Tests may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
