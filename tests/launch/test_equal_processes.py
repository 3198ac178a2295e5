"""Several processes end a training as one does, with real processes over gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
from equality import (
    ONLY_TRAINING,
    assert_equal,
    run_in,
    stop_in,
    table,
    write_recipe,
)

SHARDED = [
    f"{path}.train.parallel=fsdp"
    for path in ("extractor", "tokenizer.encoder", "tokenizer.refinement", "generator")
]


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings of a chain in one process."""
    folder = tmp_path_factory.mktemp("equal")
    write_recipe(folder)
    run_in(1, folder / "one", *ONLY_TRAINING)
    return folder / "one"


def test_two_processes_one_and_two_again_end_as_one(one: Path) -> None:
    """Stopped in the first two trainings; encoder, refinement and generator are sharded."""
    run, words = one.with_name("changing"), (*SHARDED[1:], *ONLY_TRAINING)
    stop_in(2, run, "extractor", 8, *words)
    stop_in(1, run, "encoder", 8, *words)
    run_in(2, run, *words)
    print(table(one, run))
    assert_equal(one, run)
