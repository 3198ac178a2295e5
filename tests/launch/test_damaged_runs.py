"""Whatever is damaged in a finished run, a command works as before or names the damaged file."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_run import COMMANDS, QUICK, Finished, answer, pae
from safetensors.torch import load_file

from pae_framework.data.latent_dataset import write_shard
from pae_framework.system.files import read_json, write_json

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


def to_pipe(path: Path, choose: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


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
    "a named pipe": to_pipe,
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


@pytest.mark.parametrize("seed", range(49))
def test_one_damaged_file(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    check(finished, tmp_path, seed, QUICK[seed % len(QUICK)], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(49, 1100))
def test_many_damaged_files(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    check(finished, tmp_path, seed, list(COMMANDS)[seed % len(COMMANDS)], monkeypatch)


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished.folder / "run", tmp_path / "run", symlinks=True)


@pytest.mark.parametrize("name", ["run.json", "recipe.yaml", "overrides.txt", "resolved.yaml"])
def test_the_remedy_for_a_damaged_description(
    finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Removed, it is written again; no stage runs."""
    before = (run / name).read_bytes()
    (run / name).unlink()
    result, table = answer("run", run.parent, monkeypatch)
    assert result.ok().err.count("cached") == len(list((run / "stages").glob("*-*")))
    assert table == finished.expected["run"]
    assert (run / name).read_bytes() == before


def test_the_remedy_for_a_damaged_stage_record(
    finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed, the stage goes on from its last checkpoint."""
    record = run / "tokenizer" / "stage.json"
    record.write_bytes(b"")
    (row,) = (row for row in pae_status(run, monkeypatch) if row["state"] != "done")
    assert (row["stage"], row["state"]) == ("tokenizer", "damaged")
    assert "stage.json" in row["error"]
    result, _ = answer("run", run.parent, monkeypatch)
    assert "stage.json" in result.fails(1).err
    record.unlink()
    result, table = answer("run", run.parent, monkeypatch)
    assert result.ok().err.count("cached") == len(list((run / "stages").glob("*-*"))) - 1
    assert table == finished.expected["run"]


PLACES = (
    *("run.json", "recipe.yaml", "overrides.txt", "resolved.yaml", "environment.json", ".lock"),
    *(".lock.json", "report.html", "encoder", "report"),
    *("encoder/stage.json", "report/stage.json", "encoder/.lock", "encoder/.lock.json"),
    "encoder/metrics.jsonl",
)
"""Files and links that a run reads or writes."""
IN_PLACE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: (path / "of someone").mkdir(parents=True),
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}


ALWAYS = {"run.json", "resolved.yaml", ".lock", ".lock.json", "report.html", "encoder/stage.json"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        # Every other pair of a file and a kind; each kind and each of these files is among them.
        pytest.param(
            *(name, kind),
            marks=() if name in ALWAYS and (i + k) % 2 == 0 else pytest.mark.slow,
        )
        for i, name in enumerate(PLACES)
        for k, kind in enumerate(IN_PLACE)
    ],
)
def test_something_else_in_place_of_a_file(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """Nothing blocks; one message names it, and without it the run goes on."""
    path = run / name
    path.unlink(missing_ok=True)
    IN_PLACE[kind](path)
    for command in ("status", "run"):
        result, _ = answer(command, run.parent, monkeypatch)
        if result.code:
            assert path.name in result.fails(1).err
            assert re.search(r"without this file|remove|delete|move it away", result.err)
    if os.path.lexists(path) and not path.is_file():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    answer("run", run.parent, monkeypatch)[0].ok()


# --- runs of an earlier version -------------------------------------------------------------------


LEFT = (
    *("extractor/encoder.safetensors", "encoder/weights.safetensors"),
    *("refine/weights.safetensors", "tokenizer/tokenizer.safetensors"),
    *("tokenizer/weights.safetensors", "latents/statistics/latents_stats.safetensors"),
    *("latents/latents_stats.pt", "latents/latents_rank00_shard000.safetensors"),
    *("latents/latents_rank00_shard001.safetensors", "latents/latents_rank00_shard002.safetensors"),
    *("generator/weights.safetensors", "generator/weights-step000002.safetensors"),
    *("sample/sets.json", "sample/samples-step000002-euler003.npz"),
    *("evaluate/results.json", "report/report.html"),
)
"""Files that stages leave; the latents are 3 shards."""


@pytest.fixture
def earlier(run: Path) -> Path:
    """The finished run without what only later versions record."""
    for record in (run / "stages").glob("*/stage.json"):
        content = read_json(record)
        for key in ("results", "ran_with", "digest"):
            del content[key]
        write_json(record, content)
    first = run / "latents" / "latents_rank00_shard000.safetensors"
    tensors = load_file(first)
    for number in range(3):
        part = {name: tensor[16 * number : 16 * (number + 1)] for name, tensor in tensors.items()}
        write_shard(first.with_name(f"latents_rank00_shard{number:03d}.safetensors"), **part)
    return run


def test_results_of_an_earlier_version_are_recorded(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = answer("run", earlier.parent, monkeypatch)
    assert result.ok().err.count("cached") == len(list(earlier.glob("stages/*-*")))
    for name in LEFT:
        stage, _, file = name.partition("/")
        assert file in read_json(earlier / stage / "stage.json")["results"]


CUT = [name for name in LEFT if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("name", "damage"), [*((name, "gone") for name in LEFT), *((name, "cut") for name in CUT)]
)
def test_what_an_earlier_version_must_have_left(
    earlier: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    path = earlier / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    result, _ = answer("run", earlier.parent, monkeypatch)
    stage = name.partition("/")[0]
    said = result.fails(1).err
    assert f"--again {stage}" in said
    # Without the last shard, only the number of latents tells.
    assert path.name in said or ("shard002" in name and "32 latents of 48" in said)
    assert "results" not in read_json(earlier / stage / "stage.json")


def pae_status(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    out = pae(["status", "run", "--json"], run.parent, monkeypatch).ok().out
    rows: list[dict[str, str]] = json.loads(out)["runs"]["old_run"]
    return rows


@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(x, marks=pytest.mark.slow) for x in ("gone", "emptied"))]
)
def test_the_report_says_that_a_log_is_not_whole(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    log = run / "tokenizer" / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.unlink()
    if damage != "gone":
        log.write_bytes(b"".join(lines[:3]) if damage == "cut" else b"")
    result, _ = answer("report", run.parent, monkeypatch)
    result.ok()
    (line,) = (line for line in caplog.messages if "metrics.jsonl" in line)
    assert "tokenizer" in line
    assert "8" in line  # its last step


def test_what_killed_processes_left_is_cleared(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the run, and in a stage when it starts; this process has the number of the killed one."""
    number = os.getpid()
    left = [
        run / f".run.json.{number}.new",
        run / "report" / f".report.html.{number}.new",
        run / "report" / "deep" / f".a.{number}.new",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    words = ["run", *COMMANDS["run"][1:], "--again", "report"]
    pae(words, run.parent, monkeypatch).ok()
    assert [path for path in left if path.exists()] == []
