"""What the training stages have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from pae_framework.data.feature_shards import FeatureRows
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream, positions_of
from pae_framework.execution.context import StageContext
from pae_framework.tensor_files import save_tensors
from pae_framework.training.parallel import whole_tensors
from pae_framework.training.train_settings import TrainSettings
from pae_framework.world import ONE_PROCESS, World


def image_batches(
    context: StageContext,
    settings: TrainSettings,
    world: World | None = None,
    features: FeatureRows | None = None,
) -> ImageBatches:
    """This process' part of batches of the training images, in the order of the stage's seed.

    Args:
        context: of the stage.
        settings: of its training.
        world: the processes that share each batch; None: those of the stage.
        features: cached tokens of the images, which the batches then have, too.
    """
    data, crop_from = context.recipe.data, settings.crop_from
    source = context.train_source if crop_from is None else context.train_source_at(crop_from)
    return ImageBatches(
        source,
        step_stream(context, settings, len(source), world),
        flips(context, settings),
        settings.workers,
        features,
        crop_to=None if crop_from is None else data.image_size,
    )


def flips(context: StageContext, settings: TrainSettings) -> bool:
    """Whether a training mirrors images at random."""
    return context.recipe.data.flip if settings.flip is None else settings.flip


def measure_on_main(
    context: StageContext,
    settings: TrainSettings,
    steps: int,
    module: nn.Module,
    measure: Callable[[Iterator[Tensor]], None],
) -> None:
    """Measure statistics in ``module`` on the whole batches of the first steps, once for all.

    The main process measures, so that the values do not depend on the number of processes; the
    others take its tensors.

    Args:
        context: of the stage.
        settings: of its training.
        steps: number of batches.
        module: on the device; its parameters and buffers hold the statistics.
        measure: is given the images (B, 3, S, S) in [0, 1] of each batch, on the device.
    """
    batches = image_batches(context, settings, ONE_PROCESS)
    world, device = context.world, context.device
    world.on_main(lambda: measure(images.to(device) for images, _ in batches(0, steps)))
    world.broadcast(tensor.detach() for tensor in (*module.parameters(), *module.buffers()))


def step_stream(
    context: StageContext, settings: TrainSettings, length: int, world: World | None = None
) -> CountStream:
    """The samples of this process in each step of a training, of a data set of ``length``."""
    world, positions = world or context.world, None
    if world.size > 1:
        positions = positions_of(world.rank, world.size, settings.batch_size, settings.accumulate)
    return CountStream(length, settings.batch_size, context.seed(settings), positions=positions)


def save_weights(context: StageContext, module: nn.Module, name: str) -> None:
    """Write a module's state into a file of the stage; every process must call it."""
    tensors = whole_tensors(module.state_dict(), context.world)
    context.world.on_main(lambda: save_tensors(tensors, context.directory / name))
