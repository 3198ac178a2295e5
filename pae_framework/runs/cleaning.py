"""What runs left that nothing leads to: earlier stages, and smoke runs. No torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import PaeError, RunError, WriteError
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.canceling import unended_jobs
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.locks import holding, is_held
from pae_framework.runs.store_users import noted_users
from pae_framework.system.file_errors import writing
from pae_framework.system.files import read_text, write_text

_SMOKE_PREFIX = "pae-"
_SMOKE_MARK = ".temporary"
"""File in the temporary folder of a smoke run; holds the path of the folder."""
_REMOVED = ".removed"
"""How the hidden name of a stage that is being removed ends."""


@dataclass(frozen=True)
class Leftover:
    """A folder that nothing leads to."""

    path: str
    """Absolute."""
    run: str
    """The run that holds it; absolute."""
    why: str
    bytes: int


@dataclass(frozen=True)
class SkippedRun:
    """A run with leftovers that cannot be removed now."""

    path: str
    """Absolute."""
    why: str


@dataclass(frozen=True)
class Leftovers:
    """What can be removed, and the runs that were skipped."""

    found: tuple[Leftover, ...]
    skipped: tuple[SkippedRun, ...]


def new_smoke_folder(name: str) -> Path:
    """Make the temporary folder of a smoke run, which :func:`find_leftovers` finds."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_SMOKE_PREFIX}{name}-"))
    write_text(folder / _SMOKE_MARK, str(folder.resolve()))
    return folder


def find_leftovers(folder: Path) -> Leftovers:
    """Stages that no run in or below a folder leads to, and the smoke runs of temporary folders.

    Runs outside of the folder count if they share the stages of one inside. Runs and sweeps are
    skipped if a process works on them, or if their jobs have not ended or are unknown.

    Raises:
        RunError: the record of a run is damaged, or a folder cannot be listed, so that it is
            unknown which stages runs lead to.
    """
    smoke = _smoke_runs()
    needed = _needed(folder, smoke)
    by_run = {
        run: list(_earlier(run, needed))
        for run in _runs_below(folder)
        if run not in (folder, *smoke)
    }
    for run in smoke:
        if not any(stage.is_relative_to(run.resolve()) for stage in needed):
            by_run[run] = [_leftover(run, run, "a smoke run in a temporary folder")]
    found, skipped = list[Leftover](), list[SkippedRun]()
    for run, leftovers in by_run.items():
        if leftovers and (why := _in_use(run)):
            skipped.append(SkippedRun(str(run.absolute()), why))
        else:
            found += leftovers
    return Leftovers(tuple(found), tuple(skipped))


def remove(found: Leftover, folder: Path) -> bool:
    """Remove a leftover of a folder; False if it is in use, or a run leads to it by now.

    An interrupted removal leaves no stage that seems to be done.

    Raises:
        RunError: the record of a run is damaged.
        WriteError: a file cannot be removed.
    """
    path, run = Path(found.path), Path(found.run)
    smoke = [run] if path == run else []
    if smoke and _in_use(run):
        return False
    with ExitStack() as locks:
        try:
            for place in dict.fromkeys((run, path)):
                locks.enter_context(holding(place))
        except WriteError:
            raise
        except RunError:
            return False
        needed = _needed(folder, smoke)
        if any(stage.is_relative_to(path.resolve()) for stage in needed):
            return False
        with writing(path):
            shutil.rmtree(path if smoke else _hidden(path))
    return True


def _hidden(stage: Path) -> Path:
    """Rename a stage, so that no run finds it while it is removed."""
    if stage.name.endswith(_REMOVED):
        return stage
    hidden = stage.with_name(f".{stage.name}{_REMOVED}")
    if hidden.exists():  # of an interrupted removal
        shutil.rmtree(hidden)
    return stage.rename(hidden)


def _runs_below(folder: Path) -> list[Path]:
    """The folders of all runs, sweeps and members in or below a folder, also behind links."""
    found, seen = list[Path](), set[str]()
    for place, folders, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if RECORD in files:
            found.append(Path(place))
            folders[:] = [name for name in folders if name not in ("stages", *STAGES)]
    return sorted(found)


def _unlisted(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # removed meanwhile, or the folder itself
        return
    raise RunError(
        f"{error.filename} cannot be listed ({error.strerror}), so it is unknown which stages its "
        "runs lead to"
    )


def _needed(folder: Path, smoke: Collection[Path]) -> set[Path]:
    """The stages that runs lead to: those below a folder, and those that share stages of them.

    What smoke runs lead to inside of themselves is left out.
    """
    runs = _runs_below(folder)
    sharing = {user for run in (*runs, *smoke) for user in noted_users(run / "stages")}
    return {
        stage
        for run in (*runs, *sharing)
        if os.path.lexists(run / RECORD)
        for stage in _led_to(run)
        if run not in smoke or not stage.is_relative_to(run.resolve())
    }


def _led_to(run: Path) -> Iterator[Path]:
    """The folders of the stages that a run's plan names."""
    directory = RunDirectory.at(run)
    if "members" in directory.info:
        return
    store = run / directory.info["store"]
    yield from ((store / planned.folder).resolve() for planned in directory.plan.values())


def _earlier(run: Path, needed: set[Path]) -> Iterator[Leftover]:
    for path in sorted((run / "stages").glob("*-*")):
        name = path.name.removeprefix(".").removesuffix(_REMOVED)
        is_stage = name.rpartition("-")[0] in STAGES and path.is_dir()
        if is_stage and not path.is_symlink() and path.resolve() not in needed:
            yield _leftover(path, run, "no run leads to this stage")


def _smoke_runs() -> list[Path]:
    """The user's smoke runs in temporary folders that were made for them."""
    records = Path(tempfile.gettempdir()).absolute().glob(f"{_SMOKE_PREFIX}*/{RECORD}")
    return [record.parent for record in sorted(records) if _is_smoke_run(record.parent)]


def _is_smoke_run(run: Path) -> bool:
    try:
        own = run.lstat().st_uid == os.getuid() and not run.is_symlink()
        return own and read_text(run / _SMOKE_MARK) == str(run.resolve())
    except (OSError, ValueError):
        return False


def _leftover(path: Path, run: Path, why: str) -> Leftover:
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return Leftover(str(path.absolute()), str(run.absolute()), why, size)


def _in_use(run: Path) -> str:
    """Who may work on a run, a member of it or a stage; empty: nobody."""
    places = (run, *run.glob("members/*"), *run.glob("stages/*"))
    if any(is_held(place) for place in places):
        return "a process works on it"
    try:
        return "its jobs have not ended" if unended_jobs(run).jobs else ""
    except PaeError as error:
        return str(error)
