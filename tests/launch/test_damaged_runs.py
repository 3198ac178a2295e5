"""Whatever is damaged in a finished run, a command works as before or names the damaged file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_run import COMMANDS, QUICK, Finished, answer

OTHERS = ("checkpoints", "tensorboard", "metrics.jsonl", ".lock", "report.html")
"""Not results, or, the report, written anew by the command that shows it."""


def targets(run: Path) -> list[Path]:
    """Files of the run that a command may read, relative to it."""
    files = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(path.relative_to(run) for path in files)
    return [name for name in names if not set(OTHERS) & set(name.parts)]


def flip(path: Path, choose: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def cut(path: Path, choose: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: choose.randrange(path.stat().st_size)])


def to_folder(path: Path, choose: random.Random) -> None:
    path.unlink()
    path.mkdir()


def swap(path: Path, choose: random.Random) -> None:
    """Another file's contents."""
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    path.write_bytes(choose.choice(others).read_bytes() if others else b"")


def written(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, choose: path.write_bytes(content) and None


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "deleted": lambda path, choose: path.unlink(),
    "cut": cut,
    "flipped": flip,
    "emptied": written(b""),
    "a folder": to_folder,
    "swapped": swap,
    "garbage": written(b"\x93NUMPY{[(\n"),
    "not UTF-8": written(b'{"name": "\xff\xfe"}'),
    "a list": written(b"[]"),
    "a list of lists": written(b'[["a", 1], null]'),
    "an empty object": written(b"{}"),
    "other types": written(b'{"name": 1, "plan": {"a": []}, "store": null, "state": ["done"]}'),
    "null": written(b"null"),
    "deeply nested": written(b"[" * 100_000),
}


def check(
    finished: Finished, folder: Path, seed: int, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage one file, and compare what one command does with what it did before."""
    choose = random.Random(seed)
    run = shutil.copytree(finished.folder / "run", folder / "run", symlinks=True)
    choices = targets(run)
    records = [name for name in choices if name.suffix == ".json"]
    name = choose.choice(choose.choice([choices, records]))
    kind = choose.choice(list(DAMAGE))
    before = (run / name).read_bytes()
    DAMAGE[kind](run / name, choose)
    result, found = answer(command, folder, monkeypatch)
    story = f"seed {seed}: {name} {kind}, pae {command}: {result.code}\n{result.out}{result.err}"
    assert result.code in (0, 1, 2), story
    changed = not (run / name).is_file() or (run / name).read_bytes() != before
    if result.code == 0 and command != "status":
        assert found == finished.expected.get(command, {}), story
    elif result.code and changed:
        assert name.name in result.err, story


@pytest.mark.parametrize("seed", range(100))
def test_one_damaged_file(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    check(finished, tmp_path, seed, QUICK[seed % len(QUICK)], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 1100))
def test_many_damaged_files(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    check(finished, tmp_path, seed, list(COMMANDS)[seed % len(COMMANDS)], monkeypatch)
