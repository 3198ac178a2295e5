"""`pae import pae` and `pae export pae`: a released file becomes a run, and a run such a file."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import tiny_tokenizer as helpers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.interop.imported_latents import LatentMoments, is_released
from pae_framework.recipe.load import load_recipe
from pae_framework.system.files import read_json
from pae_framework.testing.pytest import Pae, Result

GENERATES = """\
extractor: {use: small_cnn, width: 8, depth: 2, train: {steps: 2, batch_size: 4}}
generator:
  use: lightningdit
  width: 32
  depth: 1
  heads: 2
  patch: 1
  train: {steps: 2, batch_size: 4}
sample: {count: 4, steps: 2, batch_size: 4}
evaluate: {reconstruction: }
"""
GENERATED_DATA = [
    "data.train={use: shapes, count: 12}",
    "data.test={use: shapes, split: test, count: 6}",
]


@pytest.fixture
def pae(pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_plots: None) -> Pae:
    """Run one command in a folder with a recipe and two released files; its data are missing."""
    helpers.install(tmp_path / "site", monkeypatch)
    Path("small.yaml").write_text(helpers.RECIPE, encoding="utf-8")
    helpers.write(helpers.released(), Path("ep-last.pt"))
    helpers.write(helpers.released(with_encoder=False), Path("bare.safetensors"))
    return pae


def imported(pae: Pae, file: str = "ep-last.pt", *overrides: str, run_dir: str = "run") -> Result:
    return pae("import", "pae", file, "--recipe", "small.yaml", "--run-dir", run_dir, *overrides)


def weights(path: str) -> dict[str, Tensor]:
    """The entry `model` of a torch file."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    found: dict[str, Tensor] = content["model"]
    return found


# --- import ---------------------------------------------------------------------------------------


def test_an_imported_run_reconstructs_images_without_any_data(pae: Pae) -> None:
    answer = imported(pae).ok()
    assert "warning" not in answer.err
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    answer = pae("reconstruct", "run", "photo.png").ok()
    assert "warning" not in answer.err
    with Image.open("run/reconstructed/000_photo.png") as image:
        assert image.size == (16, 16)


def test_the_run_needs_no_other_file(pae: Pae) -> None:
    imported(pae)
    Path("ep-last.pt").unlink()
    resolved = Path("run/resolved.yaml").read_text(encoding="utf-8")
    copy = Path("run/imported/tokenizer.safetensors").absolute()
    assert f"  weights: {copy}\n" in resolved
    assert "    weights: none\n" in resolved  # the hub's are not asked for: the file brought them
    assert helpers.same_bits(load_file(copy), helpers.released())


def test_the_files_weights_become_the_runs(pae: Pae) -> None:
    imported(pae)
    stage = Path("run/tokenizer")
    files = {"tokenizer.safetensors", "encoder.safetensors", "weights.json"}
    assert files <= {path.name for path in stage.iterdir()} <= {*files, "stage.json", ".lock"}
    assert helpers.same_bits(load_file(stage / "tokenizer.safetensors"), helpers.tokenizer_part())
    value = helpers.encoder_part()[f"encoder.{helpers.SPLIT[2]}"]
    assert torch.equal(load_file(stage / "encoder.safetensors")["fused.weight"][64:], value)


