"""``python scripts/run_members.py RECIPE``: run a sweep member by member and keep each result.

When a member ends, its metrics, its fingerprint, the environment, PSNR after 80 % and 100 % of the
tokenizer's steps, each term's shares of loss and gradient, and digests of the weights go to
``docs/results/SWEEP/MEMBER.json``. Members whose file is there, with the fingerprint that they have
now, are skipped, so the work can stop at any time. ``--table`` only prints tables of these, and
names the outdated.

Members share their encoder, its refinement and the extractor that measures them. These are kept in
``docs/results/SWEEP/shared``, without checkpoints, and used again, so the work can continue on
another machine. If they were trained again all the same, members before and after do not compare;
the table says so.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from pae_framework.errors import PaeError, UsageError
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.launch.run_sweep import describe_sweep, member_directory
from pae_framework.metrics_file import METRICS, read_log
from pae_framework.notebook import RunTokenizer
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.sweep import Member, chosen_members
from pae_framework.report.table import comparison_table, sweep_members
from pae_framework.report.text import panels_markdown, paper_markdown
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import OpenedRun
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.run_metrics import RESULTS, read_metrics_file
from pae_framework.runs.sweep_paper import beside_paper
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json, write_json
from pae_framework.system.printing import print_line
from pae_framework.tensor_files import load_state, load_tensors
from pae_framework.tokenizer.losses.term_shares import GRADIENT, LOSS

KEPT = Path(__file__).parents[1] / "docs" / "results"
CONVERGED = 0.1
"""Largest gain of PSNR in dB over the last fifth of the steps of a converged tokenizer."""
FIFTH = 0.8
"""Share of the steps before the last fifth."""
SHARED = ("extractor", "encoder", "teacher", "refine")
"""Stages that members share."""
NOT_KEPT = ("checkpoints", "tensorboard", ".*")
PREFIX = "tokenizer."
WEIGHTS = "weights.safetensors"
IMAGES = 1000
"""Test images that PSNR is measured on."""


def main(arguments: Sequence[str]) -> int:
    """Run what is missing; the exit code is that of the first member that fails."""
    options = _parser().parse_intermixed_args(arguments)
    loaded = load_recipe(options.recipe, options.overrides)
    folder = options.kept / loaded.recipe.name
    sweep = RunDirectory.at(Path("runs") / loaded.recipe.name)
    if options.table:
        if not options.kept.is_dir():
            raise UsageError(f"--kept: no folder {options.kept}")
        print_line(table(loaded, folder, sweep))
        return 0
    chosen = chosen_members(loaded, options.only)
    use_shared(
        loaded, shlex.join(["pae", "run", options.recipe, *options.overrides]), folder, sweep
    )
    for member in chosen:
        path = folder / f"{member.name}.json"
        if is_kept(path, member, sweep):
            keep_shared(planned_stages(member.loaded, sweep.store), sweep, folder)
            print_line(f"{member.name}: kept")
            continue
        command = ["run", options.recipe, *options.overrides, "--only", member.name]
        code = subprocess.run([sys.executable, "-m", "pae_framework", *command]).returncode
        if code:
            return code
        result = result_of(member, member_directory(sweep, member))
        keep_shared(planned_stages(member.loaded, sweep.store), sweep, folder)
        write_json(path, result)
        print_line(f"{path}: {convergence(result['psnr'])}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("recipe", help="a recipe with a sweep")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--only", help="members whose names match, such as 'all-*'")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the kept results")
    parser.add_argument(
        "--table",
        action="store_true",
        help="only print tables of all kept results; needs the images, to tell which are outdated",
    )
    return parser


def is_kept(path: Path, member: Member, sweep: RunDirectory) -> bool:
    """Whether the result of a member, as its recipe is now, is in a file."""
    return path.exists() and read_json(path)["fingerprint"] == _fingerprint(member, sweep)


def _fingerprint(member: Member, sweep: RunDirectory) -> str:
    return planned_stages(member.loaded, sweep.store)["evaluate"].fingerprint


def use_shared(loaded: LoadedRecipe, command: str, folder: Path, sweep: RunDirectory) -> None:
    """Give the sweep the kept stages that it lacks.

    Raises:
        UsageError: the sweep's directory holds something else.
    """
    kept = sorted((folder / "shared").glob("[!.]*"))
    if absent := [path for path in kept if not (sweep.store / path.name).exists()]:
        sweep.claim(loaded.recipe.name, sweep=True)
        describe_sweep(loaded, sweep, list(chosen_members(loaded, None)), command)
        for path in absent:
            copy_stage(path, sweep.store / path.name)


def keep_shared(stages: Mapping[str, PlannedStage], sweep: RunDirectory, folder: Path) -> None:
    """Keep the finished stages that members share, if they are not kept yet.

    Raises:
        RunError: a stage is not as it was when it finished.
    """
    for stage in (stages[name] for name in SHARED if name in stages):
        kept = folder / "shared" / stage.folder
        if sweep.stage(stage).done and not kept.exists():
            copy_stage(sweep.results(stage).files(), kept)


def copy_stage(source: Path, target: Path) -> None:
    """Copy the results of a stage; a target that another process has written is left as it is."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.parts")
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns(*NOT_KEPT))
    try:
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished)
        if not target.is_dir():
            raise


