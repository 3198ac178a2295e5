"""A regularizer that gives no scalar is named by its label and class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pae_framework.config import RegularizerConfig
from pae_framework.contracts import Regularizer
from pae_framework.errors import PluginError
from pae_framework.tokenizer.losses.terms import Ramp, RegularizerTerm


def term(value: Callable[[], Any]) -> RegularizerTerm:
    class Given(Regularizer):
        def forward(self, inputs: Any) -> Any:
            return value()

    return RegularizerTerm("mine", Given(RegularizerConfig()), Ramp())


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (lambda: torch.ones(3), r"\(3,\)"),
        (lambda: torch.ones(1), r"\(1,\)"),
        (lambda: torch.tensor(1), "int64"),
        (lambda: torch.tensor(True), "bool"),
        (lambda: 1.0, "1.0"),
        (lambda: None, "None"),
        (lambda: (torch.tensor(1.0),), "tensor"),
    ],
)
def test_what_is_no_scalar_is_named(value: Callable[[], Any], fact: str) -> None:
    with pytest.raises(PluginError, match=f"'mine'.*Given.*{fact}.*scalar") as caught:
        term(value)(None)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scalars_pass(dtype: torch.dtype) -> None:
    value: Tensor = torch.tensor(0.5, dtype=dtype)
    assert term(lambda: value)(None) is value  # type: ignore[arg-type]