@pytest.mark.parametrize("again", [False, True], ids=["a file", "a copy of it"])
def test_source_file_is_recorded(pae: Pae, again: bool) -> None:
    def described(file: str, prefix: str) -> dict[str, object]:
        content = Path(file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return {f"{prefix}bytes": len(content), f"{prefix}sha256": digest}

    imported(pae)
    copy, found = "run/imported/tokenizer.safetensors", Path("run/tokenizer/weights.json")
    if again:
        imported(pae, copy, run_dir="again").ok()
        copy, found = "again/imported/tokenizer.safetensors", Path("again/tokenizer/weights.json")
    first = {name: str(value) for name, value in described("ep-last.pt", "imported_").items()}
    assert read_json(found) == {
        "file": "tokenizer.safetensors",
        **described(copy, ""),
        "imported_from": "ep-last.pt",
        **first,
        "layout": "tokenizer with encoder",
        "tensors": len(helpers.tokenizer_part()),
        "encoder_tensors": 5,
    }


def test_later_stages_use_the_imported_tokenizer(pae: Pae) -> None:
    with Path("small.yaml").open("a", encoding="utf-8") as file:
        file.write(GENERATES)
    imported(pae, "ep-last.pt", *GENERATED_DATA).ok()
    before = Path("run/tokenizer").resolve()
    assert not Path("run/report.html").is_symlink()
    Path("ep-last.pt").unlink()
    answer = pae("run", "run/resolved.yaml", "--run-dir", "run")
    assert answer.code == 0
    assert "tokenizer  cached" in answer.err
    assert Path("run/tokenizer").resolve() == before
    assert Path("run/report.html").is_file()
    assert read_json(Path("run/evaluate/results.json"))


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("PAE_DINOv2L_d32", "checkpoints/ep-last.pt"),
        ("outputs", "PAE_DINOv2L_d32/checkpoints/ep-last.pt"),
        ("PAE-collections", "AE-models/dinov2-large.pt"),
    ],
)
def test_the_folder_of_a_released_tokenizer_is_read(pae: Pae, folder: str, file: str) -> None:
    path = Path(folder, file)
    path.parent.mkdir(parents=True)
    Path("ep-last.pt").rename(path)
    imported(pae, folder).ok()
    assert read_json(Path("run/tokenizer/weights.json"))["imported_from"] == path.name


def test_of_several_released_tokenizers_one_must_be_named(pae: Pae) -> None:
    for name in ("dinov2-large.pt", "mae-large.pt"):
        path = Path("PAE-collections/AE-models", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path("ep-last.pt").read_bytes())
    error = imported(pae, "PAE-collections").fails(2).err
    for fact in ("AE-models/dinov2-large.pt", "AE-models/mae-large.pt"):
        assert fact in error
    assert not Path("run").exists()
    imported(pae, "PAE-collections/AE-models/mae-large.pt").ok()


def test_moments_of_latents_are_printed_if_there_are_images(pae: Pae) -> None:
    """Tokens of the sphere bottleneck have norm sqrt(C), so the root mean square is 1."""
    out = " ".join(imported(pae, "ep-last.pt", *GENERATED_DATA).ok().out.split())
    assert "6 test images" in out
    mean, deviation, rms = map(
        float, re.findall(r"(?:mean|deviation|root mean square) (-?[\d.]+)\b", out)[:3]
    )
    assert rms == 1
    assert mean**2 + deviation**2 == pytest.approx(1, abs=0.003)


def test_without_images_the_import_says_that_latents_were_not_measured(pae: Pae) -> None:
    out = " ".join(imported(pae).ok().out.split())
    assert "not measured" in out
    assert "nowhere" in out  # their folder


def test_moments_by_hand() -> None:
    """0, 2, 4, 6: mean 3, variance (9 + 1 + 1 + 9) / 4 = 5, mean square 56 / 4 = 14."""
    found = LatentMoments.of(torch.tensor([0.0, 2, 4, 6]).view(2, 1, 1, 2))
    assert found.images == 2
    moments = (found.mean, found.deviation, found.rms)
    assert moments == pytest.approx((3, 5**0.5, 14**0.5))


@pytest.mark.parametrize(
    ("recipe", "overrides", "released"),
    [
        ("dinov2_full", (), True),
        ("dinov2_full", ("tokenizer.bottleneck=null", "tokenizer.bottleneck=gaussian"), False),
        ("siglip2_full", (), False),
        ("mae_full", (), False),
        ("vavae_f16d32", (), False),
        ("kl_vae_f16d32", (), False),
        ("sd_vae", (), False),
    ],
)
def test_reported_moments_are_shown_for_their_tokenizer_only(
    recipe: str, overrides: tuple[str, ...], released: bool
) -> None:
    assert is_released(load_recipe(recipe, overrides).recipe) == released


def test_status_shows_imported_and_pending_stages(pae: Pae) -> None:
    with Path("small.yaml").open("a", encoding="utf-8") as file:
        file.write(GENERATES)
    imported(pae)
    (rows,) = pae("status", "run", "--json").json["runs"].values()
    states = {row["stage"]: (row["state"], row["progress"]) for row in rows}
    assert states.pop("tokenizer") == ("done", "from ep-last.pt")
    assert set(states) == {"extractor", "latents", "generator", "sample", "evaluate", "report"}
    assert set(states.values()) == {("pending", "")}


def test_without_encoder_weights_nothing_is_written(pae: Pae) -> None:
    answer = imported(pae, "bare.safetensors")
    assert answer.code == 2
    assert "bare.safetensors" in answer.err
    assert "tokenizer.encoder" in answer.err
    assert "cache" in answer.err
    assert not Path("run").exists()