def result_of(member: Member, run: RunDirectory) -> dict[str, Any]:
    """What is kept of a finished member."""
    stages = planned_stages(member.loaded, run.store)
    opened = OpenedRun(member.loaded, run, stages)
    context = StageContext.of_finished_run(opened, "report", PlainConsole(stderr=True))
    return {
        "member": member.name,
        "variant": member.variant,
        "seed": member.seed,
        "fingerprint": stages["evaluate"].fingerprint,
        "environment": run.environment,
        "psnr": psnr_by_step(context),
        "shares": late_shares(read_log(run.stage(stages["tokenizer"]).path / METRICS)),
        "weights": weights_by_stage(stages, run),
        "metrics": read_metrics_file(run.results(stages["evaluate"]).file(RESULTS)),
    }


@torch.no_grad()
def psnr_by_step(context: StageContext) -> dict[str, float]:
    """PSNR in dB at the kept steps of the tokenizer and at its last, on the first test images."""
    train = context.recipe.tokenizer_section.train
    tokenizer = trained_tokenizer(context)
    shown = RunTokenizer(tokenizer, context.recipe.data.image_size)
    source = context.test_source
    count = min(IMAGES, len(source))
    images = torch.stack([source[index].image for index in range(count)])
    found = {str(train.steps): _psnr(shown, images)}
    for step in train.keep_steps:
        load_kept(tokenizer, context.file("tokenizer", f"weights-step{step:06d}.safetensors"))
        found[str(step)] = _psnr(shown, images)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def late_shares(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each term's shares of loss and gradient, means over the last half of a training's log.

    A term that was not computed, because its weight was 0, has a share of 0.
    """
    late = [record for record in records if 2 * record["step"] > records[-1]["step"]]
    measured = [
        shares
        for record in late
        if (shares := {name: x for name, x in record.items() if name.startswith((LOSS, GRADIENT))})
    ]
    names = dict.fromkeys(name for shares in measured for name in shares)
    return {name: fmean(shares.get(name, 0.0) for shares in measured) for name in names}


def weights_by_stage(stages: Mapping[str, PlannedStage], run: RunDirectory) -> dict[str, str]:
    """Digests of the weights that stages trained, by the name of the stage's folder."""
    found = {stage.folder: run.results(stage).recorded or {} for stage in stages.values()}
    return {folder: files[WEIGHTS]["xxh3"] for folder, files in found.items() if WEIGHTS in files}


def load_kept(tokenizer: torch.nn.Module, path: Path) -> None:
    """Load weights that the tokenizer's training kept: those of the tokenizer in its objective."""
    whole = load_tensors(path)
    own = {name.removeprefix(PREFIX): x for name, x in whole.items() if name.startswith(PREFIX)}
    load_state(tokenizer, own, str(path))


def _psnr(tokenizer: RunTokenizer, images: torch.Tensor) -> float:
    """Mean over uint8 images (M, 3, S, S) of their PSNR in dB."""
    decoded = tokenizer.decode(tokenizer.encode(images))
    error = (images.double() - decoded.double()).div(255).square().mean(dim=(1, 2, 3))
    return float((-10 * error.clamp(min=1e-10).log10()).mean())


def convergence(psnr: dict[str, float]) -> str:
    """Whether a tokenizer had converged, in words."""
    *_, last = psnr
    first = next((step for step in psnr if int(step) == round(FIFTH * int(last))), None)
    if first is None:
        return "no weights of the step at 80 % to compare with"
    gain = psnr[last] - psnr[first]
    word = "converged" if gain < CONVERGED else "not converged"
    return f"{word}: PSNR {gain:+.2f} dB from step {first} to {last}"


def table(loaded: LoadedRecipe, folder: Path, sweep: RunDirectory) -> str:
    """The kept results as Markdown, with published values and the members without a result."""
    members = chosen_members(loaded, None)
    paths = {member.name: folder / f"{member.name}.json" for member in members}
    present = [m.name for m in members if paths[m.name].exists()]
    current = [m.name for m in members if is_kept(paths[m.name], m, sweep)]
    kept = [read_json(paths[name]) for name in current]
    found = sweep_members(kept)
    parts = panels_markdown(*comparison_table(found)) if found else []
    parts += [f"{entry['member']}: {convergence(entry['psnr'])}" for entry in kept]
    parts += [shares] if (shares := shares_table(kept)) else []
    if paper := beside_paper(loaded, found):
        parts.append(paper_markdown(paper))
    if different := trained_twice(kept):
        parts.append(f"Not comparable: {different}.")
    processors = {str(entry["environment"]["processor"]) for entry in kept}
    if len(processors) > 1:
        parts.append(f"On different processors, so digits differ: {', '.join(sorted(processors))}.")
    if outdated := [name for name in present if name not in current]:
        why = "of another recipe, other images or another version of a component"
        parts.append(f"Outdated, {why}: {', '.join(outdated)}.")
    if missing := [name for name in paths if name not in present]:
        parts.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(parts)


def trained_twice(kept: Sequence[Mapping[str, Any]]) -> str:
    """Which results are of different weights of the same stage, in words; empty: none known.

    Results of earlier versions of this script have no digests.
    """
    digests = {entry["member"]: entry.get("weights", {}) for entry in kept}
    stages = sorted({folder for found in digests.values() for folder in found})
    lines = []
    for stage in stages:
        members: dict[str, list[str]] = {}
        for name, found in digests.items():
            if stage in found:
                members.setdefault(found[stage], []).append(name)
        if len(members) > 1:
            groups = " and ".join(", ".join(names) for names in members.values())
            lines.append(f"{stage} was trained anew between {groups}")
    return "; ".join(lines)


def shares_table(kept: Sequence[Mapping[str, Any]]) -> str:
    """Each term's shares of loss and gradient, in percent, means over seeds; empty: none kept."""
    found: dict[tuple[str, str], list[float]] = {}
    for entry in kept:
        for name, share in entry["shares"].items():
            found.setdefault((entry["variant"], name), []).append(share)
    lines = []
    for variant, name in found:
        if name.startswith(LOSS):
            term = name.removeprefix(LOSS)
            shares = (fmean(found[variant, prefix + term]) for prefix in (LOSS, GRADIENT))
            lines.append(f"| {variant} | {term} | {' | '.join(f'{s:.1%}' for s in shares)} |")
    heading = "| variant | term | share of the loss | share of the gradient at the latents |"
    return "\n".join([heading, "| --- | --- | ---: | ---: |", *lines]) if lines else ""


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PaeError as error:
        sys.exit(f"error: {error}")
