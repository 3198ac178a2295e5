"""Collect what must not change, as JSON: one function for each frozen file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from pae_framework.evaluation.feature_cache import FOLDER as EXTRACTED
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.plan import plan

HERE = Path(__file__).parent
RECIPES = sorted(path.stem for path in (HERE.parents[1] / "recipes").glob("*.yaml"))
SWEEP = "shapes_ablation"
"""A shipped sweep whose images need no files."""
SPEED = {"images_per_s", "data_wait"}
"""Log columns that depend on the machine."""
VALUES = {
    *("component", "kind", "part", "path", "stage", "state", "trained_in"),
    *("guidance_channels", "labels", "role", "solver"),
}
"""Keys whose words are frozen too: names of rows, and words from a fixed list."""

IGNORED = (
    "tokenizer.train.workers=2",
    "tokenizer.train.log_every=7",
    "tokenizer.train.checkpoint_every=11",
    "tokenizer.train.compile=true",
    "tokenizer.train.activation_checkpointing=true",
    "tokenizer.train.jump=9",
    "tokenizer.encoder.train.workers=1",
    "extractor.train.log_every=3",
    "generator.attention=sdpa",
    "tokenizer.attention=xformers",
    "tokenizer.encoder.attention=xformers",
    "tokenizer.modulator.attention=xformers",
    "tokenizer.decoder.attention=xformers",
    "generator.train.jump=5",
    "latents.batch_size=3",
    "latents.processes=2",
    "latents.workers=2",
    "sample.batch_size=7",
    "sample.processes=2",
    "data.train={use: digits, split: train}",
    "runtime={threads: 1, device: cpu, tf32: true}",
)
"""Overrides of quickstart that change neither its results nor its fingerprints."""

ADVERSARIAL = "discriminator: {use: patchgan, layers: 1, width: 8}"
VARIANTS = {
    "ignored settings": IGNORED,
    "adversarial of weight 0": (f"tokenizer.adversarial={{weight: 0, {ADVERSARIAL}}}",),
    "adversarial": (f"tokenizer.adversarial={{weight: 0.3, {ADVERSARIAL}}}",),
    "adversarial, all set": (
        f"tokenizer.adversarial={{{ADVERSARIAL}, adaptive: false, update_from: {{steps: 1}}, "
        "start: {epochs: 2}, warmup: {steps: 3}, optimizer: {lr: 1e-4, clip: null}}",
    ),
    "adversarial, dino": ("tokenizer.adversarial={discriminator: {use: dino, weights: none}}",),
    "dino of a file": ("tokenizer.adversarial={discriminator: {use: dino, weights: FILES/one}}",),
    "raw target": ("tokenizer.target=raw",),
    "no refinement": ("tokenizer.refinement=null", "tokenizer.regularizers=null"),
    "regularizers without target": ("tokenizer.regularizers={mcr: {weight: 0.1}}",),
    "regularizers of weight 0": ("tokenizer.regularizers={ssr: {weight: 0}, scr: {weight: 0}}",),
    "regularizers under other labels": ("tokenizer.regularizers={a: {use: vf, weight: 0.1}}",),
    "noise": ("tokenizer.noise=0.2",),
    "lpips": ("tokenizer.reconstruction.lpips={weight: 1, weights: none}",),
    "lpips of a file": ("tokenizer.reconstruction.lpips={weight: 1, weights: FILES/one}",),
    "refinement, all set": (
        "tokenizer.refinement.centre=true",
        "tokenizer.refinement.upsampler=anyup",
        "tokenizer.refinement.anyup={checkout: nowhere, weights: FILES/one}",
        "tokenizer.refinement.low_pass_size=1.5",
        "tokenizer.refinement.spatial_norm=0.5",
    ),
    "finetune": ("tokenizer.modulator={use: finetune}",),
    "no modulator, gaussian": (
        "tokenizer.modulator={use: none}",
        "tokenizer.bottleneck={use: gaussian, channels: 4}",
        "tokenizer.regularizers={kl: {weight: 1e-4}}",
    ),
    "modulator, all set": (
        "tokenizer.modulator={use: dam, depth: 2, heads: 4, mlp_ratio: 2, cross: false, "
        "fusion: add}",
    ),
    "identity": (
        "tokenizer.bottleneck={use: identity, statistics_images: 200}",
        "tokenizer.regularizers=null",
        "tokenizer.refinement=null",
    ),
    "pretrained encoder": (
        "data.image_size=224",
        "tokenizer.encoder={use: dinov2, weights: FILES/one}",
        "tokenizer.decoder.patch=16",
        "tokenizer.reconstruction.perceptual.weight=0",
    ),
    "tokenizer of a file": ("tokenizer.weights=FILES/one",),
    "tokenizer of another file": ("tokenizer.weights=FILES/two",),
    "generator of a file": ("generator.weights=FILES/one", "sample.at_steps=[]"),
    "latents of a folder": ("latents.folder=FILES/latents",),
    "statistics of a file": (
        "generator.weights=FILES/one",
        "sample.at_steps=[]",
        "latents.statistics=FILES/two",
    ),
    "latents, all set": ("latents={shard_size: 500, dtype: bfloat16}",),
    "generator, objective": ("generator.objective={time: {shift_base: 4096}, label_drop: 0.2}",),
    "no generator": (
        "generator=null",
        "sample=null",
        "evaluate={reconstruction: {}}",
    ),
    "autoguidance": ("sample.guidance.autoguidance=FILES/run",),
    "sampling, all set": (
        "sample={count: 9, solver: sde_heun, steps: 7, shift: 0.5, seed: 3, labels: uniform, "
        "sde: {diffusion: linear, last_step: euler}, guidance: {scale: 2, channels: first_three, "
        "interval: [0.1, 0.9]}}",
    ),
    "no extractor": ("extractor=null", "evaluate=null"),
    "test images": ("data.test_images=60",),
    "flip": ("data.flip=true",),
    "damaged images": ("data.max_damaged=3",),
    "image folder": (
        "data.train={use: image_folder, folder: nowhere, split: train, images: 10, classes: 2, "
        "background: stored}",
        "evaluate.manifold.ssc=false",
    ),
    "image folder, counts not set": (
        "data.train={use: image_folder, folder: nowhere, split: train, background: stored}",
        "evaluate.manifold.ssc=false",
    ),
    "shapes": ("data.train={use: shapes, count: 64}", "data.test={use: shapes, split: test}"),
    "seed": ("seed=5",),
    "own seeds": ("tokenizer.train.seed=5", "generator.train.seed=6"),
    "training, all set": (
        "tokenizer.train={epochs: 2, batch_size: 8, accumulate: 2, lr: 1e-4, betas: [0.8, 0.9], "
        "weight_decay: 0.1, schedule: constant, clip: null, lr_factors: {decoder: 0.5}, "
        "precision: bf16, keep_steps: [3]}",
    ),
    "dit_dh": (
        "generator={use: dit_dh, preset: S, patch: 1, train: {steps: 5}}",
        "sample.at_steps=[]",
    ),
    "description": ("description=another one",),
}
"""Overrides of quickstart that cover each branch of a fingerprint.

