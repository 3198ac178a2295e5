"""Several processes end as one does: real processes over gloo, started by ``pae run``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from equality import assert_equal, run_in, stop_in, table, write_recipe

SHARDED = tuple(
    f"{path}.train.parallel=fsdp"
    for path in ("extractor", "tokenizer.encoder", "tokenizer.refinement", "generator")
)
ALIGNED = (
    *("tokenizer.target=raw", "tokenizer.noise=0.2", "tokenizer.adversarial=null"),
    "tokenizer.modulator={use: finetune}",
    "tokenizer.bottleneck={use: gaussian, channels: 4}",
    "tokenizer.regularizers={kl: {weight: 1e-4}, vf: {weight: 0.1}}",
)
VARIANTS: dict[str, Iterable[str]] = {
    "KL-VAE aligned with features": ALIGNED,
    "the same with loader workers": (
        *ALIGNED,
        *("tokenizer.train.workers=2", "generator.train.workers=1"),
    ),
    "recomputed blocks": (
        "tokenizer.train.activation_checkpointing=true",
        "generator.train.activation_checkpointing=true",
    ),
    "recomputed and sharded blocks": (
        "tokenizer.encoder.train.activation_checkpointing=true",
        "generator.train.activation_checkpointing=true",
        *SHARDED,
    ),
    "dit_dh, sharded": ("generator.use=dit_dh", *SHARDED),
}


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings of a chain in one process."""
    folder = tmp_path_factory.mktemp("equal")
    write_recipe(folder)
    run_in(1, folder / "one")
    return folder / "one"


def test_two_processes_then_one_then_two_end_as_one(one: Path) -> None:
    """Stopped in the first two trainings; encoder, refinement and generator are sharded."""
    run, words = one.with_name("changing"), SHARDED[1:]
    stop_in(2, run, "extractor", 8, *words)
    stop_in(1, run, "encoder", 8, *words)
    run_in(2, run, *words)
    print(table(one, run))
    assert_equal(one, run)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), SHARDED], ids=["replicated", "sharded"])
def test_four_processes_end_as_one(one: Path, words: tuple[str, ...]) -> None:
    run = one.with_name(f"four{len(words)}")
    run_in(4, run, *words)
    print(table(one, run))
    assert_equal(one, run, slack=5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), SHARDED], ids=["replicated", "sharded"])
@pytest.mark.parametrize("stage", ["extractor", "tokenizer", "generator"])
def test_the_number_of_processes_may_change_at_every_stop(
    one: Path, stage: str, words: tuple[str, ...]
) -> None:
    run = one.with_name(f"changing-{stage}{len(words)}")
    stops = [
        stop_in(processes, run, stage, step, *words)
        for processes, step in ((4, 4), (2, 8), (1, 12))
    ]
    assert stops == sorted(set(stops))
    run_in(4, run, *words)
    print(table(one, run))
    assert_equal(one, run, slack=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_other_components_and_settings_end_as_one(tmp_path: Path, name: str) -> None:
    write_recipe(tmp_path)
    words = VARIANTS[name]
    run_in(1, tmp_path / "one", *words)
    run_in(2, tmp_path / "two", *words)
    print(table(tmp_path / "one", tmp_path / "two"))
    assert_equal(tmp_path / "one", tmp_path / "two", slack=5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), SHARDED], ids=["replicated", "sharded"])
def test_compiled_blocks_end_as_one(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The same checkpoints are resumed compiled and not, in one process and in two."""
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    write_recipe(tmp_path)
    compiled = [f"{path}.train.compile=true" for path in ("tokenizer.encoder", "generator")]
    recomputed = ["generator.train.activation_checkpointing=true"]
    run_in(1, tmp_path / "one", *words)
    stop_in(2, tmp_path / "two", "generator", 8, *compiled, *recomputed, *words)
    stop_in(1, tmp_path / "two", "generator", 12, *words)
    run_in(2, tmp_path / "two", *compiled, *recomputed, *words)
    print(table(tmp_path / "one", tmp_path / "two"))
    assert_equal(tmp_path / "one", tmp_path / "two", slack=5)
