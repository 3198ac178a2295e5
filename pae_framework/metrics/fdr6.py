"""FDr6: the mean of six Frechet distances over those of ImageNet's validation images. No torch.

The extractors and constants are those of FD-loss and nanogen-evals. A distance of 1 is that of the
validation images to the training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pae_framework.hub import HubFile
from pae_framework.system.files import file_problem

INCEPTION = "Inception"
RANDOM = "none"
"""In place of a folder of weights: random weights."""
CACHE = "default"
"""In place of a folder of weights: timm's files, from the cache of the hub."""


@dataclass(frozen=True)
class FDr6Network:
    """A network of timm's whose features are compared.

    Args:
        model: timm's name and tag.
        side: images are resized to this side, px (bicubic, antialiased).
        pool: ``spatial`` mean, class token (``cls``), or the network's attention ``head``.
        width: number of features.
        validation: distance of the validation images.
    """

    model: str
    side: int
    pool: Literal["spatial", "cls", "head"]
    width: int
    validation: float

    def file(self, weights: str) -> HubFile | Path:
        """Its weights on the hub, or in a folder: ``<model>.safetensors``."""
        if weights == CACHE:
            return HubFile(f"timm/{self.model}")
        return Path(weights).expanduser() / f"{self.model}.safetensors"

    def missing(self, weights: str) -> str | None:
        """What is missing of its weights; None if nothing is."""
        if weights == RANDOM:
            return None
        file = self.file(weights)
        if isinstance(file, Path):
            return file_problem(file)
        return None if file.cached() else f"{file.where} is not in the cache"


NETWORKS = {
    network.model: network
    for network in (
        FDr6Network("convnextv2_base.fcmae_ft_in22k_in1k", 224, "spatial", 1024, 56.87),
        FDr6Network("vit_large_patch14_dinov2.lvd142m", 256, "cls", 1024, 14.19),
        FDr6Network("vit_large_patch16_224.mae", 224, "cls", 1024, 0.04),
        FDr6Network("vit_so400m_patch16_siglip_256.v2_webli", 224, "head", 1152, 0.60),
        FDr6Network("vit_large_patch14_clip_224.openai", 256, "cls", 1024, 5.60),
    )
}
"""All but Inception, by timm's name."""

VALIDATION = {INCEPTION: 1.68, **{name: network.validation for name, network in NETWORKS.items()}}
"""Distance of the validation images in the features of each of the six."""


def fdr6(distances: Mapping[str, float]) -> float:
    """The mean over the six of a distance over that of the validation images.

    Raises:
        ValueError: a distance is missing; a mean of fewer is not defined.
    """
    if lacking := VALIDATION.keys() - distances.keys():
        raise ValueError(f"lacks {', '.join(sorted(lacking))}")
    return sum(distances[name] / VALIDATION[name] for name in VALIDATION) / len(VALIDATION)