``FILES`` stands for the folder of :func:`small_files`.
"""

COMMANDS: dict[str, list[str]] = {
    "run a": ["run", str(HERE / "chain_a.yaml"), "--run-dir", "a"],
    "run b": ["run", str(HERE / "chain_b.yaml"), "--run-dir", "b"],
    "run c": ["run", str(HERE / "chain_c.yaml"), "--run-dir", "c"],
    "sample": ["sample", "a", "--count", "2", "--npz"],
    "reconstruct": ["reconstruct", "a", "--count", "2"],
    "status": ["status", "a", "--json"],
    "check": ["check", "quickstart", "--json"],
    "check with missing data": ["check", "dinov2_full", "--json"],
    "fetch": ["fetch", "dinov2_full", "--dry-run", "--json"],
    "fetch of small models": ["fetch", "quickstart", "--dry-run", "--json"],
    "list-plugins": ["list-plugins", "--json"],
    "list-recipes": ["list-recipes", "--json"],
    "show-plugin": ["show-plugin", "discriminator:patchgan", "--json"],
    "dry run": ["run", "quickstart", "--dry-run", "--json"],
    "dry run of a finished run": [
        *("run", str(HERE / "chain_a.yaml"), "--run-dir", "a"),
        *("--dry-run", "--json"),
    ],
    "dry run of a sweep": ["run", SWEEP, "--dry-run", "--json"],
}
"""All run in one process, in this order."""


class Chains(NamedTuple):
    """The folder in which COMMANDS ran, and the answer of each."""

    folder: Path
    answers: dict[str, dict[str, Any]]

    def json(self, command: str) -> Any:
        """The output of a command, parsed."""
        return json.loads(self.answers[command]["out"])

    def runs(self) -> Iterator[tuple[str, Path]]:
        """Names and folders of the finished runs."""
        return ((name, self.folder / name) for name in "abc")


def finished_chains(folder: Path) -> Chains:
    """Run all of COMMANDS in a folder."""
    answers = run_commands(folder, *COMMANDS.values())
    return Chains(folder, dict(zip(COMMANDS, answers, strict=True)))


def run_commands(folder: Path, *commands: list[str]) -> list[dict[str, Any]]:
    """Run ``pae`` commands in a new process, without a GPU or cached weights; see the script."""
    commands_file, answers_file = folder / "commands.json", folder / "answers.json"
    commands_file.write_text(json.dumps(commands), encoding="utf-8")
    script = [sys.executable, str(HERE / "run_commands.py"), str(commands_file), str(answers_file)]
    caches = {name: str(folder / "no_cache") for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")}
    env = {**os.environ, **caches, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        script, cwd=folder, env=env, capture_output=True, text=True, timeout=560
    )
    assert process.returncode == 0, process.stderr
    answers: list[dict[str, Any]] = json.loads(answers_file.read_text(encoding="utf-8"))
    assert not any(answer["code"] for answer in answers), process.stderr
    return answers


def small_files(folder: Path) -> Path:
    """Write files of known contents, for recipes that name files."""
    for name in ("one", "two", "latents/latents_rank00_shard000.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"contents of {name}", encoding="utf-8")
    (folder / "latents" / "latents_stats.pt").write_text("statistics", encoding="utf-8")
    weights = folder / "run" / "generator" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("a weak generator", encoding="utf-8")
    return folder


def stages(recipe: str, *overrides: str) -> dict[str, str]:
    """Fingerprints of a recipe, by stage."""
    registry = load_registry()
    loaded = load_recipe(recipe, overrides, registry)
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, registry)}


def shipped_fingerprints() -> dict[str, Any]:
    """Fingerprints of every shipped recipe."""
    return {recipe: stages(recipe) for recipe in RECIPES}


def variant_fingerprints(files: Path) -> dict[str, Any]:
    """Fingerprints of quickstart with each of VARIANTS."""
    return {
        name: stages("quickstart", *(item.replace("FILES", str(files)) for item in overrides))
        for name, overrides in VARIANTS.items()
    }


def member_fingerprints(chains: Chains) -> dict[str, Any]:
    """Folder names, which end in fingerprints, of every member of the shipped sweep."""
    members = chains.json("dry run of a sweep")["members"]
    return {
        name: [stage["folder"] for stage in member["stages"]] for name, member in members.items()
    }


def seeds(chains: Chains) -> dict[str, Any]:
    """The parts that seed random numbers, by command; ``#`` stands for any number."""
    return {name: answer["seeds"] for name, answer in chains.answers.items() if answer["seeds"]}


