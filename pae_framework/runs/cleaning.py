"""What runs left that nothing leads to: earlier stages, and smoke runs. No torch."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import PaeError, RunError
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.canceling import unended_jobs
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.locks import holding, is_held

SMOKE_PREFIX = "pae-"
"""How the temporary folders of smoke runs begin."""


@dataclass(frozen=True)
class Leftover:
    """A folder that nothing leads to."""

    path: str
    """Absolute."""
    run: str
    """The run that holds it; absolute."""
    why: str
    bytes: int


def find_leftovers(folder: Path) -> list[Leftover]:
    """Stages that no run in a folder leads to, and the smoke runs of temporary folders.

    Runs and sweeps that a process works on, or whose jobs have not ended, are left out.

    Raises:
        RunError: the record of a run is damaged, so that it is unknown which stages it leads to.
    """
    records = sorted({*folder.glob(f"*/{RECORD}"), *folder.glob(f"*/members/*/{RECORD}")})
    needed = {stage for record in records for stage in _led_to(record.parent)}
    tops = [record.parent for record in records if record.parent.parent == folder]
    stages = [stage for run in tops if not _in_use(run) for stage in _earlier(run, needed)]
    return [*stages, *_smoke_runs(Path(tempfile.gettempdir()))]


def remove(found: Leftover) -> bool:
    """Remove a leftover; False if a process has begun to work there."""
    path, run = Path(found.path), Path(found.run)
    if path == run:
        if _in_use(run):
            return False
        shutil.rmtree(path)
        return True
    try:
        with holding(run), holding(path):
            shutil.rmtree(path)
    except RunError:
        return False
    return True


def _led_to(run: Path) -> Iterator[Path]:
    """The folders of the stages that a run's plan names."""
    directory = RunDirectory.at(run)
    if "members" in directory.info:
        return
    store = run / directory.info["store"]
    yield from ((store / planned.folder).resolve() for planned in directory.plan.values())


def _earlier(run: Path, needed: set[Path]) -> Iterator[Leftover]:
    for path in sorted((run / "stages").glob("*-*")):
        is_stage = path.name.rpartition("-")[0] in STAGES and path.is_dir()
        if is_stage and not path.is_symlink() and path.resolve() not in needed:
            yield _leftover(path, run, "no run leads to this stage")


def _smoke_runs(folder: Path) -> Iterator[Leftover]:
    for record in sorted(folder.glob(f"{SMOKE_PREFIX}*/{RECORD}")):
        run = record.parent
        try:
            words = shlex.split(RunDirectory.at(run).info["command"])
            is_left = run.owner() == Path.home().owner() and not run.is_symlink()
        except (PaeError, ValueError, OSError, KeyError):
            continue
        if is_left and "--smoke" in words and "--run-dir" not in words and not _in_use(run):
            yield _leftover(run, run, "a smoke run in a temporary folder")


def _leftover(path: Path, run: Path, why: str) -> Leftover:
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return Leftover(str(path.absolute()), str(run.absolute()), why, size)


def _in_use(run: Path) -> bool:
    """Whether a process works on a run, a member of it or a stage, or a job has not ended."""
    places = (run, *run.glob("members/*"), *run.glob("stages/*"))
    return any(is_held(place) for place in places) or bool(unended_jobs(run).jobs)
