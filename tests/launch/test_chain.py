"""All stages on real images, as a user runs them: results, kills, edits, commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chain_helpers import pae, pae_as_a_user
from PIL import Image
from safetensors.torch import load_file, save_file

from pae_framework.recipe import stage_table

STAGES = [name for name in stage_table.STAGES if name != "teacher"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """A folder with the tiny recipe, in which `pae run` has finished once."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    pae_as_a_user("run", "tiny.yaml", cwd=folder).ok()
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return place / "runs" / "tiny"


def results(run: Path) -> list[dict]:
    """Metrics without the fingerprints (which are equal anyway) as comparable JSON."""
    return json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))


def records(run: Path) -> dict[str, dict]:
    return {
        stage: json.loads((run / stage / "stage.json").read_text(encoding="utf-8"))
        for stage in STAGES
    }


def test_every_stage_is_done_and_readable_with_standard_tools(run: Path):
    assert {record["state"] for record in records(run).values()} == {"done"}
    lines = (run / "tokenizer" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    terms = json.loads(lines[-1])
    assert {"l1", "perceptual", "ssr", "mcr", "scr", "loss", "lr", "images_per_s"} <= terms.keys()
    assert terms["loss"] == pytest.approx(
        sum(terms[name] for name in ("l1", "perceptual", "ssr", "mcr", "scr")), rel=1e-4
    )


def test_latents_are_in_lightningdits_layout(run: Path):
    shards = sorted((run / "latents").glob("latents_rank00_shard*.safetensors"))
    sizes = [len(load_file(shard)["labels"]) for shard in shards]
    assert sizes[0] == 500
    assert sum(sizes) == 1797 - 355  # the digits without every fifth of each class
    assert load_file(shards[0])["latents"].shape[1:] == (4, 4, 4)
    assert (run / "latents" / "latents_stats.pt").is_file()


def test_statistics_of_another_tokenizer_are_refused(place: Path, run: Path, tmp_path: Path):
    shutil.copytree(place / "runs", tmp_path / "runs", symlinks=True)
    other = tmp_path / "runs" / "tiny" / "tokenizer" / "tokenizer.safetensors"
    weights = load_file(other)
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, other)
    command = ("sample", "runs/tiny", "--count", "1")
    assert "tokenizer.safetensors" in pae(*command, cwd=tmp_path).fails(1).err
    record = other.with_name("stage.json")
    known = json.loads(record.read_bytes())
    del known["results"], known["digest"]  # as of an earlier version, which recorded neither
    record.write_text(json.dumps(known), encoding="utf-8")
    refused = pae(*command, cwd=tmp_path).fails(1)
    assert "another tokenizer" in refused.err


def test_samples_are_what_adm_evaluators_read(run: Path):
    sets = json.loads((run / "sample" / "sets.json").read_text(encoding="utf-8"))
    assert [(s["role"], s["generator_step"], s["steps"]) for s in sets] == [
        ("main", 6, 4),
        ("checkpoint", 3, 4),
        ("few_steps", 6, 2),
    ]
    with np.load(run / "sample" / sets[0]["file"]) as file:
        assert file["arr_0"].dtype == np.uint8
        assert file["arr_0"].shape == (20, 16, 16, 3)
        assert sorted(file["arr_1"]) == sorted(list(range(10)) * 2)  # balanced


def test_every_metric_carries_its_protocol(run: Path):
    metrics = results(run)
    names = {metric["name"] for metric in metrics}
    assert {
        "reconstruction/psnr",
        "reconstruction/ssim",
        "reconstruction/fd_small_cnn",
        "generation/fd_small_cnn",
        "few_steps/fd_small_cnn",
        "manifold/ssc",
        "manifold/lpc",
        "manifold/gsq",
        "manifold/erank",
    } <= names
    for metric in metrics:
        assert {"test_data", "image_size"} <= metric["protocol"].keys()
    drawn = next(m for m in metrics if m["name"] == "generation/fd_small_cnn")
    assert {"solver", "evaluations", "guidance", "sample_seed"} <= drawn["protocol"].keys()
    assert {"generator", "weights"} <= drawn["subject"].keys()


