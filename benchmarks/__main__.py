"""``python -m benchmarks``: every benchmark, as a table of ratios within this run."""

from __future__ import annotations

import argparse
import platform

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import checkpoints, features, latents, sampling, timing, tokenizer, training
from benchmarks.subject import Subject
from benchmarks.timing import Timing

UNITS = {
    "engine": ("Training loop overhead", "step"),
    "compile": ("Compiled blocks", "step"),
    "peer": ("Compared with diffusers' DiT of the same size", "step"),
    "tokenizer": ("Tokenizer with PatchGAN, sizes of fashion_mnist", "step"),
    "tokenizer-lpips": ("The same with LPIPS instead of the perceptual distance", "step"),
    "tokenizer-both": ("The same with both distances: all terms", "step"),
    "guidance": ("Sampling", "batch"),
    "compiled-sampling": ("Sampling with compiled blocks", "batch"),
    "latents": ("Writing latents", "pass over the images"),
    "reading": ("Reading latents", "batch"),
    "checkpoints": ("Waiting for a checkpoint of 1 GiB", "save"),
    "features": ("Cached features of the frozen encoder", "step"),
}


def main() -> None:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="*", choices=[*UNITS, []], help="benchmarks to run; default: all"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", help="LightningDiT preset; default: width of B/1, 3 blocks")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--side", type=int, default=8, help="side of the latents; gives side^2 tokens"
    )
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="a quick look needs 1, a difference of 2%% about 50 on an idle machine",
    )
    parser.add_argument("--steps", type=int, default=4, help="steps timed together")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure processor time: for one thread on a machine that does other work, too",
    )
    given = parser.parse_args()
    if given.processor_time:
        timing.measure_processor_time()

    subject = Subject(
        device=torch.device(given.device),
        preset=given.preset,
        depth=3,
        width=768,
        heads=12,
        channels=32,
        side=given.side,
        batch=given.batch,
        bf16=given.bf16,
    )

    def tokenizer_step(*changes: str) -> list[Timing]:
        changes = (tokenizer.PATCHGAN, *changes)
        return tokenizer.against_plain(
            subject.device, changes, given.bf16, given.rounds, given.steps
        )

    console = Console(width=100)
    console.print(f"{_machine(subject.device)}, torch {torch.__version__}\n{subject}")
    measures = {
        "engine": lambda: training.engine_overhead(subject, given.rounds, given.steps),
        "compile": lambda: training.compilation(subject, given.rounds, given.steps),
        "peer": lambda: training.against_peer(subject, given.rounds, given.steps),
        "tokenizer": lambda: tokenizer_step(),
        "tokenizer-lpips": lambda: tokenizer_step(*tokenizer.LPIPS_ONLY),
        "tokenizer-both": lambda: tokenizer_step(tokenizer.LPIPS),
        "guidance": lambda: sampling.guidance_interval(subject, given.rounds, 2 * given.steps),
        "compiled-sampling": lambda: sampling.compiled_sampling(
            subject, given.rounds, 2 * given.steps
        ),
        "latents": lambda: latents.extraction(subject, given.rounds, 512),
        "reading": lambda: latents.reading(subject, given.rounds, 50),
        "checkpoints": lambda: checkpoints.saving(subject.device, given.rounds),
        "features": lambda: features.cached(subject, given.rounds, given.steps),
    }
    for name in given.what or measures:
        title, unit = UNITS[name]
        found = measures[name]()
        if found:
            console.print(_table(title, unit, found))
        else:
            missing = "diffusers is not installed; pip install 'pae-framework[diffusers]'"
            console.print(f"{title}: not measured, {missing}", markup=False)


def _table(title: str, unit: str, timings: list[Timing]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", f"ms per {unit}", "median ratio", "95 %", "range", "fastest ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for way in timings:
        intervals = (
            "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
            for ends in (way.confidence, way.spread)
        )
        table.add_row(
            way.name,
            f"{1000 * way.seconds:.2f}",
            f"{way.ratio:.3f}",
            *intervals,
            f"{way.fastest:.3f}",
        )
    return table


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
