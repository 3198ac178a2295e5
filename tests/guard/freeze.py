"""Freeze anew what the guard compares with: ``python tests/guard/freeze.py``.

The guard exists so that code can be moved and renamed without changing what users keep and read:

- fingerprints of stages, or finished stages would be trained again;
- what random numbers are seeded with, or the same recipe would give other numbers;
- names of files, of tensors, of columns and of keys, or old runs could not be read and continued;
- the shape of every answer in JSON, which scripts read;
- the first losses of three small chains (chain_a, chain_b, chain_c), and a whole run that an
  earlier version began (old_run).

It looks at files and at what commands print, and imports next to nothing, so renamed code cannot
break it. Where a test of it fails, the change that made it fail is wrong, with two exceptions. A
new component, recipe, metric or file only adds: run this file and see in git that nothing else
changed. A change that is meant to alter what users keep needs a new version of its stage
(in ``recipe/stage_table.py``) and an entry in the changelog besides. ``old_run`` is never frozen
anew: a run that an older version began must go on in every later one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import observe


def write(name: str, found: Any) -> None:
    path = observe.HERE / "frozen" / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = observe.small_files(Path(folder, "files"))
        variants = observe.variant_fingerprints(files)
        write("fingerprints", {"shipped": observe.shipped_fingerprints(), "variants": variants})
        chains = observe.finished_chains(Path(folder))
        for name, look in observe.OF_CHAINS.items():
            write(name, look(chains))


if __name__ == "__main__":
    main()
