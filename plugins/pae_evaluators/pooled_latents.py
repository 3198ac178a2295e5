"""GSQ and eRank: how well pooled latents separate classes, and how many dimensions they use.

PAE (arXiv 2605.07915), diagnostics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES_OF_A_DRAW = 100


def same_class_neighbors(pooled: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Fraction of images whose nearest other image, by cosine around the mean, has the same label.

    Args:
        pooled: (M, C) latents averaged over the image, M at least 2.
        labels: (M,) class labels.
        batch_size: rows of the similarity matrix held at once.
    """
    centered = pooled.double() - pooled.double().mean(0)
    unit = F.normalize(centered, dim=-1)  # (M, C)
    hits = 0
    for rows in torch.arange(len(unit)).split(batch_size):
        similarity = unit[rows] @ unit.T  # (batch_size, M)
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        hits += int((labels[similarity.argmax(1)] == labels[rows]).sum())
    return hits / len(unit)


def draw_images(labels: Tensor, size: int | None, generator: torch.Generator) -> Tensor:
    """Indices of one random draw of images, in random order.

    With more than 100 classes: ``size`` images of 100 random classes; None: all their images.
    Otherwise ``size`` images of all classes; None: half of the images, so that draws differ.
    """
    classes = labels.unique()
    order = torch.randperm(len(labels), generator=generator)
    if len(classes) <= CLASSES_OF_A_DRAW:
        return order[: size or -(-len(labels) // 2)]
    chosen = classes[torch.randperm(len(classes), generator=generator)[:CLASSES_OF_A_DRAW]]
    return order[torch.isin(labels[order], chosen)][:size]


def effective_rank(pooled: Tensor) -> float:
    """``exp(entropy of the singular values over their sum) / C`` of a matrix (M, C), not centered.

    Between 1 / C and 1 (Roy and Vetterli 2007, over the number of channels).
    """
    values = torch.linalg.svdvals(pooled.double())
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return (torch.special.entr(shares).sum().exp() / pooled.shape[1]).item()
