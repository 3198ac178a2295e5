"""What a reader may rely on when looking for a file: one name, one place."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pae_framework

ROOT = Path(pae_framework.__file__).parent


def test_no_two_files_of_packages_of_one_level_share_a_name() -> None:
    """Commands are apart: a file there is called as the command is."""
    places: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py":
            relative = path.relative_to(ROOT)
            places[len(relative.parts), path.name].append(str(relative))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
