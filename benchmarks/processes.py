"""Trainings in several CPU processes compared with one: images per second and wall time.

    python -m benchmarks.processes [--processes 2] [--steps 60]

Each process has one thread. The speed is that of the last lines of the log, without start-up; the
wall time of a stage includes it. With as many free cores as processes, the best ratio is their
number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

STAGES = ("encoder", "refine", "tokenizer", "generator")


def main() -> None:
    """Run quickstart's trainings in one process and in several, and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone = _trained(Path(folder), 1, given.steps)
        together = _trained(Path(folder), given.processes, given.steps)
    table = Table(title=f"{given.processes} processes and one, of one thread each")
    for heading in ("stage", "images/s", "of one", "ratio", "seconds", "of one"):
        table.add_column(heading, justify="right" if heading != "stage" else "left")
    for stage in STAGES:
        (speed, seconds), (speed_alone, seconds_alone) = together[stage], alone[stage]
        values = (speed, speed_alone, speed / speed_alone, seconds, seconds_alone)
        table.add_row(stage, *(f"{value:.3g}" for value in values))
    Console().print(table)


def _trained(folder: Path, processes: int, steps: int) -> dict[str, tuple[float, float]]:
    """Images per second and seconds of each stage."""
    run = folder / f"run{processes}"
    trained = ("tokenizer.encoder", "tokenizer.refinement", "tokenizer", "generator")
    changes = [
        *(
            "runtime.threads=1",
            "extractor=null",
            "sample=null",
            "evaluate=null",
            "generator.train.keep_steps=[]",
        ),
        "tokenizer.adversarial={weight: 0.3, discriminator: {use: patchgan, layers: 2, width: 16}}",
        *(f"{path}.train.{key}" for path in trained for key in (f"steps={steps}", "log_every=5")),
    ]
    command = [sys.executable, "-m", "pae_framework", "run", "quickstart", *changes]
    subprocess.run(
        [*command, "--run-dir", str(run), "--processes", str(processes)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {stage: _measured(run / stage) for stage in STAGES}


def _measured(stage: Path) -> tuple[float, float]:
    lines = (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [json.loads(line)["images_per_s"] for line in lines[len(lines) // 2 :]]
    record = json.loads((stage / "stage.json").read_text(encoding="utf-8"))
    return median(speeds), record["seconds"]


if __name__ == "__main__":
    main()
