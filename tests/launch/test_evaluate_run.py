"""`pae evaluate RUN`: the evaluators of a finished run, all or chosen ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from chain_helpers import pae
from finished_run import pae as pae_here

from pae_evaluators.config import ManifoldConfig
from pae_framework import build
from pae_framework.errors import PluginError, Problem
from pae_framework.launch import evaluate_run
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
    written = json.loads((place / "card.json").read_bytes())
    assert {**written, "schema": "evaluate/1"} == found.json
    assert pae("cards", "runs/a", "--json", cwd=place).ok().json == {
        **found.json,
        "schema": "cards/1",
    }
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
    status = pae("status", "runs/a", "--json", cwd=place).ok().json["runs"]["a"]
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
    assert "reconstruction reused" in pae("run", "a.yaml", cwd=place).ok().err
    assert values(place) == expected


@pytest.mark.slow
def test_again_takes_no_results_of_another_stage(place: Path) -> None:
    expected = values(place)
    fewer = ("run", "a.yaml", "evaluate.manifold=null", "--run-dir", "runs/b")
    shared = place / "runs" / "a" / "stages"
    assert "reconstruction reused" in pae(*fewer, "--stages", shared, cwd=place).ok().err
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


def contents(place: Path) -> dict[str, bytes]:
    """All files of the run's stages but locks."""
    files = (path for path in (place / "runs" / "a" / "stages").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if not path.name.startswith(".lock")}


def lacks_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManifoldConfig, "missing", lambda config: "no weights of manifold")


def has_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise PluginError("no class of manifold")

    monkeypatch.setattr(build, "import_components", fail)


def has_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("no space for manifold")
    monkeypatch.setattr(evaluate_run, "lacking_resources", lambda *a, **k: [problem])


@pytest.mark.parametrize("lack", [lacks_weights, has_no_class, has_no_space])
@pytest.mark.parametrize("only", [[], ["--only", "manifold"]], ids=["all", "this one"])
def test_again_removes_nothing_if_an_evaluator_cannot_run(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    lack: Callable[[pytest.MonkeyPatch], None],
    only: list[str | Path],
) -> None:
    before = contents(place)
    lack(monkeypatch)
    result = pae_here(["evaluate", "runs/a", *only, "--again"], place, monkeypatch)
    assert result.code != 0
    assert "of manifold" in result.err or "for manifold" in result.err
    assert contents(place) == before


@pytest.mark.parametrize("held", ["evaluate", "report", "evaluate-of-another"])
def test_again_changes_nothing_while_another_process_works_on_a_stage(
    place: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    folder = place / "runs" / "a" / held
    if held == "evaluate-of-another":  # a stage that the results could be taken over from
        folder = shutil.copytree(stage(place), stage(place).with_name("evaluate-zzz"))
    before = contents(place)
    with StageRecord(folder.resolve()).lock(None):
        result = pae_here(["evaluate", "runs/a", "--again"], place, monkeypatch)
    assert result.code == 1
    assert folder.resolve().name in result.err
    assert contents(place) == before


def test_what_unchosen_and_finished_evaluators_lack_does_not_matter(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = values(place)
    spoil(place, "reconstruction")
    lacks_weights(monkeypatch)
    command = ["evaluate", "runs/a", "--only", "reconstruction", "--again"]
    pae_here([*command], place, monkeypatch).ok()
    assert values(place) == expected
    unfinished(place, "reconstruction")
    StageRecord(stage(place)).update(evaluators={})
    pae_here(["evaluate", "runs/a"], place, monkeypatch).ok()
    assert values(place) == expected


def test_it_says_where_the_results_of_the_chosen_are_while_others_are_not_done(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(place, "manifold", "reconstruction")
    lacks_weights(monkeypatch)
    command = ["evaluate", "runs/a", "--only", "reconstruction"]
    told = pae_here([*command], place, monkeypatch).ok().err
    (own,) = (x for x in stage(place).parent.glob("evaluate-*") if x != stage(place))
    assert own.name in told.replace("\n", "")
    assert "manifold" in told.partition(own.name)[2]
    assert "pae evaluate runs/a" in told
    assert (own / "results.json").is_file()


def test_earlier_stages_are_never_run(place: Path) -> None:
    shutil.rmtree((place / "runs" / "a" / "generator").resolve())
    before = values(place)
    error = pae("evaluate", "runs/a", "--again", cwd=place).fails(2).err
    assert "generator" in error
    assert values(place) == before