def test_without_encoder_weights_those_of_the_recipe_are_used(pae: Pae) -> None:
    answer = imported(pae, "bare.safetensors", "tokenizer.encoder.weights=here").ok()
    assert "warning" not in answer.err
    assert "    weights: here\n" in Path("run/resolved.yaml").read_text(encoding="utf-8")
    assert not Path("run/tokenizer/encoder.safetensors").exists()


def test_raes_decoder_and_statistics_become_a_run(pae: Pae) -> None:
    decoder = {
        name.removeprefix("decoder."): tensor
        for name, tensor in helpers.tokenizer_part().items()
        if name.startswith("decoder.")
    }
    torch.save(decoder, "model.pt")
    torch.save({"mean": None, "var": torch.full((32, 4, 4), 2.0)}, "stat.pt")
    overrides = ("tokenizer.encoder.weights=here", "tokenizer.modulator=none")
    identity = "tokenizer.bottleneck={use: identity, statistics: stat.pt}"
    imported(pae, "model.pt", *overrides, identity).ok()
    found = load_file("run/tokenizer/tokenizer.safetensors")
    assert (found["bottleneck.var"] == 2).all()
    assert not found["bottleneck.mean"].any()
    assert torch.equal(found["decoder.decoder_embed.weight"], decoder["decoder_embed.weight"])
    without = (*overrides, "tokenizer.bottleneck=identity")
    refused = imported(pae, "model.pt", *without, run_dir="two").fails(1)
    assert "tokenizer.bottleneck.statistics=" in refused.err
    assert not Path("two").exists()


OWN_ENCODER = "tokenizer.encoder={use: tiny_vit, width: 32, heads: 4, train: {steps: 1}}"


@pytest.mark.parametrize(
    ("file", "override", "facts"),
    [
        ("bare.safetensors", "tokenizer.encoder.weights=none", ("encoder.weights", "none")),
        ("ep-last.pt", OWN_ENCODER, ("encoder", "trains its own", "tokenizer.encoder.train")),
    ],
    ids=["a random encoder", "two encoders"],
)
def test_encoder_of_another_file_is_refused(
    pae: Pae, file: str, override: str, facts: tuple[str, ...]
) -> None:
    answer = imported(pae, file, override).fails(1)
    assert all(fact in answer.err for fact in (file, *facts))
    assert not Path("run").exists()


def test_missing_file_is_reported_before_anything_runs(pae: Pae) -> None:
    gone = ("small.yaml", "tokenizer.weights=gone.pt", "tokenizer.encoder.weights=none")
    answer = pae("run", *gone).fails(2)
    assert "tokenizer.weights" in answer.err
    assert "gone.pt" in answer.err
    assert list(Path().glob("runs/*/stages/*")) == []


def test_an_unknown_tensor_is_refused_before_anything_is_written(pae: Pae) -> None:
    helpers.write({**helpers.released(), "decoder.mystery": torch.zeros(2)}, Path("other.pt"))
    assert "decoder.mystery" in imported(pae, "other.pt").fails(1).err
    assert not Path("run").exists()


def test_a_file_for_another_recipe_is_refused_before_anything_is_written(pae: Pae) -> None:
    answer = imported(pae, "ep-last.pt", "tokenizer.bottleneck.channels=8").fails(1)
    assert re.search(r"latent_compressor\.1\.weight .*6x32x3x3.* 8x32x3x3", answer.err)
    assert "Traceback" not in answer.err
    assert not Path("run").exists()


def test_a_directory_with_a_trained_run_is_left_alone(pae: Pae) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"name": "small", "plan": []}', encoding="utf-8")
    answer = imported(pae)
    assert answer.code == 2
    assert "--run-dir" in answer.err
    assert sorted(path.name for path in Path("run").iterdir()) == ["run.json"]


def test_an_import_can_be_repeated_and_resumed_after_a_kill(pae: Pae) -> None:
    Path("run/imported").mkdir(parents=True)  # all that a killed import may have left
    Path("run/imported/tokenizer.safetensors").write_bytes(b"half")
    imported(pae).ok()
    first = Path("run/tokenizer").resolve()
    again = imported(pae)
    assert again.code == 0
    assert "cached" in again.err
    assert Path("run/tokenizer").resolve() == first
    other = {**helpers.released(), "decoder.decoder_pred.bias": torch.ones(48)}
    helpers.write(other, Path("other.pt"))
    imported(pae, "other.pt").ok()
    assert Path("run/tokenizer").resolve() != first
    assert load_file("run/tokenizer/tokenizer.safetensors")["decoder.decoder_pred.bias"].all()


