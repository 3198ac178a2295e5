"""Make the pictures of the README and the tutorial, and the tutorial's table, from one run.

::

    pae run quickstart
    python docs/draw_pictures.py runs/quickstart

The screenshot of the report needs Chromium; without it, the present one stays.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from torch import Tensor

from pae_framework.evaluation.inputs import RunInputs
from pae_framework.execution.context import StageContext
from pae_framework.metrics_file import read_log
from pae_framework.plugins import load_registry
from pae_framework.report.colors import latent_colors
from pae_framework.report.metrics import EVALUATIONS, MetricFields, series_along
from pae_framework.report.pictures import class_rows, compare, grid, save_png, stack
from pae_framework.report.plots import Line, curves, loss_panels
from pae_framework.report.table import result_rows
from pae_framework.report.text import results_markdown
from pae_framework.runs.opened import open_run
from pae_framework.system.files import read_json, write_text

FOLDER = Path(__file__).parent / "pictures"
TUTORIAL = Path(__file__).parent / "tutorial.md"
START, END = "<!-- table: written by docs/draw_pictures.py -->\n", "<!-- end of table -->"
SHOWN = 10
TERMS = ("loss", "l1", "ssr", "mcr", "scr")


def main(run: Path) -> None:
    """Write every picture."""
    context = StageContext.of_finished_run(
        open_run(run, load_registry()), "report", Console(stderr=True)
    )
    inputs = RunInputs(context)
    overview(inputs)
    reconstructions = inputs.reconstructions
    save_png(compare(inputs.images[:16], reconstructions[:16]), FOLDER / "reconstructions.png")
    save_png(compare(inputs.images[:16], _colors(inputs)[:16]), FOLDER / "latents.png")
    samples = inputs.sample_sets[0]
    picture = by_class(samples.images, samples.labels, inputs.class_names, per_class=5)
    save_png(picture, FOLDER / "samples.png")
    panels = loss_panels(read_log(context.require("tokenizer") / "metrics.jsonl"))
    for term in TERMS:
        write_text(FOLDER / f"tokenizer_{term}.svg", panels[term])
    results = read_json(context.require("evaluate") / "results.json")
    write_text(FOLDER / "few_steps.svg", few_steps(results))
    screenshot(run / "report.html", FOLDER / "report.png")
    before, _, rest = TUTORIAL.read_text(encoding="utf-8").partition(START)
    table = results_markdown(result_rows(results))
    write_text(TUTORIAL, f"{before}{START}{table}\n{END}{rest.partition(END)[2]}")


def overview(inputs: RunInputs) -> None:
    """The README's picture: a test image of each class, its latent, reconstruction and a sample."""
    first = _first_of_each_class(inputs.labels, inputs.class_names)
    sample_set = inputs.sample_sets[0]
    samples = sample_set.images[_first_of_each_class(sample_set.labels, inputs.class_names)]
    rows = {
        "test image": inputs.images[first],
        "its latent": _colors(inputs)[first],
        "decoded": inputs.reconstructions[first],
        "sample": samples,
    }
    images = torch.cat(list(rows.values()))
    labels = torch.arange(len(rows)).repeat_interleave(len(first))
    picture = by_class(images, labels, list(rows), per_class=len(first))
    save_png(picture, FOLDER / "quickstart.png")


def screenshot(page: Path, path: Path) -> None:
    """The beginning of the report on a light screen, in 256 colors."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--window-size=1100,1560", f"--user-data-dir={folder}/profile"]
        command += [f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        save_png(Image.open(shot).convert("RGB").quantize(256), path)


def few_steps(results: list[MetricFields]) -> str:
    """gFD of the last weights over network evaluations, as SVG."""
    (series,) = series_along(results, EVALUATIONS)
    points = [(position, float(metric["value"]), None) for position, metric in series.points]
    return curves([Line("gFD", points)], EVALUATIONS.label, "gFD", log_x=True)


def by_class(
    images: Tensor, labels: Tensor, class_names: Sequence[str], per_class: int
) -> Image.Image:
    """Images (M, 3, S, S) uint8 with labels (M,): a row per class, its name to the left."""
    rows = class_rows(labels, class_names, per_class, classes=len(class_names))
    strips = [(name, grid(images[indices], per_class)) for name, indices in rows]
    return stack([_labeled(name, strip) for name, strip in strips])


def _labeled(name: str, strip: Image.Image, width: int = 104) -> Image.Image:
    canvas = Image.new("RGBA", (width + strip.width, strip.height))
    canvas.paste(strip, (width, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    text = " ".join(name.split())
    while len(text) > 1 and draw.textlength(text, font=font) > width - 10:
        text = text.rstrip("…")[:-1] + "…"
    middle = (width - 8, strip.height / 2)
    draw.text(middle, text, fill=(128, 128, 128, 255), font=font, anchor="rm")
    return canvas


def _first_of_each_class(labels: Tensor, names: Sequence[str]) -> Tensor:
    rows = class_rows(labels, names, per_class=1, classes=SHOWN)
    return torch.cat([indices for _, indices in rows])


def _colors(inputs: RunInputs) -> Tensor:
    """Latents as colors, enlarged to the size of the images."""
    colors = latent_colors(inputs.latents)
    factor = inputs.images.shape[-1] // colors.shape[-1]
    return colors.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/draw_pictures.py RUN")
    main(Path(sys.argv[1]))
