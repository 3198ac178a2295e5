"""``pae run RECIPE --dry-run``: what would be done, without doing it."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from pae_framework.build import build_networks
from pae_framework.dry_run.flops import Forward, count_forward, per_image
from pae_framework.dry_run.render import number
from pae_framework.recipe.load import load_recipe
from pae_framework.testing.pytest import Pae

Run = Callable[..., str]


@pytest.fixture
def run(pae: Pae) -> Run:
    """Run ``pae run``, in an empty folder, and give what it prints."""

    def run(*arguments: str) -> str:
        answer = pae("run", *arguments)
        return answer.err if answer.code else answer.out

    return run


def test_prints_sizes_steps_and_stages_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("quickstart", "--dry-run", "--json"))
    assert (found["grid"], found["token_width"], found["latent"]) == (8, 64, [8, 8, 8])
    assert (found["train_images"], found["classes"]) == (1442, 10)
    parts = {part["part"]: part for part in found["parts"]}
    # a DiT's table of labels alone is (10 + 1) x 96
    assert parts["generator"]["trained"] > 11 * 96
    assert parts["generator"]["frozen"] == 64 * 96  # fixed positions
    assert parts["encoder"]["trained_in"] == "encoder"
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert stages["tokenizer"]["steps"] == 160
    assert stages["tokenizer"]["epochs"] == pytest.approx(160 * 32 / 1442)
    assert stages["sample"]["images"] == 4 * 120  # the main set, one of step 175, few steps twice
    assert {stage["state"] for stage in stages.values()} == {"runs"}
    assert stages["tokenizer"]["memory_bytes"] > stages["extractor"]["memory_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_without_data_unknown_numbers_are_noted(run: Run) -> None:
    nowhere = "data.train={use: image_folder, folder: nowhere}"
    longer = "generator.train={epochs: 80}"
    options = ("--dry-run", "--json")
    found = json.loads(run("quickstart", nowhere, longer, "sample=null", "evaluate=null", *options))
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert (stages["generator"]["epochs"], stages["generator"]["steps"]) == (80, None)
    assert (stages["encoder"]["epochs"], stages["encoder"]["steps"]) == (None, 200)
    assert any("nowhere" in note for note in found["notes"])


def test_missing_data_have_the_classes_of_the_generator(run: Run) -> None:
    nowhere = "data.train={use: image_folder, folder: nowhere}"
    options = ("sample=null", "evaluate=null", "--dry-run", "--json")
    found = json.loads(run("quickstart", nowhere, "generator.classes=7", *options))
    assert found["classes"] == 7
    assert not any("1000 classes" in note for note in found["notes"])


def test_every_sample_set_counts(run: Run) -> None:
    few = "sample.few_steps=[5, 10, 20]"  # 20 steps are the main set's
    found = json.loads(run("quickstart", few, "--dry-run", "--json"))
    alone = ("sample.at_steps=[]", "sample.few_steps=[]", "evaluate.few_steps=null")
    plain = json.loads(run("quickstart", *alone, "--dry-run", "--json"))
    (many,), (one,) = (
        [stage for stage in page["stages"] if stage["stage"] == "sample"] for page in (found, plain)
    )
    assert many["images"] == 4 * one["images"] == 4 * 120
    # 20 and 20 steps, 5 and 10: 55 in place of 20; and four times as many images are decoded
    assert one["flops"] * 55 / 20 < many["flops"] < one["flops"] * 4


def test_stages_of_an_earlier_run_are_done(run: Run, tmp_path: Path) -> None:
    before = json.loads(run("quickstart", "--dry-run", "--json"))
    folder = tmp_path / "store" / before["stages"][0]["folder"]
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"state": "done"}')
    found = json.loads(run("quickstart", "--stages", "store", "--dry-run", "--json"))
    assert [stage["state"] for stage in found["stages"]][:2] == ["done", "runs"]


def test_an_interrupted_stage_goes_on_in_json_and_resumes_in_the_table(
    run: Run, tmp_path: Path
) -> None:
    before = json.loads(run("quickstart", "--dry-run", "--json"))
    folder = tmp_path / "store" / before["stages"][0]["folder"]
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"state": "stopped"}')
    dry_run = ("quickstart", "--stages", "store", "--dry-run")
    found = json.loads(run(*dry_run, "--json"))
    assert [stage["state"] for stage in found["stages"]][:2] == ["goes on", "runs"]
    page = run(*dry_run)
    assert "resumes" in page
    assert "goes on" not in page


def test_the_page_fits_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run("quickstart", "--dry-run")
    assert "8 x 8 tokens of width 64" in page
    tables = [line.rstrip() for line in page.splitlines() if "  " in line.strip()]
    assert max(map(len, tables)) <= 80


def test_sweep_shows_what_each_member_runs(run: Run) -> None:
    page = run("fashion_mnist_ablation", "--only", "*-seed1", "--dry-run")
    lines = [line.split() for line in page.splitlines()]
    members = {line[0]: line[1:] for line in lines if line and line[0].endswith("-seed1")}
    assert {"none-seed1", "ssr-seed1", "all-seed1"} <= members.keys()
    assert "extractor" in members["none-seed1"]
    assert "extractor" not in members["all-seed1"]  # shared
    assert "tokenizer" in members["all-seed1"]
    count = len(members)
    assert lines[0][:3] == ["fashion_mnist_ablation:", str(count), "members,"]


def test_json_of_a_sweep_has_its_members_and_their_sum(run: Run) -> None:
    options = ("--only", "none-seed1", "--dry-run", "--json")
    found = json.loads(run("fashion_mnist_ablation", *options))
    stages = {
        stage["folder"]: stage for each in found["members"].values() for stage in each["stages"]
    }
    assert found["total"]["members"] == len(found["members"])
    assert (found["total"]["stages"], found["total"]["done"]) == (len(stages), 0)
    assert found["total"]["flops"] == pytest.approx(
        sum(stage["flops"] or 0 for stage in stages.values())
    )


def test_json_requires_dry_run(run: Run) -> None:
    assert "--json is for --dry-run" in run("quickstart", "--json")


def test_flops_of_a_decoder_are_those_of_its_matrices() -> None:
    # N tokens, one class token more inside; a multiply-add is two operations
    loaded = load_recipe("quickstart")
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    forward = count_forward(networks, loaded.recipe)
    tokens, width, patch, channels = 64, 64, 4, 8
    seen = tokens + 1
    deprojector = 9 * channels * width * tokens + 4 * width**2 * tokens + 2 * width * tokens**2
    block = 12 * width**2 * seen + 2 * width * seen**2
    ends = width * width * tokens + width * 3 * patch**2 * tokens
    assert forward.decode == 2 * (deprojector + block + ends)


def test_flops_of_a_step_count_frozen_parts_once_and_trained_parts_three_times() -> None:
    forward = Forward(
        encoder=1, extractor=10, encode=100, decode=1000, refine=7, compare=(), generator=10_000
    )
    recipe = load_recipe("quickstart", ["tokenizer.regularizers.mcr=null"]).recipe
    found = per_image(forward, recipe)
    assert found["extractor"] == 30
    assert found["refine"] == 1 + 3 * 7
    assert found["tokenizer"] == 1 + 3 * (100 + 1000)
    assert found["latents"] == 101
    assert found["generator"] == 30_000
    # 20 steps from the last weights and from those of step 175, 5 and 10: 13.75 on average;
    # guidance doubles every evaluation
    assert found["sample"] == 2 * 13.75 * 10_000 + 1000
    # where step 175 is the last, its set is the main one
    assert per_image(forward, recipe, last=175)["sample"] == 2 * 35 / 3 * 10_000 + 1000
    with_mcr = load_recipe("quickstart").recipe
    assert per_image(forward, with_mcr)["tokenizer"] == 1 + 3 * (100 + 3 * 1000)


def test_format_of_numbers() -> None:
    assert [number(x) for x in (None, 12, 1_281_167, 104e6, 7.29e19)] == [
        "",
        "12",
        "1.28 M",
        "104 M",
        "72.9 E",
    ]


@pytest.mark.slow
def test_full_size_recipe_needs_neither_weights_nor_memory(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("siglip2_full", "--dry-run", "--json"))
    parts = {part["part"]: part for part in found["parts"]}
    assert (found["grid"], found["token_width"], found["latent"]) == (16, 1152, [32, 16, 16])
    assert parts["encoder"]["frozen"] > 4e8
    assert parts["modulator"]["trained"] == pytest.approx(131.09e6, rel=1e-3)  # without positions
    stages = {stage["stage"]: stage for stage in found["stages"]}
    # XL/1: 6 operations per weight and token is the usual rule; attention and the labels besides
    rule = 6 * parts["generator"]["trained"] * 256
    assert 0.6 * rule < stages["generator"]["flops_per_image"] < 1.2 * rule
    assert stages["generator"]["steps"] == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB
