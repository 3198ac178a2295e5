"""File names are unique, so that a name finds one file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pae_framework

ROOT = Path(pae_framework.__file__).parents[1]


def duplicates(files: Iterable[Path]) -> dict[tuple[int, str], list[Path]]:
    """Files of one name at one level."""
    paths: dict[tuple[int, str], list[Path]] = defaultdict(list)
    for path in sorted(files):
        if path.name != "__init__.py":
            paths[len(path.parts), path.name].append(path)
    return {name: same for name, same in paths.items() if len(same) > 1}


def test_no_two_modules_of_one_level_share_a_name() -> None:
    """A command's file has the name of the command, so it may share it with a module."""
    assert duplicates((ROOT / "pae_framework").rglob("*.py")) == {}


def test_no_two_modules_of_plugins_share_a_name() -> None:
    """Except config.py, which every plugin has."""
    files = (ROOT / "plugins").rglob("*.py")
    assert duplicates(path for path in files if path.name != "config.py") == {}


def test_no_two_test_files_share_a_name() -> None:
    """Pytest cannot collect both."""
    tests = (ROOT / "tests").rglob("test_*.py")
    assert len({path.name for path in tests}) == len(list((ROOT / "tests").rglob("test_*.py")))
