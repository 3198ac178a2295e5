"""Commands that only read recipes and plugins do not import torch, so they start fast."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

import pytest

PROBE = """
import json, os, sys
from pae_framework.cli.app import main
sys.argv = ["pae", *json.loads(os.environ["PAE_ARGUMENTS"])]
code = 0
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "matplotlib"})
print(json.dumps([code, heavy]), file=sys.stderr)
"""

BOUND = 2.0
"""CPU seconds; generous, since neighbors slow a busy machine. Alone it takes a fifth of that."""


def cpu_seconds() -> float:
    """CPU time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list-plugins"],
        ["show-plugin", "encoder:tiny_vit"],
        ["list-recipes"],
        ["schema"],
        ["check", "quickstart"],
        ["check", "quickstart", "--on", "local"],
        ["profiles", "debug"],
        ["show", "quickstart", "--origin"],
        ["evaluate", "--help"],
        ["reference", "build", "--help"],
    ],
    ids=" ".join,
)
def test_a_light_command_loads_no_torch_and_answers_at_once(arguments: list[str]) -> None:
    cpu, start = cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PAE_ARGUMENTS": json.dumps(arguments)},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    print(f"pae {' '.join(arguments)}: {wall:.2f} s, of which CPU {cpu:.2f} s")
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    assert (code, heavy) == (0, [])
    assert done.stdout
    assert cpu < BOUND


def test_the_command_line_itself_loads_neither_recipes_nor_plugins() -> None:
    # What a command needs it imports when it is called, so that help and errors come at once.
    code = """
import sys
import pae_framework.cli.app
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(roots & {"pydantic", "yaml", "jinja2"}))
print(sorted(name for name in sys.modules if name.startswith("pae_framework.recipe")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_no_built_in_plugin_is_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pae_framework", "list-plugins", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    plugins = json.loads(done.stdout)["plugins"]
    assert {p["state"] for p in plugins if p["distribution"] == "pae-framework"} == {"ok"}
