"""Two runs written by version 0.1.0 (commit 757b773), and the results of the finished one.

``old_run/stopped`` got SIGTERM in its tokenizer stage at step 4 and stopped after step 5 of 8.
``old_run/finished`` is the same recipe without the stop. To keep both small, TensorBoard files,
locks and checkpoints of finished stages were removed; from the finished run also its report and
the weights that no result needs, in whose place :func:`copy_of` puts others. ``outcome.json`` has
the final values of the finished run, and the machine it ran on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from collected import HERE
from safetensors import safe_open

OLD = HERE / "old_run"
STAGES = (
    *("extractor", "encoder", "refine", "tokenizer", "latents"),
    *("generator", "sample", "evaluate", "report"),
)
FINISHED = STAGES[:3]
"""Finished stages of the stopped run."""
STOPPED_AT = 5
"""Last step of its tokenizer stage."""


def expected_values() -> dict[str, Any]:
    """Final values of the uninterrupted run, and its ``machine``."""
    values: dict[str, Any] = json.loads((OLD / "outcome.json").read_text(encoding="utf-8"))
    return values


def copy_of(name: str, folder: Path) -> Path:
    """Copy the run ``stopped`` or ``finished`` into a folder, so that tests can write to it."""
    copy = shutil.copytree(OLD / name, folder / name, symlinks=True)
    if name == "finished":
        for source in (OLD / "stopped" / "stages").glob("*/*.safetensors"):
            shutil.copy(source, copy / "stages" / source.parent.name / source.name)
        shutil.copy(
            copy / "tokenizer/tokenizer.safetensors", copy / "tokenizer/weights.safetensors"
        )
        (copy / "report/report.html").touch()
    return copy


def final_values(run: Path) -> dict[str, Any]:
    """Metrics, final losses and digests of the weights of a finished run."""
    metrics = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    return {
        "metrics": [[metric["name"], metric["value"]] for metric in metrics],
        "losses": {
            stage: log(run, stage)[-1]["loss"]
            for stage in ("extractor", "encoder", "refine", "tokenizer", "generator")
        },
        "digests": {
            name: digest(run / name)
            for name in ("tokenizer/tokenizer.safetensors", "generator/weights.safetensors")
        },
    }


def log(run: Path, stage: str) -> list[dict[str, Any]]:
    """The records of a stage's log."""
    lines = (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def digest(path: Path) -> str:
    """Hash of the names and bits of a file's tensors; independent of their order in the file."""
    sha = hashlib.sha256()
    with safe_open(path, "pt") as file:
        for name in sorted(file.keys()):
            sha.update(name.encode() + file.get_tensor(name).contiguous().numpy().tobytes())
    return sha.hexdigest()


def machine() -> dict[str, str]:
    """What the exact bits depend on: the torch version and the processor's instructions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    # Reversed, so that the first processor's lines win.
    fields = dict(reversed([line.split("\t", 1) for line in lines if "\t" in line]))
    keys = ("model name", "cpu family", "model", "flags")
    cpu = {key.strip(): value.strip("\t: ") for key, value in fields.items()}
    processor = hashlib.sha256("".join(cpu.get(key, "") for key in keys).encode()).hexdigest()
    return {"torch": torch.__version__, "processor": f"{cpu.get('model name')} {processor[:12]}"}
