"""The training loop: every stage that trains goes through :func:`train`.

Its only state is the number of steps done, with weights, averages, optimizers, the last losses and
the terms that are not in the log yet.
The data and the randomness of a step are functions of (seed, step), so a training that is killed
and resumed from a checkpoint ends with the same bits (the idea of EDM2's training loop).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.contracts import Batch, LossTerms
from pae_framework.errors import StoppedError, UsageError
from pae_framework.seeding import generator
from pae_framework.system.files import make_folder
from pae_framework.system.stopping import StopRequest
from pae_framework.tensor_files import save_tensors
from pae_framework.training.batch_norm import synchronize_batch_norm
from pae_framework.training.blocks import compile_blocks, recompute_blocks
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState
from pae_framework.training.divergence import DivergenceGuard
from pae_framework.training.ema import EMA, PowerEMA
from pae_framework.training.metrics_log import MetricAverages, MetricsLog
from pae_framework.training.optimizer import (
    NO_FACTORS,
    build_optimizer,
    freeze_parameters,
    learning_rate,
    set_learning_rate,
)
from pae_framework.training.parallel import ParallelModule, whole, whole_tensors
from pae_framework.training.saving import CheckpointSaver
from pae_framework.training.task import TrainContext, TrainTask
from pae_framework.training.to_device import ToDevice
from pae_framework.training.train_settings import (
    DISCRIMINATOR_PREFIX,
    NETWORK_COLUMNS,
    EmaSnapshots,
    OptimizerSettings,
    TrainSettings,
)
from pae_framework.world import ONE_PROCESS, World


def train(task: TrainTask, settings: TrainSettings, total: int, context: TrainContext) -> None:
    """Train for ``total`` optimizer steps, resuming from the newest checkpoint if there is one.

    Writes ``weights.safetensors`` into the folder: the task's saved module with its buffers, the
    EMA in place of its weights if there is one. Writes ``weights-stepNNNNNN.safetensors`` for each
    of ``settings.keep_steps``, and ``snapshots`` of the averages that ``settings.ema_snapshots``
    names. Afterwards the saved module holds the final weights, in eval mode.

    Raises:
        UsageError: a step to keep is beyond the last, ``lr_factors`` names no weights of the
            module, or the task's check fails; nothing was trained.
        RunError: a loss term, a gradient norm or a weight is not finite, or the loss jumps.
            Names it, the step and the last good checkpoint.
        WriteError: a file cannot be written. Names it and the last good checkpoint.
        StoppedError: the training was asked to stop; the last step has a checkpoint.
    """
    _check_keep_steps(settings, total)
    assert task.batches is not None
    world = context.world
    _check_micro_batches(settings, context)
    trainer = Trainer(task, settings, total, context)
    checkpoints = Checkpoints(context.directory / "checkpoints")
    state = trainer.state
    first = done = world.on_main(lambda: checkpoints.restore(state))
    if world.is_main:
        checkpoints.clear(first)
    elif first:
        checkpoints.restore(state, first)
    averages = MetricAverages(settings.batch_size, world)
    logged = first - len(state.window)
    snapshots = settings.ema_snapshots
    every = [settings.log_every, settings.checkpoint_every]
    every += [snapshots.every] if snapshots else []
    tell = context.metrics_logged
    log = MetricsLog(context.directory, first, logged, tell) if world.is_main else None
    saver = CheckpointSaver(checkpoints, state, context.device, world, log, context.update_record)
    guard = DivergenceGuard(state, settings.jump, saver.describe_newest, task.signed, world)
    try:
        with (
            context.progress(total, first) as progress,
            StopRequest("this step" if world.is_main else "") as stop,
            checkpoints.named_in_write_errors(),
            saver,
        ):
            batches = averages.timed(task.batches(first, total))
            for step, batch in enumerate(batches, start=first):
                averages.add(trainer.train_step(step, batch))
                done = step + 1
                saver.poll()
                stopping = world.any(stop.asked)  # read once: everything below must agree
                keeping = done in settings.keep_steps
                snapshot = snapshots is not None and snapshots.takes(done, total)
                planned = done % settings.checkpoint_every == 0 or done == total
                # A stop adds no line, so that the log is that of an undisturbed training.
                logging = done % settings.log_every == 0 or planned or keeping or snapshot
                if not logging and not stopping:
                    continue
                # Every step is checked, but only here: reading its terms waits for the device.
                # Nothing is saved before its steps are checked.
                for checked, terms in averages.fetch(done):
                    guard.check(checked, terms)
                    state.window.append(terms)
                note = ""
                if logging:
                    values = averages.summarize(state.window)
                    # A line of the last step only is none of a longer training that goes on.
                    if keeping or any(done % x == 0 for x in every):
                        state.window.clear()
                    note = averages.note(values)
                    if log:
                        log.write(done, values | trainer.learning_rates(step))
                saving = planned or stopping
                if saving or keeping or snapshot:
                    guard.check_weights(done)
                if keeping:
                    trainer.save_weights(f"weights-step{done:06d}")
                if snapshot:
                    trainer.save_snapshots(done)
                if saving:
                    saver.save(done)
                if world.is_main:
                    progress.update(done, note, record=saving)
                if stopping:
                    break
            saver.finish()
            if world.any(stop.asked):
                where = f"stopped at step {done} of {total}, checkpoint saved"
                raise StoppedError(where, stop.number)
    finally:
        if log:
            log.close()
    with checkpoints.named_in_write_errors():
        trainer.save_weights("weights")
    if trainer.ema:
        trainer.ema.replace_weights()
    task.module.eval()


@dataclass(frozen=True)
class TrainedNetwork(NetworkState):
    """A network with its optimizer and schedule.

    Its ``module(batch, generator)`` returns the loss terms of a micro-batch.

    Args:
        parallel: the module in all processes.
        settings: clipping and schedule.
        total: steps of the training.
        first_step: earlier steps do not train it; its schedule starts here.
        bf16: compute losses under autocast; weights keep their type.
        steps_per_epoch: for a schedule in epochs.
    """

    parallel: ParallelModule
    settings: OptimizerSettings
    total: int
    first_step: int = 0
    bf16: bool = False
    steps_per_epoch: float = 1.0

    def learning_rate(self, step: int) -> float:
        """Learning rate at ``step`` of the training (the first is 0), before ``lr_factors``."""
        own_step, own_total = step - self.first_step, self.total - self.first_step
        return learning_rate(own_step, own_total, self.settings, self.steps_per_epoch)


class Trainer:
    """The networks of a task, on the device, and the step that trains them.

    Attributes:
        state: what a checkpoint holds.
        saved: the module whose weights are averaged and saved.
        ema: its EMA; None without ``settings.ema``.
        profiles: its averages with snapshots.
    """

    def __init__(
        self, task: TrainTask, settings: TrainSettings, total: int, context: TrainContext
    ) -> None:
        self._task, self._context = task, context
        self._accumulate, self._images = settings.accumulate, settings.batch_size
        self._generator = partial(
            generator,
            context.seed,
            context.name,
            device=context.device if settings.noise == "device" else "cpu",
            rows=context.world.rows(settings.batch_size // settings.accumulate),
        )
        self._to_device = ToDevice(context.device)
        module = task.module.train().to(context.device)
        freeze_parameters(module, settings.lr_factors)
        if task.check:
            task.check()
        if settings.activation_checkpointing:
            recompute_blocks(module)
        if settings.compile:
            compile_blocks(module)
        self._network = _with_optimizer(task, settings, total, context, settings.lr_factors)
        self.saved = task.module if task.saved is None else task.saved
        self.ema = EMA(self.saved, settings.ema) if settings.ema else None
        lengths = settings.ema_snapshots.lengths if settings.ema_snapshots else ()
        self.profiles = [PowerEMA(self.saved, length) for length in lengths]
        networks: dict[str, NetworkState] = {"model": self._network}
        self._discriminator: TrainedNetwork | None = None
        if task.discriminator:
            task.discriminator.module.eval().to(context.device)
            self._discriminator = _with_optimizer(task.discriminator, settings, total, context)
            networks["opponent"] = self._discriminator
        profiles = {f"ema-{average.length!r}": average for average in self.profiles}
        self.state = TrainingState(networks, self.ema, profiles)

    def train_step(self, step: int, batch: Batch) -> LossTerms:
        """Take step ``step`` (the first is 0): the network's, the EMA's, the discriminator's.

        Returns:
            This process' part of the batch's mean loss terms and gradient norms, which are the
            sums over all processes; scalars on the device.
        """
        if self._task.begin_step:
            self._task.begin_step(step)
        parts = (tensor.chunk(self._accumulate) for tensor in self._to_device(batch))
        micro_batches = list(zip(*parts, strict=True))
        world = self._context.world
        generator_of = partial(self._generator, step)
        terms = optimizer_step(
            self._network, step, micro_batches, self._images, generator_of, world
        )
        if self.ema:
            self.ema.update()
        for average in self.profiles:
            average.update(step + 1)
        if (discriminator := self._discriminator) and step >= discriminator.first_step:
            discriminator.module.train()
            generator_of = partial(self._generator, "opponent", step)
            own_terms = optimizer_step(
                discriminator, step, micro_batches, self._images, generator_of, world
            )
            discriminator.module.eval()
            own_terms = {
                f"{DISCRIMINATOR_PREFIX}{name}" if name in NETWORK_COLUMNS else name: value
                for name, value in own_terms.items()
            }
            shared = own_terms.keys() & terms.keys()
            assert not shared, f"terms of both networks: {shared}"
            terms |= own_terms
        return terms

    def learning_rates(self, step: int) -> dict[str, float]:
        """Learning rates of step ``step``, by their names in the log."""
        rates = {"lr": self._network.learning_rate(step)}
        if self._discriminator and step >= self._discriminator.first_step:
            rates[f"{DISCRIMINATOR_PREFIX}lr"] = self._discriminator.learning_rate(step)
        return rates

    def save_weights(self, name: str) -> None:
        """Write ``NAME.safetensors``: the saved module's state, averaged."""
        averages, world = self.ema.state_dict() if self.ema else {}, self._context.world
        tensors = whole_tensors(dict(self.saved.state_dict()) | averages, world)
        path = self._context.directory / f"{name}.safetensors"
        world.on_main(lambda: save_tensors(tensors, path))

    def save_snapshots(self, step: int) -> None:
        """Write the averages with snapshots, after ``step`` optimizer steps."""
        world = self._context.world
        for average in self.profiles:
            tensors = whole_tensors(average.state_dict(), world)
            path = self._context.directory / EmaSnapshots.file(average.length, step)
            world.on_main(partial(_write_snapshot, tensors, path))