def files(chains: Chains) -> dict[str, list[str]]:
    """Names of the files that a run writes; links with their targets.

    Without cached features, whose files are named by pixels, which machines round differently.
    """
    return {name: sorted(_files(run)) for name, run in chains.runs()}


def _files(run: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(run):
        folders[:] = [name for name in folders if name != EXTRACTED]
        for path in (Path(parent, name) for name in folders + names):
            if path.is_symlink():
                yield _masked(f"{path.relative_to(run)} -> {path.readlink()}")
            elif path.is_file():
                yield _masked(str(path.relative_to(run)))


def _masked(text: str) -> str:
    """A path with fingerprints, and the machine in names of TensorBoard files, replaced."""
    return re.sub(r"(?<=tfevents\.).*", "*", re.sub(r"-[0-9a-f]{12}\b", "-HASH", text))


def tensors(chains: Chains) -> dict[str, Any]:
    """Name, shape and type of every array of a run; of checkpoints only the last of each stage."""
    return {
        f"{name}/{path.relative_to(run)}": _arrays(path)
        for name, run in chains.runs()
        for stage in sorted(path for path in run.iterdir() if path.is_symlink() and path.is_dir())
        for path in sorted(stage.rglob("*"))
        if path.suffix in (".safetensors", ".npz", ".pt") and _last_checkpoint(path)
    }


def _last_checkpoint(path: Path) -> bool:
    """Whether a file is in the last checkpoint of its stage, or outside of checkpoints."""
    folder = path.parent
    return folder.parent.name != "checkpoints" or folder == max(folder.parent.glob("step-*"))


def _arrays(path: Path) -> dict[str, str]:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: f"{arrays[name].dtype} {[*arrays[name].shape]}" for name in arrays}
    if path.suffix == ".pt":
        tensors = torch.load(path, weights_only=True)
        return {name: f"{value.dtype} {[*value.shape]}" for name, value in tensors.items()}
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {name: f"{part.get_dtype()} {part.get_shape()}" for name, part in slices.items()}


