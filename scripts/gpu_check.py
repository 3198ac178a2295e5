"""``python scripts/gpu_check.py``: every check that needs a GPU, in a few minutes, as a table.

Exit codes: 0 all checks passed, or there is no CUDA device; 1 a check failed; 3 there is no CUDA
device and --require was given. A check takes a device and returns what it measured, or raises.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pae_framework.config import LatentShape
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, own_store
from pae_framework.distributed.place import Place
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.flow.matching import flow_loss
from pae_framework.launch.launcher import choose_launcher
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.seeding import generator
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json
from pae_framework.testing.modules import as_if_trained
from pae_framework.training.metrics_log import read_log
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.train_settings import TrainSettings

STEPS = 8
FULL = ("siglip2_full", "dinov2_full", "dinov3_full", "mae_full")
TRAINED = "extractor tokenizer.encoder tokenizer.refinement tokenizer generator"


class SkippedError(Exception):
    """A package that the check needs is not installed."""


def pipeline(device: torch.device) -> str:
    """The quickstart, a few steps per stage: float32 and bf16 agree, and metrics are finite."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run_pipeline(device, precision, Path(folder)) for precision in ("float32", "bf16")]
        found = []
        for stage in ("tokenizer", "generator"):
            logs = [read_log(run / stage / "metrics.jsonl") for run in runs]
            exact, rough = (torch.tensor([record["loss"] for record in log]) for log in logs)
            assert len(exact) == STEPS, f"{stage}: {len(exact)} steps were logged"
            apart = (rough / exact - 1).abs().max().item()
            assert apart < 0.05, f"{stage}: float32 {exact.tolist()}, bf16 {rough.tolist()}"
            found.append(f"{stage} losses differ by {apart:.2%}")
        values = [m["value"] for run in runs for m in read_json(run / "evaluate/results.json")]
        assert all(map(math.isfinite, values)), f"metrics: {values}"
        assert all((run / "report.html").is_file() for run in runs), "no report was written"
    return f"{', '.join(found)}; {len(values)} finite metrics"


def _run_pipeline(device: torch.device, precision: str, folder: Path) -> Path:
    """The run directory; both precisions share the stages before the tokenizer."""
    overrides = [f"runtime.device={device.type}", "data.test_images=60", "sample.count=20"]
    overrides += ["sample.at_steps=[4]", "generator.train.keep_steps=[4]", "sample.steps=4"]
    overrides += [f"{part}.train.precision={precision}" for part in ("tokenizer", "generator")]
    for part in TRAINED.split():
        overrides += _short(part)
    directory = RunDirectory.at(folder / precision, folder / "stages")
    loaded = load_recipe("quickstart", overrides, load_registry())
    choose_launcher(PlainConsole(quiet=True)).run(loaded, directory, "gpu_check")
    return directory.path


def processes(device: torch.device) -> str:
    """Two processes train as one does, with copies of the network (DDP) and sharded (FSDP2)."""
    if device.type == "cuda":
        _open_group(device)
        if (gpus := torch.cuda.device_count()) < 2:
            raise SkippedError(f"two GPUs are needed, {gpus} found; a group of one process works")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        exact = _losses_of_processes(device, Path(folder) / "one", "1", "ddp")
        for parallel in ("ddp", "fsdp"):
            losses = _losses_of_processes(device, Path(folder) / parallel, "2", parallel)
            apart = max((losses[s] / exact[s] - 1).abs().max().item() for s in exact)
            assert apart < 1e-2, f"{parallel}: {losses}, one process: {exact}"
            found.append(f"{parallel} {apart:.1e}")
    return f"losses differ from one process' by {', '.join(found)}"


def _short(part: str) -> list[str]:
    """Overrides for a short training of a part, with a line of the log for each step."""
    settings = {"steps": STEPS, "log_every": 1, "warmup_steps": 0}
    return [f"{part}.train.{key}={value}" for key, value in settings.items()]


def _open_group(device: torch.device) -> None:
    """Reduce on the device and on the CPU in a process group of one process."""
    world = GroupWorld(Place(0, 1, 0, 1), Link(own_store(), 0, 1))
    world.open(device, print)
    summed = world.sum(torch.ones(3, device=device))
    assert summed.tolist() == [1, 1, 1], summed
    assert world.any(True)
    assert not world.any(False)
    world.close()


