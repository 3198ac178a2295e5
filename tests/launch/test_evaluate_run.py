"""`pae evaluate RUN`: the evaluators of a finished run, all or chosen ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from chain_helpers import pae

from pae_framework.runs.record import StageRecord

OLD = Path(__file__).parent.parent / "guard" / "old_run" / "finished"
EVALUATORS = ("few_steps", "generation", "manifold", "reconstruction")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``a``, which has finished once."""
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = yaml.safe_load((OLD / "resolved.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "a"
    (folder / "a.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    pae("run", "a.yaml", cwd=folder).ok()
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def stage(place: Path) -> Path:
    return (place / "runs" / "a" / "evaluate").resolve()


def spoil(place: Path, *labels: str) -> None:
    """Set all values of the evaluators to 0, as of other code, where the record knows them."""
    for name in (*(f"{label}/metrics.json" for label in labels), "results.json"):
        path = stage(place) / name
        metrics = json.loads(path.read_bytes())
        path.write_text(json.dumps([{**metric, "value": 0.0} for metric in metrics]))
    StageRecord(stage(place)).renew_results()


def values(place: Path) -> dict[str, list[float]]:
    """The values in the run's results, by evaluator."""
    found: dict[str, list[float]] = {}
    for metric in json.loads((stage(place) / "results.json").read_bytes()):
        found.setdefault(metric["name"].partition("/")[0], []).append(metric["value"])
    return found


def unfinished(place: Path, *labels: str) -> None:
    """As if the evaluation had stopped before these evaluators."""
    StageRecord(stage(place)).update(state="stopped")
    for label in labels:
        shutil.rmtree(stage(place) / label)


def test_what_is_done_is_only_shown(place: Path) -> None:
    before = StageRecord(stage(place)).info
    found = pae("evaluate", "runs/a", "--json", "--out", "card.json", cwd=place).ok()
    results = json.loads((stage(place) / "results.json").read_bytes())
    assert found.json["metrics"] == results
    assert json.loads((place / "card.json").read_bytes()) == found.json
    assert pae("cards", "runs/a", "--json", cwd=place).ok().json == found.json
    assert StageRecord(stage(place)).info == before


def test_one_evaluator_again_updates_the_results_and_the_report(place: Path) -> None:
    expected = values(place)
    spoil(place, *EVALUATORS)
    command = ("evaluate", "runs/a", "--only", "reconstruction", "--again", "--json")
    card = pae(*command, cwd=place).ok().json
    assert [m["value"] for m in card["metrics"]] == expected["reconstruction"]
    after = values(place)
    assert after.pop("reconstruction") == expected.pop("reconstruction")
    assert all(value == 0 for found in after.values() for value in found)
    status = pae("status", "runs/a", "--json", cwd=place).ok().json["a"]
    assert {row["state"] for row in status} == {"done"}
    assert "pae run a.yaml" in (place / "runs" / "a" / "run.json").read_text()


@pytest.mark.slow
def test_all_again(place: Path) -> None:
    expected = values(place)
    spoil(place, *EVALUATORS)
    pae("evaluate", "runs/a", "--again", cwd=place).ok()
    assert values(place) == expected


@pytest.mark.slow
def test_a_stopped_evaluation_is_finished(place: Path) -> None:
    expected = values(place)
    unfinished(place, "manifold", "generation")
    pae("evaluate", "runs/a", cwd=place).ok()
    assert values(place) == expected


@pytest.mark.slow
def test_chosen_evaluators_of_a_stopped_evaluation_leave_the_others_unfinished(place: Path) -> None:
    expected = values(place)
    unfinished(place, "manifold", "reconstruction")
    StageRecord(stage(place)).update(evaluators={})
    command = ("evaluate", "runs/a", "--only", "reconstruction", "--json")
    card = pae(*command, cwd=place).ok().json
    assert [m["value"] for m in card["metrics"]] == expected["reconstruction"]
    assert card["of"]["run"] == "runs/a"
    assert not (stage(place) / "manifold").exists()
    assert not StageRecord(stage(place)).done
    assert "reconstruction reused" in pae("run", "a.yaml", cwd=place).ok().out
    assert values(place) == expected


@pytest.mark.slow
def test_again_takes_no_results_of_another_stage(place: Path) -> None:
    expected = values(place)
    fewer = ("run", "a.yaml", "evaluate.manifold=null", "--run-dir", "runs/b")
    shared = place / "runs" / "a" / "stages"
    assert "reconstruction reused" in pae(*fewer, "--stages", shared, cwd=place).ok().out
    (other,) = [x for x in shared.glob("evaluate-*") if x.resolve() != stage(place)]
    for path in (other / "reconstruction" / "metrics.json", other / "results.json"):
        metrics = json.loads(path.read_bytes())
        path.write_text(json.dumps([{**metric, "value": 0.0} for metric in metrics]))
    command = ("evaluate", "runs/a", "--only", "reconstruction", "--again")
    assert "reused" not in pae(*command, cwd=place).ok().err
    assert values(place) == expected


@pytest.mark.slow
def test_several_processes_give_the_same_values(place: Path) -> None:
    expected = values(place)
    pae("evaluate", "runs/a", "--again", "--processes", "2", cwd=place).ok()
    found = values(place)
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, rel=1e-9)


def test_earlier_stages_are_never_run(place: Path) -> None:
    shutil.rmtree((place / "runs" / "a" / "generator").resolve())
    before = values(place)
    error = pae("evaluate", "runs/a", "--again", cwd=place).fails(2).err
    assert "generator" in error
    assert values(place) == before
