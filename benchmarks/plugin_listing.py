"""``python -m benchmarks.plugin_listing``: the time of `pae list-plugins` with many plugins."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import Timing, Way, in_turn

MODULE = """
from pae_framework import hookimpl

pae_api = 1


@hookimpl
def pae_register_regularizers(register):
    register("{name}", target="{name}_net:Term", config="{name}_config:Config", summary="a dummy")
"""


def install_dummies(folder: Path, count: int) -> None:
    """Write distributions with one plugin each into a folder for ``sys.path``."""
    for number in range(count):
        name = f"dummy_{number:03}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        points = f"[pae_framework]\n{name} = {name}\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        (folder / f"{name}.py").write_text(MODULE.format(name=name), encoding="utf-8")


def measure(count: int, rounds: int, clock: Callable[[], float]) -> list[Timing]:
    """The command without and with ``count`` plugins; bytecode is cached, as in a real install."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        install_dummies(site, count)
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def listing(*paths: str) -> Way:
            found = [*paths, *filter(None, [environment.get("PYTHONPATH")])]
            with_paths = {**environment, "PYTHONPATH": os.pathsep.join(found)}

            def way() -> float:
                start = clock()
                subprocess.run(
                    [sys.executable, "-m", "pae_framework", "list-plugins", "--json"],
                    env=with_paths,
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
                return clock() - start

            return way

        return in_turn({"built-in plugins": listing(), f"{count} more": listing(str(site))}, rounds)


def processor_seconds() -> float:
    """Processor time of the ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print both times and their ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plugin_listing")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for unit, clock in (("processor", processor_seconds), ("wall", time.perf_counter)):
        for way in measure(given.count, given.rounds, clock):
            print(
                f"{way.name}: {way.seconds:.2f} s {unit} time, median ratio {way.ratio:.2f}, "
                f"fastest ratio {way.fastest:.2f}"
            )


if __name__ == "__main__":
    main()
