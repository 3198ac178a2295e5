"""The cost of a sweep, by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from pae_framework.dry_run.render import sweep_lines
from pae_framework.dry_run.summary import DryRun, StageDryRun
from pae_framework.dry_run.sweep_cost import SweepCost, sweep_cost
from pae_framework.runs.sweep_size import SweepSize
from pae_framework.system.console import PlainConsole


def stage(folder: str, flops: float | None = None, state: str = "runs", **more: Any) -> StageDryRun:
    return StageDryRun(folder.partition("-")[0], state, folder, flops=flops, **more)


def cost_of(members: Mapping[str, list[StageDryRun]]) -> SweepCost:
    none = {"train_images": None, "classes": None, "parts": (), "latent": (8, 8, 8)}
    return sweep_cost(
        {
            name: DryRun(
                name=name, image_size=8, grid=8, token_width=4, stages=tuple(stages), **none
            )
            for name, stages in members.items()
        }
    )


def test_a_shared_stage_costs_once_and_a_finished_one_nothing() -> None:
    cost = cost_of(
        {
            "a": [stage("encoder-1", 5.0, hours=1.0), stage("generator-1", 7.0, hours=2.0)],
            "b": [stage("encoder-1", 5.0, hours=1.0), stage("generator-2", 11.0, state="done")],
            "c": [stage("encoder-2", 13.0), stage("generator-3", 17.0, state="goes on")],
        }
    )
    assert cost.size == SweepSize(members=3, stages=5, shared=1)
    assert (cost.done, cost.flops, cost.hours) == (1, 5 + 7 + 13 + 17, 3.0)
    own = {name: [each.folder for each in stages] for name, stages in cost.own.items()}
    assert own == {"a": ["encoder-1", "generator-1"], "b": [], "c": ["encoder-2", "generator-3"]}


def test_trainings_of_unknown_cost_are_named() -> None:
    cost = cost_of(
        {
            "a": [stage("encoder-1", 5.0, batch_size=4), stage("report-1")],
            "b": [stage("encoder-2", batch_size=4), stage("own-1", batch_size=4, state="done")],
        }
    )
    assert (cost.flops, cost.hours, cost.not_counted) == (5.0, None, ("encoder",))
    assert cost_of({"a": [stage("encoder-1", batch_size=4)]}).flops is None


@pytest.mark.parametrize("known", [True, False])
def test_the_number_of_members_is_the_first_that_is_printed(known: bool) -> None:
    flops, hours = (2e12, 3.0) if known else (None, None)
    train = {"batch_size": 4, "hours": hours}
    cost = cost_of(
        {
            name: [stage("encoder-1", flops, **train), stage(f"generator-{name}", flops, **train)]
            for name in ("one", "two")
        }
    )
    page = io.StringIO()
    console = PlainConsole(file=page, width=100)
    for line in sweep_lines("both", cost):
        console.print(line)
    first, *rest = page.getvalue().splitlines()
    assert first.startswith("both: 2 members")
    assert ("6 T" in rest[0], "9.0" in rest[0]) == (known, known)
    assert ("encoder, generator" in rest[0]) is not known
    rows = {line.split()[0]: line.split()[1:] for line in rest[1:] if line.split()}
    assert rows["one"][-2:] == ["encoder", "generator"]
    assert rows["two"][-1] == "generator"
    json.dumps(cost.plain())
