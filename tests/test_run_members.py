"""scripts/run_members.py: members run one by one, and what is kept of them is not run again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from xxhash import xxh3_128_hexdigest

from pae_framework.errors import UsageError
from pae_framework.recipe.load import load_recipe
from pae_framework.tensor_files import save_tensors

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_members.py"
RECIPE = """\
pae: 1
extends: quickstart
name: mine
sweep:
  seeds: [0, 1]
  variants: {none: {tokenizer.regularizers: null}, all: {}}
  paper: {source: a table, values: {none: {GSQ: 0.19}, all: {GSQ: 0.5}}}
"""
NAMES = ["none-seed0", "none-seed1", "all-seed0", "all-seed1"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_members", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Runs:
    """Stands for `pae run`: records the members that ran; those in ``failing`` fail."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failing: set[str] = set()

    def __call__(self, command: list[str]) -> Any:
        assert command[2:4] == ["pae_framework", "run"]
        name = command[command.index("--only") + 1]
        self.names.append(name)
        return SimpleNamespace(returncode=4 if name in self.failing else 0)


@pytest.fixture
def runs(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)
    found = Runs()
    monkeypatch.setattr(script.subprocess, "run", found)

    def result_of(member: Any, run: Any) -> dict[str, Any]:
        gsq = {"name": "manifold/gsq", "label": "GSQ", "value": 0.5 + member.seed / 10}
        gsq |= {"higher_is_better": True, "protocol": {"count": 10}, "at": {}}
        return {
            "member": member.name,
            "variant": member.variant,
            "seed": member.seed,
            "environment": {"processor": "a CPU"},
            "fingerprint": script._fingerprint(member, script.RunDirectory.at(Path("runs/mine"))),
            "psnr": {"80": 20.0, "100": 20.05},
            "shares": {"loss/ssr": 0.25, "grad/ssr": 0.5} if member.variant == "all" else {},
            "weights": {"encoder-ab": "12", f"tokenizer-{member.name}": member.name},
            "metrics": [gsq],
        }

    monkeypatch.setattr(script, "result_of", result_of)
    return found


def kept() -> list[str]:
    return sorted(path.stem for path in Path("kept/mine").glob("*.json"))


def test_each_member_runs_once_and_its_result_is_kept(script: ModuleType, runs: Runs) -> None:
    for _ in range(2):
        assert script.main(["mine.yaml", "--kept", "kept"]) == 0
        assert runs.names == NAMES
    assert kept() == sorted(NAMES)
    assert json.loads(Path("kept/mine/all-seed1.json").read_text())["seed"] == 1


