"""The conformance suite names what is wrong with a tracker, and passes a correct one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pae_framework import hookimpl
from pae_framework.config import TrackerConfig
from pae_framework.contracts import Tracker
from pae_framework.plugins import import_file
from pae_framework.testing import check_component
from pae_framework.testing.trackers import check_follower

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "loss_table.py"


class NoConfig(TrackerConfig):
    """No parameters."""


class Correct(Tracker):
    """Lines in a file of the run."""

    @hookimpl
    def pae_metrics_logged(self, run, metrics) -> None:
        with (run.path / "lines.txt").open("a") as file:
            file.write(f"{metrics.step}\n")


class Unmarked(Tracker):
    def pae_metrics_logged(self, metrics) -> None: ...


class Misspelt(Tracker):
    @hookimpl
    def pae_metric_logged(self, metrics) -> None: ...


class WrongArgument(Tracker):
    @hookimpl
    def pae_metrics_logged(self, losses) -> None: ...


class OnceOnly(Tracker):
    @hookimpl
    def pae_run_started(self, run) -> None:
        (run.path / "once").mkdir()


class ThatExits(Tracker):
    @hookimpl
    def pae_stage_failed(self, failure) -> None:
        raise ValueError(failure.state)


def test_a_correct_tracker_passes() -> None:
    check_component(Correct, NoConfig())


@pytest.mark.parametrize(
    ("faulty", "fact"),
    [
        (Unmarked, "@hookimpl"),
        (Misspelt, "pae_metric_logged"),
        (WrongArgument, "losses"),
        (OnceOnly, "FileExistsError"),
        (ThatExits, "stopped"),
    ],
)
def test_a_faulty_tracker_is_named(faulty: type[Any], fact: str) -> None:
    with pytest.raises(AssertionError, match=fact) as caught:
        check_component(faulty, NoConfig())
    assert faulty.__name__ in str(caught.value)


def test_the_example_keeps_the_contract() -> None:
    check_follower(lambda: import_file(EXAMPLE))
