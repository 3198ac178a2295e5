"""What a training step of the tokenizer computes: the table in docs/performance.md is counted."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.counts import DINO, SMALL, WAYS, Operations, counted_step
from benchmarks.tokenizer import LPIPS, PATCHGAN, BuiltStep, TokenizerStep, against_plain

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"
PERCEPTUAL = "tokenizer.reconstruction.perceptual.weight=1"
SMALL_PATCHGAN = PATCHGAN.replace("patchgan", "patchgan, layers: 1, width: 8")
TINY = (*(change for change in SMALL if change not in (DINO, LPIPS)), SMALL_PATCHGAN, PERCEPTUAL)


def rows_of_docs() -> dict[str, list[int]]:
    """The table under "A step of the tokenizer", by its first column."""
    section = DOCS.read_text(encoding="utf-8").partition("## A step of the tokenizer")[2]
    section = section.partition("\n## ")[0]
    lines = re.findall(r"^\| ([^|]+?) \|((?: \d+ \|)+)$", section, re.MULTILINE)
    return {name: [int(cell) for cell in re.findall(r"\d+", cells)] for name, cells in lines}


@pytest.fixture(scope="module")
def columns() -> dict[str, dict[str, int]]:
    return {name: counted_step(**settings) for name, settings in WAYS.items()}


def test_the_table_in_the_docs_is_what_a_step_computes(columns: dict[str, dict[str, int]]) -> None:
    rows = columns["bf16"]
    assert rows_of_docs() == {row: [found[row] for found in columns.values()] for row in rows}


def test_goals_of_a_step(columns: dict[str, dict[str, int]]) -> None:
    found = columns["bf16"]
    assert found["frozen encoder"] == 1
    assert found["LPIPS features"] <= 4
    for row in ("casts of frozen weights", "synchronizations"):
        assert found[row] == 0
    assert all(times == 1 for row, times in found.items() if row.startswith("back through"))


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x),
    "unique": lambda x: x.unique(),
    "numbers": lambda x: x.new_tensor([1.0, 2.0]),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda x: x.sum(),
    "index": lambda x: x[x.argsort()],
    "where": lambda x: torch.where(x > 0, x, 0),
    "fill": lambda x: x.new_zeros(3),
    "seed": lambda x: int(torch.randint(9, (), generator=torch.Generator())),
}


@pytest.mark.parametrize("name", [*WAITS, *FREE])
def test_what_counts_as_a_synchronization(name: str) -> None:
    x = torch.rand(4)
    with Operations([]) as operations:
        (WAITS | FREE)[name](x)
    assert operations.synchronizations == (name in WAITS)
    assert torch.Tensor.tolist(torch.ones(2)) == [1, 1]
    assert operations.synchronizations == (name in WAITS)  # no longer counted


def test_what_counts_as_a_cast_of_a_frozen_weight() -> None:
    weight = torch.rand(2)
    with Operations([weight]) as operations:
        weight.bfloat16()
        torch.rand(2).bfloat16()
        weight.float()
    assert operations.casts == 1


def test_on_a_device_a_step_reads_no_value_and_waits_for_no_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The meta device has no values to read: whatever reads one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    step = TokenizerStep(torch.device("meta"), SMALL).build()
    step()
    with Copies() as copies:
        step()
    assert copies.pinned
    assert copies.waiting == []


class Copies(TorchDispatchMode):
    """Copies to the device: of random numbers by ``on_device``, which pins them; and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned, self.waiting = 0, list[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {x.device for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if CPU in given and isinstance(result, Tensor) and result.is_meta:
            stack = traceback.extract_stack()
            if "on_device" in [frame.name for frame in stack]:
                self.pinned += 1
            elif not kwargs.get("non_blocking"):
                self.waiting.append("".join(traceback.format_list(stack)))
        return result


def trained(step: BuiltStep, steps: int = 2) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """The terms of each step, and the weights of both networks afterwards."""
    terms = [step() for _ in range(steps)]
    return terms, {**step.objective.state_dict(), **step.discriminator.state_dict()}


VARIANTS = {
    "patchgan": TINY,
    "dino and lpips": SMALL,
    "vf": (*TINY, "tokenizer.regularizers={vf: {weight: 0.1}}", "tokenizer.noise=0.2"),
    "recomputed": (*TINY, "tokenizer.train.activation_checkpointing=true"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_in_float32_on_the_cpu_it_has_the_bits_of_the_plain_way(name: str) -> None:
    results = [trained(TokenizerStep(CPU, VARIANTS[name], plain=p).build()) for p in (True, False)]
    (expected_terms, expected), (found_terms, found) = results
    for wish, have in zip(expected_terms, found_terms, strict=True):
        assert wish.keys() == have.keys()
        assert all(torch.equal(have[term], value) for term, value in wish.items())
    assert all(torch.equal(found[weight], value) for weight, value in expected.items())


@pytest.mark.parametrize("name", ["patchgan", "dino and lpips", "vf"])
def test_with_one_way_back_through_the_discriminator_it_differs_by_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere but in float32 on the CPU."""
    monkeypatch.setattr(
        "pae_framework.tokenizer.losses.objective._repeats_bits", lambda images: False
    )
    results = [
        trained(TokenizerStep(CPU, VARIANTS[name], plain=p).build(), steps=1) for p in (True, False)
    ]
    (expected,), (found,) = (terms for terms, _ in results)
    for term, value in expected.items():
        torch.testing.assert_close(found[term], value, rtol=1e-4, atol=1e-6)


def test_every_measurement_runs() -> None:
    found = against_plain(CPU, TINY, False, rounds=1, steps=1)
    assert [timing.name for timing in found] == ["as trained", "reference"]
