"""A Slurm for the tests of this folder. They do not start it; see ``scripts/local-slurm``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, lack
from submitted_runs import Site


@pytest.fixture(scope="session")
def lacking() -> str | None:
    return lack()


@pytest.fixture
def slurm(lacking: str | None) -> Iterator[LocalSlurm]:
    if lacking is not None:
        pytest.skip(lacking)
    slurm = LocalSlurm()
    yield slurm
    slurm.close()


@pytest.fixture
def site(slurm: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(slurm, tmp_path, monkeypatch)
    yield site
    site.close()