def _losses_of_processes(
    device: torch.device, run: Path, count: str, parallel: str
) -> dict[str, Tensor]:
    """Losses of the steps of each training stage, by stage."""
    overrides = [
        *(f"runtime.device={device.type}", "data.test_images=60", "sample.count=20"),
        *("sample.at_steps=[]", "generator.train.keep_steps=[]", "sample.steps=4"),
        f"generator.train.parallel={parallel}",
    ]
    for part in TRAINED.split():
        overrides += _short(part)
    loaded = load_recipe("quickstart", overrides, load_registry())
    run_recipe(loaded, RunOptions(run, processes=count), PlainConsole(quiet=True))
    stages = ("extractor", "encoder", "refine", "tokenizer", "generator")
    return {
        stage: torch.tensor([record["loss"] for record in read_log(run / stage / "metrics.jsonl")])
        for stage in stages
    }


def compiled(device: torch.device) -> str:
    """torch.compile of LightningDiT's forward pass in bf16: as close to float32 as eager is."""
    model = as_if_trained(_lightningdit()).to(device).eval()
    given = [x.to(device) for x in _inputs(model.latent, 8)]
    with torch.no_grad():
        exact = model(*given)
        with torch.autocast(device.type, torch.bfloat16):
            eager, fast = model(*given), torch.compile(model)(*given)
    rounding, error = _difference(eager, exact), _difference(fast, exact)
    assert error < rounding + 1e-3, f"from float32: compiled {error:.1e}, eager {rounding:.1e}"
    return (
        f"from eager {_difference(fast, eager):.1e}; from float32 {error:.1e}, eager {rounding:.1e}"
    )


def fused_adamw(device: torch.device) -> str:
    """Fused AdamW on the device takes the same steps as on the CPU."""
    models = [_lightningdit(), _lightningdit().to(device)]
    optimizers = [build_optimizer(model, TrainSettings(steps=1)) for model in models]
    fused = optimizers[1].defaults["fused"]
    assert fused, f"not fused on {device}"
    for step in range(5):
        for optimizer in optimizers:
            rng = generator(0, "gradients", step)
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                parameter.grad = torch.randn(parameter.shape, generator=rng).to(parameter.device)
            optimizer.step()
    pairs = zip(*(model.parameters() for model in models), strict=True)
    apart = max((a - b.cpu()).abs().max().item() for a, b in pairs)
    assert apart < 1e-5, f"weights differ by {apart:.1e} after 5 steps"
    return f"fused: {fused}; weights differ by at most {apart:.1e} after 5 steps"


