"""Run several ``pae`` commands in one process; save their output and the seeds they derive.

    python run_commands.py COMMANDS.json ANSWERS.json

COMMANDS is a list of command lines, each a list of words. ANSWERS becomes a list of
``{code, out, err, seeds}``, one for each command. ``derive_seed`` is replaced before any other
import, so that every caller uses the recording version. The disk is large enough for every recipe.
Plots of reports, which take most of their time, are empty.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

from pae_framework import seeding

seeds: set[tuple[str, ...]] = set()
derive_seed = seeding.derive_seed


def recording_derive_seed(*parts: int | str) -> int:
    seeds.add(tuple(part if isinstance(part, str) else "#" for part in parts))
    return derive_seed(*parts)


def run(words: list[str]) -> dict[str, object]:
    seeds.clear()
    sys.argv = ["pae", *words]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit_request:
            code = exit_request.code or 0
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seeds": sorted(seeds)}


if __name__ == "__main__":
    seeding.derive_seed = recording_derive_seed
    shutil.disk_usage = lambda path: SimpleNamespace(total=1 << 50, used=0, free=1 << 50)
    from pae_framework.cli.app import main
    from pae_framework.report import plots

    plots._svg = lambda figure: "<svg/>"
    commands_file, answers_file = map(Path, sys.argv[1:])
    commands = json.loads(commands_file.read_text(encoding="utf-8"))
    answers_file.write_text(json.dumps([run(words) for words in commands]), encoding="utf-8")
