"""Code is spelled in American English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BRITISH = re.compile(
    r"(optim|normal|standard|initial|recogn|synchron|penal|minim|stabil|organ|summar)is(e|ing|ation)"
    r"|colour|grey|neighbour|licence|judgement|behaviour|labelled(?!Image)|cancelled|centred|centres",
    re.IGNORECASE,
)
NAMES = re.compile(r"report\.colours|regularizers\.neighbours")
"""A module, and a plugin in the documentation."""
ON_DISK = ("not centred", "normalised spectral clustering", "normalised mutual information")
"""Parts of protocols of metrics, which old runs hold."""


@pytest.mark.parametrize("folder", ["pae_framework", "plugins", "tests", "benchmarks", "scripts"])
def test_spelling_is_american(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        relative = path.relative_to(ROOT)
        if path == Path(__file__) or relative.parts[:2] in (("tests", "guard"), ("tests", "docs")):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if BRITISH.search(NAMES.sub("", line)) and not any(text in line for text in ON_DISK):
                found.append(f"{relative}:{number}: {line.strip()}")
    assert found == []
