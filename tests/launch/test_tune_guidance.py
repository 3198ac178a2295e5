"""``pae tune-guidance``: distances over a grid, on a small finished run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_run import Finished, pae

from pae_encoders.config import InceptionConfig
from pae_framework.cli.arguments import finished_context
from pae_framework.contracts import Encoder
from pae_framework.evaluation.tune_guidance import Tuning, result_files
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.guidance_grid import GuidancePoint
from pae_framework.recipe.load import load_recipe
from pae_framework.testing.pytest import Result

Tune = Callable[..., Result]
ONE = ("--scales", "1", "--images", "8")
GRID = ("--scales", "1,2", "--intervals", "0:1,0.5:1", "--images", "16")


@pytest.fixture
def tune(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Run the command in a copy of the finished run."""
    shutil.copytree(finished.folder / "run", tmp_path / "run", symlinks=True)

    def run(*words: str) -> Result:
        return pae(["tune-guidance", "run", *words], tmp_path, monkeypatch)

    return run


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("point-*.json")}


def test_the_point_of_the_recipe_has_the_distance_that_the_run_reported(
    tune: Tune, tmp_path: Path
) -> None:
    """Its samples are those of the run: 12 images, scale 1.5, 3 steps."""
    found = tune("--scales", "1.5", "--images", "12", "--json").ok().json
    metrics = json.loads((tmp_path / "run/evaluate/results.json").read_text(encoding="utf-8"))
    (reported,) = (
        metric
        for metric in metrics
        if metric["name"].startswith("generation/") and metric["at"]["generator_step"] == 4
    )
    (point,) = found["points"]
    assert point["value"] == pytest.approx(reported["value"], rel=1e-6)  # batches of other sizes
    assert found["metric"] == reported["label"].removeprefix("g")
    best = yaml.safe_load(found["best"])["sample"]
    assert (best["count"], best["steps"], best["solver"], best["shift"]) == (12, 3, "euler", 1.0)
    assert (best["guidance"]["scale"], best["guidance"]["interval"]) == (1.5, [0.0, 1.0])


def test_every_point_is_listed_best_first_and_kept(tune: Tune, tmp_path: Path) -> None:
    found = tune(*GRID, "--json").ok().json
    values = [point["value"] for point in found["points"]]
    assert len(values) == 3  # scale 1 has no interval
    assert values == sorted(values)
    for point in found["points"]:
        assert (point["protocol"]["count"], point["protocol"]["steps"]) == (16, 3)
    kept = results(tmp_path / "run" / "guidance")
    assert sorted(json.loads(text)["value"] for text in kept.values()) == values
    table = tune(*GRID).ok()
    assert found["best"] in table.out
    assert "16 images" in table.err
    assert results(tmp_path / "run" / "guidance") == kept


@pytest.mark.parametrize("lost", ["removed", "cut", "of another form", "not a number"])
def test_only_what_is_missing_is_computed(tune: Tune, tmp_path: Path, lost: str) -> None:
    """As after an interruption: the point that is lost gets the same result again."""
    tune(*GRID).ok()
    folder = tmp_path / "run" / "guidance"
    kept, first = results(folder), min(folder.glob("point-*.json"))
    others = {path: path.stat().st_mtime_ns for path in folder.glob("point-*.json")}
    if lost == "removed":
        first.unlink()
    else:
        texts = {"cut": "{", "of another form": "[]", "not a number": '{"value": "x"}'}
        first.write_text(texts[lost], encoding="utf-8")
    tune(*GRID).ok()
    assert results(folder) == kept
    del others[first]
    assert {path: path.stat().st_mtime_ns for path in others} == others


