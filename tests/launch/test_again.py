"""``pae run --again``: stages run anew from nothing, with all that depend on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from finished_run import RECIPE, Finished, pae

from pae_framework.errors import PaeError, PluginError, UsageError
from pae_framework.launch.again import outdate_stages
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.locks import holding
from pae_framework.runs.plan import plan
from pae_framework.runs.record import StageRecord
from pae_framework.system.files import write_json

STAGES = (
    *("extractor", "encoder", "refine", "tokenizer", "latents"),
    *("generator", "sample", "evaluate", "report"),
)


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished.folder / "run", tmp_path / "run", symlinks=True)


def cached(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines() if line.endswith("cached")]


def test_a_stage_and_those_that_read_it_run_from_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (run / "generator" / "weights.safetensors").read_bytes()
    for name in ("generator/weights.safetensors", "generator/checkpoints/step-00000004/left"):
        (run / name).write_bytes(b"damaged")
    again = ["run", RECIPE, "--run-dir", "run", "--again", "generator"]
    result = pae(again, run.parent, monkeypatch).ok()
    assert cached(result.err) == ["extractor", "encoder", "refine", "tokenizer", "latents"]
    assert "reused" not in result.err
    assert (run / "generator" / "weights.safetensors").read_bytes() == weights
    assert not (run / "generator" / "checkpoints" / "step-00000004" / "left").exists()
    assert cached(pae(again[:-2], run.parent, monkeypatch).ok().err) == list(STAGES)


def test_the_command_that_a_message_advises_repairs_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = run / "sample" / "sets.json"
    samples.unlink()
    error = pae(["run", RECIPE, "--run-dir", "run"], run.parent, monkeypatch).fails(1).err
    assert str(Path("run/stages", samples.resolve().parent.name, "sets.json")) in error
    command = error.split("`")[1].split()[1:]
    pae(command, run.parent, monkeypatch).ok()
    pae(["report", "run", "--markdown"], run.parent, monkeypatch).ok()


@pytest.mark.parametrize("name", ["generatr", "nothing", ""])
def test_an_unknown_stage_is_refused_before_anything_is_touched(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    words = ["run", RECIPE, "--run-dir", "run", "--again", "encoder", "--again", name]
    error = pae(words, run.parent, monkeypatch).fails(2).err
    assert repr(name) in error
    assert "'generator'" in error or "generator," in error
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("broken", "error", "code"),
    [
        ("pae_framework.build.import_components", PluginError("the plugin does not import"), 3),
        ("pae_framework.layers.require_kernel", UsageError("the kernel does not work here"), 2),
    ],
    ids=["import", "kernel"],
)
def test_what_cannot_run_here_leaves_the_stages_done(
    broken: str, error: PaeError, code: int, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(broken, fail)
    monkeypatch.setattr("pae_framework.launch.local.kernels_of", lambda *_: [((), "xformers")])
    words = ["run", RECIPE, "--run-dir", "run", "--again", "extractor"]
    assert str(error) in pae(words, run.parent, monkeypatch).fails(code).err
    for stage in STAGES:
        assert json.loads((run / stage / "stage.json").read_bytes())["state"] == "done"


def test_a_stage_that_another_process_works_on_is_left_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it only depends on the stage that is to run again."""
    with holding((run / "sample").resolve()):
        words = ["run", RECIPE, "--run-dir", "run", "--again", "encoder"]
        error = pae(words, run.parent, monkeypatch).fails(1).err
    assert "sample-" in error
    for stage in STAGES:
        assert json.loads((run / stage / "stage.json").read_bytes())["state"] == "done"


def test_a_report_that_another_process_works_on_is_left_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "report.html").stat().st_mtime_ns
    with holding((run / "report").resolve()):
        error = pae(["report", "run"], run.parent, monkeypatch).fails(1).err
    assert "report-" in error
    assert (run / "report.html").stat().st_mtime_ns == before
    pae(["report", "run"], run.parent, monkeypatch).ok()


