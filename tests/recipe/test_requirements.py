"""Missing data, weights and memory are reported before a run starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, unfinished_only

from pae_framework.config import EncoderConfig, RegularizerConfig
from pae_framework.plugins import load_registry
from pae_framework.preflight.machine import Machine, this_machine
from pae_framework.preflight.memory import training_memory
from pae_framework.preflight.requirements import low_memory, members_of, missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.sweep import chosen_members
from pae_framework.registry import ComponentSpec, Plugin, Registry

FOLDER = "{use: image_folder, folder: nowhere}"


class WeightsConfig(EncoderConfig):
    """An encoder whose weights are a file."""

    file: str
    weight: float = 0
    """Not that of a term of the loss."""

    def missing(self) -> str | None:
        return None if Path(self.file).exists() else f"no weights at {self.file}"

    def token_grid(self, image_size: int) -> int:
        return image_size // 2

    def token_width(self) -> int:
        return 32


class TableConfig(RegularizerConfig):
    """A term that needs a missing table."""

    def missing(self) -> str | None:
        return "no table"


@pytest.fixture
def with_requirements() -> Registry:
    registry = load_registry()
    plugin = Plugin("requiring", __name__, "requiring", "1")
    for kind, name, config in (
        ("encoder", "weights", "WeightsConfig"),
        ("regularizer", "table", "TableConfig"),
    ):
        target = f"absent:{name}"
        registry.add(ComponentSpec(kind, name, target, f"{__name__}:{config}", "", plugin))
    return registry


def test_missing_data_are_reported_at_their_key(load: Load) -> None:
    (problem,) = missing_requirements(
        [load(text=SMALL.replace("train: digits", f"train: {FOLDER}"))]
    )
    assert (problem.path, problem.where) == ("data.train", "small.yaml:5:3")
    assert "nowhere" in problem.message
    assert missing_requirements([load(text=SMALL)]) == []


def test_every_kind_of_component_may_have_requirements(
    small: Path, with_requirements: Registry
) -> None:
    encoder = "tokenizer.encoder={use: weights, file: a.bin}"
    loaded = load_recipe(small, [encoder, "tokenizer.regularizers.table={}"], with_requirements)
    assert [(problem.path, problem.message) for problem in missing_requirements([loaded])] == [
        ("tokenizer.encoder", "no weights at a.bin"),
        ("tokenizer.regularizers.table", "no table"),
    ]
    Path("a.bin").touch()
    switched_off = "tokenizer.regularizers.table.weight=0"
    assert (
        missing_requirements([load_recipe(small, [encoder, switched_off], with_requirements)]) == []
    )


def test_each_problem_of_a_sweep_is_reported_once(load: Load) -> None:
    text = SMALL + (
        "sweep:\n"
        "  seeds: [0, 1]\n"
        "  variants:\n"
        "    here: {}\n"
        f"    there: {{data.train: {FOLDER}}}\n"
        "    both: {tokenizer.train.steps: 20}\n"
    )
    assert [(p.path, p.where) for p in missing_requirements(members_of(load(text=text)))] == [
        ("data.train", "small.yaml:34:13")
    ]


def test_a_sweep_needs_only_what_its_members_need(load: Load) -> None:
    text = SMALL.replace("train: digits", f"train: {FOLDER}")
    loaded = load(text=text + "sweep: {variants: {digits: {data.train: digits}}}\n")
    assert missing_requirements(members_of(loaded)) == []
    assert missing_requirements(members_of(replace(loaded, recipe=load(text=text).recipe))) != []


def test_only_chosen_members_of_a_sweep_are_checked(load: Load) -> None:
    text = SMALL + f"sweep: {{variants: {{here: {{}}, there: {{data.train: {FOLDER}}}}}}}\n"
    loaded = load(text=text)

    def chosen(only: str) -> list[str]:
        members = [member.loaded for member in chosen_members(loaded, only)]
        return [problem.path for problem in missing_requirements(members)]

    assert chosen("here-*") == []
    assert chosen("there-*") == ["data.train"]


def test_everything_missing_is_reported_at_once(load: Load) -> None:
    loaded = load(
        text=SMALL.replace("train: digits", f"train: {FOLDER}") + "runtime: {device: cuda}\n"
    )
    without_gpu = Machine(memory=1 << 40, gpus=())
    assert [p.path for p in missing_requirements([loaded], machine=without_gpu)] == [
        "data.train",
        "runtime.device",
    ]


def test_the_weights_file_of_a_tokenizer_must_exist(load: Load) -> None:
    override = "tokenizer.weights=trained.safetensors"
    (problem,) = missing_requirements([load(override)])
    assert (problem.path, problem.where) == ("tokenizer.weights", "command line")
    assert "trained.safetensors" in problem.message
    Path("trained.safetensors").touch()
    assert missing_requirements([load(override)]) == []


@pytest.mark.parametrize("key", ["tokenizer.weights", "generator.weights"])
def test_weights_may_be_a_file_name_without_suffix(load: Load, key: str) -> None:
    kept = "sample.at_steps=[]"  # a loaded generator has no weights of other steps
    (problem,) = missing_requirements([load(f"{key}=trained", kept)])
    assert (problem.path, problem.where) == (key, "command line")
    assert "trained" in problem.message
    Path("trained").touch()
    assert missing_requirements([load(f"{key}=trained", kept)]) == []


def test_lpips_needs_its_weights_only_if_it_is_active(load: Load) -> None:
    lpips = "tokenizer.reconstruction.lpips={weights: here.safetensors, weight: "
    assert missing_requirements([load(lpips + "0}")]) == []
    (problem,) = missing_requirements([load("data.image_size=16", lpips + "1}")])
    assert problem.path == "tokenizer.reconstruction.lpips"


def test_far_too_little_memory_is_an_error_and_a_little_too_little_a_warning(load: Load) -> None:
    loaded = load()
    plenty, scant = Machine(1 << 40, ()), Machine(1 << 20, ())
    assert missing_requirements([loaded], machine=plenty) == []
    assert low_memory([loaded], machine=plenty) == []
    refused = missing_requirements([loaded], machine=scant)
    assert "tokenizer.train" in [problem.path for problem in refused]
    assert "1.0 MiB" in refused[0].message
    assert "activation_checkpointing" in refused[-1].hint
    assert not {p.path for p in low_memory([loaded], machine=scant)} & {p.path for p in refused}
    # The memory of the GPU is what matters if one is used.
    assert missing_requirements([loaded], machine=Machine(1 << 40, (1 << 20,))) != []
    assert (
        missing_requirements([load("runtime.device=cpu")], machine=Machine(1 << 40, (1 << 20,)))
        == []
    )


def test_the_copy_that_a_checkpoint_is_written_from_needs_main_memory(load: Load) -> None:
    """On a GPU, main memory must hold only that; on the CPU, that and the training."""
    loaded = load()
    (stage,) = (s for s in training_memory(loaded.recipe) if s.stage == "tokenizer")
    path, gpus, copy = "tokenizer.train", (1 << 40,), stage.checkpoint

    def refused(machine: Machine) -> bool:
        found = missing_requirements([loaded], machine=machine)
        return path in [problem.path for problem in found]

    def warned(machine: Machine) -> bool:
        return path in [problem.path for problem in low_memory([loaded], machine=machine)]

    assert refused(Machine(copy // 2 - 1, gpus))
    assert warned(Machine(copy - 1, gpus))
    assert not warned(Machine(copy, gpus))
    assert not warned(Machine(stage.total + copy, ()))
    assert warned(Machine(stage.total + copy - 1, ()))


def test_the_first_remedy_for_memory_changes_no_result(load: Load) -> None:
    loaded = load("tokenizer.train={steps: 10, batch_size: 2048}")
    (problem,) = missing_requirements([loaded], machine=Machine(24 << 20, ()))
    assert problem.path == "tokenizer.train"
    options = ("activation_checkpointing=true", "precision=bf16", "batch_size", "accumulate")
    positions = [problem.hint.find(option) for option in options]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_finished_stages_need_nothing(load: Load, tmp_path: Path) -> None:
    text = SMALL.replace("train: digits", f"train: {FOLDER}")
    lpips = "tokenizer.reconstruction.lpips={weights: here.safetensors, weight: 1}"
    loaded = load(lpips, "data.image_size=16", "runtime.device=cuda", text=text)

    def missing(machine: Machine, *left: str) -> list[str]:
        stages_dir = unfinished_only(loaded, tmp_path, *left)
        return [problem.path for problem in missing_requirements([loaded], stages_dir, machine)]

    scant, lpips_path = Machine(1 << 20, (0,)), "tokenizer.reconstruction.lpips"
    no_gpu = Machine(None, ())
    assert missing(scant, "tokenizer", "latents") == ["data.train", lpips_path]
    assert missing(scant, "latents", "sample") == ["data.train"]
    assert missing(scant, "evaluate") == [lpips_path]
    assert missing(no_gpu, "evaluate") == [lpips_path, "runtime.device"]
    assert missing(no_gpu) == []
    on_cpu = load("runtime.device=cpu", text=text)
    stages_dir = unfinished_only(on_cpu, tmp_path, "generator")
    trains = missing_requirements([on_cpu], stages_dir, Machine(1 << 16, ()))
    assert [problem.path for problem in trains] == ["data.train", "generator.train"]


def test_images_are_not_needed_to_count_stated_classes(load: Load, tmp_path: Path) -> None:
    stated = FOLDER.replace("}", ", images: 9, classes: 3}")
    loaded = load(text=SMALL.replace("train: digits", f"train: {stated}"))

    def missing(*left: str) -> list[str]:
        stages_dir = unfinished_only(loaded, tmp_path, *left)
        return [problem.path for problem in missing_requirements([loaded], stages_dir)]

    assert missing("generator", "report") == []
    assert missing("tokenizer") == ["data.train"]
    assert missing("sample") == ["data.train"]  # their number gives the generator's last step


def test_images_are_needed_if_only_they_tell_the_number_of_classes(
    load: Load, tmp_path: Path
) -> None:
    loaded_generator = ["generator.weights=gen.pt", "sample.at_steps=[]"]
    statistics = "latents.statistics=stats.pt"
    for file in ("gen.pt", "stats.pt"):
        Path(file).touch()
    for images, expected in (
        (FOLDER, ["data.train"]),
        (f"{FOLDER[:-1]}, images: 9, classes: 3}}", []),
    ):
        loaded = load(*loaded_generator, statistics, f"data.train={images}")
        for stage in ("latents", "sample"):
            stages_dir = unfinished_only(loaded, tmp_path, stage)
            problems = missing_requirements([loaded], stages_dir)
            assert [problem.path for problem in problems] == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, (8, 24)), ("", ()), ("-1", ()), ("1", (24,)), ("1,0", (24, 8)), ("GPU-5a", (8,))],
)
def test_gpus_are_those_in_cuda_visible_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[int, ...]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 8192\necho 24576\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().gpus == tuple(count << 30 for count in expected)
    assert (this_machine().memory or 0) > 1 << 28