@pytest.mark.parametrize(
    ("words", "points"),
    [
        (("--scales", "1,2,3", "--intervals", "0:1,0.5:1"), 5),  # two new ones
        (("--scales", "1,2", "--intervals", "0:1,0.5:1", "--seed", "7"), 6),
        (("--scales", "1,2", "--intervals", "0:1,0.5:1", "--steps", "2"), 6),
        (("--scales", "1,2", "--intervals", "0:1,0.5:1", "--solver", "heun"), 6),
        (("--scales", "1,2", "--intervals", "0:1,0.5:1", "--shifts", "0.5"), 6),
    ],
)
def test_another_grid_keeps_the_points_that_it_shares(
    tune: Tune, tmp_path: Path, words: tuple[str, ...], points: int
) -> None:
    tune(*GRID).ok()
    kept = results(tmp_path / "run" / "guidance")
    tune(*words, "--images", "16").ok()
    found = results(tmp_path / "run" / "guidance")
    assert len(found) == points
    assert kept.items() <= found.items()


def test_the_distance_is_called_what_the_extractor_calls_it(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "distance_label", lambda self, label, name: f"{label} of {name}")
    assert tune(*ONE, "--json").ok().json["metric"] == "FD of small_cnn"
    assert "FD of small_cnn" in tune(*ONE).ok().out


def test_results_depend_on_the_contents_of_the_extractor_s_weights_and_its_version(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may be renamed."""
    context = finished_context(finished.folder / "run", "generator")
    plan = {name: stage for name, stage in context.plan.items() if name != "extractor"}
    points, base = (GuidancePoint(1, (0.0, 1.0)),), SampleSettings(count=8)
    tuning = Tuning(points, base, "fd", "default", tmp_path)

    def file(name: str, contents: bytes) -> Path:
        (tmp_path / name).write_bytes(contents)
        wanted = f"extractor={{use: inception, weights: {tmp_path / name}}}"
        extractor = load_recipe("quickstart", [wanted], context.registry).recipe.extractor
        recipe = context.recipe.model_copy(update={"extractor": extractor})
        (found,) = result_files(replace(context, recipe=recipe, plan=plan), tuning)
        return found

    first = file("a.pth", b"one")
    assert file("b.pth", b"one") == first
    assert file("a.pth", b"two") != first
    monkeypatch.setattr(InceptionConfig, "version", InceptionConfig.version + 1)
    assert file("a.pth", b"one") != first


@pytest.mark.slow
def test_inception_with_random_weights_is_not_called_fid(tune: Tune) -> None:
    words = ("--scales", "2", "--images", "8", "--metric", "fid", "--weights", "none")
    found = tune(*words, "--json").ok().json
    assert found["metric"] == "FD (random Inception)"
    assert found["points"][0]["protocol"]["extractor_sha256"] == "none"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--scales", "0.5"), "--scales"),
        (("--intervals", "1:0"), "--intervals"),
        (("--shifts", "0"), "--shifts"),
        (("--images", "3"), "--images"),
        (("--images", "1"), "--images"),
        (("--solver", "foo"), "--solver"),
        (("--metric", "kid"), "--metric"),
        (("--processes", "0"), "--processes"),
        (("--out", "run/run.json/x"), "run.json"),
    ],
)
def test_wrong_usage(tune: Tune, words: tuple[str, ...], named: str) -> None:
    answer = tune(*words)
    assert answer.code in (1, 2)
    assert named in answer.err
    assert "Traceback" not in answer.err


def test_a_run_whose_extractor_is_not_finished(tune: Tune, tmp_path: Path) -> None:
    folder = next((tmp_path / "run" / "stages").glob("extractor-*"))
    record: dict[str, Any] = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    record["state"] = "failed"
    record.pop("digest", None)
    (folder / "stage.json").write_text(json.dumps(record), encoding="utf-8")
    assert "extractor" in tune(*GRID).fails(2).err


@pytest.mark.slow
def test_two_processes_leave_the_results_of_one(tune: Tune, tmp_path: Path) -> None:
    tune(*GRID).ok()
    tune(*GRID, "--processes", "2", "--out", "shared").ok()
    one, two = (results(tmp_path / folder) for folder in ("run/guidance", "shared"))
    assert one.keys() == two.keys()
    for name, text in one.items():
        value = json.loads(two[name])["value"]
        assert value == pytest.approx(json.loads(text)["value"], rel=1e-6)