def records(chains: Chains) -> dict[str, Any]:
    """Keys, types and frozen words of a run's JSON files, and the columns of its logs."""
    collected: dict[str, Any] = {}
    for name, run in chains.runs():
        for path in sorted(run.rglob("*")):
            key = _masked(f"{name}/{path.relative_to(run)}")
            if path.name == "environment.json":
                collected[key] = sorted(json.loads(path.read_text(encoding="utf-8")))
            elif path.name == "results.json":
                metrics = json.loads(path.read_text(encoding="utf-8"))
                collected[key] = [[metric["name"], shape(metric)] for metric in metrics]
            elif path.name == "stage.json":
                record = json.loads(path.read_text(encoding="utf-8"))
                software = [sorted(entry) for entry in record.pop("ran_with")]
                hashed = sorted(record.pop("hashed"))
                collected[key] = {**shape(record), "ran_with": software, "hashed": hashed}
            elif path.suffix == ".json":
                collected[key] = shape(json.loads(path.read_text(encoding="utf-8")))
            elif path.name == "metrics.jsonl":
                lines = path.read_text(encoding="utf-8").splitlines()
                collected[key] = sorted({column for line in lines for column in json.loads(line)})
    return collected


def answers(chains: Chains) -> dict[str, Any]:
    """Keys, types and frozen words of every ``--json`` output."""
    return {name: shape(chains.json(name)) for name, words in COMMANDS.items() if "--json" in words}


def components(chains: Chains) -> list[list[str]]:
    """Every built-in component. The plugin that registers it may change."""
    return sorted(
        [row["kind"], row["name"], row["distribution"]]
        for row in chains.json("list-plugins")["components"]
        if row["distribution"] == "pae-framework"
    )


def losses(chains: Chains) -> dict[str, Any]:
    """The first three records of every log, without the columns that depend on the machine."""
    return {
        f"{name}/{path.parent.name.rpartition('-')[0]}": [
            {key: value for key, value in json.loads(line).items() if key not in SPEED}
            for line in path.read_text(encoding="utf-8").splitlines()[:3]
        ]
        for name, run in chains.runs()
        for path in sorted((run / "stages").glob("*/metrics.jsonl"))
    }


def shape(value: Any, key: str = "") -> Any:
    """Keys and types of JSON, and ``=word`` under the keys in VALUES, unless it is a file's path.

    Of a list, each different shape of its items once.
    """
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [json.loads(text) for text in sorted({json.dumps(shape(item)) for item in value})]
    if isinstance(value, str) and key in VALUES and "/" not in value:
        return f"={value}"
    return type(value).__name__


OF_CHAINS: dict[str, Callable[[Chains], Any]] = {
    "members": member_fingerprints,
    "seeds": seeds,
    "files": files,
    "tensors": tensors,
    "records": records,
    "answers": answers,
    "components": components,
    "losses": losses,
}
"""Functions that collect from the finished chains, by the name of the frozen file."""


def frozen(name: str) -> Any:
    """The content of a frozen file."""
    return json.loads((HERE / "frozen" / f"{name}.json").read_text(encoding="utf-8"))
