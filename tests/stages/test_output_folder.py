"""A folder filled again loses the files of before, but no other files."""

import pytest

from pae_framework.execution.output_folder import (
    add_to_record,
    is_listed,
    restart,
    resume_or_restart,
)
from pae_framework.system.files import read_json, write_json

RECORD, PATTERN = "drawn.json", r"\d+\.png"


def fill(folder, names, **facts):
    restart(folder, RECORD, PATTERN, names, facts)
    for name in names:
        (folder / name).touch()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_before_are_gone_and_those_of_others_stay(tmp_path):
    folder = tmp_path / "new" / "drawn"
    fill(folder, ["0.png", "1.png", "2.png"])
    for name in ("7.png", "notes.txt"):  # the first has a name like ours, but is not listed
        (folder / name).touch()
    fill(folder, ["0.png"], steps=3)

    assert names_in(folder) == ["0.png", "7.png", RECORD, "notes.txt"]
    assert read_json(folder / RECORD) == {"steps": 3, "files": ["0.png"]}


def test_what_an_interrupted_command_wrote_is_found(tmp_path):
    restart(tmp_path, RECORD, PATTERN, ["0.png", "1.png"], {})
    (tmp_path / "0.png").touch()  # and no more
    fill(tmp_path, ["5.png"])

    assert names_in(tmp_path) == ["5.png", RECORD]


def test_a_record_cannot_name_files_of_another_kind_or_place(tmp_path):
    folder = tmp_path / "drawn"
    kept = [tmp_path / "1.png", folder / "thesis.txt"]
    folder.mkdir()
    for path in kept:
        path.touch()
    names = ["../1.png", str(kept[0]), "thesis.txt", 3, None]
    write_json(folder / RECORD, {"files": names})
    restart(folder, RECORD, r".*\.png", [], {})

    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "{}", '{"files": 7}', "\xff", "[" * 99_999]
)
def test_a_record_that_is_damaged_or_of_someone_else_removes_nothing(tmp_path, content):
    (tmp_path / RECORD).write_text(content, encoding="latin-1")
    (tmp_path / "0.png").touch()
    restart(tmp_path, RECORD, PATTERN, ["1.png"], {})

    assert names_in(tmp_path) == ["0.png", RECORD]
    assert read_json(tmp_path / RECORD) == {"files": ["1.png"]}


@pytest.mark.parametrize("added", [{"further": 7}, {"further": [{}]}, {"found": []}])
def test_a_damaged_list_of_what_was_added_starts_the_command_again(tmp_path, added):
    fill(tmp_path, ["0.png"])
    write_json(tmp_path / RECORD, {**read_json(tmp_path / RECORD), **added})
    assert resume_or_restart(tmp_path, RECORD, PATTERN, ["0.png"], {}) == ["0.png"]
    add_to_record(tmp_path, RECORD, ["all.npz"], evaluations=22)


def test_what_is_found_and_written_later_does_not_make_it_another_command(tmp_path):
    fill(tmp_path, ["0.png"], steps=3)
    add_to_record(tmp_path, RECORD, ["all.npz"])
    add_to_record(tmp_path, RECORD, evaluations=22)
    assert read_json(tmp_path / RECORD) == {
        "steps": 3,
        "files": ["0.png"],
        "further": ["all.npz"],
        "found": {"evaluations": 22},
    }
    assert resume_or_restart(tmp_path, RECORD, PATTERN, ["0.png"], {"steps": 3}) == []
    assert is_listed(tmp_path, RECORD, "all.npz")


def test_further_files_go_with_the_others(tmp_path):
    fill(tmp_path, ["0.png"])
    add_to_record(tmp_path, RECORD, ["9.png", "notes.txt"])
    for name in ("9.png", "notes.txt"):  # of which the pattern matches one
        (tmp_path / name).touch()
    assert resume_or_restart(tmp_path, RECORD, PATTERN, ["0.png"], {"steps": 4}) == ["0.png"]
    assert names_in(tmp_path) == [RECORD, "notes.txt"]
    assert not is_listed(tmp_path, RECORD, "9.png")


def test_only_whole_files_count(tmp_path):
    fill(tmp_path, ["0.png", "1.png"])
    (tmp_path / "1.png").write_text("whole")
    left = resume_or_restart(
        tmp_path, RECORD, PATTERN, ["0.png", "1.png"], {}, lambda path: path.stat().st_size > 0
    )
    assert left == ["0.png"]