def speed(device: torch.device, preset: str = "XL/1", batch: int = 64, matrix: int = 8192) -> str:
    """A training step of LightningDiT-XL/1 in bf16, compared with the GPU's own matmul rate."""
    model = _lightningdit(channels=32, side=16, preset=preset).to(device)
    optimizer = build_optimizer(model, TrainSettings(steps=1))

    def step() -> Tensor:
        x1, _, labels = (x.to(device) for x in _inputs(model.latent, batch))
        with torch.autocast(device.type, torch.bfloat16):
            loss = flow_loss(model, x1, labels, FlowSettings(), generator(0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    with FlopCounterMode(display=False) as counter:
        assert step().isfinite(), "the loss is not finite"
    flops, seconds = counter.get_total_flops(), _seconds(step)
    square = torch.randn(matrix, matrix, device=device).bfloat16()
    rate = 2 * matrix**3 / _seconds(lambda: square @ square)
    return (
        f"batch {batch}: {seconds:.3f} s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, "
        f"{flops / seconds / rate:.0%} of the {rate / 1e12:.2f} TFLOP/s of a large matmul"
    )


def tokenizers(
    device: torch.device, recipes: Sequence[str] = FULL, steps: int = 30, smoke: bool = False
) -> str:
    """Training steps of the full-size tokenizers in bf16, random weights, eager and compiled."""
    found = []
    for recipe, compile in itertools.product(recipes, (False, True)):
        with tempfile.TemporaryDirectory() as folder:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            run = _run_tokenizer(device, recipe, compile, steps, smoke, Path(folder))
            *_, last = read_log(run / "tokenizer" / "metrics.jsonl")
        assert math.isfinite(last["loss"]), f"{recipe}: the loss is {last['loss']}"
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        way = "compiled" if compile else "eager"
        found.append(f"{recipe} {way} {last['images_per_s']:.0f} images/s, {memory:.1f} GiB")
    return "; ".join(found)


def _run_tokenizer(
    device: torch.device, recipe: str, compile: bool, steps: int, smoke: bool, folder: Path
) -> Path:
    """The directory of a run up to the tokenizer; its last log entry is after warm-up."""
    train = f"steps: {steps}, batch_size: 32, log_every: 10, precision: bf16, compile: {compile}"
    overrides = [
        f"runtime.device={device.type}",
        "data.train={use: shapes, count: 64}",
        "tokenizer.encoder.weights=none",
        "tokenizer.reconstruction.lpips.weights=none",
        "tokenizer.adversarial.discriminator.weights=none",
        "tokenizer.adversarial.update_from={steps: 0}",
        "tokenizer.adversarial.start={steps: 0}",
        "tokenizer.refinement.train={steps: 1, batch_size: 32}",
        f"tokenizer.train={{{train.lower()}}}",
    ]
    loaded = load_recipe(recipe, overrides, load_registry())
    if smoke:
        loaded = smoke_recipe(loaded)
    directory = RunDirectory.at(folder / "run")
    choose_launcher(PlainConsole(quiet=True)).run(loaded, directory, "gpu_check", until="tokenizer")
    return directory.path


def xformers(device: torch.device) -> str:
    """xformers' attention equals PyTorch's, in bf16."""
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError:
        raise SkippedError("xformers is not installed") from None
    q, k, v = torch.randn(3, 4, 256, 16, 72, generator=generator(0)).to(device, torch.bfloat16)
    ours = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    apart = _difference(memory_efficient_attention(q, k, v), ours)
    assert apart < 1e-2, f"outputs differ by {apart:.1e}"
    return f"outputs differ by {apart:.1e} on {tuple(q.shape)}"


def _lightningdit(channels: int = 8, side: int = 8, **size: Any) -> Any:
    torch.manual_seed(0)
    spec = load_registry().find("generator", "lightningdit")
    size = size or {"depth": 2, "width": 128, "heads": 4, "patch": 1}
    return spec.component_class()(spec.config_class()(**size), LatentShape(channels, side), 10)


def _inputs(latent: LatentShape, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, C, h, w), times (B,) and labels (B,)."""
    rng = generator(0, "inputs")
    x = torch.randn(count, latent.channels, latent.side, latent.side, generator=rng)
    return x, torch.rand(count, generator=rng), torch.randint(10, (count,), generator=rng)


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def _seconds(work: Callable[[], Tensor], repeats: int = 10) -> float:
    """Seconds per call, after a warm-up."""
    for count in (2, repeats):
        start = time.perf_counter()
        for _ in range(count):
            result = work()
        result.sum().item()  # waits for the device
    return (time.perf_counter() - start) / repeats


CHECKS = {
    check.__name__: check
    for check in (pipeline, processes, compiled, fused_adamw, speed, tokenizers, xformers)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and return the exit code."""
    parser = argparse.ArgumentParser(description="Run every check that needs a GPU.")
    parser.add_argument("--require", action="store_true", help="fail if there is no CUDA device")
    required, device = parser.parse_args(arguments).require, torch.device("cuda")
    if not torch.cuda.is_available():
        print("No CUDA device; nothing was checked.")
        return 3 if required else 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    failed = 0
    for name, check in CHECKS.items():
        start = time.perf_counter()
        try:
            result, detail = "ok", check(device)
        except SkippedError as reason:
            result, detail = "skipped", str(reason)
        except Exception as error:
            failed, result, detail = 1, "FAILED", f"{type(error).__name__}: {error}"
        print(f"{name:<12} {result:<8} {time.perf_counter() - start:6.1f} s  {detail}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