@pytest.mark.slow
def test_what_a_run_leaves_is_kept(
    script: ModuleType, tmp_path: Path, tiny_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of one member, and nothing in place of its run."""
    monkeypatch.chdir(tmp_path)
    kept = "{tokenizer.train.keep_steps: [3], tokenizer.log_shares_every: 3}"
    sweep = f"sweep:\n  variants: {{all: {kept}}}\n"
    paper = "  paper: {source: a table, values: {all: {GSQ: 0.5}}}\n"
    Path("tiny.yaml").write_text(tiny_text + sweep + paper)
    assert script.main(["tiny.yaml", "--kept", "kept"]) == 0
    (path,) = Path("kept/tiny").glob("*.json")
    found = json.loads(path.read_text())
    run = Path("runs/tiny/members", path.stem)
    assert (path.stem, found["variant"], found["seed"]) == ("all-seed0", "all", 0)
    assert found["metrics"] == json.loads((run / "evaluate" / "results.json").read_text())
    assert found["fingerprint"].startswith((run / "evaluate").resolve().name.split("-")[-1])
    assert list(found["psnr"]) == ["3", "6"]
    assert all(0 < value < 60 for value in found["psnr"].values())
    assert found["psnr"]["3"] != found["psnr"]["6"]
    weights = {name.partition("-")[0]: digest for name, digest in found["weights"].items()}
    assert set(weights) == {"extractor", "encoder", "refine", "tokenizer", "generator"}
    written = run / "encoder" / "weights.safetensors"
    assert weights["encoder"] == xxh3_128_hexdigest(written.read_bytes())
    shares = found["shares"]
    assert sum(x for name, x in shares.items() if name.startswith("grad/")) == pytest.approx(1)
    assert {"loss/ssr", "grad/ssr"} <= set(shares)
    text = table(script, recipe="tiny.yaml")
    assert "all-seed0: " in text
    assert "not run" not in text.lower()
    before = path.stat().st_mtime_ns
    assert script.main(["tiny.yaml", "--kept", "kept"]) == 0
    assert path.stat().st_mtime_ns == before
    assert "Outdated" in table(script, "generator.train.lr=5e-3", recipe="tiny.yaml")

    # elsewhere, or after the runs were removed
    shared = {path.name.partition("-")[0]: path for path in Path("kept/tiny/shared").iterdir()}
    assert shared.keys() == {"extractor", "encoder", "refine"}
    shutil.rmtree("runs")
    path.unlink()
    assert script.main(["tiny.yaml", "--kept", "kept"]) == 0
    assert json.loads(path.read_text())["metrics"] == found["metrics"]
    for stage, kept_stage in shared.items():
        records = [json.loads((at / "stage.json").read_text()) for at in (run / stage, kept_stage)]
        assert records[0]["finished"] == records[1]["finished"]
        assert not (run / stage / "checkpoints").exists()


def test_after_a_failure_it_continues_with_the_member_that_failed(
    script: ModuleType, runs: Runs
) -> None:
    runs.failing = {"all-seed0"}
    assert script.main(["mine.yaml", "--kept", "kept"]) == 4
    assert kept() == ["none-seed0", "none-seed1"]
    runs.failing.clear()
    runs.names.clear()
    assert script.main(["mine.yaml", "--kept", "kept"]) == 0
    assert runs.names == ["all-seed0", "all-seed1"]


def test_only_members_that_a_change_concerns_run_again(script: ModuleType, runs: Runs) -> None:
    script.main(["mine.yaml", "--kept", "kept"])
    runs.names.clear()
    changed = "tokenizer.regularizers.scr.weight=0.5"  # `none` has no such term
    script.main(["mine.yaml", "--kept", "kept", "--only", "*-seed0", changed])
    assert runs.names == ["all-seed0"]


def table(script: ModuleType, *overrides: str, recipe: str = "mine.yaml") -> str:
    loaded = load_recipe(recipe, overrides)
    name = loaded.recipe.name
    return script.table(loaded, Path("kept", name), script.RunDirectory.at(Path("runs", name)))


def test_the_table_names_what_has_not_run(script: ModuleType, runs: Runs) -> None:
    script.main(["mine.yaml", "--kept", "kept", "--only", "all-*"])
    text = table(script)
    assert "| all | 0, 1 | 0.550 ± 0.050 |" in text
    assert "| none | 0.19 | not run |" in text
    assert "| all | 0.50 | 0.550 ± 0.050 |" in text
    assert "| all | ssr | 25.0% | 50.0% |" in text
    assert text.endswith("Not run: none-seed0, none-seed1.")


def test_the_table_leaves_out_results_of_another_recipe(script: ModuleType, runs: Runs) -> None:
    script.main(["mine.yaml", "--kept", "kept", "--only", "*-seed0"])
    script.main(["mine.yaml", "--kept", "kept", "--only", "all-seed1"])
    text = table(script, "tokenizer.regularizers.scr.weight=0.5")  # `none` has no such term
    assert "| none | 0.19 | 0.500 |" in text
    assert "| all | 0.50 | not run |" in text
    outdated, missing = text.split("\n\n")[-2:]
    assert outdated.startswith("Outdated")
    assert outdated.endswith(": all-seed0, all-seed1.")
    assert missing == "Not run: none-seed1."


def test_no_result_is_of_a_recipe_that_every_member_changed(script: ModuleType, runs: Runs) -> None:
    script.main(["mine.yaml", "--kept", "kept"])
    text = table(script, "generator.train.lr=5e-3")
    assert "0.5" not in text.replace("| all | 0.50 |", "")
    assert text.endswith(f": {', '.join(NAMES)}.")


def test_members_with_an_encoder_trained_again_do_not_compare(
    script: ModuleType, runs: Runs
) -> None:
    script.main(["mine.yaml", "--kept", "kept"])
    assert "Not comparable" not in table(script)
    path = Path("kept/mine/all-seed1.json")
    changed = json.loads(path.read_text())
    changed["weights"]["encoder-ab"] = "34"
    path.write_text(json.dumps(changed))
    others = "none-seed0, none-seed1, all-seed0"
    found = f"Not comparable: encoder-ab was trained anew between {others} and all-seed1."
    assert table(script).endswith(found)


def test_results_without_digests_of_weights_are_shown(script: ModuleType, runs: Runs) -> None:
    """An earlier version kept none."""
    script.main(["mine.yaml", "--kept", "kept"])
    for path in Path("kept/mine").glob("*.json"):
        entry = json.loads(path.read_text())
        del entry["weights"]
        path.write_text(json.dumps(entry))
    text = table(script)
    assert "| all | 0, 1 | 0.550 ± 0.050 |" in text
    assert "Not comparable" not in text


def test_the_results_in_the_docs_make_a_table(script: ModuleType) -> None:
    """Also where the images are missing, and the results are outdated because of that."""
    folders = sorted({path.parent for path in script.KEPT.rglob("*-seed*.json")})
    assert folders
    for folder in folders:
        sweep = script.RunDirectory.at(Path("runs", folder.name))
        text = script.table(load_recipe(folder.name), folder, sweep)
        for path in folder.glob("*.json"):
            outdated = text.partition("\n\nOutdated, ")[2]
            assert f"{path.stem}: " in text or path.stem in outdated
            assert folder.name != "shapes_ablation" or not outdated, "it needs no files"


@pytest.mark.parametrize("option", [[], ["--table"], ["--only", "all-*"]])
def test_a_recipe_without_a_sweep_has_no_members(script: ModuleType, option: list[str]) -> None:
    with pytest.raises(UsageError, match="quickstart has no sweep"):
        script.main(["quickstart", *option])


@pytest.mark.parametrize(
    ("psnr", "words"),
    [
        ({"80": 20.0, "100": 20.05}, "converged: PSNR +0.05 dB from step 80 to 100"),
        ({"80": 20.0, "100": 19.5}, "converged: PSNR -0.50 dB from step 80 to 100"),
        ({"50": 18.0, "80": 20.0, "100": 20.2}, "not converged: PSNR +0.20 dB from step 80 to 100"),
        ({"80": 20.0, "90": 20.2, "100": 20.2}, "not converged: PSNR +0.20 dB from step 80 to 100"),
        ({"95": 20.0, "100": 20.0}, "no weights of the step at 80 % to compare with"),
        ({"100": 20.0}, "no weights of the step at 80 % to compare with"),
    ],
)
def test_converged_means_less_than_a_tenth_of_a_decibel(
    script: ModuleType, psnr: dict[str, float], words: str
) -> None:
    assert script.convergence(psnr) == words


def test_psnr_is_the_mean_over_images(script: ModuleType) -> None:
    """Errors of 255 and 25.5 gray levels are 0 dB and 20 dB."""
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    decoded = torch.stack([torch.full((3, 4, 4), 255.0), torch.full((3, 4, 4), 25.5)])
    tokenizer = SimpleNamespace(encode=lambda images: images, decode=lambda latents: decoded)
    assert script._psnr(tokenizer, images) == pytest.approx(10)


def test_shares_are_means_over_the_last_half_of_the_steps(script: ModuleType) -> None:
    """Records without shares between the measurements do not count."""
    measured = {100: 0.9, 200: 0.8, 300: 0.4, 400: 0.2}
    records = [{"step": step, "loss/ssr": x, "grad/ssr": x / 2} for step, x in measured.items()]
    records.insert(3, {"step": 350, "loss": 1.0})
    assert script.late_shares(records) == pytest.approx({"loss/ssr": 0.3, "grad/ssr": 0.15})
    assert script.late_shares([{"step": 350, "loss": 1.0}]) == {}
    falling = [{"step": 1, "loss/l1": 0.6, "loss/ssr": 0.4}, {"step": 2, "loss/l1": 0.5}]
    falling += [{"step": 3, "loss/l1": 0.7, "loss/ssr": 0.3}, {"step": 4, "loss/l1": 1.0}]
    assert script.late_shares(falling) == pytest.approx({"loss/l1": 0.85, "loss/ssr": 0.15})
    assert script.late_shares([]) == {}


def test_kept_weights_are_those_of_the_tokenizer_in_its_objective(
    script: ModuleType, tmp_path: Path
) -> None:
    tokenizer, path = torch.nn.Linear(1, 1), tmp_path / "weights.safetensors"
    weights = {"tokenizer.weight": torch.tensor([[2.0]]), "tokenizer.bias": torch.tensor([3.0])}
    save_tensors({**weights, "regularizers.scr.projection": torch.ones(1)}, path)
    script.load_kept(tokenizer, path)
    assert tokenizer(torch.tensor([[5.0]])).item() == 2 * 5 + 3