def _write_snapshot(tensors: Mapping[str, Tensor], path: Path) -> None:
    make_folder(path.parent)
    save_tensors(tensors, path)


def optimizer_step(
    network: TrainedNetwork,
    step: int,
    micro_batches: Sequence[Batch],
    images: int,
    generator_of: Callable[[int], torch.Generator],
    world: World = ONE_PROCESS,
) -> LossTerms:
    """Accumulate gradients over the micro-batches, clip them and step the optimizer.

    Each micro-batch's loss is weighted by its share of the images of all processes. For losses that
    are means over images the gradient is that of the whole batch, wherever it is split. Adaptive
    weights and batch norm see one micro-batch at a time, of all processes, and random numbers
    differ with the number of micro-batches.

    Args:
        network: what is trained.
        step: of the training; the first is 0.
        micro_batches: this process' rows of each micro-batch, on the device.
        images: images of the batch, in all processes.
        generator_of: the generator of a micro-batch, by its index.
        world: the processes that take the step together.

    Returns:
        This process' part of the mean terms and of ``grad_norm``, the gradient norm before
        clipping, which are the sums over all processes: scalars on the device.
    """
    set_learning_rate(network.optimizer, network.learning_rate(step))
    # The other network's backward pass may have left gradients.
    network.optimizer.zero_grad(set_to_none=True)
    means: LossTerms = {}
    for index, micro_batch in enumerate(micro_batches):
        share = len(micro_batch[0]) / images
        more = index < len(micro_batches) - 1
        autocast = torch.autocast(micro_batch[0].device.type, torch.bfloat16, enabled=network.bf16)
        with network.parallel.accumulating(more):
            with autocast:
                terms = network.parallel(micro_batch, generator_of(index))
            # Gradients are averaged over the processes; the shares of all add up to 1.
            (terms["loss"] * (share * world.size)).backward()
        for name, value in terms.items():
            means[name] = means.get(name, 0.0) + value.detach() * share
    weights = [weight for group in network.optimizer.param_groups for weight in group["params"]]
    # Measured even without clipping: the guard must see a gradient that is not finite.
    norm = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
    if network.settings.clip is not None:
        nn.utils.clip_grads_with_norm_(weights, network.settings.clip, norm)
    network.optimizer.step()
    network.optimizer.zero_grad(set_to_none=True)
    return means | {"grad_norm": whole(norm.detach()) / world.size}