def test_second_run_repeats_nothing(place: Path, run: Path):
    before = records(run)
    again = pae("run", "tiny.yaml", cwd=place).ok()
    assert again.err.count("cached") == len(STAGES)
    assert records(run) == before


def test_the_resolved_recipe_is_the_same_run(place: Path, run: Path):
    again = pae("run", run / "resolved.yaml", "--run-dir", run, cwd=place).ok()
    assert again.err.count("cached") == len(STAGES)


def test_after_an_edit_only_dependent_stages_run(place: Path, run: Path):
    edited = pae("run", "tiny.yaml", "sample.steps=3", cwd=place).ok()
    reruns = {"sample", "evaluate", "report"}
    assert edited.err.count("cached") == len(STAGES) - len(reruns)
    assert len(list((run / "stages").glob("sample-*"))) == 2


def test_recipe_before_the_edit_is_still_cached(place: Path, run: Path):
    back = pae("run", "tiny.yaml", cwd=place)
    assert back.err.count("cached") == len(STAGES)


def test_run_can_share_stages_of_another(place: Path, run: Path):
    options = ("--run-dir", "twin", "--stages", run / "stages")
    shared = pae("run", "tiny.yaml", *options, cwd=place).ok()
    assert shared.err.count("cached") == len(STAGES)
    assert results(place / "twin") == results(run)
    assert (place / "twin" / "report.html").is_file()
    assert not (place / "twin" / "stages").exists()


def test_status_says_done_and_is_json_when_asked(place: Path, run: Path):
    plain = pae("status", run, cwd=place)
    assert plain.out.count("done") >= len(STAGES)
    rows = pae("status", run, "--json", cwd=place).json["runs"]["tiny"]
    assert [row["stage"] for row in rows] == STAGES


def test_a_sample_does_not_depend_on_the_other_samples(place: Path, run: Path):
    pae("sample", run, "--labels", "3,7,1", "--out", "three", cwd=place).ok()
    pae("sample", run, "--labels", "3", "--out", "one", cwd=place).ok()
    first, alone = (
        np.asarray(Image.open(place / folder / "000000.png").convert("RGB")).astype(int)
        for folder in ("three", "one")
    )
    assert first.shape == (16, 16, 3)
    assert abs(first - alone).max() <= 1  # another batch size may round otherwise
    assert (place / "three" / "grid.png").is_file()


def test_reconstruct_takes_test_images_and_files(place: Path, run: Path):
    own = pae("reconstruct", run, "--count", "3", "--out", "own", cwd=place).ok()
    assert own.out.count(" dB") == 3
    picture = place / "picture.png"
    Image.fromarray(np.full((40, 30, 3), 200, dtype=np.uint8)).save(picture)
    pae("reconstruct", run, picture, "--out", "given", cwd=place).ok()
    with Image.open(place / "given" / "000_picture.png") as image:
        assert image.size == (16, 16)


def test_report_can_be_rewritten(place: Path, run: Path):
    (run / "report.html").unlink()
    pae_as_a_user("report", run, cwd=place).ok()
    text = (run / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in text


def test_the_table_as_markdown(place: Path, run: Path):
    table = pae("report", run, "--markdown", cwd=place).ok()
    lines = table.out.splitlines()
    assert lines[0].startswith("| metric | at | value |")
    assert any(line.startswith("| rFD") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "runs/tiny", "--labels", "owl"), "'owl'"),
        (("sample", "runs/tiny", "--labels", "10"), "0 to 9"),
        (("sample", "runs/tiny", "--solver", "rk45"), "--solver"),
        (("sample", "nowhere"), "nowhere"),
        (("reconstruct", "runs/tiny", "tiny.yaml"), "tiny.yaml"),
        (("status", "nowhere"), "nowhere"),
        (("run", "quickstart", "--run-dir", "runs/tiny"), "'tiny'"),
        (("run", "tiny.yaml", "--only", "a"), "--only"),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(place: Path, run: Path, arguments, message):
    assert run.is_dir()
    failed = pae(*arguments, cwd=place).fails(2)
    assert message in " ".join(failed.err.split())
