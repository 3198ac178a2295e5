"""Fixtures of the guard: the chains run once for all its tests."""

from __future__ import annotations

import pytest
from observe import Chains, finished_chains


@pytest.fixture(scope="session")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Chains:
    """A folder in which every command the guard looks at has run."""
    return finished_chains(tmp_path_factory.mktemp("chains"))
