"""The commands ``pae evaluate`` and ``pae reference build``: metrics of anyone's images."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from pae_framework.contracts import InceptionNetwork, Metric
from pae_framework.data.image_notes import NOTES
from pae_framework.data.image_set import FolderImages, ImageSet
from pae_framework.data.images import random_subset
from pae_framework.errors import DataError
from pae_framework.evaluation.build_inception import inception_network
from pae_framework.evaluation.image_sets import NamedSet, named_path, open_image_set
from pae_framework.execution.context import configure_torch, no_record, pick_device
from pae_framework.execution.items import do_items
from pae_framework.metrics.conventions import (
    Comparison,
    cautions,
    measure,
    split_available,
)
from pae_framework.metrics.feature_extraction import FeatureChunks, Show, extract
from pae_framework.metrics.features import Reference, SetFeatures, collect
from pae_framework.metrics.inception import (
    RANDOM,
    WeightsIdentity,
    identify,
    inception_file,
)
from pae_framework.metrics.reference_files import (
    ReferenceFile,
    missing_of_images,
    require_size,
    write_reference,
)
from pae_framework.recipe.library import is_file
from pae_framework.recipe.models import RuntimeSettings
from pae_framework.registry import Registry
from pae_framework.runs.cards import make_card
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.record import UpdateRecord
from pae_framework.system.console import PlainConsole
from pae_framework.training.progress import ProgressLine
from pae_framework.world import ONE_PROCESS, World


@dataclass(frozen=True)
class Extraction:
    """How features are extracted.

    Args:
        weights: ``default``, ``none`` or a file name.
        device: where the network runs.
        cache: folder for features.
        batch_size: images at once; does not change the features.
        console: shows progress.
        share: has several processes extract what is not cached; None: there is one.
    """

    weights: str
    device: torch.device
    cache: Path
    batch_size: int
    console: PlainConsole
    share: Callable[[SharedExtraction], None] | None = None

    @cached_property
    def identity(self) -> WeightsIdentity:
        """Which weights they are.

        Raises:
            DataError: they are missing; says where to get them.
        """
        if self.weights == RANDOM:
            return WeightsIdentity(RANDOM)
        return identify(inception_file(self.weights))

    @cached_property
    def network(self) -> InceptionNetwork:
        """The network, built when it is first used."""
        return inception_network(self.weights, self.device)

    def features(
        self, images: ImageSet, digest: str, title: str, keep_rows: bool = True
    ) -> SetFeatures:
        """Features of all images of a set; ``digest``: of its contents; rest: see ``collect``."""
        if self.share is not None:
            own = (self.weights, self.cache.absolute(), self.batch_size)
            self.share(SharedExtraction(title, images, digest, *own, self.console))
        with ProgressLine(title, len(images), console=self.console) as line:
            show = _with_rate(line)
            parts = extract(
                images,
                digest,
                self.network,
                self.cache,
                self.batch_size,
                show,
                self.device.type,
            )
            return collect(parts, len(images), keep_rows)


@dataclass
class SharedExtraction:
    """Features of one set of images to extract, as one of the processes that share it sees them."""

    name: str
    images: ImageSet
    digest: str
    weights: str
    cache: Path
    batch_size: int
    console: PlainConsole
    registry: Registry = field(default_factory=Registry)
    update_record: UpdateRecord = no_record
    world: World = ONE_PROCESS

    @cached_property
    def device(self) -> torch.device:
        """That of this process."""
        return pick_device(RuntimeSettings(), self.world.local_rank)

    def portable(self) -> Self:
        """The same; paths are those that the user named, as all processes share a folder."""
        return self


def extract_missing(work: SharedExtraction) -> None:
    """Extract the chunks of features that are not cached. Each process takes the next one.

    Raises:
        DataError: an image cannot be read.
        StoppedError: a signal asked to stop; the chunks under way were finished.
    """
    configure_torch(RuntimeSettings(), work.world.local_size)
    device, images = work.device, work.images
    network = inception_network(work.weights, device)
    chunks = FeatureChunks(images, work.digest, network, work.cache, work.batch_size, device.type)
    missing = work.world.on_main(chunks.missing)

    def extract_chunk(item: int) -> None:
        if chunks.cached(missing[item]) is None:
            chunks.extract(missing[item], lambda done, cached: None, cached=0)

    def count(numbers: Sequence[int]) -> int:
        return sum(len(chunks.span(number)) for number in numbers)

    before = len(images) - count(missing)
    with ProgressLine(work.name, len(images), console=work.console) as line:
        show = _with_rate(line)
        do_items(
            work,
            extract_chunk,
            len(missing),
            "chunks of features",
            lambda done: show(before + count(missing[:done]), before),
        )


def _with_rate(line: ProgressLine) -> Show:
    start = time.monotonic()

    def show(done: int, cached: int) -> None:
        rate = (done - cached) / max(1e-9, time.monotonic() - start)
        line.update(done, f"{rate:.3g} images/s" if done > cached else "cached")

    return show


@dataclass(frozen=True)
class Card:
    """Metrics of a set of images, each with its protocol."""

    samples: str
    reference: str
    metrics: list[Metric]
    not_available: Mapping[str, str]
    cautions: list[str]
    environment: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """The card as JSON."""
        metrics = [asdict(metric) for metric in self.metrics]
        of = {"samples": self.samples, "reference": self.reference}
        return make_card(of, metrics, self.environment, self.not_available, self.cautions)


class _SetReference:
    """A set of images as a reference, with the methods of a :class:`ReferenceFile`."""

    def __init__(self, named: NamedSet):
        self._named = named

    @property
    def images(self) -> ImageSet:
        return self._named.images

    def missing(self, weights: WeightsIdentity) -> dict[str, str]:
        return missing_of_images(len(self.images))

    def require_size(self, size: tuple[int, int], name: str) -> None:
        require_size(" x ".join(map(str, self.images.size)), size, name)

    def load(
        self,
        parts: Collection[str | None],
        widths: tuple[int, int],
        extract: Callable[[ImageSet], SetFeatures],
    ) -> Reference:
        """All parts."""
        told = {**self._named.subject(self.images.identity()), **self._named.protocol}
        described = {
            "reference": told.pop("samples"),
            "reference_digest": told.pop("samples_digest"),
            "reference_protocol": told,
        }
        return Reference.of_images(extract(self.images), described)


def _open_reference(
    text: str, side: int | None, registry: Callable[[], Registry]
) -> ReferenceFile | _SetReference:
    path = named_path(text, "--reference")
    if is_file(path):
        return ReferenceFile(path)
    return _SetReference(open_image_set(text, side, registry, "--reference"))


def evaluate_samples(
    samples: str,
    reference: str,
    convention: str,
    extraction: Extraction,
    side: int | None,
    registry: Callable[[], Registry],
) -> Card:
    """Compare a set of images with a reference.

    Args:
        samples: what the user named; see :func:`~.image_sets.open_image_set`.
        reference: a reference file, or a set of images as well.
        convention: ``adm`` or ``fidelity``.
        extraction: how features are extracted.
        side: to crop images of folders and data sources to.
        registry: the installed plugins.

    Raises:
        UsageError, DataError: something is missing, damaged or does not fit together; found before
            features are extracted, except for damaged images.
    """
    named = open_image_set(samples, side, registry, "--samples")
    opened = _open_reference(reference, side, registry)
    opened.require_size(named.images.size, named.images.name)
    weights = extraction.identity
    reference_count = None if opened.images is None else len(opened.images)
    missing = opened.missing(weights)
    quantities, reasons = split_available(convention, missing, len(named.images), reference_count)
    for label, reason in reasons.items():
        extraction.console.print(f"{label}: not available: {reason}")
    if not quantities:
        raise DataError(f"no metric of {convention} is available for {samples} and {reference}")
    loaded = opened.load(
        {quantity.part for quantity in quantities},
        extraction.network.widths,
        lambda images: extraction.features(images, images.identity(), "reference"),
    )
    digest = named.images.identity()
    features = extraction.features(named.images, digest, "samples")
    comparison = Comparison(features, loaded, extraction.network.logits, extraction.device)
    metrics = list(
        measure(convention, quantities, comparison, weights, named.protocol, named.subject(digest))
    )
    NOTES.summarize()
    notes = [
        *cautions(quantities, comparison, weights),
        *_left_out(named.images),
        *_unstated(opened, reference),
    ]
    environment = _environment(registry(), extraction)
    return Card(samples, reference, metrics, reasons, notes, environment)


def build_reference(
    data: str,
    out: Path,
    stored: int,
    extraction: Extraction,
    side: int | None,
    registry: Callable[[], Registry],
) -> int:
    """Write a reference file of a set of images; returns their number.

    Args:
        data: what the user named; see :func:`~.image_sets.open_image_set`.
        out: the file.
        stored: number of images to store in it, chosen at random; fewer if there are fewer.
        extraction: how features are extracted.
        side: to crop images of folders and data sources to.
        registry: the installed plugins.

    Raises:
        UsageError, DataError: something is missing or damaged, or there are fewer than two images.
        WriteError: the file cannot be written.
    """
    named = open_image_set(data, side, registry, "DATA")
    if len(named.images) < 2:
        raise DataError(f"{data} holds 1 image; statistics need at least 2")
    weights = extraction.identity
    digest = named.images.identity()
    features = extraction.features(named.images, digest, "reference", keep_rows=False)
    chosen = random_subset(len(named.images), stored, seed=0) if stored else []
    told = {**named.subject(digest), **named.protocol}
    protocol = {
        "images": told.pop("samples"),
        "images_digest": told.pop("samples_digest"),
        **told,
        "stored_images": f"{len(chosen)} of {len(named.images)}, chosen at random, seed 0",
        "environment": _environment(registry(), extraction),
    }
    NOTES.summarize()
    write_reference(out, named.images, chosen, features, weights, protocol)
    return len(named.images)


def _left_out(images: ImageSet) -> Iterator[str]:
    if isinstance(images, FolderImages) and images.left_out:
        yield f"{images.name}: {images.left_out} files that are no images or hidden were left out"


def _unstated(reference: ReferenceFile | _SetReference, name: str) -> Iterator[str]:
    """A caution about files of pytorch-fid, which look like those of other tools."""
    if isinstance(reference, ReferenceFile) and reference.of_unknown_resize:
        yield f"{name} does not state how its images were resized; another resize changes FID"


def _environment(registry: Registry, extraction: Extraction) -> dict[str, Any]:
    device = extraction.device
    return {
        **describe_environment(registry),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "batch_size": extraction.batch_size,
    }
