"""`pae import generator` and `pae export generator`: official weights in a run, and back."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import tiny_generator as official
from layouts import tiny_tokenizer as helpers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pae_framework.data.pixels import to_uint8
from pae_framework.execution.context import StageContext
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import SampleNoise, sample_latents
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.opened import open_run
from pae_framework.runs.plan import plan
from pae_framework.sampling.sampler import Sampler
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json
from pae_framework.testing.pytest import Pae, Result

TRAIN = "data.train={use: shapes, count: 12}"
TEST = "data.test={use: shapes, split: test, count: 6}"
GUIDED = Guidance(scale=4.0, channels="first_three", interval=(0.3, 1.0))


@pytest.fixture
def pae(pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_plots: None) -> Pae:
    """Run one command in a folder with a recipe and files trained elsewhere; no images."""
    helpers.install(tmp_path / "site", monkeypatch)
    Path("small.yaml").write_text(official.RECIPE, encoding="utf-8")
    official.write_tokenizer(Path("small.yaml"), Path("tokenizer.pt"))
    official.write(official.weights(), Path("0100000.pt"))
    torch.save(official.statistics(), "latents_stats.pt")
    return pae


@pytest.fixture
def run(pae: Pae) -> Path:
    """A run that has a tokenizer and nothing else."""
    answer = pae("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run").ok()
    assert "warning" not in answer.err
    return Path("run")


def imported(pae: Pae, file: str = "0100000.pt", *more: str) -> Result:
    return pae("import", "generator", file, "run", "--statistics", "latents_stats.pt", *more)


def sampler(run: Path) -> Sampler:
    opened = open_run(run, helpers.registry_with_renamed())
    return Sampler.of(StageContext.of_finished_run(opened, "generator", PlainConsole(stderr=True)))


def content(run: Path) -> dict[str, bytes]:
    """All files of a run, but locks."""
    files = (path for path in run.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


# --- sample for sample ----------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "guidance"), [("unguided", Guidance()), ("guided", GUIDED)])
@pytest.mark.parametrize("shift", [1.0, 0.3])
def test_an_imported_run_samples_what_the_official_program_samples(
    pae: Pae, run: Path, monkeypatch: pytest.MonkeyPatch, named: str, guidance: Guidance, shift
) -> None:
    """From the same noise; the official grid of 11 points is 10 steps, and 0.0 is no shift."""
    imported(pae).ok()
    golden, drawn = official.golden(), sampler(run)
    assert not any(parameter.requires_grad for parameter in drawn.tokenizer.parameters())

    monkeypatch.setattr(SampleNoise, "draw", lambda noise: golden["in.z"])
    settings = SampleSettings(steps=10, shift=shift, guidance=guidance)
    labels, indices = golden["in.labels"], torch.arange(2)
    latents = sample_latents(drawn.model, labels, indices, settings, 0, drawn.tokenizer.latent)
    expected = golden[f"out.euler11_shift{0.0 if shift == 1 else shift}_{named}"]
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-4)
    # mean 1 to 4, deviation 0.5: the imported statistics turn them into the tokenizer's latents
    mean = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    pixels = to_uint8(drawn.tokenizer.decode(0.5 * expected + mean))
    images = drawn.images(labels, indices, settings)
    assert (images.int() - pixels.int()).abs().max() <= 1
    assert pixels.float().std() > 5


def test_sampling_needs_no_data(pae: Pae, run: Path) -> None:
    imported(pae)
    options = ("--labels", "2,7", "--steps", "3", "--guidance", "2.5")
    answer = pae("sample", "run", *options)
    assert (answer.code, answer.out.splitlines()[-1][:8]) == (0, "2 images")
    with Image.open("run/drawn/000001.png") as image:
        assert image.size == (16, 16)
    answer = pae("sample", "run", "--labels", "10")
    assert answer.code == 2
    assert re.search(r"'10'.*0 to 9", answer.err)


# --- the run --------------------------------------------------------------------------------------


def test_the_run_needs_no_other_file_and_records_where_its_weights_are_from(
    pae: Pae, run: Path
) -> None:
    answer = imported(pae).ok()
    assert "warning" not in answer.err
    Path("0100000.pt").unlink()
    Path("latents_stats.pt").unlink()
    resolved = (run / "resolved.yaml").read_text(encoding="utf-8")
    folder = run.absolute() / "imported"
    assert f"  weights: {folder / 'generator.safetensors'}\n" in resolved
    assert f"  statistics: {folder / 'latents_stats.safetensors'}\n" in resolved
    assert helpers.same_bits(load_file(run / "generator/weights.safetensors"), official.weights())
    assert helpers.same_bits(
        load_file(run / "latents/statistics/latents_stats.safetensors"), official.statistics()
    )
    found = read_json(run / "generator/weights.json")
    original = {"imported_from", "imported_bytes", "imported_sha256"}
    assert found.keys() == {"file", "bytes", "sha256", "entry", "tensors", *original}
    assert (found["imported_from"], found["entry"]) == ("0100000.pt", "ema")
    assert found["tensors"] == 15 + 2 * 12  # 12 of each of the two blocks
    (rows,) = pae("status", "run", "--json").json["runs"].values()
    states = {row["stage"]: (row["state"], row["progress"]) for row in rows}
    assert states["latents"] == ("done", "from latents_stats.pt")
    assert states["generator"] == ("done", "from 0100000.pt")
    assert states["sample"] == ("pending", "")
    pae("sample", "run", "--count", "2").ok()


def test_only_what_a_loaded_generator_needs_is_written(pae: Pae, run: Path) -> None:
    imported(pae)
    statistics = {"latents_stats.safetensors", "latents_stats.pt", "statistics.json"}
    for stage, expected in (
        ("generator", {"weights.safetensors", "weights.json"}),
        ("latents", statistics),
    ):
        files = {path.name for path in (run / stage).rglob("*") if path.is_file()}
        assert expected <= files <= {*expected, "stage.json", ".lock"}
    found = torch.load(run / "latents/latents_stats.pt", weights_only=True)
    assert helpers.same_bits(found, official.statistics())
    assert not list(run.rglob("*shard*")) + list(run.rglob("checkpoint*"))


def test_original_recipe_and_all_changes_are_recorded(pae: Pae, run: Path) -> None:
    imported(pae)
    imported(pae)
    given = Path("small.yaml").read_text(encoding="utf-8")
    assert (run / "recipe.yaml").read_text(encoding="utf-8") == given
    overrides = (run / "overrides.txt").read_text(encoding="utf-8").splitlines()
    keys = [line.partition("=")[0] for line in overrides]
    expected = ["tokenizer.weights", "sample.at_steps", "generator.weights", "latents.statistics"]
    assert [key for key in keys if key in expected] == expected


def test_later_stages_run_without_training_images(pae: Pae, run: Path) -> None:
    answer = imported(pae, "0100000.pt", TEST, "evaluate={manifold: {images: 6}}")
    assert answer.code == 0
    answer = pae("run", "run/resolved.yaml", "--run-dir", "run")
    assert answer.code == 0
    assert "generator  cached" in answer.err
    (drawn,) = read_json(run / "sample/sets.json")
    assert drawn["protocol"]["weights"] == "0100000.pt (ema)"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "loaded generator, 2 sampling steps" in page


def test_a_dry_run_counts_no_training_of_it(pae: Pae, run: Path) -> None:
    def outline() -> dict[str, Any]:
        answer = pae("run", "run/resolved.yaml", "--run-dir", "run", "--dry-run", "--json")
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def generator(kind: str, key: str) -> dict[str, Any]:
        return next(row for row in outline()[kind] if row[key] == "generator")

    assert generator("parts", "part")["trained"] > 0
    assert generator("stages", "stage")["steps"] == 2
    imported(pae)
    assert (generator("parts", "part")["trained_in"], generator("parts", "part")["trained"]) == (
        None,
        0,
    )
    assert generator("stages", "stage")["steps"] is None
    assert generator("stages", "stage")["state"] == "done"


def test_importing_again_and_another_file(pae: Pae, run: Path) -> None:
    imported(pae)
    first = (run / "generator").resolve()
    assert "cached" in imported(pae).err
    assert (run / "generator").resolve() == first
    other = {**official.weights(), "final_layer.linear.bias": torch.ones(4)}
    official.write(other, Path("other.pt"))
    imported(pae, "other.pt")
    assert (run / "generator").resolve() != first
    assert load_file(run / "generator/weights.safetensors")["final_layer.linear.bias"].all()


def test_weights_trained_in_the_run_can_be_imported_unchanged(pae: Pae) -> None:
    """Without --statistics the run's latents count; the trained stage stays in `stages`."""
    line = ("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run")
    pae(*line, TRAIN, TEST)
    pae("run", "run/resolved.yaml", "--run-dir", "run").ok()
    pae("sample", "run", "--count", "2", "--out", "before")
    trained, latents = Path("run/generator").resolve(), Path("run/latents").resolve()
    pae("export", "generator", "run", "own.safetensors").ok()
    answer = pae("import", "generator", "own.safetensors", "run").ok()
    assert "warning" not in answer.err
    assert Path("run/generator").resolve() != trained
    assert trained.is_dir()
    assert Path("run/latents").resolve() == latents
    pae("sample", "run", "--count", "2", "--out", "after").ok()
    for name in ("000000.png", "000001.png"):
        assert Path("before", name).read_bytes() == Path("after", name).read_bytes()


