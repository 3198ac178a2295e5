"""What three small chains write, answer and compute never changes. Why, and how to: freeze.py."""

from __future__ import annotations

from typing import Any

import pytest
from observe import (
    Chains,
    answers,
    components,
    files,
    finished_chains,
    frozen,
    losses,
    member_fingerprints,
    records,
    seeds,
    tensors,
)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Chains:
    """A folder in which every command the guard looks at has run."""
    return finished_chains(tmp_path_factory.mktemp("chains"))


def test_fingerprints_of_every_member_of_a_sweep(chains: Chains):
    assert member_fingerprints(chains) == frozen("members")


def test_what_random_numbers_are_seeded_with(chains: Chains):
    assert seeds(chains) == frozen("seeds")


def test_names_of_files(chains: Chains):
    assert files(chains) == frozen("files")


def test_names_shapes_and_types_of_tensors(chains: Chains):
    assert tensors(chains) == frozen("tensors")


def test_keys_of_records_and_columns_of_logs(chains: Chains):
    assert records(chains) == frozen("records")


def test_keys_of_answers_in_json(chains: Chains):
    assert answers(chains) == frozen("answers")


def test_components_and_their_distribution(chains: Chains):
    assert components(chains) == frozen("components")


def test_first_losses_of_every_training(chains: Chains):
    found, expected = losses(chains), frozen("losses")
    assert found.keys() == expected.keys()
    for stage, lines in found.items():
        for line, expected_line in zip(lines, expected[stage], strict=True):
            assert line == close_to(expected_line), f"{stage}, step {line['step']}"


def close_to(line: dict[str, Any]) -> Any:
    """Equal but for how another machine rounds."""
    return pytest.approx(line, rel=1e-4, abs=1e-7)
