"""The page that compares the variants of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pae_framework.files import read_json, write_text
from pae_framework.report.content import LabelledImages, SweepContent
from pae_framework.report.html import render_sweep
from pae_framework.report.metrics import generator_words
from pae_framework.report.table import MemberMetrics
from pae_framework.sampling.sample_set import read_sets


def write_comparison(directory: Path, description: str, results: Sequence[dict[str, Any]]) -> Path:
    """Write ``report.html`` of a sweep from its finished members; returns its path."""
    members = [MemberMetrics(x["variant"], x["seed"], x["metrics"]) for x in results]
    samples: dict[str, LabelledImages] = {}
    for result in results:
        if result["variant"] not in samples and "samples" in result:
            main = read_sets(directory / result["samples"])[0]
            title = f"{result['member']}, {generator_words(main.generator_step)}"
            samples[result["variant"]] = LabelledImages(title, main.images, main.labels)
    info = read_json(directory / "run.json")
    content = SweepContent(
        name=info["name"],
        members=members,
        description=description,
        recipe_yaml=(directory / "resolved.yaml").read_text(encoding="utf-8"),
        samples=samples,
        environment=read_json(directory / "environment.json"),
        commands=[info["command"]],
    )
    path = directory / "report.html"
    write_text(path, render_sweep(content))
    return path
