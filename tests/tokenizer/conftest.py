"""Fixtures of tokenizers; every test is seeded."""

from __future__ import annotations

import pytest
from tokenizer_fakes import (  # noqa: F401  # fixtures
    build,
    encoder,
    images,
    registry,
    reproducible,
    section,
)


@pytest.fixture(autouse=True)
def _seeded(reproducible: None) -> None:  # noqa: F811
    pass