def test_the_default_directory_is_not_that_of_training(pae: Pae) -> None:
    pae("import", "pae", "ep-last.pt", "--recipe", "small.yaml").ok()
    assert Path("runs/small-imported/tokenizer/tokenizer.safetensors").is_file()


def test_a_recipe_for_gpus_is_imported_without_one(pae: Pae) -> None:
    text = helpers.RECIPE.replace("device: cpu", "device: cuda")
    Path("small.yaml").write_text(text, encoding="utf-8")
    imported(pae).ok()


def test_a_run_made_on_a_gpu_is_used_without_one(pae: Pae) -> None:
    imported(pae)
    recipe = Path("run/resolved.yaml")
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("  device: auto\n", "  device: cuda\n"), encoding="utf-8")
    record = Path("run") / "run.json"
    info = json.loads(record.read_bytes())
    del info["resolved"]  # the digest of the recipe before the change
    record.write_text(json.dumps(info), encoding="utf-8")
    assert "device: cuda" in recipe.read_text(encoding="utf-8")
    pae("export", "pae", "run", "out.pt").ok()


def test_a_sweep_and_a_missing_file_are_errors(pae: Pae) -> None:
    answer = imported(pae, "gone.pt").fails(2)
    assert "gone.pt" in answer.err
    with Path("small.yaml").open("a", encoding="utf-8") as file:
        file.write("sweep: {variants: {one: {data.flip: true}}}\n")
    answer = imported(pae)
    assert answer.code == 2
    assert "sweep" in answer.err


# --- export ---------------------------------------------------------------------------------------


def test_import_and_export_give_the_file_back_bit_for_bit(pae: Pae) -> None:
    imported(pae)
    pae("export", "pae", "run", "out.pt").ok()
    assert helpers.same_bits(weights("out.pt"), helpers.released())
    pae("export", "pae", "run", "out.safetensors").ok()
    assert helpers.same_bits(load_file("out.safetensors"), helpers.released())
    pae("export", "pae", "run", "bare.pt", "--no-encoder").ok()
    assert helpers.same_bits(weights("bare.pt"), helpers.released(with_encoder=False))
    imported(pae, "out.safetensors", run_dir="again").ok()
    one, two = (f"{run}/tokenizer/tokenizer.safetensors" for run in ("run", "again"))
    assert helpers.same_bits(load_file(one), load_file(two))


def test_an_exported_file_says_where_it_is_from(pae: Pae) -> None:
    imported(pae)
    pae("export", "pae", "run", "out.pt")
    pae("export", "pae", "run", "out.safetensors")
    with safe_open("out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["recipe"], metadata["encoder"]) == ("small", "renamed")
    assert metadata["image_size"] == "16"
    assert metadata["stage"] == Path("run/tokenizer").resolve().name
    assert torch.load("out.pt", weights_only=True)["metadata"] == metadata


def test_names_and_formats_that_contradict_are_refused(pae: Pae) -> None:
    imported(pae)
    answer = pae("export", "pae", "run", "out.pt", "--format", "safetensors")
    assert (answer.code, Path("out.pt").exists()) == (2, False)
    assert re.search(r"--format safetensors.*out\.pt", answer.err)
    answer = pae("export", "pae", "run", "weights")
    assert answer.code == 2
    assert ".safetensors or .pt" in answer.err


def test_a_file_is_replaced_only_with_force(pae: Pae) -> None:
    imported(pae)
    Path("out.pt").write_text("precious", encoding="utf-8")
    answer = pae("export", "pae", "run", "out.pt")
    assert (answer.code, Path("out.pt").read_text(encoding="utf-8")) == (2, "precious")
    assert "--force" in answer.err
    assert pae("export", "pae", "run", "out.pt", "--force").code == 0
    assert helpers.same_bits(weights("out.pt"), helpers.released())


def test_a_run_without_a_finished_tokenizer_has_nothing_to_export(pae: Pae) -> None:
    answer = pae("export", "pae", "nowhere", "out.pt")
    assert answer.code == 2
    assert "no run" in answer.err
