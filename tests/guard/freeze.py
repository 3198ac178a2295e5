"""Rewrite the guard's frozen files: ``python tests/guard/freeze.py``.

The guard lets you move and rename code without changing what users keep and read:

- fingerprints of stages: if they change, finished stages are trained again;
- the strings that seed random numbers: if they change, a recipe gives other numbers;
- names of files, tensors, log columns and keys: if they change, old runs cannot be resumed;
- keys, types, states and row names of ``--json`` output, which scripts read;
- the first losses of three small recipes (chain_a, chain_b, chain_c), and a whole run that an
  earlier version began (old_run).

The guard reads files and the output of commands. It imports almost nothing, so that renamed code
does not break it.

If one of its tests fails, undo the change that broke it. There are two exceptions:

- A new component, recipe, metric or file only adds entries. Run this script, and check with
  ``git diff`` that it removed and changed nothing.
- A change that must alter what users keep also needs a new version of its stage (in
  ``recipe/stage_table.py``) and an entry in the changelog.

Never rewrite ``old_run``: every later version must resume a run of an older one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import collected


def write(name: str, content: Any) -> None:
    path = collected.HERE / "frozen" / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = collected.small_files(Path(folder, "files"))
        variants = collected.variant_fingerprints(files)
        write("fingerprints", {"shipped": collected.shipped_fingerprints(), "variants": variants})
        chains = collected.finished_chains(Path(folder))
        for name, collect in collected.OF_CHAINS.items():
            write(name, collect(chains))


if __name__ == "__main__":
    main()
