"""What a finished stage left: its files, recorded and checked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RunError, StoppedError
from pae_framework.runs.reading import read_record
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults, describe_results
from pae_framework.system.files import clear_unfinished, read_json, replacing, write_json

FILES = ("a.safetensors", "deep/b.json", "latents_rank00_shard000.safetensors")
OTHERS = (
    *("stage.json", "data.json", "metrics.jsonl", "damaged.txt", "train.log", ".lock"),
    *(".a.safetensors.12.new", "checkpoints/step-1/a.safetensors", "tensorboard/events"),
    *("samples.parts/00000000.npy", "deep/.b.json.12.new"),
)


@pytest.fixture
def stage(tmp_path: Path) -> StageRecord:
    """A finished stage with results and other files."""
    record = StageRecord(tmp_path / "encoder-1234")
    with record.working({}):
        for name in (*FILES, *OTHERS):
            if name != "stage.json":
                path = record.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(name.encode())
    return record


def results(stage: StageRecord) -> StageResults:
    return StageResults(stage.path, stage.info.get("results"), "run it again")


def test_every_result_is_recorded_and_nothing_else(stage: StageRecord) -> None:
    assert set(stage.info["results"]) == set(FILES)
    assert stage.info["results"]["a.safetensors"]["size"] == len("a.safetensors")


def test_undamaged_results_are_read(stage: StageRecord) -> None:
    results(stage).require_complete()
    assert results(stage).files() == stage.path
    assert results(stage).file("deep/b.json").read_text() == "deep/b.json"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "folder", "longer", "emptied", "changed"])
def test_a_damaged_result_is_named_with_the_remedy(
    stage: StageRecord, name: str, damage: str
) -> None:
    path = stage.path / name
    content, times = path.read_bytes(), path.stat()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        others = {"longer": content + b"x", "emptied": b"", "changed": content[:-1] + b"x"}
        path.write_bytes(others[damage])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    found = results(stage)
    for read in (found.require_complete, found.files, lambda: found.file(name)):
        with pytest.raises(RunError) as refused:
            read()
        assert str(path) in str(refused.value)
        assert "run it again" in str(refused.value)
    for other in set(FILES) - {name}:
        found.file(other)  # only what is read must be undamaged


def test_a_changed_file_with_its_old_time_is_found_where_it_is_read(stage: StageRecord) -> None:
    path = stage.path / "a.safetensors"
    times = path.stat()
    path.write_bytes(b"A" + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(RunError, match=path.name):
        results(stage).file(path.name)


def test_a_shard_too_many_is_refused_and_other_files_are_not(stage: StageRecord) -> None:
    (stage.path / "notes.txt").write_text("mine", encoding="utf-8")
    results(stage).files()
    extra = stage.path / "latents_rank00_shard001.safetensors"
    extra.write_bytes(b"shard")
    for read in (results(stage).require_complete, results(stage).files):
        with pytest.raises(RunError, match=extra.name) as refused:
            read()
        assert "away" not in str(refused.value)  # it may be a result that the record has lost


def test_a_copied_or_touched_result_is_the_same(stage: StageRecord) -> None:
    for name in FILES:
        os.utime(stage.path / name)
    results(stage).require_complete()


def test_a_file_that_the_stage_did_not_write_is_no_result(stage: StageRecord) -> None:
    (stage.path / "encoder.safetensors").write_bytes(b"of someone else")
    assert not results(stage).has("encoder.safetensors")
    with pytest.raises(RunError, match=r"encoder\.safetensors"):
        results(stage).file("encoder.safetensors")


def test_results_of_an_earlier_version_are_recorded_once(stage: StageRecord) -> None:
    before = {key: value for key, value in stage.info.items() if key != "results"}
    write_json(stage.file, before)  # without a digest
    assert results(stage).file("a.safetensors").is_file()
    assert stage.adopt_results()
    assert stage.info == {**before, "results": describe_results(stage.path)}
    assert not stage.adopt_results()


def test_an_outdated_stage_begins_from_nothing(stage: StageRecord) -> None:
    stage.outdate()
    assert stage.state == "pending"
    assert (stage.path / "a.safetensors").is_file()  # until it starts
    stage.prepare()
    assert {path.name for path in stage.path.iterdir()} == {".lock"}


def test_a_stage_keeps_the_time_when_it_began_until_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = StageRecord(tmp_path / "encoder-1234")
    with pytest.raises(StoppedError), record.working({}, more={"started": "first"}):
        raise StoppedError("on request")
    monkeypatch.setattr("pae_framework.runs.record._now", lambda: "later")
    assert record.started == "first"
    with record.working({}):
        pass
    assert record.info["started"] == "first"
    record.outdate()
    record.prepare()
    assert record.started == "later"
    with record.working({}):
        pass
    assert record.info["started"] == "later"


def test_a_stage_that_goes_on_keeps_what_it_has(tmp_path: Path) -> None:
    record = StageRecord(tmp_path / "encoder-1234")
    write_json(record.file, {"state": "stopped"})
    (record.path / "half.npy").write_bytes(b"half")
    (record.path / ".half.npy.new").write_bytes(b"not of this project")
    record.prepare()
    names = {path.name for path in record.path.iterdir()}
    assert names == {"stage.json", "half.npy", ".half.npy.new"}


def test_the_record_lists_what_the_stage_ran_with(tmp_path: Path) -> None:
    record = StageRecord(tmp_path / "encoder-1234")
    for torch in ("2.1", "2.1", "2.2"):
        with record.working({}, {"packages": {"torch": torch}}):
            pass
    listed = [entry["packages"]["torch"] for entry in record.info["ran_with"]]
    assert listed == ["2.1", "2.2"]
    assert all(entry["started"] for entry in record.info["ran_with"])


# --- temporary files ------------------------------------------------------------------------------


def test_temporary_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "deep").mkdir()
    stale = [tmp_path / f".a.json.{ended.pid}.new", tmp_path / f"deep/.b.{os.getpid()}.new"]
    kept = [
        tmp_path / f".a.json.{os.getppid()}.new",  # a living process
        *(tmp_path / name for name in ("a.json", ".a.new", f"a.json.{ended.pid}.new")),
    ]
    for path in (*stale, *kept):
        path.touch()
    clear_unfinished(tmp_path)
    assert [path for path in stale if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_process_that_nobody_waited_for_does_not_keep_its_files(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        written = tmp_path / f".a.json.{process.pid}.new"
        written.touch()
        clear_unfinished(tmp_path)
        assert written.exists()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it remains a zombie
        clear_unfinished(tmp_path)
        assert not written.exists()


def test_a_killed_write_leaves_what_is_cleared(tmp_path: Path) -> None:
    """The name that a write uses is the name that is cleared."""
    with replacing(tmp_path / "a.json") as temporary:
        temporary.touch()
    temporary.touch()
    clear_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b" ", b"{", b"[]", b"null", b"3", b"[" * 99_999, b"\xff\xfe{}", b"{}"),
        *(b'{"state": 1}', b'{"state": "well"}', b'{"state": "done", "results": []}'),
        *(b'{"state": "done", "results": {"a": {}}}', b'{"state": "done", "seconds": "3"}'),
        b'{"state": "done", "inputs": {"a": 1}}',
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    record = StageRecord(tmp_path / "encoder-1234")
    record.path.mkdir()
    record.file.write_bytes(content)
    for read in (lambda: record.info, lambda: record.done, lambda: record.state):
        with pytest.raises(RunError) as refused:
            read()
        assert str(record.file) in str(refused.value)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an entry less": lambda content: content["results"].popitem(),
    "no results": lambda content: content.pop("results"),
    "another size": lambda content: content["results"]["a.safetensors"].update(size=0),
    "another state": lambda content: content.update(state="stopped"),
    "other inputs": lambda content: content["inputs"].update(encoder="1234"),
    "another digest": lambda content: content.update(digest="0" * 32),
    "a digest that is no text": lambda content: content.update(digest=["0"]),
    "an added key": lambda content: content.update(new=1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_record_is_damaged(stage: StageRecord, edit: str) -> None:
    content = read_json(stage.file)
    EDITS[edit](content)
    write_json(stage.file, content)
    with pytest.raises(RunError) as refused:
        _ = stage.info
    assert str(stage.file) in str(refused.value)
    assert "--again" in str(refused.value)


def test_results_that_no_digest_covers_are_not_believed(stage: StageRecord) -> None:
    content = read_json(stage.file)
    del content["digest"]
    write_json(stage.file, content)
    assert stage.lacks_results


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    """A later version may have added them."""
    record = StageRecord(tmp_path / "encoder-1234")
    write_json(record.file, {"state": "failed", "new": {"key": 1}})
    record.update(state="stopped")
    assert record.info == {"state": "stopped", "new": {"key": 1}}


@pytest.mark.parametrize("content", [b"", b"{", b'"text"', b"\xff", b'[{"a": 1}, 2]'])
def test_reading_a_damaged_file_tells_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sets.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as refused:
        read_record(path, list[dict[str, int]], "do this")
    assert str(path) in str(refused.value)
    assert "do this" in str(refused.value)
