"""A training of more steps goes on from a shorter one, and ends as if it had started at step 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_run import RECIPE, pae
from quickstart_stages import QUICKSTART_STAGES
from safetensors.torch import load_file

from pae_framework.errors import RunError
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.training.checkpoint import Checkpoints

REGISTRY = load_registry()
SHORT, LONG = 5, 9
TRAINED = {name: dotted(path) for name in QUICKSTART_STAGES if (path := STAGES[name].train_path)}
BASE = (
    *(f"{train}.schedule=constant" for train in TRAINED.values()),
    *(f"{train}.steps={SHORT}" for train in TRAINED.values()),
    *(f"{train}.log_every=2" for train in TRAINED.values()),
    *(f"{train}.checkpoint_every=3" for train in TRAINED.values()),
    "tokenizer.adversarial.optimizer.schedule=constant",
    "tokenizer.adversarial.optimizer.warmup_steps=2",
    "tokenizer.train.ema=0.9",
    "generator.train.ema=0.9",
)
"""Five steps: the last is neither one of the log nor one of a regular checkpoint."""


def run(path: Path, *overrides: str, until: str = "generator") -> str:
    """Run the recipe up to a stage; returns what is printed."""
    console = PlainConsole(record=True, quiet=False)
    with console.capture() as captured:
        loaded = load_recipe(RECIPE, (*BASE, *overrides), REGISTRY)
        LocalLauncher(console).run(loaded, RunDirectory.at(path), "pae run", until)
    return captured.get()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trainings have five steps."""
    path = tmp_path_factory.mktemp("short") / "run"
    run(path, until="extractor")
    run(path)
    return path


