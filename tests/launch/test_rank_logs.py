"""Each rank has a log; a run outlasts one that can no longer be written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pae_framework.errors import StoppedError, WriteError
from pae_framework.launch.team import _logging
from pae_framework.system.console import PlainConsole


@pytest.fixture
def console(tmp_path: Path) -> Iterator[PlainConsole]:
    with (tmp_path / "shown").open("w", encoding="utf-8") as file:
        yield PlainConsole(file=file)


def test_the_log_of_rank_0_has_what_it_prints_and_logs(
    console: PlainConsole, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "rank0.log"
    for number in (1, 2):  # of two stages
        with _logging(console, log):
            console.print(f"printed {number}")
            logging.getLogger("any").warning("logged %d", number)
    console.print("later")
    text = log.read_text()
    assert [text.count(f"{word} {n}") for n in (1, 2) for word in ("printed", "logged")] == [1] * 4
    assert "later" not in text


def test_the_log_has_the_traceback_of_an_error_but_not_of_a_stop(
    console: PlainConsole, tmp_path: Path
) -> None:
    log = tmp_path / "rank0.log"
    with pytest.raises(StoppedError), _logging(console, log):
        raise StoppedError("stopped")
    assert log.read_text() == ""
    with pytest.raises(OSError, match="own reason"), _logging(console, log):
        raise OSError("own reason")  # of the stage, not of the log
    assert "own reason" in log.read_text()
    assert "Traceback" in log.read_text()


def test_a_full_disk_for_the_log_ends_nothing(console: PlainConsole) -> None:
    with _logging(console, Path("/dev/full")):
        console.print("on")
        logging.getLogger("any").warning("and on")


def test_a_log_that_cannot_be_opened_is_an_error(console: PlainConsole, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=str(tmp_path)), _logging(console, tmp_path):
        raise AssertionError("the stage started")