def test_stages_of_other_recipes_that_read_an_outdated_one_are_outdated_too(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    """The folders of two recipes that share their stages up to the generator."""
    registry, again = load_registry(), ("generator",)
    ours, other = (load_recipe(tiny_recipe, (f"sample.seed={x}",), registry) for x in (0, 1))
    stages = {s.folder: s for loaded in (ours, other) for s in plan(loaded.recipe, registry)}
    fingerprints = {
        recipe: {stage.name: stage.fingerprint for stage in plan(loaded.recipe, registry)}
        for recipe, loaded in (("ours", ours), ("other", other))
    }
    assert len(stages) == len(STAGES) + 3  # sample, evaluate and report of each
    for folder, stage in stages.items():
        recipe = "ours" if stage.fingerprint in fingerprints["ours"].values() else "other"
        inputs = {name: fingerprints[recipe][name] for name in stage.inputs}
        write_json(tmp_path / folder / "stage.json", {"state": "done", "inputs": inputs})
    damaged = next(tmp_path.glob("encoder-*/stage.json"))
    damaged.write_bytes(b"")  # of a stage that is not concerned
    outdate_stages(again, [ours], tmp_path)
    for folder, stage in stages.items():
        if stage.name != "encoder":
            concerned = STAGES.index(stage.name) >= STAGES.index("generator")
            assert StageRecord(tmp_path / folder).done is not concerned


def test_a_dry_run_shows_what_would_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", RECIPE, "--run-dir", "run", "--again", "latents", "--dry-run", "--json"]
    stages = json.loads(pae(words, run.parent, monkeypatch).ok().out)["stages"]
    assert [row["stage"] for row in stages if row["state"] == "runs"] == list(STAGES[4:])


@pytest.mark.slow
def test_other_recipes_of_the_store_run_their_dependent_stages_again_too(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ["run", RECIPE, "sample.seed=7", "--run-dir", "other", "--stages", "run/stages"]
    pae(other, run.parent, monkeypatch).ok()
    again = ["run", RECIPE, "--run-dir", "run", "--again", "generator"]
    pae(again, run.parent, monkeypatch).ok()
    answer = pae(["status", "other", "--json"], run.parent, monkeypatch).json
    rows = answer["runs"]["old_run"]
    states = {row["stage"]: row["state"] for row in rows}
    assert states == dict.fromkeys(STAGES, "done") | dict.fromkeys(STAGES[6:], "pending")
    assert cached(pae(other, run.parent, monkeypatch).ok().err) == list(STAGES[:6])


def test_a_finished_run_keeps_the_command_and_software_it_ran_with(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("run.json", "environment.json", "recipe.yaml", "overrides.txt", "resolved.yaml")
    (run / "environment.json").write_text("{}", encoding="utf-8")  # of another machine
    before = {name: (run / name).read_bytes() for name in names}
    pae(["run", "run/resolved.yaml", "--run-dir", "run"], run.parent, monkeypatch).ok()
    assert {name: (run / name).read_bytes() for name in names} == before
    (entry,) = json.loads((run / "encoder" / "stage.json").read_bytes())["ran_with"]
    assert entry["command"] == f"pae run {RECIPE} --run-dir run"
    assert entry["packages"]["torch"]
    words = ["run", "run/resolved.yaml", "sample.steps=2", "--run-dir", "run"]
    pae(words, run.parent, monkeypatch).ok()
    assert json.loads((run / "environment.json").read_bytes())["packages"]
    (entry,) = json.loads((run / "sample" / "stage.json").read_bytes())["ran_with"]
    assert entry["overrides"] == ["sample.steps=2"]


def test_a_changed_recipe_in_the_run_is_not_taken_for_the_one_that_was_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "resolved.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("steps: 3", "steps: 5"), "utf-8")
    error = pae(["sample", "run", "--count", "1"], run.parent, monkeypatch).fails(1).err
    assert "resolved.yaml" in error
    assert not (run / "drawn").exists()
