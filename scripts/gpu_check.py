"""``python scripts/gpu_check.py``: what needs a GPU, in a few minutes: checks, then measurements.

A check takes a device and returns what it found, or raises. The measurements are the rows of
benchmarks/card.py: each is printed with its ten costliest kernels, then all as a table with their
ratios to an earlier version and to the goal.

Exit codes: 0 all checks passed, or there is no CUDA device; 1 a check failed; 3 there is no CUDA
device and --require was given.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks/, which is not installed

from benchmarks import card
from pae_framework.config import LatentShape
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, own_store
from pae_framework.distributed.place import Place
from pae_framework.dry_run.rates import CardRates, rates_text, read_rates
from pae_framework.launch.launcher import choose_launcher
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.layers import attention_kernel
from pae_framework.metrics_file import read_log
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.seeding import generator
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json, write_text
from pae_framework.testing.modules import as_if_trained
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.train_settings import TrainSettings

STEPS = 8
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


def xformers(device: torch.device) -> str:
    """xformers' attention equals PyTorch's, in bf16."""
    kernel = _xformers()
    q, k, v = torch.randn(3, 4, 256, 16, 72, generator=generator(0)).to(device, torch.bfloat16)
    apart = _difference(kernel(q, k, v), attention_kernel("sdpa")(q, k, v))
    assert apart < 1e-2, f"outputs differ by {apart:.1e}"
    return f"outputs differ by {apart:.1e} on {tuple(q.shape)}"


def _xformers() -> Callable[..., Tensor]:
    try:
        kernel: Callable[..., Tensor] = import_module("xformers.ops").memory_efficient_attention
    except ImportError:
        raise SkippedError("xformers is not installed") from None
    return kernel


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


CHECKS = {check.__name__: check for check in (pipeline, processes, compiled, fused_adamw, xformers)}


# --- the table ------------------------------------------------------------------------------------

HEADINGS = ("", "now", "earlier", "ratio", "goal", "ratio", "of matmul", "GiB")


def measure(
    device: torch.device, size: card.Size, rows: Iterable[str]
) -> tuple[list[card.Row], int]:
    """Measure rows of the table, print each with its costliest kernels; also 1 if one failed."""
    rate, failed = card.matmul_rate(device, size.matrix), 0
    found: list[card.Row] = []
    print(f"\nA large product in bf16: {rate / 1e12:.4g} TFLOP/s. Earlier and goal: on one H100.")
    for name in rows:
        start = time.perf_counter()
        try:
            own = list(card.ROWS[name](device, size))
        except Exception as error:
            failed = 1
            print(f"\n{name}: FAILED  {type(error).__name__}: {error}", flush=True)
            continue
        seconds = time.perf_counter() - start
        found += own
        for row in own:
            print(f"\n{row.name}: {row.value:.4g}  (measured in {seconds:.0f} s)", flush=True)
            for kernel, milliseconds in row.kernels:
                print(f"  {milliseconds:9.3f} ms  {kernel[:80]}")
    print(f"\n{table(found, rate)}")
    return found, failed


def table(rows: Iterable[card.Row], rate: float) -> str:
    """The rows as a table in Markdown; ratios above 1 are better than the other figure."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in rows:
        earlier = "not measured" if row.earlier is None else f"{row.earlier:g}"
        lines.append(
            (
                row.name,
                f"{row.value:.4g}",
                earlier,
                "" if row.of_earlier is None else f"{row.of_earlier:.2f}",
                f"{row.goal:g}",
                f"{row.of_goal:.2f}",
                "" if row.flops is None else f"{row.value * row.flops / rate:.0%}",
                f"{row.memory:.1f}" if row.memory else "",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare_attention(device: torch.device, batch: int) -> None:
    """Print how long PyTorch's and xformers' attention take at two head widths."""
    kernels: dict[str, Callable[..., Tensor]] = {"sdpa": attention_kernel("sdpa")}
    try:
        kernels["xformers"] = _xformers()
    except SkippedError as reason:
        print(f"\n{reason}: only PyTorch's attention is measured")
    lines = [("attention, bf16", "forward, ms", "with backward, ms"), ("---",) * 3]
    for width, name, forward, both in card.attention(device, kernels, batch):
        lines.append((f"{name}, head width {width}", f"{forward:.3f}", f"{both:.3f}"))
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


def write_rates(path: Path, name: str, rows: Iterable[card.Row]) -> None:
    """Add the achieved rates of a device to a file that ``--dry-run`` reads.

    Of several rows of one kind, the fastest counts. Rates that were not measured now are kept.
    """
    cards = read_rates(path)
    rates = cards[name].flops_per_second if name in cards else {}
    measured: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.flops is not None and row.rate is not None:
            measured[row.rate] = max(measured.get(row.rate, 0.0), row.value * row.flops)
    for (stage, arithmetic), rate in measured.items():
        rates.setdefault(stage, {})[arithmetic] = float(f"{rate:.3g}")
    today = datetime.now(tz=UTC).date().isoformat()
    cards[name] = CardRates(measured=today, torch=torch.__version__, flops_per_second=rates)
    write_text(path, rates_text(cards))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, measure the table, and return the exit code."""
    parser = argparse.ArgumentParser(description="Run every check that needs a GPU.")
    parser.add_argument("--require", action="store_true", help="fail if there is no CUDA device")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*CHECKS, *card.ROWS, "attention"],
        help="checks and rows to run; default: all",
    )
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="FILE",
        help="add the achieved rates to FILE; `pae run --dry-run` reads "
        "pae_framework/dry_run/rates.json",
    )
    parser.add_argument(
        "--cpu", action="store_true", help="run the same code in small sizes on the CPU"
    )
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not given.cpu:
        print("No CUDA device; nothing was checked.")
        return 3 if given.require else 0
    device = torch.device("cpu" if given.cpu else "cuda")
    size = card.SMALL if given.cpu else card.FULL
    name = "CPU" if given.cpu else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}")
    chosen = given.only or [*CHECKS, *card.ROWS, "attention"]
    failed = run_checks(device, [name for name in CHECKS if name in chosen])
    rows, row_failed = [], 0
    if names := [name for name in card.ROWS if name in chosen]:
        rows, row_failed = measure(device, size, names)
    if "attention" in chosen:
        compare_attention(device, size.batches[0])
    if given.rates:
        write_rates(given.rates, name, rows)
    return failed or row_failed


def run_checks(device: torch.device, names: Iterable[str]) -> int:
    """Run checks and print their results; 1 if one failed."""
    failed = 0
    for name in names:
        start = time.perf_counter()
        try:
            result, detail = "ok", CHECKS[name](device)
        except SkippedError as reason:
            result, detail = "skipped", str(reason)
        except Exception as error:
            failed, result, detail = 1, "FAILED", f"{type(error).__name__}: {error}"
        print(f"{name:<12} {result:<8} {time.perf_counter() - start:6.1f} s  {detail}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
