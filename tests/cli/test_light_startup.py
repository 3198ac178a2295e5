"""Commands that only read recipes and plugins never load torch, so they answer at once."""

from __future__ import annotations

import json
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
"""Seconds; generous, since this machine may be busy. On an idle one it takes a fifth of that."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list-plugins"],
        ["show-plugin", "encoder:tiny_vit"],
        ["list-recipes"],
        ["check", "quickstart"],
        ["show", "quickstart", "--origin"],
    ],
    ids=" ".join,
)
def test_a_light_command_loads_no_torch_and_answers_at_once(arguments: list[str]) -> None:
    times = []
    for _ in range(3):  # the machine may be busy: the best of three
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            env={"PAE_ARGUMENTS": json.dumps(arguments), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(time.perf_counter() - start)
        if times[-1] < BOUND:
            break
    print(f"pae {' '.join(arguments)}: {min(times):.2f} s")
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    assert (code, heavy) == (0, [])
    assert done.stdout
    assert min(times) < BOUND


def test_no_built_in_plugin_is_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pae_framework", "list-plugins", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    plugins = json.loads(done.stdout)["plugins"]
    assert {p["state"] for p in plugins if p["distribution"] == "pae-framework"} == {"ok"}
