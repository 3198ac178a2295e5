"""``pae report`` of several runs; copies of a finished run of an earlier version stand for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pae_framework.testing.pytest import Pae

FINISHED = Path(__file__).parents[1] / "guard" / "old_run" / "finished"
"""Its generator was measured at steps 2 and 4 of batches of 8, on 48 images."""


@pytest.fixture
def runs(pae: Pae) -> None:
    """The runs ``a`` and ``b`` in the working directory."""
    for name in ("a", "b"):
        shutil.copytree(FINISHED, name, symlinks=True)


@pytest.mark.usefixtures("runs")
class TestRuns:
    def test_several_runs(self, pae: Pae) -> None:
        answer = pae("report", "a", "b", "--reach", "100", "--out", "both.html").ok()
        assert answer.out.splitlines()[-1] == "both.html"
        for text in ("1 x", "<= 0.3333", "linear"):
            assert text in answer.out
        page = Path("both.html").read_text(encoding="utf-8")
        assert "<svg" not in page.replace("data:image/svg+xml", "")
        assert "1 x" in page
        assert not Path("convergence.html").exists()

    def test_json(self, pae: Pae) -> None:
        answer = pae("report", "a", "b", "--reach", "0.001", "--reach", "5", "--json").ok()
        (metric,) = answer.json["metrics"]
        assert [curve["run"] for curve in metric["curves"]] == ["a", "b"]
        points = metric["curves"][0]["points"]
        found = [(p["step"], p["images_seen"], p["epochs"]) for p in points]
        assert found == [(2, 16, 16 / 48), (4, 32, 32 / 48)]
        assert [entry["reached"].get("not_within") for entry in metric["reach"]] == [
            *(4, 4),
            *(None, None),
        ]
        assert not list(Path().glob("*.html"))

    def test_one_run_with_a_value_to_reach(self, pae: Pae) -> None:
        assert "not reached within 4" in pae("report", "a", "--reach", "0.001").ok().out
        assert Path("convergence.html").is_file()

    def test_runs_of_one_name_are_named_by_their_paths(self, pae: Pae) -> None:
        shutil.copytree("a", "other/a", symlinks=True)
        (metric,) = pae("report", "a", "other/a", "--json").ok().json["metrics"]
        assert [curve["run"] for curve in metric["curves"]] == ["a", "other/a"]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["a", "b", "--markdown"], "--markdown"),
            (["a", "--markdown", "--reach", "2"], "--markdown"),
            (["a", "b", "a"], "a is given twice"),
            (["a", "./a"], "given twice"),
            (["a", "nowhere"], "nowhere"),
            (["a", "b", "--reach", "nan"], "--reach"),
            (["a", "b", "--reach", "inf"], "--reach"),
            (["a", "b", "--out", "."], "folder"),
            (["a", "b", "--out", "a/run.json/page.html"], "run.json"),
        ],
    )
    def test_wrong_usage(self, pae: Pae, arguments: list[str], named: str) -> None:
        answer = pae("report", *arguments).fails(2)
        assert named in answer.err
        assert answer.out == ""

    def test_a_run_without_results(self, pae: Pae) -> None:
        shutil.copytree(FINISHED.with_name("stopped"), "stopped", symlinks=True)
        assert "stopped has no results" in pae("report", "a", "stopped").fails(2).err

    def test_runs_whose_samples_no_evaluator_measures(self, pae: Pae) -> None:
        file = Path("a/evaluate/results.json")
        results = json.loads(file.read_text(encoding="utf-8"))
        others = [metric for metric in results if "generator_step" not in json.dumps(metric)]
        assert 0 < len(others) < len(results)
        file.write_text(json.dumps(others), encoding="utf-8")
        error = pae("report", "a", "--json").fails(2).err
        assert "generation" in error
        assert "keep_steps" not in error

    def test_damaged_results(self, pae: Pae) -> None:
        Path("b/evaluate/results.json").write_text("[", encoding="utf-8")
        assert "results.json" in pae("report", "a", "b").fails(1).err
