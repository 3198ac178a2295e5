"""An evaluator runs if its own results are missing, whatever other evaluators a recipe has."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_run import RECIPE, Finished, pae

from pae_evaluators.reconstruction import Reconstruction
from pae_evaluators.sample_quality import Generation
from pae_framework.evaluation.finished_evaluators import FinishedEvaluators
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.runs.record import StageRecord
from pae_framework.stages import evaluate

ALL = {"reconstruction", "generation", "few_steps", "manifold"}


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished.folder / "run", tmp_path / "run", symlinks=True)


@pytest.fixture
def started(run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Runs the recipe with overrides; gives the evaluators that were built."""

    def start(*overrides: str, code: int = 0) -> set[str]:
        built = []

        def build(component, registry):
            built.append(component.use)
            return original(component, registry)

        original = evaluate.build_evaluator
        with monkeypatch.context() as patched:
            patched.setattr(evaluate, "build_evaluator", build)
            words = ["run", RECIPE, *overrides, "--run-dir", run]
            result = pae(words, run.parent, patched)
        assert result.code == code, result.err
        return set(built)

    return start


def metrics(run: Path, *evaluators: str) -> list[dict]:
    found = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    return [m for m in found if m["name"].split("/")[0] in (evaluators or ALL)]


def test_one_that_compares_training_latents_does_not_change_the_others(
    run: Path, started: Callable[..., set[str]]
) -> None:
    assert started("evaluate.interpolation={}") == {"interpolation"}
    found = {m["label"]: m for m in json.loads((run / "evaluate/results.json").read_text())}
    assert found["iFD"]["value"] > 0
    assert found["iFD"]["protocol"]["training_latents"] == 48


def test_adding_one_runs_that_one_and_files_go_along(
    run: Path, started: Callable[..., set[str]]
) -> None:
    folder = (run / "evaluate").resolve()
    assert started("evaluate.more={use: manifold, images: 9, ssc: false}") == {"manifold"}
    now = (run / "evaluate").resolve()
    assert now != folder
    for label in ALL:
        for file in (folder / label).iterdir():
            assert (now / label / file.name).read_bytes() == file.read_bytes()
    assert (now / "reconstruction" / "per_image.jsonl").is_file()


def test_results_that_are_taken_over_keep_their_machine_and_notes(
    run: Path, started: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_and_tell(evaluator, *arguments):
        evaluator.notes.cautions.append("few images")
        evaluator.notes.not_available["PSNR"] = "no images"
        return original(evaluator, *arguments)

    original = Reconstruction.evaluate
    monkeypatch.setattr(Reconstruction, "evaluate", evaluate_and_tell)
    started("data.test_images=20")
    record = StageRecord((run / "evaluate").resolve())
    done = record.info["evaluators"]
    assert done["reconstruction"]["environment"]["packages"]["torch"]
    elsewhere = {**done["reconstruction"]["environment"], "host": "elsewhere"}
    done["reconstruction"]["environment"] = elsewhere
    record.update(evaluators=done)
    assert started("data.test_images=20", "evaluate.manifold.images=9") == {"manifold"}
    card = json.loads(pae(["cards", run, "--json"], run.parent, monkeypatch).ok().out)
    hosts = {
        m["name"].split("/")[0]: (m.get("environment") or card["environment"]).get("host")
        for m in card["metrics"]
    }
    assert hosts["reconstruction"] == "elsewhere"
    assert hosts["manifold"] == platform.node()
    assert card["cautions"] == ["reconstruction: few images"]
    assert card["not_available"] == {"reconstruction/PSNR": "no images"}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("evaluate.manifold.images=9", "manifold"),
        pytest.param(
            *("evaluate.generation.reference=train", "generation"), marks=pytest.mark.slow
        ),
    ],
)
def test_changing_one_runs_that_one(
    run: Path, started: Callable[..., set[str]], override: str, changed: str
) -> None:
    others = ALL - {changed}
    before = metrics(run, *others)
    assert started(override) == {changed}
    assert metrics(run, *others) == before
    assert started() == set()