def test_a_recipe_without_generator_is_an_error_that_shows_how_to_set_one(pae: Pae) -> None:
    line = ("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run")
    pae(*line, "generator=null", "sample=null")
    answer = imported(pae)
    assert answer.code == 2
    assert "the recipe of run" in answer.err
    assert "generator={use:" in answer.err  # what to write
    network = "{use: lightningdit, width: 32, depth: 2, heads: 4, patch: 1, train: {steps: 1}}"
    imported(pae, "0100000.pt", f"generator={network}").ok()
    pae("sample", "run", "--count", "2", "--steps", "2").ok()


def test_a_run_made_on_a_gpu_accepts_an_import_without_one(pae: Pae, run: Path) -> None:
    recipe = run / "resolved.yaml"
    text = recipe.read_text(encoding="utf-8")
    assert "  device: auto\n" in text
    recipe.write_text(text.replace("  device: auto\n", "  device: cuda\n"), encoding="utf-8")
    info = json.loads((run / "run.json").read_bytes())
    del info["resolved"]  # the digest of the recipe before the change
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
    imported(pae).ok()
    assert "  device: auto\n" in recipe.read_text(encoding="utf-8")


# --- what is refused ------------------------------------------------------------------------------


NAN = torch.full((4,), float("nan"))
REFUSED = {
    "classes": (
        {"y_embedder.embedding_table.weight": torch.zeros(21, 32)},
        "4 x 4 x 4.*20 classes",
    ),
    "preset": (
        {"blocks.2.attn.proj.weight": torch.zeros(32, 32)},
        "LightningDiT.* 3 .*32",
    ),
    "nan": ({"final_layer.linear.bias": NAN}, r"finite.*final_layer\.linear\.bias"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_file_of_another_network_changes_nothing(pae: Pae, run: Path, fault: str) -> None:
    changes, message = REFUSED[fault]
    official.write({**official.weights(), **changes}, Path("other.pt"))
    before = content(run)
    answer = imported(pae, "other.pt").fails(1)
    assert re.search(message, " ".join(answer.err.split()))
    assert "other.pt" in answer.err
    assert "Traceback" not in answer.err
    assert content(run) == before


class Hostile:
    """Unpickled freely, it would leave a file behind."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path("run_by_pickle"),)


@pytest.mark.parametrize("which", ["weights", "statistics"])
def test_a_file_that_would_run_code_is_refused(pae: Pae, run: Path, which: str) -> None:
    hostile = {"mean": Hostile(), "std": Hostile(), "ema": Hostile()}
    torch.save(hostile, "0100000.pt" if which == "weights" else "latents_stats.pt")
    before = content(run)
    answer = imported(pae)
    assert answer.code != 0
    assert "Traceback" not in answer.err
    assert "code" in answer.err
    assert "weights_only" not in answer.err
    assert not Path("run_by_pickle").exists()
    assert content(run) == before


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"std": torch.full((1, 4, 1, 1), float("inf"))}, "NaN"),
        ({"std": torch.zeros(1, 4, 1, 1)}, "deviation.* 0"),
        (
            {"mean": torch.zeros(1, 6, 1, 1), "std": torch.ones(1, 6, 1, 1)},
            " 6 channels.*4 x 4 x 4",
        ),
        ({"std": torch.tensor(1.0)}, r"\(1, C, 1, 1\)"),
    ],
)
def test_statistics_of_other_latents_change_nothing(
    pae: Pae, run: Path, statistics: dict[str, Any], message: str
) -> None:
    torch.save({**official.statistics(), **statistics}, "latents_stats.pt")
    before = content(run)
    answer = imported(pae)
    assert answer.code != 0
    assert re.search(message, " ".join(answer.err.split()))
    assert "latents_stats.pt" in answer.err
    assert content(run) == before


def test_without_images_the_latent_statistics_must_be_given(pae: Pae, run: Path) -> None:
    answer = pae("import", "generator", "0100000.pt", "run")
    assert answer.code == 2
    assert "--statistics" in answer.err
    assert "nowhere/train" in answer.err


def test_without_statistics_the_latents_are_written_from_the_images(pae: Pae) -> None:
    line = ("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run")
    pae(*line, TRAIN)
    network = {
        name: torch.zeros(9, 32) if name.startswith("y_embedder") else tensor
        for name, tensor in official.weights().items()
    }  # the shapes' 8 classes, and the null label
    official.write(network, Path("shapes.pt"))
    answer = pae("import", "generator", "shapes.pt", "run").ok()
    assert "warning" not in answer.err
    shard = load_file("run/latents/latents_rank00_shard000.safetensors")
    assert shard["latents"].shape == (12, 4, 4, 4)


def test_an_unknown_number_of_classes_is_an_error(pae: Pae) -> None:
    text = official.RECIPE.replace("images: 120, classes: 10", "images: 120")
    Path("small.yaml").write_text(text, encoding="utf-8")
    pae("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run")
    answer = imported(pae)
    assert answer.code == 2
    assert "number of classes" in answer.err


def test_missing_files_and_runs(pae: Pae, run: Path) -> None:
    assert "gone.pt" in imported(pae, "gone.pt").err
    answer = pae("import", "generator", "0100000.pt", "run", "--statistics", "gone.pt")
    assert "gone.pt" in answer.err
    assert "nowhere" in pae("import", "generator", "0100000.pt", "nowhere").err
    answer = imported(pae, "0100000.pt", "tokenizer.bottleneck.channels=8")
    assert answer.code == 2
    assert re.search(r"'tokenizer'.* pending", answer.err)


# --- export ---------------------------------------------------------------------------------------


def test_import_and_export_give_the_file_back_bit_for_bit(pae: Pae, run: Path) -> None:
    imported(pae)
    pae("export", "generator", "run", "out.pt").ok()
    found: dict[str, Any] = torch.load("out.pt", weights_only=True)
    assert helpers.same_bits(found["ema"], official.weights())
    assert helpers.same_bits(found["model"], official.weights())
    once = sum(x.numel() * x.element_size() for x in official.weights().values())
    assert once < Path("out.pt").stat().st_size < 1.5 * once
    pae("export", "generator", "run", "out.safetensors").ok()
    assert helpers.same_bits(load_file("out.safetensors"), official.weights())
    first = load_file(run / "generator/weights.safetensors")
    for file in ("out.pt", "out.safetensors"):
        imported(pae, file).ok()
        assert helpers.same_bits(load_file(run / "generator/weights.safetensors"), first)


def test_an_exported_file_says_where_it_is_from(pae: Pae, run: Path) -> None:
    imported(pae)
    pae("export", "generator", "run", "out.pt")
    pae("export", "generator", "run", "out.safetensors")
    with safe_open("out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["recipe"], metadata["generator"]) == ("small", "lightningdit")
    assert (metadata["latents"], metadata["classes"]) == ("4 x 4 x 4", "10")
    assert metadata["stage"] == (run / "generator").resolve().name
    assert torch.load("out.pt", weights_only=True)["metadata"] == metadata


def test_invalid_names_formats_and_runs(pae: Pae, run: Path) -> None:
    answer = pae("export", "generator", "run", "out.pt")
    assert answer.code == 2
    assert "is pending" in answer.err
    imported(pae)
    assert pae("export", "generator", "run", "out.pt", "--format", "safetensors").code == 2
    Path("out.pt").write_text("precious", encoding="utf-8")
    answer = pae("export", "generator", "run", "out.pt")
    assert (answer.code, Path("out.pt").read_text(encoding="utf-8")) == (2, "precious")
    pae("export", "generator", "run", "out.pt", "--force").ok()


def test_bare_weights_and_half_precision_are_imported(pae: Pae, run: Path) -> None:
    halves = {name: x.bfloat16() for name, x in official.weights().items()}
    save_file(halves, "half.safetensors")
    imported(pae, "half.safetensors").ok()
    found = load_file(run / "generator/weights.safetensors")
    assert {x.dtype for x in found.values()} == {torch.float32}
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(found[key], halves[key].float())
    assert read_json(run / "generator/weights.json")["entry"] is None


# --- files of other programs ----------------------------------------------------------------------


def other_weights() -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in official.weights().items()}


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        (lambda w, o: {"model": o, "ema": w, "args": Namespace(lr=1e-4)}, "ema"),
        (lambda w, o: {"model": o, "ema": w, "best": np.float64(3.2)}, "ema"),
        (lambda w, o: {"model": o, "model_ema": w}, "model_ema"),
        (lambda w, o: {"model": o, "ema": list(w.values())}, "ema"),
        (lambda w, o: {"ema": {"module": {f"module.{n}": x for n, x in w.items()}}}, "ema.module"),
        (lambda w, o: {"state_dict": {f"network.{n}": x for n, x in w.items()}}, "state_dict"),
    ],
)
def test_files_of_other_trainings(pae: Pae, run: Path, content: Any, entry: str) -> None:
    torch.save(content(official.weights(), other_weights()), "other.pt")
    answer = imported(pae, "other.pt").ok()
    assert f"`{entry}`" in answer.err
    assert helpers.same_bits(load_file(run / "generator/weights.safetensors"), official.weights())
    assert read_json(run / "generator/weights.json")["entry"] == entry


@pytest.mark.parametrize("given", ["parts", "parts/model.safetensors.index.json"])
def test_parts_are_imported_together(pae: Pae, run: Path, given: str) -> None:
    write_parts(Path("parts"))
    imported(pae, given).ok()
    assert helpers.same_bits(load_file(run / "generator/weights.safetensors"), official.weights())


def test_a_recipe_may_name_a_folder_of_parts(pae: Pae) -> None:
    """Its stage is another one when a part changes, and not when the folder moves."""

    def fingerprint(weights: str) -> str:
        changes = [f"generator.weights={weights}", TRAIN, TEST, "sample=null"]
        pae("check", "small.yaml", *changes).ok()
        registry = helpers.registry_with_renamed()
        loaded = load_recipe(Path("small.yaml"), changes, registry)
        return next(x.fingerprint for x in plan(loaded.recipe, registry) if x.name == "generator")

    write_parts(Path("parts"))
    first = fingerprint("parts")
    Path("parts").rename("moved")
    assert fingerprint("moved") == fingerprint("moved/model.safetensors.index.json") == first
    part = Path("moved/model-00002-of-00002.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(part).items()}, part)
    assert fingerprint("moved") != first


def write_parts(folder: Path) -> None:
    folder.mkdir()
    weights, where = official.weights(), {}
    for index, name in enumerate(weights):
        where[name] = f"model-0000{1 + index % 2}-of-00002.safetensors"
    for file in set(where.values()):
        save_file({name: x for name, x in weights.items() if where[name] == file}, folder / file)
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": where}), encoding="utf-8")


def one_part() -> str:
    write_parts(Path("parts"))
    return "parts/model-00001-of-00002.safetensors"


def saved_with(**changes: Any) -> str:
    torch.save({**official.weights(), **changes}, "bad.pt")
    return "bad.pt"


BIAS = "x_embedder.proj.bias"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (one_part, ["one of 2 parts", "model.safetensors.index.json"]),
        (lambda: saved_with(**{BIAS: torch.zeros(32, dtype=torch.complex64)}), [BIAS, "complex"]),
        (lambda: saved_with(**{BIAS: torch.zeros(32, dtype=torch.bool)}), [BIAS, "bool"]),
        (lambda: saved_with(**{BIAS: torch.zeros(32).to(torch.float8_e5m2)}), [BIAS, "float8"]),
        (lambda: saved_with(**{BIAS: torch.zeros(32).to_sparse()}), [BIAS, "sparse"]),
        (lambda: saved_with(**{BIAS: torch.full((32,), torch.nan)}), [BIAS, "finite"]),
        (lambda: saved_with(step=3), ["step is a int"]),
        (lambda: saved_with(best=Fraction(1, 2)), ["fractions.Fraction"]),
    ],
)
def test_bad_files_are_errors_and_change_nothing(
    pae: Pae, run: Path, write: Any, words: list[str]
) -> None:
    file, before = write(), content(run)
    answer = imported(pae, file)
    assert answer.code == 1
    for word in (Path(file).name, *words):
        assert word in answer.err
    assert content(run) == before


def test_a_folder_of_statistics_is_no_file(pae: Pae, run: Path) -> None:
    Path("folder").mkdir()
    answer = pae("import", "generator", "0100000.pt", "run", "--statistics", "folder")
    assert answer.code == 2
    assert "folder" in answer.err