@pytest.fixture
def short(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


def longer(stage: str, steps: int = LONG) -> str:
    return f"{TRAINED[stage]}.steps={steps}"


def without(stage: str, run: Path) -> Path:
    """A copy of the run that never trained the stage."""
    copy = shutil.copytree(run, run.with_name("anew"), symlinks=True)
    shutil.rmtree((copy / stage).resolve())
    return copy


def contents(folder: Path) -> dict[str, object]:
    """What a training leaves, without times: tensors as lists, the log, the last checkpoint."""
    found: dict[str, object] = {}
    last = f"checkpoints/step-{LONG:08d}"
    for path in (*folder.glob("*.safetensors"), *folder.glob(f"{last}/*.safetensors")):
        tensors = load_file(path)
        found[str(path.relative_to(folder))] = {k: v.tolist() for k, v in tensors.items()}
    found["state"] = json.loads((folder / last / "state.json").read_bytes())
    timing = {"images_per_s", "data_wait"}
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found["log"] = [
        {key: value for key, value in json.loads(line).items() if key not in timing}
        for line in lines
    ]
    return found


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {x: x.read_bytes() for x in sorted(folder.rglob("*")) if x.is_file()}


@pytest.mark.parametrize("stage", TRAINED)
def test_it_ends_with_the_same_bits_and_leaves_the_shorter_one_as_it_was(stage: str, short: Path):
    anew, source = without(stage, short), (short / stage).resolve()
    before = snapshot(source)
    out = run(short, longer(stage), until=stage)
    assert f"goes on from step {SHORT} of" in out
    assert source.name in "".join(out.split())
    assert "goes on" not in run(anew, longer(stage), until=stage)
    assert contents(short / stage) == contents(anew / stage)
    assert snapshot(source) == before
    assert (short / stage).resolve() != source


def test_the_kept_weights_go_along(short: Path):
    anew = without("generator", short)
    keep = "generator.train.keep_steps=[2, 7]"
    assert "goes on from step 5" in run(short, longer("generator"), keep)
    run(anew, longer("generator"), keep)
    kept = {path.name for path in (short / "generator").glob("weights-step*")}
    assert kept == {"weights-step000002.safetensors", "weights-step000007.safetensors"}
    assert contents(short / "generator") == contents(anew / "generator")


def test_a_stopped_training_is_gone_on_from_too(short: Path):
    source = StageRecord((short / "generator").resolve())
    source.update(state="stopped")
    (source.path / "weights.safetensors").unlink()
    assert "goes on from step 5" in run(short, longer("generator"))


@pytest.mark.parametrize(
    ("damage", "outcome"),
    [
        (["step-00000005"], "goes on from step 3"),
        slow(["step-00000003"], "goes on from step 5"),
        slow(["step-00000003", "step-00000005"], "starts anew"),
    ],
)
@pytest.mark.parametrize("how", ["truncated", slow("missing"), slow("other")])
def test_damaged_checkpoints_are_not_used(short: Path, damage: list[str], outcome: str, how: str):
    anew, folder = without("generator", short), (short / "generator").resolve()
    for name in damage:
        file = folder / "checkpoints" / name / "model.safetensors"
        content = file.read_bytes()
        file.unlink()
        if how != "missing":
            file.write_bytes(content[:-5] if how == "truncated" else content[:-1] + b"?")
    assert outcome in run(short, longer("generator"))
    run(anew, longer("generator"))
    assert contents(short / "generator") == contents(anew / "generator")


@pytest.mark.slow
def test_damaged_kept_weights_are_not_used(short: Path):
    anew = without("generator", short)
    kept = (short / "generator").resolve() / "weights-step000002.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert "starts anew" in run(short, longer("generator"))
    run(anew, longer("generator"))
    assert contents(short / "generator") == contents(anew / "generator")


REFUSED = {
    "cosine": (("generator.train.schedule=cosine",), "generator.train.schedule is cosine"),
    "fewer steps": ((longer("generator", 3),), "no checkpoint before step 3"),
    "kept later": (("generator.train.keep_steps=[4]", "sample.at_steps=[]"), "keep_steps"),
    "not kept": (("generator.train.keep_steps=[]", "sample.at_steps=[]"), "keep_steps"),
}


@pytest.mark.parametrize("case", ["cosine", *map(slow, list(REFUSED)[1:])])
def test_other_trainings_start_at_step_0_and_say_why(short: Path, case: str):
    overrides, reason = REFUSED[case]
    if case == "cosine":
        run(short, *overrides)
    out = run(short, longer("generator"), *overrides)
    assert "starts anew" in out
    assert reason in " ".join(out.split())


@pytest.mark.parametrize("warmup", [1, slow(2)])
def test_a_cosine_schedule_of_the_discriminator_counts_too(short: Path, warmup: int):
    """It starts at step 1; the rates of its warm-up depend on no length."""
    anew = without("tokenizer", short)
    optimizer = "tokenizer.adversarial.optimizer"
    cosine = (f"{optimizer}.schedule=cosine", f"{optimizer}.warmup_steps={warmup}")
    run(short, *cosine, until="tokenizer")
    out = " ".join(run(short, *cosine, longer("tokenizer"), until="tokenizer").split())
    if warmup == 1:
        assert f"{optimizer}.schedule is cosine: step 5 of 5 is not step 5 of 9" in out
        return
    assert "goes on from step 3" in out
    run(anew, *cosine, longer("tokenizer"), until="tokenizer")
    assert contents(short / "tokenizer") == contents(anew / "tokenizer")


@pytest.mark.parametrize(
    "change",
    ["generator.train.lr=0.1", slow("generator.train.seed=3"), slow("generator.width=32")],
)
def test_a_training_that_differs_otherwise_starts_at_step_0(short: Path, change: str):
    out = run(short, longer("generator"), change)
    assert "goes on" not in out
    assert "starts anew" not in out


@pytest.mark.slow
def test_more_epochs_go_on(short: Path):
    """48 images in batches of 8: six steps per epoch, so 1.5 epochs are nine steps."""
    anew = without("generator", short)
    epochs = ("generator.train.steps=null", "generator.train.epochs=1.5")
    assert "goes on from step 5" in run(short, *epochs)
    run(anew, *epochs)
    assert contents(short / "generator") == contents(anew / "generator")


def test_again_starts_at_step_0(short: Path, monkeypatch: pytest.MonkeyPatch):
    run(short, longer("generator"))
    StageRecord((short / "generator").resolve()).outdate()
    assert "goes on" not in run(short, longer("generator"))


@pytest.mark.parametrize(
    "place",
    [(Checkpoints, "copy"), ("pae_framework.execution.going_on.find_origin",)],
    ids=["copying", "before"],
)
def test_a_kill_until_the_checkpoint_is_copied_changes_nothing(
    place: tuple[object, ...], short: Path, monkeypatch: pytest.MonkeyPatch
):
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    anew = without("generator", short)
    with monkeypatch.context() as patched:
        patched.setattr(*place, killed)
        with pytest.raises(KilledError):
            run(short, longer("generator"))
    assert "goes on from step 5" in run(short, longer("generator"))
    run(anew, longer("generator"))
    assert contents(short / "generator") == contents(anew / "generator")


@pytest.mark.slow
def test_it_goes_on_once_more_from_the_longest(short: Path):
    run(short, longer("generator", 7))
    assert "goes on from step 7" in run(short, longer("generator"))


# --- continue_from --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [slow("run"), "stage", "own"])
def test_a_training_of_another_run_can_be_named(short: Path, named: str):
    anew = without("generator", short)
    reference = without_name = shutil.copytree(anew, anew.with_name("reference"), symlinks=True)
    run(without_name, longer("generator"))
    target, source = {
        "run": (anew, short),
        "stage": (anew, (short / "generator").resolve()),
        "own": (short, short),
    }[named]
    out = run(target, longer("generator"), f"generator.train.continue_from={source}")
    assert "goes on from step 5" in out
    assert (target / "generator").resolve().name == (reference / "generator").resolve().name
    assert contents(target / "generator") == contents(reference / "generator")


IMPOSSIBLE: dict[str, Callable[[Path], tuple[list[str], list[str]]]] = {
    "no run": lambda run: ([f"generator.train.continue_from={run}/no"], ["no", "generator"]),
    "another stage": lambda run: (
        [f"generator.train.continue_from={(run / 'encoder').resolve()}"],
        ["encoder", "generator"],
    ),
    "another setting": lambda run: (
        [f"generator.train.continue_from={run}", "generator.train.lr=0.25"],
        ["generator.train.lr", "0.25"],
    ),
    "another input": lambda run: (
        [f"generator.train.continue_from={run}", "tokenizer.train.lr=0.25"],
        ["latents"],
    ),
    "fewer steps": lambda run: (
        [f"generator.train.continue_from={run}", longer("generator", 3)],
        ["step 3"],
    ),
}


@pytest.mark.parametrize("case", ["another setting", *map(slow, IMPOSSIBLE)])
def test_a_named_training_that_cannot_be_used_is_refused_before_anything_starts(
    short: Path, case: str, monkeypatch: pytest.MonkeyPatch
):
    overrides, facts = IMPOSSIBLE[case](short)
    before = snapshot(short)
    words = ["run", RECIPE, *BASE, longer("generator"), *overrides, "--run-dir", "new"]
    error = pae(words, short.parent, monkeypatch).fails(2).err
    assert all(fact in error for fact in ("generator.train.continue_from", *facts))
    assert not (short.parent / "new").exists()
    assert snapshot(short) == before


def test_a_launcher_refuses_it_too(short: Path):
    with pytest.raises(RunError, match=r"generator\.train\.continue_from"):
        run(short, longer("generator"), "generator.train.continue_from=nowhere")


def test_a_finished_stage_ignores_the_name(short: Path):
    assert "cached" in run(short, "generator.train.continue_from=nowhere")