@pytest.mark.parametrize(
    "override",
    [
        pytest.param("evaluate={generation: {}}", id="fewer", marks=pytest.mark.slow),
        pytest.param("evaluate={other_label: {use: reconstruction}}", id="another label"),
    ],
)
def test_removing_or_renaming_one_runs_none(
    run: Path, started: Callable[..., set[str]], override: str
) -> None:
    before = metrics(run)
    assert started(override) == set()
    assert metrics(run) == [m for m in before if m in metrics(run)] != []


@pytest.mark.slow
@pytest.mark.parametrize("override", ["data.test_images=20", "sample.seed=5"])
def test_what_all_depend_on_runs_all(started: Callable[..., set[str]], override: str) -> None:
    assert started(override) == ALL


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def turn_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        pytest.param(truncate, "metrics.json", marks=pytest.mark.slow),
        (turn_a_bit, "per_image.jsonl"),
        pytest.param(turn_a_bit, "metrics.json", marks=pytest.mark.slow),
        pytest.param(Path.unlink, "per_image.jsonl", marks=pytest.mark.slow),
    ],
)
def test_results_that_changed_are_not_taken_over(
    run: Path, started: Callable[..., set[str]], damage: Callable[[Path], None], name: str
) -> None:
    before, file = metrics(run), run / "evaluate" / "reconstruction" / name
    whole = file.read_bytes()
    damage(file)
    assert started("evaluate.manifold.images=9") == {"reconstruction", "manifold"}
    assert (run / "evaluate" / "reconstruction" / name).read_bytes() == whole
    assert metrics(run, "reconstruction") == [m for m in before if "reconstruction/" in m["name"]]


def test_results_of_a_failed_stage_are_taken_over(
    started: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments):
        raise OSError("no luck")

    done = "evaluate={reconstruction: {}, generation: {}}"
    with monkeypatch.context() as failing:
        failing.setattr(Generation, "evaluate", fail)
        started(done, "data.test_images=20", code=1)
    with monkeypatch.context() as failing:
        failing.setattr(Reconstruction, "evaluate", fail)
        assert started("evaluate={reconstruction: {}}", "data.test_images=20") == set()
        assert started(done, "data.test_images=20") == {"generation"}


def test_an_evaluator_extracts_nothing_that_another_has_extracted(
    run: Path, started: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(inputs, *arguments):
        assert inputs._context.planned.name != "evaluate", "the features are in the cache"
        return original(inputs, *arguments)

    original = RunInputs._extract

    before = metrics(run, "generation", "reconstruction")
    for label in ("generation", "reconstruction"):
        (run / "evaluate" / label / "metrics.json").unlink()
    monkeypatch.setattr(RunInputs, "_extract", extract)
    expected = {"generation", "reconstruction", "manifold"}
    assert started("evaluate.manifold.images=9") == expected
    assert metrics(run, "generation", "reconstruction") == before


def fingerprints(parts: dict, inputs: dict) -> dict[str, str]:
    """Of evaluators that need nothing, training images, and their latents."""
    needs = {"none": set(), "images": {"training_images"}, "latents": {"train_latents"}}
    evaluate = {
        label: SimpleNamespace(config=SimpleNamespace(needs=need)) for label, need in needs.items()
    }
    parts = {"evaluate": dict.fromkeys(needs, "the same"), "test": 1, **parts}
    hashed = {"stage": "evaluate", "version": 1, "parts": parts, "inputs": {"sample": 1, **inputs}}
    context = SimpleNamespace(
        planned=SimpleNamespace(hashed=hashed), recipe=SimpleNamespace(evaluate=evaluate)
    )
    return {label: FinishedEvaluators(context).fingerprint(label) for label in needs}


@pytest.mark.parametrize(
    ("parts", "inputs", "changed"),
    [
        ({}, {}, set()),
        ({"train_images": 1}, {}, {"images"}),
        ({}, {"latents": 1}, {"latents"}),
        ({"test": 2}, {}, {"none", "images", "latents"}),
        ({}, {"sample": 2}, {"none", "images", "latents"}),
        ({"extractor": 1}, {"tokenizer": 1}, {"none", "images", "latents"}),
    ],
    ids=["nothing", "images", "latents", "test", "samples", "networks"],
)
def test_what_the_stage_reads_for_some_changes_only_those(
    parts: dict, inputs: dict, changed: set[str]
) -> None:
    before, now = fingerprints({}, {}), fingerprints(parts, inputs)
    assert {label for label in now if now[label] != before[label]} == changed
