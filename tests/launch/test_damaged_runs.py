"""Whatever is damaged in a finished run, a command works as before or names the damaged file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
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
OTHERS = ("checkpoints", "tensorboard", "metrics.jsonl", ".lock", "report.html")
"""Not results, or, the report, written anew by the command that shows it."""


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
        return result, [line for line in result.out.splitlines() if line.startswith("│")]
    files = sorted(path for path in (folder / "out").rglob("*") if path.suffix != ".json")
    return result, {path.name: path.read_bytes() for path in files if path.is_file()}


class Finished(NamedTuple):
    """A finished run in ``folder / "run"``, and what each command answers there."""

    folder: Path
    expected: dict[str, object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("finished")
    expected = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in QUICK:
            result, expected[name] = answer(name, folder, monkeypatch)
            result.ok()
            shutil.rmtree(folder / "out")
        yield Finished(folder, expected)


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