def _with_optimizer(
    task: TrainTask,
    settings: TrainSettings,
    total: int,
    context: TrainContext,
    lr_factors: Mapping[str, float] = NO_FACTORS,
) -> TrainedNetwork:
    own, module = task.optimizer or settings, task.module
    if context.world.size > 1:
        synchronize_batch_norm(module)
    parallel = ParallelModule(module, context.world, settings.parallel, context.device)
    optimizer = build_optimizer(module, own, lr_factors)
    return TrainedNetwork(
        module,
        optimizer,
        parallel,
        own,
        total,
        task.first_step,
        bf16=settings.precision == "bf16",
        steps_per_epoch=context.images / settings.batch_size,
    )


def _check_micro_batches(settings: TrainSettings, context: TrainContext) -> None:
    """Every process needs an image of each micro-batch."""
    images, processes = settings.batch_size // settings.accumulate, context.world.size
    if images < processes:
        raise UsageError(
            f"{context.name}: {processes} processes cannot share micro-batches of {images} images "
            f"(batch_size {settings.batch_size}, accumulate {settings.accumulate}); start fewer "
            "processes, or set a larger batch_size or a smaller accumulate"
        )


def _check_keep_steps(settings: TrainSettings, total: int) -> None:
    """With ``steps`` the recipe's check did this; with ``epochs`` the total is only known here."""
    beyond = [step for step in settings.keep_steps if step > total]
    assert not beyond or settings.epochs is not None, f"keep_steps beyond {total}: {beyond}"
    if beyond:
        raise UsageError(
            f"keep_steps: step {beyond[0]} is beyond the last; this training has steps 1 to {total}"
        )
