"""A stage is one row of the table; nothing else has to name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from plan_helpers import FROM_REFINE, FROM_TOKENIZER, fingerprints
from pydantic import Field

from pae_framework.config import Settings
from pae_framework.preflight.memory import training_memory
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import STAGES, Stage, trainings
from pae_framework.testing.pytest import Pae
from pae_framework.training.train_settings import TrainSettings


def run(context) -> None:
    """The function of the added stage."""
    context.directory.mkdir(parents=True, exist_ok=True)
    (context.directory / "count.txt").write_text(str(context.recipe.sample.count), encoding="utf-8")


@pytest.fixture
def added() -> Iterator[Stage]:
    """A stage before the report that writes ``sample.count``; it has the generator's training."""
    stage = Stage(
        name="count",
        run=f"{__name__}:run",
        hashed_values=lambda recipe: {"count": recipe.sample and recipe.sample.count},
        inputs=lambda recipe: ("sample",),
        reads=lambda recipe: (("sample",),),
        train_path=("generator", "train"),
    )
    before = dict(STAGES)
    STAGES[stage.name] = stage
    STAGES["report"] = STAGES.pop("report")  # stays last
    yield stage
    STAGES.clear()
    STAGES.update(before)


def test_a_row_is_enough_for_the_dry_run_and_the_check(
    added: Stage, tiny_recipe: Path, pae: Pae
) -> None:
    dry_run = ("run", tiny_recipe, "--dry-run")
    planned = pae(*dry_run, "--json").ok().json["stages"]
    row = next(stage for stage in planned if stage["stage"] == "count")
    assert row["steps"] == 6  # of generator.train
    assert row["memory_bytes"] is row["flops_per_image"] is None  # no rule
    assert "not counted" in pae(*dry_run).ok().out
    factors = "generator.train.lr_factors={blocks: 0.5}"  # no module is known for the added stage
    (note,) = pae(*dry_run, factors, "--json").ok().json["notes"]
    assert "count" in note
    assert "lr_factors" in note
    assert pae("check", tiny_recipe, "--json").ok().json["valid"]


def test_a_row_is_enough_for_the_smoke_run_and_the_status(
    added: Stage, tiny_recipe: Path, pae: Pae
) -> None:
    short = ("extractor=null", "evaluate=null")
    pae("run", tiny_recipe, *short, "--smoke", "--run-dir", "smoke").ok()
    rows = pae("status", "smoke", "--json").ok().json["runs"]["tiny-smoke"]
    expected = [name for name in STAGES if name not in ("extractor", "teacher", "evaluate")]
    assert [row["stage"] for row in rows] == expected
    assert {row["state"] for row in rows} == {"done"}
    assert int(Path("smoke/count/count.txt").read_text(encoding="utf-8")) > 0


def test_every_row_names_a_module_that_exists() -> None:
    for stage in STAGES.values():
        module, colon, function = stage.run.partition(":")
        assert find_spec(module) is not None
        assert (colon, function) == (":", "run")


def test_every_row_reads_earlier_stages_only(tiny_recipe: Path) -> None:
    recipe, names = load_recipe(tiny_recipe).recipe, list(STAGES)
    for position, stage in enumerate(STAGES.values()):
        assert set(stage.inputs(recipe)) <= set(names[:position])


def test_train_paths_lead_to_training_settings(tiny_recipe: Path) -> None:
    found = trainings(load_recipe(tiny_recipe).recipe)
    assert list(found) == [
        name for name, stage in STAGES.items() if stage.train_path and name != "teacher"
    ]
    assert all(type(train) is TrainSettings for train in found.values())


@pytest.mark.parametrize(
    ("overrides", "not_trained"),
    [
        (["generator.weights=g.pt", "sample.at_steps=[]"], {"generator"}),
        (["tokenizer.weights=t.pt"], {"refine", "tokenizer"}),
        (["tokenizer.target=raw"], {"refine"}),
        (["extractor=null", "evaluate=null"], {"extractor"}),
    ],
)
def test_loaded_and_absent_components_are_not_trained(
    tiny_recipe: Path, overrides: list[str], not_trained: set[str]
) -> None:
    before = trainings(load_recipe(tiny_recipe).recipe)
    after = trainings(load_recipe(tiny_recipe, overrides).recipe)
    assert before.keys() - after.keys() == not_trained


def test_a_training_stage_without_memory_rule_is_left_out_of_the_estimates(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(tiny_recipe).recipe
    before = training_memory(recipe)
    monkeypatch.setitem(STAGES, "count", replace(STAGES["generator"], name="count"))
    assert training_memory(recipe) == before


class NewSection(Settings):
    """A section that no recipe has."""

    width: int = 1
    train: TrainSettings
    by_name: dict[str, TrainSettings] = Field({})
    in_order: tuple[TrainSettings, ...] = ()


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        *(({key: 3}, False) for key in ("log_every", "checkpoint_every", "workers", "jump")),
        *(({key: True}, False) for key in ("compile", "activation_checkpointing")),
        ({"lr": 0.5}, True),
        ({"accumulate": 2}, True),
    ],
)
def test_fingerprints_of_a_new_section_leave_out_settings_without_effect(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], counts: bool
) -> None:
    def fingerprint(train: TrainSettings, place: str = "train", width: int = 1) -> str:
        places = {"train": train, "by_name": {"a": train}, "in_order": (train,)}
        section = NewSection(width=width, **{"train": other, place: places[place]})
        stage = replace(STAGES["tokenizer"], name="new", hashed_values=lambda _: {"new": section})
        monkeypatch.setitem(STAGES, "new", stage)
        return fingerprints(tiny_recipe)["new"]

    train, other = TrainSettings(steps=4), TrainSettings(steps=5)
    edited = TrainSettings.model_validate({"steps": 4, **changed})
    for place in ("train", "by_name", "in_order"):
        assert (fingerprint(edited, place) != fingerprint(train, place)) is counts
        assert fingerprint(other, place) != fingerprint(train, place)
    assert fingerprint(train, width=2) != fingerprint(train)


def test_stages_downstream_of_the_tokenizer() -> None:
    assert {"latents", "generator", "sample", "evaluate", "report"} <= FROM_TOKENIZER
    assert not FROM_TOKENIZER & {"extractor", "encoder", "refine"}
    assert {"refine"} | FROM_TOKENIZER == FROM_REFINE
