"""What a run takes from a machine besides data and memory is checked before it starts."""

from __future__ import annotations

import errno
import importlib.util
import os
import tempfile
from pathlib import Path

import pytest
from recipe_cases import Load, unfinished_only

from pae_framework.preflight import resources
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.resources import lacking_resources, scarce_resources
from pae_framework.testing.pytest import Pae

CPU, GPU = Machine(1 << 40, ()), Machine(1 << 40, (1 << 40,))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for; no variable names a compiler."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return folder


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def lacks_compiler(load: Load, machine: Machine = CPU, *more: str) -> list[str]:
    loaded = load("generator.train.compile=true", *more)
    return [problem.path for problem in lacking_resources([loaded], machine=machine)]


KEY = ["generator.train.compile"]


@pytest.mark.parametrize(
    ("machine", "there", "expected"),
    [
        (CPU, [], KEY),
        (CPU, ["gcc"], KEY),
        (CPU, ["g++"], []),
        (GPU, [], KEY),
        (GPU, ["g++"], KEY),
        (GPU, ["gcc"], []),
        (GPU, ["clang"], []),
    ],
)
def test_compile_needs_the_compiler_that_torch_uses(
    load: Load,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    there: list[str],
    expected: list[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name in there:
        program(tools, name)
    assert lacks_compiler(load, machine) == expected


def test_a_compiler_may_be_named_by_a_variable(
    load: Load, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tools, "g++")
    monkeypatch.setenv("CXX", str(tools / "absent"))
    assert lacks_compiler(load) == KEY
    monkeypatch.setenv("CXX", str(program(tools, "my-compiler")))
    assert lacks_compiler(load) == []


def test_compile_on_a_gpu_needs_triton(
    load: Load, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tools, "gcc")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert lacks_compiler(load, GPU) == KEY
    program(tools, "g++")
    assert lacks_compiler(load, GPU, "runtime.device=cpu") == []


@pytest.mark.usefixtures("tools")
def test_only_compiled_stages_that_are_left_need_a_compiler(load: Load, tmp_path: Path) -> None:
    assert lacking_resources([load()], machine=CPU) == []
    loaded = load("generator.train.compile=true")
    for left, expected in (("sample", []), ("generator", KEY)):
        stages_dir = unfinished_only(loaded, tmp_path, left)
        found = lacking_resources([loaded], stages_dir, CPU)
        assert [problem.path for problem in found] == expected


def with_space(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(resources, "free_space", lambda path: free)


def needed(loaded, stages_dir: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes from which on nothing is said, found by bisection."""
    low, high = 0, 1 << 50
    while high - low > 1:
        middle = (low + high) // 2
        with_space(monkeypatch, middle)
        silent = not scarce_resources([loaded], stages_dir)
        silent = silent and not lacking_resources([loaded], stages_dir, CPU)
        low, high = (low, middle) if silent else (middle, high)
    return high


def test_far_too_little_disk_is_an_error_and_a_little_too_little_a_warning(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("sample.count=1000")
    size = needed(loaded, tmp_path, monkeypatch)
    # at least the samples: two sets and the chunks of one, 8 x 8 pixels
    assert size > 3 * 1000 * 3 * 8 * 8
    for share, refused, warned in ((0.4, 1, 0), (0.6, 0, 1), (1, 0, 0)):
        with_space(monkeypatch, int(share * size))
        assert len(lacking_resources([loaded], tmp_path, CPU)) == refused
        assert len(scarce_resources([loaded], tmp_path)) == warned
    with_space(monkeypatch, 0)
    (problem,) = lacking_resources([loaded], tmp_path, CPU)
    assert str(tmp_path) in problem.message
    assert "extractor checkpoints" in problem.message
    with_space(monkeypatch, None)  # unknown
    assert lacking_resources([loaded], tmp_path, CPU) == []


def test_what_is_written_already_and_finished_stages_need_no_disk(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load()
    whole = needed(loaded, tmp_path, monkeypatch)
    (tmp_path / "generator-0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "generator-0" / "checkpoints" / "a").write_bytes(bytes(1000))
    assert needed(loaded, tmp_path, monkeypatch) == whole - 1000
    with_space(monkeypatch, 0)
    done = unfinished_only(loaded, tmp_path)
    assert lacking_resources([loaded], done, CPU) == scarce_resources([loaded], done) == []


IMAGES = (
    "sample.count=1000",
    "data.test_images=50",
    "data.image_size=32",
    "extractor.width=64",
    "extractor.depth=2",
)
FID_OF_SAMPLES = "evaluate.adm={weights: none}"
INCEPTION, FEATURES = 4 * (2048 + 2023), 8 * 128


@pytest.mark.parametrize(
    ("evaluators", "images", "bytes_per_image"),
    [  # small_cnn doubles its width once
        ([FID_OF_SAMPLES], 50 + 1000, INCEPTION),
        ([FID_OF_SAMPLES, "evaluate.fidelity={weights: none}"], 50 + 1000, INCEPTION),
        (["evaluate.generation={}"], 50 + 3 * 1000 + 1000, FEATURES),
        (["evaluate.reconstruction={}"], 2 * 50, FEATURES),
        (["evaluate.reconstruction={weights: none}"], 2 * 50, INCEPTION + FEATURES),
        (["evaluate.manifold={ssc: false}"], 0, 0),
    ],
)
def test_features_of_evaluated_images_need_disk(
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluators: list[str],
    images: int,
    bytes_per_image: int,
) -> None:
    """Each set of images once per network, whoever measures it; few steps are not in Inception."""
    sample = ("sample.few_steps=[1, 2]", "sample.steps=3")
    none = ("evaluate.reconstruction=null", "evaluate.generation=null")
    with_features = load(*IMAGES, *sample, *none, *evaluators)
    without = load(*IMAGES, *sample, *none)
    whole = needed(with_features, tmp_path, monkeypatch)
    assert whole - needed(without, tmp_path, monkeypatch) == images * bytes_per_image
    (tmp_path / "extracted" / "network").mkdir(parents=True)
    (tmp_path / "extracted" / "network" / "a").write_bytes(bytes(70))
    assert needed(with_features, tmp_path, monkeypatch) == whole - 70


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        (["tokenizer.train.workers=2"], "tokenizer.train.workers"),
        (["generator.train.workers=1"], "generator.train.workers"),
        (["latents.workers=1"], "latents.workers"),
    ],
)
def test_small_shared_memory_is_a_warning(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], path: str
) -> None:
    monkeypatch.setattr(resources, "SHARED_MEMORY", tmp_path)
    loaded = load(*changes)
    for free, expected in ((1 << 40, []), (100, [path])):
        monkeypatch.setattr(
            resources, "free_space", lambda at, free=free: free if at == tmp_path else None
        )
        assert [problem.path for problem in scarce_resources([loaded])] == expected


def test_a_file_system_without_locks_is_a_warning(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scarce_resources([load()]) == []
    monkeypatch.setattr(resources, "has_locks", lambda folder: False)
    (problem,) = scarce_resources([load()])
    assert "no locks" in problem.message


def test_a_temporary_folder_must_be_writable(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    (problem,) = lacking_resources([load()], machine=CPU)
    assert "TMPDIR" in problem.hint


@pytest.mark.parametrize("kind", ["file", "link"])
def test_check_and_run_explain_a_place_that_holds_no_runs(
    pae: Pae, tmp_path: Path, kind: str
) -> None:
    runs = tmp_path / "runs"
    if kind == "file":
        runs.write_text("", encoding="utf-8")
    else:
        runs.symlink_to("nowhere")
    answer = pae("check", "quickstart").ok()
    assert answer.out.count("; choose another place") == 1
    assert "runs" in answer.out.splitlines()[1]
    assert "runs" in pae("run", "quickstart").fails(2).err


@pytest.mark.parametrize("name", [b"caf\xe9", b"x" * 300, b"file/run", b"link"], ids=ascii)
def test_run_refuses_a_directory_that_cannot_be(pae: Pae, tmp_path: Path, name: bytes) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to("nowhere")
    answer = pae("run", "quickstart", "--run-dir", os.fsdecode(name)).fails(2)
    assert "--run-dir" in answer.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
