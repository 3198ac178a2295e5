"""What the stage report takes from a run's folders and sample sets."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pae_framework.contracts import SampleSet
from pae_framework.errors import RunError
from pae_framework.runs.results import StageResults, describe_results
from pae_framework.stages.report import attachments_of, same_noise


@pytest.fixture
def context(tmp_path):
    """A context that reads an evaluate stage with the evaluators `own` and `owner`."""
    for label in ("own", "owner", "gone"):
        (tmp_path / label / "deep").mkdir(parents=True)
        row = json.dumps({"from": label}) + "\n"
        (tmp_path / label / "deep" / "t.jsonl").write_text(row, encoding="utf-8")
        (tmp_path / label / "metrics.json").write_text("[]", encoding="utf-8")
    results = StageResults(tmp_path, describe_results(tmp_path), "repair it")
    return SimpleNamespace(
        reads=lambda stage: stage == "evaluate",
        results=lambda stage: results,
        file=lambda stage, name: results.file(name),
        recipe=SimpleNamespace(evaluate={"own": None, "owner": None}),
    )


def test_tables_of_every_evaluator_of_the_recipe_under_its_label(context):
    found = attachments_of(context)
    assert {label: [file.name for file in files] for label, files in found.items()} == {
        "own": ["own/deep/t.jsonl"],
        "owner": ["owner/deep/t.jsonl"],
    }
    assert found["own"][0].rows == [["own"]]


def test_a_file_that_has_changed_since_is_not_shown(context, tmp_path):
    (tmp_path / "own" / "deep" / "t.jsonl").write_text('{"from": "me!"}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"t\.jsonl"):
        attachments_of(context)


def test_files_that_the_evaluator_did_not_record_are_not_shown(context, tmp_path):
    (tmp_path / "own" / "late.csv").write_text("a\n1\n", encoding="utf-8")
    assert [file.name for file in attachments_of(context)["own"]] == ["own/deep/t.jsonl"]


def test_a_run_without_evaluators(context):
    context.reads = lambda stage: False
    assert attachments_of(context) == {}


def sampled(role, generator_step, steps, solver="euler"):
    nothing = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    return SampleSet(nothing, torch.zeros(1), generator_step, steps, role, {"solver": solver})


def test_sets_of_the_same_noise_ascend_and_contain_the_main_set():
    sets = [
        sampled("main", 200, 20),
        sampled("few_steps", 200, 10),
        sampled("checkpoint", 100, 20),
        sampled("few_steps", 200, 5),
        sampled("checkpoint", 50, 20),
        sampled("convergence", 50, 20),
    ]
    training, _, solver = same_noise(sets).values()
    assert [each.label for each in training] == [
        *("generator step 50", "generator step 100", "generator step 200"),
    ]
    assert [each.label for each in solver] == [
        *("5 sampling steps", "10 sampling steps", "20 sampling steps"),
    ]


def test_variants_are_shown_beside_the_main_set_by_their_labels():
    unguided = replace(sampled("variant", 200, 250), variant="unguided")
    sets = [sampled("main", 200, 20), unguided, sampled("few_steps", 200, 5)]
    training, settings, _ = same_noise(sets).values()
    assert [(each.label, each.images) for each in settings] == [
        ("as in the recipe", sets[0].images),
        ("unguided", sets[1].images),
    ]
    assert len(training) == 1


def test_sets_of_several_solvers_are_told_apart():
    sets = [sampled("main", 200, 20), sampled("few_steps", 200, 10, "heun")]
    *_, solver = same_noise(sets).values()
    assert [each.label for each in solver] == [
        *("heun, 10 sampling steps", "euler, 20 sampling steps"),
    ]
