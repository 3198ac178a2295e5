"""Rates of one device in the work that a full-size run consists of.

Each row has a figure of an earlier version on one H100 (docs/performance.md), a goal, and the
kernels that take most of the device's time. :data:`FULL` is for a GPU; :data:`SMALL` runs the same
code on a CPU in seconds, where the figures say nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.latents import shards_of_jpegs, stage_and_parts
from benchmarks.subject import Subject
from benchmarks.timing import in_turn
from pae_framework.build import build_encoder, build_networks, build_tokenizer
from pae_framework.contracts import Batch
from pae_framework.dry_run.flops import count_forward, per_image
from pae_framework.errors import StoppedError
from pae_framework.flow.flow_settings import FlowSettings, Guidance, SampleSettings
from pae_framework.flow.matching import FlowObjective
from pae_framework.flow.sampling import planned_evaluations, sample_latents
from pae_framework.launch.launcher import choose_launcher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.sampling.sampler import cast_for_sampling
from pae_framework.system.console import PlainConsole
from pae_framework.system.cores import usable_cores
from pae_framework.tokenizer.frozen_types import cast_for_encoding
from pae_framework.training.blocks import compile_blocks
from pae_framework.training.loop import train
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext, TrainTask
from pae_framework.training.train_settings import TrainSettings

STEPS = 10**6
"""Length that a measured training believes to have; it is stopped long before."""
AFTER_SAVING = 4
"""Steps after a checkpoint in which the training may still wait for it."""
KERNELS = 10


@dataclass(frozen=True)
class Size:
    """What is measured, and for how long."""

    network: dict[str, Any]
    """Of the LightningDiT: see :class:`Subject`."""
    batches: tuple[int, int]
    recipe: str
    smoke: bool
    tokenizer_batch: int
    encoded: int
    files: int
    """JPEG files from which stage ``latents`` reads; ``file_side`` px each."""
    file_side: int
    evaluations: int
    matrix: int
    compile: bool
    warm_up: int
    timed: int


FULL = Size(
    network={"preset": "XL/1", "depth": 0, "width": 0, "heads": 0, "channels": 32, "side": 16},
    batches=(64, 128),
    recipe="siglip2_full",
    smoke=False,
    tokenizer_batch=32,
    encoded=128,
    files=1024,
    file_side=400,
    evaluations=24,
    matrix=8192,
    compile=True,
    warm_up=4,
    timed=10,
)
SMALL = replace(
    FULL,
    network={"preset": None, "depth": 2, "width": 64, "heads": 2, "channels": 4, "side": 4},
    batches=(2, 4),
    recipe="mae_full",
    smoke=True,
    tokenizer_batch=2,
    encoded=2,
    files=8,
    file_side=96,
    evaluations=4,
    matrix=64,
    compile=False,
    warm_up=1,
    timed=2,
)


@dataclass
class Measured:
    """Seconds of one repetition, what a checkpoint cost, and the costliest kernels."""

    seconds: float = 0.0
    waited: float = 0.0
    kernels: list[tuple[str, float]] = field(default_factory=list)
    """Names, and milliseconds per repetition."""


@dataclass(frozen=True)
class Row:
    """One row of the table: images per second; if ``flops`` is None, a time.

    Attributes:
        name: what is measured.
        value: that.
        earlier: of an earlier version, on an H100; None: it was not measured.
        goal: of this version, on an H100.
        flops: per image, as the dry run counts them.
        rate: stage and arithmetic whose rate this is, for ``--dry-run``.
        kernels: see :class:`Measured`.
        memory: peak, in GiB; 0 if unknown.
    """

    name: str
    value: float
    earlier: float | None
    goal: float
    flops: float | None = None
    rate: tuple[str, str] | None = None
    kernels: list[tuple[str, float]] = field(default_factory=list)
    memory: float = 0.0

    @property
    def of_goal(self) -> float:
        """At least 1 if the goal is reached."""
        return self._ratio(self.goal)

    @property
    def of_earlier(self) -> float | None:
        """Above 1 if this is better than the earlier version."""
        return None if self.earlier is None else self._ratio(self.earlier)

    def _ratio(self, other: float) -> float:
        return other / max(self.value, 1e-9) if self.flops is None else self.value / other


Rows = Callable[[torch.device, Size], Iterable[Row]]


def generator_small_batch(device: torch.device, size: Size) -> Iterator[Row]:
    """LightningDiT through the training loop, and what a checkpoint makes it wait."""
    batch, name = size.batches[0], size.network["preset"] or "small"
    found, memory = _generator(device, size, batch, checkpoint=True)
    flops, kind = 3 * forward_flops(size), ("generator", "bf16")
    title = f"LightningDiT {name} training, bf16, batch {batch}"
    speed = batch / found.seconds
    yield Row(title, speed, 444, 600, flops, kind, found.kernels, memory)
    yield Row("waiting for a checkpoint of it, s", found.waited, 28, 3)


def generator_large_batch(device: torch.device, size: Size) -> Iterator[Row]:
    """LightningDiT through the training loop, in batches twice as large."""
    batch = size.batches[1]
    found, memory = _generator(device, size, batch, checkpoint=False)
    flops, kind = 3 * forward_flops(size), ("generator", "bf16")
    title, speed = f"the same, batch {batch}", batch / found.seconds
    yield Row(title, speed, 492, 650, flops, kind, found.kernels, memory)


def tokenizer(device: torch.device, size: Size) -> Iterator[Row]:
    """The tokenizer of a full-size recipe with all terms, random weights, eager."""
    batch, found = size.tokenizer_batch, Measured()

    def measured(task: TrainTask, settings: TrainSettings, total: int, context: Any) -> None:
        assert task.batches is not None
        batch = next(iter(task.batches(0, 1)))
        measure_training(found, task, settings, batch, context, size)
        raise StoppedError("measured")

    loaded = full_recipe(size, device, f"batch_size: {batch}, precision: bf16, noise: device")
    with (
        _memory(device) as memory,
        _folder() as folder,
        mock.patch("pae_framework.stages.tokenizer.train", measured),
        suppress(StoppedError),
    ):
        launcher = choose_launcher(PlainConsole(quiet=True))
        launcher.run(loaded, RunDirectory.at(folder / "run"), "gpu_check", until="tokenizer")
    flops, title = _recipe_flops(loaded)["tokenizer"], f"tokenizer of {size.recipe}, batch {batch}"
    kind = ("tokenizer", "bf16")
    yield Row(title, batch / found.seconds, 54, 160, flops, kind, found.kernels, memory[0])


def sampling(device: torch.device, size: Size) -> Iterator[Row]:
    """Latents of LightningDiT in bf16, guided from t = 0.25 on."""
    subject = _subject(device, size, size.batches[0])
    network = subject.network().requires_grad_(False).eval()
    cast_for_sampling(network)
    if size.compile:
        compile_blocks(network, dynamic=False)
    settings = SampleSettings(
        batch_size=subject.batch,
        steps=size.evaluations,
        shift=0.3,
        guidance=Guidance(scale=2.5, interval=(0.25, 1.0)),
        precision="bf16",
        compile=size.compile,
    )
    labels = torch.arange(subject.batch)
    with _memory(device) as memory:
        found = measure_calls(
            lambda: sample_latents(network, labels, labels, settings, 0, subject.latent), device, 2
        )
    planned = planned_evaluations(settings)
    assert planned is not None
    flops = (planned.total + planned.guided) * forward_flops(size)
    title = f"sampling in {size.evaluations} evaluations, bf16, batch {subject.batch}"
    kind = ("sample", "bf16")
    yield Row(title, subject.batch / found.seconds, 13.9, 40, flops, kind, found.kernels, memory[0])


def latents(device: torch.device, size: Size) -> Iterator[Row]:
    """Encoding by a full-size tokenizer in bf16, images on the device; then the whole stage."""
    loaded = full_recipe(size, device)
    section, side = loaded.recipe.tokenizer, loaded.recipe.data.image_size
    with device:
        encoder = build_encoder(section.encoder, side, loaded.registry)
        network = build_tokenizer(section, side, loaded.registry, encoder)
        still = torch.rand(size.encoded, 3, side, side)
    for module in (encoder, network):
        module.to(device).requires_grad_(False).eval()
    cast_for_encoding(network, side)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network.encode(images).latents

    with _memory(device) as memory:
        found = measure_calls(lambda: encode(still), device, size.timed)
    encodes = 2 if loaded.recipe.data.flip else 1
    flops = _recipe_flops(loaded)["latents"] / encodes
    title, kind = "encoding for latents, bf16", ("latents", "bf16")
    speed = size.encoded / found.seconds
    yield Row(title, speed, None, 1000, flops, kind, found.kernels, memory[0])
    yield _stage_latents(device, size, encode, side)


def _stage_latents(
    device: torch.device, size: Size, encode: Callable[[Tensor], Tensor], side: int
) -> Row:
    """The time of stage ``latents``, over that of what limits it."""
    workers = max(1, usable_cores() - 2)  # the others launch and write
    with _folder() as folder:
        shards = shards_of_jpegs(
            *(folder, encode, device, size.files, (size.file_side, side), size.encoded, workers)
        )
        loading, encoding, stage = in_turn(stage_and_parts(shards), 1, baselines=2)
    limit = max(loading, encoding, key=lambda timing: timing.seconds)
    speed = size.files / stage.seconds
    title = f"stage latents ({speed:.4g} images/s), time over that of {limit.name}"
    return Row(title, stage.ratio, None, 1.1)


ROWS: dict[str, Rows] = {
    row.__name__: row
    for row in (generator_small_batch, generator_large_batch, tokenizer, sampling, latents)
}


# --- measuring ------------------------------------------------------------------------------------


class Clock:
    """Called before each step of a training: times some steps, profiles two, then stops it.

    Raises:
        StoppedError: everything was measured.
    """

    def __init__(self, found: Measured, device: torch.device, size: Size, checkpoint: bool):
        self._found, self._device = found, device
        self._start = size.warm_up
        self._timed = self._start + size.timed
        self.profiled = self._timed + 2
        self._last = self.profiled + (1 + AFTER_SAVING if checkpoint else 0)
        self._profiler = _profiler(device)
        self._at: dict[int, float] = {}

    def __call__(self, step: int) -> None:
        """Note the time at the ends only: waiting in between would slow the training down."""
        if step not in (self._start, self._timed, self.profiled, self._last):
            return
        wait_for(self._device)
        self._at[step] = time.perf_counter()
        if step == self._timed:
            count = self._timed - self._start
            self._found.seconds = (self._at[step] - self._at[self._start]) / count
            self._profiler.start()
        if step == self.profiled:
            self._profiler.stop()
            self._found.kernels = costliest(self._profiler, self._device, 2)
            self._at[step] = time.perf_counter()
        if step == self._last:
            steps = self._last - self.profiled
            taken = self._at[step] - self._at[self.profiled]
            self._found.waited = max(0.0, taken - steps * self._found.seconds)
            raise StoppedError("measured")


def measure_training(
    found: Measured,
    task: TrainTask,
    settings: TrainSettings,
    batch: Batch,
    context: TrainContext,
    size: Size,
    checkpoint: bool = False,
) -> None:
    """Train on one batch in memory for some steps, and put what they took into ``found``."""
    clock, begin = Clock(found, context.device, size, checkpoint), task.begin_step

    def begin_step(step: int) -> None:
        if begin:
            begin(step)
        clock(step)

    if context.device.type == "cuda":
        batch = tuple(tensor.pin_memory() for tensor in batch)
    every = clock.profiled + 1 if checkpoint else STEPS
    changes = {"steps": STEPS, "epochs": None, "log_every": STEPS, "checkpoint_every": every}
    task = replace(
        task, batches=lambda start, stop: repeat(batch, stop - start), begin_step=begin_step
    )
    with suppress(StoppedError):
        train(task, settings.model_copy(update=changes), STEPS, context)


def measure_calls(work: Callable[[], object], device: torch.device, times: int) -> Measured:
    """Time some calls after one to warm up, then profile one."""
    work()
    wait_for(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    found = Measured((time.perf_counter() - start) / times)
    with _profiler(device) as profiler:
        work()
        wait_for(device)
    found.kernels = costliest(profiler, device, 1)
    return found


def costliest(profiler: Any, device: torch.device, repetitions: int) -> list[tuple[str, float]]:
    """The kernels that take most of the device's time: names, and milliseconds per repetition."""
    on_gpu = device.type == "cuda"
    times = [
        (event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total)
        for event in profiler.key_averages()
        if not on_gpu or event.device_type == DeviceType.CUDA
    ]
    times.sort(key=lambda entry: -entry[1])
    return [(name, microseconds / 1000 / repetitions) for name, microseconds in times[:KERNELS]]


