"""How long a run takes after a stage, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.later_stages import LaterStages, later_stages, seconds_of_runs
from pae_framework.runs.plan import plan

# steps and batch sizes of the trainings of the quickstart
STEPS = {"extractor": 150, "encoder": 200, "refine": 100, "tokenizer": 160, "generator": 350}
BATCH = {"extractor": 64, "encoder": 64, "refine": 32, "tokenizer": 32, "generator": 32}
IMAGES = {name: steps * BATCH[name] for name, steps in STEPS.items()}


class Run:
    """A run of the quickstart in a folder, whose stages have the records that a test writes."""

    def __init__(self, path: Path, *overrides: str) -> None:
        loaded = load_recipe("quickstart", overrides)
        self.recipe = loaded.recipe
        self.plan = {stage.name: stage for stage in plan(loaded.recipe, loaded.registry)}
        self.directory = RunDirectory.at(path)

    def write(self, folder: str, **info: Any) -> None:
        file = self.directory.store / folder / "stage.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"state": "done", **info}), encoding="utf-8")

    def done(self, **seconds: float) -> None:
        for name, taken in seconds.items():
            self.write(self.plan[name].folder, seconds=taken)

    def after(self, stage: str, images: int | None = 1442) -> LaterStages:
        return later_stages(self.recipe, self.directory, self.plan, stage, images)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_first_run_counts_images_at_the_speed_of_the_present_stage(run: Run) -> None:
    later = sum(images for name, images in IMAGES.items() if name != "extractor")
    # 2 steps of 64 images per second
    assert run.after("extractor").seconds(2.0) == pytest.approx(later / 128)


def test_finished_trainings_of_the_run_say_the_speed(run: Run) -> None:
    run.done(extractor=10.0, encoder=30.0)
    speed = (IMAGES["extractor"] + IMAGES["encoder"]) / 40
    later = IMAGES["tokenizer"] + IMAGES["generator"]
    assert run.after("refine").seconds(1000.0) == pytest.approx(later / speed)


def test_a_stage_like_an_earlier_one_takes_as_long_in_proportion_to_its_steps(run: Run) -> None:
    half = {"done": 175, "total": 175}
    run.write("generator-of_another", seconds=20.0, progress=half, started="2026-01-02")
    run.write("generator-older", seconds=999.0, progress=half, started="2026-01-01")
    run.write("generator-stopped", seconds=999.0, state="stopped", started="2026-01-03")
    run.write("evaluate-of_another", seconds=5.0, progress={"done": 4, "total": 4})
    run.done(extractor=1.0, encoder=1.0, refine=1.0)
    assert run.after("tokenizer").seconds(3.0) == pytest.approx(2 * 20.0 + 5.0)


def test_what_is_done_later_in_the_plan_does_not_count(run: Run) -> None:
    run.done(generator=50.0, sample=50.0, evaluate=50.0)
    run.write("report-of_another", seconds=2.0)
    assert run.after("latents").seconds(100.0) == pytest.approx(2.0)


@pytest.mark.parametrize("stage", ["sample", "evaluate", "report"])
def test_nothing_is_said_if_nothing_is_known(run: Run, stage: str) -> None:
    assert run.after(stage).seconds(1.0) is None


def test_a_stage_that_does_not_train_says_no_speed_of_trainings(run: Run) -> None:
    assert run.after("latents").seconds(1.0) is None


def test_a_damaged_record_is_passed_over(run: Run) -> None:
    run.write("report-broken", seconds="much")
    (run.directory.store / "evaluate-broken").mkdir()
    (run.directory.store / "evaluate-broken" / "stage.json").write_text("{", encoding="utf-8")
    assert run.after("sample").seconds(1.0) is None


# --- several runs, as of a sweep ------------------------------------------------------------------


def of_two(first: Run, second: Run) -> float | None:
    """Of runs that share extractor, encoder and refine, in the store of the first."""
    runs = [(each.recipe, each.plan) for each in (first, second)]
    return seconds_of_runs(runs, first.directory.store)


@pytest.fixture
def longer(tmp_path: Path) -> Run:
    return Run(tmp_path, "generator.train.steps=700")


def test_a_stage_that_runs_share_is_counted_once(run: Run, longer: Run) -> None:
    for name, steps in STEPS.items():
        progress = {"done": steps, "total": steps}
        run.write(f"{name}-of_another", seconds=10.0, progress=progress)
    # 5 trainings, and the generator of twice as many steps
    assert of_two(run, longer) == pytest.approx(5 * 10.0 + 2 * 10.0)


def test_what_is_done_is_not_left(run: Run, longer: Run) -> None:
    run.done(**dict.fromkeys(run.plan, 3.0))
    others = [name for name in run.plan if run.plan[name].folder != longer.plan[name].folder]
    # without progress in the records, each stage that differs takes 3 s
    assert of_two(run, longer) == pytest.approx(3.0 * len(others))
    longer.done(**dict.fromkeys(others, 3.0))
    assert of_two(run, longer) is None


def test_the_time_of_runs_is_unknown_before_each_training_is_known(run: Run, longer: Run) -> None:
    run.done(extractor=10.0, encoder=10.0, refine=10.0, tokenizer=10.0)
    assert of_two(run, longer) is None
    run.done(generator=10.0)
    assert of_two(run, longer) is not None
