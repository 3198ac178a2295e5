"""Runs several ``pae`` commands in one process and notes what they print and which seeds they draw.

    python drive.py COMMANDS.json ANSWERS.json

COMMANDS is a list of command lines, each a list of words; ANSWERS gets one ``{code, out, seeds}``
for each. Seeds are noted by taking the place of ``derive_seed`` before anything else is imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from pae_framework import seeding

drawn: set[tuple[str, ...]] = set()
derive_seed = seeding.derive_seed


def noting(*parts: int | str) -> int:
    drawn.add(tuple(part if isinstance(part, str) else "#" for part in parts))
    return derive_seed(*parts)


def run(words: list[str]) -> dict[str, object]:
    drawn.clear()
    sys.argv = ["pae", *words]
    out = io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    return {"code": code, "out": out.getvalue(), "seeds": sorted(drawn)}


if __name__ == "__main__":
    seeding.derive_seed = noting
    from pae_framework.cli.app import main

    commands, answers = map(Path, sys.argv[1:])
    found = [run(words) for words in json.loads(commands.read_text(encoding="utf-8"))]
    answers.write_text(json.dumps(found), encoding="utf-8")