def matmul_rate(device: torch.device, matrix: int) -> float:
    """FLOPs per second of a large product in bf16."""
    square = torch.randn(matrix, matrix, device=device).bfloat16()
    return 2 * matrix**3 / measure_calls(lambda: square @ square, device, 10).seconds


def attention(
    device: torch.device, kernels: dict[str, Callable[..., Tensor]], batch: int
) -> Iterator[tuple[int, str, float, float]]:
    """Head width, kernel, milliseconds forward, and forward and backward, in bf16.

    Args:
        device: of the tensors.
        kernels: map q, k, v (B, N, H, K) to (B, N, H, K), by name.
        batch: B; N is 256, H 16.
    """
    for width in (72, 64):
        packed = torch.randn(batch, 256, 3, 16, width, device=device, dtype=torch.bfloat16)
        packed.requires_grad_()
        for name, kernel in kernels.items():

            def forward(kernel: Callable[..., Tensor] = kernel, packed: Tensor = packed) -> Tensor:
                return kernel(*packed.unbind(2))

            def both(forward: Callable[[], Tensor] = forward, packed: Tensor = packed) -> None:
                out = forward()
                torch.autograd.grad(out, packed, torch.ones_like(out))

            one, two = (1000 * measure_calls(work, device, 10).seconds for work in (forward, both))
            yield width, name, one, two


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _profiler(device: torch.device) -> profile:
    on_gpu = device.type == "cuda"
    return profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])


