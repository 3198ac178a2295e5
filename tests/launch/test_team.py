"""Rank 0 is freed from waiting for a process that failed, but not from work of its own."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

import pae_framework
from pae_framework.distributed.failure import Failure
from pae_framework.distributed.link import Link
from pae_framework.distributed.place import Place
from pae_framework.execution.context import StageContext, no_record
from pae_framework.launch import team
from pae_framework.launch.stage import run_stage
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage
from pae_framework.system.console import PlainConsole
from pae_framework.training.metrics_log import tell_nobody


class World:
    """In place of the process group, where NCCL waits for ever."""

    works_alone = False

    def __init__(self) -> None:
        self.aborts = 0

    def abort(self) -> bool:
        self.aborts += 1
        return self.aborts == 1

    def close(self, failed: bool) -> None: ...


class Hanging:
    """A team whose main thread waits for rank 1."""

    def __init__(self) -> None:
        self.world, self.link, self.exits = World(), Link(dist.HashStore(), 0, 2), list[int]()
        self.record: dict[str, Any] = {}
        self.team: Any = None

    def works_on(self, device: str) -> None:
        context = SimpleNamespace(device=torch.device(device), update_record=self.record.update)
        self.team._at_work = context, Path("logs")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging()
    monkeypatch.setattr(team, "END_SECONDS", 0.1)
    monkeypatch.setattr(team, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(team, "GroupWorld", lambda place, link: hanging.world)

    def leave(code: int) -> None:
        hanging.exits.append(code)
        made._ends.set()  # so that the thread ends

    monkeypatch.setattr(team.os, "_exit", leave)
    made = team.Team(Place(0, 2, 0, 2), hanging.link, PlainConsole(quiet=True))
    hanging.team = made
    hanging.works_on("cuda")
    yield hanging
    made.end()


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_without_a_failure_nothing_happens(hanging: Hanging) -> None:
    time.sleep(0.3)
    assert (hanging.world.aborts, hanging.exits) == (0, [])


def test_a_wait_is_aborted_and_then_the_process_ends(hanging: Hanging) -> None:
    hanging.link.fail(Failure(1, "node1", "reason", exit_code=3))
    assert soon(lambda: hanging.exits == [3])
    assert hanging.world.aborts == 2  # the second time there was nothing left to abort


def test_the_record_and_the_log_of_who_failed_are_written_before(
    hanging: Hanging, capfd: pytest.CaptureFixture[str]
) -> None:
    hanging.link.fail(Failure(1, "node1", "reason", exit_code=3))
    assert soon(lambda: hanging.exits == [3])
    assert hanging.record["state"] == "failed"
    for text in (hanging.record["error"], capfd.readouterr().err):
        assert "reason" in text
        assert str(Path("logs") / "rank1.log") in text


def test_on_a_cpu_no_process_ends_by_force(hanging: Hanging) -> None:
    hanging.works_on("cpu")
    hanging.link.fail(Failure(1, "node1", "reason"))
    time.sleep(0.5)
    assert (hanging.exits, hanging.record) == ([], {})


def test_own_work_is_finished_first(hanging: Hanging) -> None:
    hanging.world.works_alone = True
    hanging.link.fail(Failure(1, "node1", "reason"))
    time.sleep(0.4)
    assert hanging.world.aborts == 0
    hanging.world.works_alone = False
    assert soon(lambda: bool(hanging.exits))


def test_an_order_names_the_same_folders_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()
    recipe = load_recipe("quickstart", (), registry).recipe
    planned = PlannedStage("extractor", "0" * 12, ())
    run = RunDirectory.at(Path("run"))
    context = StageContext(
        *(recipe, registry, run, planned, {}, PlainConsole(), no_record),
        metrics_logged=lambda metrics: None,  # of rank 0 alone, and cannot be pickled
    )
    monkeypatch.chdir(tmp_path)
    order = pickle.loads(pickle.dumps(team.StageOrder.of(context, run_stage, Path("run/logs"))))
    assert order.run is run_stage
    assert order.context.metrics_logged is tell_nobody
    assert order.logs == tmp_path / "run" / "logs"
    assert order.context.run == RunDirectory(tmp_path / "run", tmp_path / "run" / "stages")


def test_python_is_started_without_the_modules_of_the_working_directory() -> None:
    """A file such as `yaml.py` beside the recipes would be imported instead of the library."""
    started = r"(?:\[|, |\()sys\.executable\)?\}?(.{5})"
    package = Path(pae_framework.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name != "testing":
            for following in re.findall(started, path.read_text(encoding="utf-8")):
                assert "-P" in following, path