# --- what is measured -----------------------------------------------------------------------------


def _generator(
    device: torch.device, size: Size, batch: int, checkpoint: bool
) -> tuple[Measured, float]:
    """What a training of LightningDiT takes, and its peak memory in GiB."""
    torch._dynamo.reset()  # else the second batch size would be compiled for any size
    subject, found = _subject(device, size, batch), Measured()
    changes = {"ema": 0.9999, "noise": "device", "compile": size.compile}
    settings = subject.settings(1, **changes)
    with _memory(device) as memory, _folder() as folder:
        network = subject.network()
        task = TrainTask(FlowObjective(network, FlowSettings()), saved=network)
        context = TrainContext(folder, device, "card", 0, _silent)
        measure_training(found, task, settings, subject.data(), context, size, checkpoint)
    return found, memory[0]


def _subject(device: torch.device, size: Size, batch: int) -> Subject:
    return Subject(device=device, batch=batch, bf16=True, **size.network)


def forward_flops(size: Size) -> float:
    """FLOPs of LightningDiT's forward pass for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    subject = _subject(torch.device("meta"), size, 1)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = subject.network()
        shape = (1, subject.channels, subject.side, subject.side)
        network(torch.empty(shape), torch.empty(1), torch.zeros(1, dtype=torch.long))
    return counter.get_total_flops()


def full_recipe(size: Size, device: torch.device, train: str = "batch_size: 2") -> LoadedRecipe:
    """A full-size recipe with random weights and generated images."""
    overrides = [
        f"runtime.device={device.type}",
        *("data.train={use: shapes, count: 64}", "extractor=null", "evaluate=null"),
        "tokenizer.encoder.weights=none",
        "tokenizer.reconstruction.lpips.weights=none",
        "tokenizer.adversarial.discriminator.weights=none",
        "tokenizer.adversarial.update_from={steps: 0}",
        "tokenizer.adversarial.start={steps: 0}",
        "tokenizer.refinement.train={steps: 1, batch_size: 1}",
        f"tokenizer.train={{steps: {STEPS}, {train}}}",
    ]
    loaded = load_recipe(size.recipe, overrides, load_registry())
    return smoke_recipe(loaded) if size.smoke else loaded


def _recipe_flops(loaded: LoadedRecipe) -> dict[str, float]:
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    return per_image(count_forward(networks, loaded.recipe), loaded.recipe)


@contextmanager
def _memory(device: torch.device) -> Iterator[list[float]]:
    """A list that afterwards holds the peak memory of the block on a GPU in GiB, else 0."""
    found = [0.0]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found[0] = torch.cuda.max_memory_allocated(device) / 2**30


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, in memory if there is room for two large checkpoints."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 14 * 2**30
    with tempfile.TemporaryDirectory(dir=memory if fits else None) as name:
        yield Path(name)


def _silent(total: int, done: int) -> ProgressLine:
    return ProgressLine("card", total, done, PlainConsole(quiet=True))
